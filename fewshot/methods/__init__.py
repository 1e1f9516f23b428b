"""Few-shot methods: one function a module, from a batch of centred episodes to scores.

A method is a function `(batch, **options) -> scores (e, q, w)`, or, where its scores are linear in the query, a function
`(batch, **options) -> Linear` that looks at the supports only. Adding one is a module here and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.centering import TRANSDUCTIVE, Center, check_center
from fewmatch.fewshot.methods.knn import knn
from fewmatch.fewshot.methods.lda import lda
from fewmatch.fewshot.methods.linear import Linear
from fewmatch.fewshot.methods.logistic import logistic
from fewmatch.fewshot.methods.ncm import check_metric, ncm
from fewmatch.fewshot.methods.ridge import ridge
from fewmatch.fewshot.methods.simpleshot import simpleshot_un
from fewmatch.fewshot.methods.transductive.alpha_tim import alpha_tim
from fewmatch.fewshot.methods.transductive.bd_cspn import bd_cspn
from fewmatch.fewshot.methods.transductive.laplacian_shot import laplacian_shot
from fewmatch.fewshot.methods.transductive.pt_map import pt_map
from fewmatch.fewshot.methods.transductive.soft_k_means import soft_k_means
from fewmatch.fewshot.methods.transductive.tim import tim
from fewmatch.fewshot.methods.transductive.tim_gd import tim_gd


@dataclass(frozen=True)
class Method:
    """A few-shot method and what is known of it.

    title: for people. source: the paper that defines it.
    run: (batch, **options) -> scores (e, q, w), the highest wins, ties go to the lowest class. Scores of padded classes and queries
        do not matter. Either this or fit is given.
    fit: (batch, **options) -> Linear, from the supports alone.
    options: names and defaults of what can be chosen.
    transductive: whether a query's scores depend on the other queries. vectors: whether it needs vectors and not just inner products.
    temperature: τ; class probabilities are softmax(τ·scores), unless τ is fitted.
    center: the centring where the user names none; own_center: the method is defined with it, and takes no other.
    centred: whether it loses much on vectors that are not centred.
    uncentred_options: options whose defaults its authors chose for vectors that are not centred, with a value that fits centred ones.
    project: whether vectors are brought to length one.
    balance: whether it takes every class to have as many queries, unless its option `prior` says otherwise.
    """

    name: str
    title: str
    source: str
    run: Callable[..., Float[Tensor, "e q w"]] | None = None
    fit: Callable[..., Linear] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    transductive: bool = False
    vectors: bool = False
    temperature: float = 1.0
    center: Center = "support"
    own_center: bool = False
    centred: bool = False
    uncentred_options: Mapping[str, Any] = field(default_factory=dict)
    project: bool = True
    balance: bool = False

    def scores(self, batch: EpisodeBatch, **options: Any) -> Float[Tensor, "e q w"]:
        """Scores of the queries of a batch; see `run`.

        Raises:
            InputError: an option that the method does not have, or a value that it cannot take.
        """
        chosen = self.chosen(options)
        if self.fit is not None:
            return self.fit(batch, **chosen).scores(batch)
        if self.run is None:
            raise ValueError(f"{self.name}: expected run or fit")
        return self.run(batch, **chosen)

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options, with defaults for those that are not given.

        Raises:
            InputError: an option that the method does not have.
        """
        for name in options:
            if name not in self.options:
                has = f"it has {', '.join(self.options)}" if self.options else "it has none"
                raise InputError(f"{self.name} has no option {name}: {has}")
        # 5 is as good a temperature as 5.0.
        given = {
            name: float(value) if type(value) is int and isinstance(self.options[name], float) else value
            for name, value in options.items()
        }
        return {**self.options, **given}

    def chosen_with(self, options: Mapping[str, Any], metric: str) -> dict[str, Any]:
        """`chosen`, with the metric among the options where the method has that one.

        Raises:
            InputError: as `chosen`; a metric of another kind than the default for a method that has no choice.
        """
        if check_metric(metric) == "euclidean":
            return self.chosen(options)
        if "metric" not in self.options:
            raise InputError(f"metric {metric} is for methods that compare with class means (ncm), not for {self.name}")
        return self.chosen({"metric": metric, **options})

    def centring(self, center: str | None) -> Center:
        """The centring asked for, or the method's where None is.

        Raises:
            InputError: an unknown one, or another than the one that the method is defined with.
        """
        mode = self.center if center is None else check_center(center)
        if self.own_center and mode != self.center:
            raise InputError(f"{self.name} is defined with center {self.center}, not with {mode}")
        return mode

    def notes(self, options: Mapping[str, Any], center: Center) -> tuple[str, ...]:
        """What the user should know about these options under this centring, one sentence each.

        Args:
            options: those that the user chose; all others have their defaults.
        """
        if self.centred and center in ("none", "feature"):
            return (
                f"{self.name}: its authors centre vectors; with center {center} distances are small beside what it adds to them, which can "
                "cost much accuracy: use center support or base",
            )
        if center == "none":
            return ()
        return tuple(
            f"{self.name}: the default {name} of {self.options[name]:g} is its authors' choice for vectors that are not centred; "
            f"with center {center}, try {name}={value:g}, or use center none"
            for name, value in self.uncentred_options.items()
            if name not in options
        )

    def assumes_balance(self, options: Mapping[str, Any]) -> bool:
        """Whether it would lose by classes with unequal numbers of queries, with these options."""
        return self.balance and options.get("prior", "balanced") == "balanced"

    def uses_queries(self, center: Center) -> bool:
        """Whether queries are used as a set, by the method or by the centring."""
        return self.transductive or center in TRANSDUCTIVE


