"""Few-shot methods: one function a module, from a batch of centred episodes to scores.

Every method has the signature of `fewshot.methods.ncm.ncm`; adding one is a module here and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from encoders.errors import InputError
from fewshot.methods.ncm import ncm

#: (support (e, w, k, d), query (e, q, d), metric) -> scores (e, q, w); the highest score wins, ties go to the lowest class.
Method = Callable[[Float[Tensor, "e w k d"], Float[Tensor, "e q d"], str], Float[Tensor, "e q w"]]

METHODS: dict[str, Method] = {"ncm": ncm}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"no method called {name}: expected one of {', '.join(METHODS)}")
    return METHODS[name]