_ALL = (
    Method(
        "ncm",
        "nearest class mean",
        "Mensink et al. 2013; Snell et al. 2017; Wang et al. 2019",
        run=ncm,
        options={"metric": "euclidean"},
        vectors=True,
        temperature=10.0,
    ),
    # Inductive.
    Method(
        "simpleshot-un",
        "SimpleShot UN: nearest class mean of raw features",
        "Wang et al. 2019",
        run=simpleshot_un,
        vectors=True,
        center="none",
        own_center=True,
        project=False,
    ),
    Method(
        "simpleshot-l2n",
        "SimpleShot L2N: nearest class mean of unit vectors",
        "Wang et al. 2019",
        run=ncm,
        vectors=True,
        temperature=10.0,
        center="none",
        own_center=True,
    ),
    Method(
        "simpleshot-cl2n",
        "SimpleShot CL2N: nearest class mean of unit vectors, centred by a base set",
        "Wang et al. 2019",
        run=ncm,
        vectors=True,
        temperature=10.0,
        center="base",
        own_center=True,
    ),
    Method(
        "knn",
        "k nearest neighbours, weighted",
        "Wu et al. 2018; Caron et al. 2021; Oquab et al. 2024",
        run=knn,
        options={"k": None, "temperature": 0.07},
    ),
    Method(
        "ridge",
        "ridge regression onto the classes",
        "Hoerl & Kennard 1970; Bertinetto et al. 2019",
        fit=ridge,
        options={"penalty": 1.0},
        temperature=10.0,
    ),
    Method(
        "logistic",
        "multinomial logistic regression",
        "Tian et al. 2020; Oquab et al. 2024",
        fit=logistic,
        options={"C": 1.0},
    ),
    Method(
        "lda",
        "linear discriminant analysis, shrunken covariance",
        "Fisher 1936; Friedman 1989; Ledoit & Wolf 2004",
        fit=lda,
        options={"shrinkage": 0.5},
        temperature=10.0,
    ),
    # Methods that look at the queries as a set.
    Method(
        "soft-kmeans",
        "soft k-means over supports and queries",
        "Bendou et al. 2022 (EASY)",
        run=soft_k_means,
        options={"temperature": 20.0, "iterations": 30},
        transductive=True,
    ),
    Method(
        "bd-cspn",
        "prototypes rectified by the queries nearest to them",
        "Liu, Song and Qin 2020",
        run=bd_cspn,
        options={"temperature": 10.0, "weights": "shares", "classify": "shifted", "metric": "cosine"},
        transductive=True,
        temperature=10.0,
    ),
    Method(
        "laplacian-shot",
        "class means, with assignments that neighbouring queries share",
        "Ziko et al. 2020",
        run=laplacian_shot,
        options={"neighbours": 2, "strength": 0.7, "rectify": "shifted", "iterations": 20, "tolerance": 1e-6},
        transductive=True,
        centred=True,
    ),
    Method(
        "pt-map",
        "prototypes that follow an optimal transport of the queries",
        "Hu, Gripon and Pateux 2021",
        run=pt_map,
        balance=True,
        options={"lam": 10.0, "alpha": 0.2, "epochs": 20, "tolerance": 1e-6, "prior": "balanced"},
        transductive=True,
        center="separate",
    ),
    Method(
        "tim",
        "transductive information maximisation, in closed forms (TIM-ADM)",
        "Boudiaf et al. 2020",
        run=tim,
        balance=True,
        options={"temperature": 15.0, "weights": (0.1, 1.0, 0.1), "iterations": 150},
        transductive=True,
        center="none",
        uncentred_options={"temperature": 5.0},
    ),
    Method(
        "tim-gd",
        "transductive information maximisation, by gradient descent (TIM-GD)",
        "Boudiaf et al. 2020",
        run=tim_gd,
        balance=True,
        options={"temperature": 15.0, "weights": (0.1, 1.0, 0.1), "learning_rate": 1e-4, "iterations": 1000},
        transductive=True,
        center="none",
        uncentred_options={"temperature": 5.0},
        vectors=True,
    ),
    Method(
        "alpha-tim",
        "transductive information maximisation with Tsallis entropies",
        "Veilleux et al. 2021",
        run=alpha_tim,
        options={
            "alpha": "auto",
            "temperature": 15.0,
            "weights": (1.0, 1.0, 1.0),
            "learning_rate": 1e-4,
            "iterations": 1000,
        },
        transductive=True,
        center="none",
        uncentred_options={"temperature": 5.0},
        vectors=True,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"no method called {name}: expected one of {', '.join(METHODS)}")
    return METHODS[name]
