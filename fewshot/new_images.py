"""How far an accuracy over episodes may be from the accuracy on new images of the same classes.

Episodes share images, so 1.96·s/√n over episodes says how precisely the accuracy on *these* images is known, and nothing about others.
The accuracy over all possible episodes is a U-statistic of the images. Its variance over draws of images is estimated by the jackknife:
each image's influence on the accuracy, as a query (is it right more often than others of its class?) and as a support (are others
right more often when it is one?), and the spread of these influences within each class (Hoeffding 1948; Efron and Stein 1981). Only
which image had which role and which queries were right is needed, so it is the same for every method and costs one pass over the results.

A number of episodes is drawn instead of all of them, so that estimated influences are noisy and their spread too large. The noise is taken
out exactly: a square of a sum over episodes is replaced by the products of different episodes, as in the bias-corrected infinitesimal
jackknife of random forests (Wager, Hastie and Efron 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from fewmatch.fewshot.episodes.episodes import Episodes

#: An accuracy is said to rest on few images where its interval for new images is wider than this (a fraction, half-width) …
FEW_IMAGES_HALF_WIDTH = 0.05
#: … and this many times as wide as that over episodes, so that more episodes would not help.
FEW_IMAGES_RATIO = 3.0
#: No interval is given where the noise of its variance is this many times the variance that is known: it would be far wider than needed.
NOISE_RATIO = 4.0


@dataclass(frozen=True)
class NewImages:
    """An interval for new images of the same classes.

    ci95: half-width of the 95 % interval; None where there is none. reason: why there is none, else None.
    few: whether there are so few images that more of them are needed, and more episodes would not help.
    """

    ci95: float | None
    reason: str | None = None
    few: bool = False


def new_images_interval(
    values: Float[np.ndarray, "E Q"] | Bool[np.ndarray, "E Q"],
    episodes: Episodes,
    labels: Sequence[object] | np.ndarray,
    *,
    transductive: bool,
    unknown: bool = False,
) -> NewImages:
    """The 95 % interval, for new images of the same classes, of the mean over episodes of the mean over queries of `values`.

    It adds both causes of chance, the images that there happen to be and the episodes that were drawn from them. Images of a class must be
    independent of each other: frames of one video are not. It tells nothing about new classes; a base set and an encoder are taken as given.

    Args:
        values: for each query, in the order of `episodes.query`, 1 where it is right and 0 where it is wrong; or the difference of two
            such values, for a paired difference of methods. Values of padding do not matter.
        episodes: drawn by `sample_episodes`, `sample_open_episodes` or `sample_variable_episodes` from the table with these labels.
        labels: (N,) the labels of the whole table.
        transductive: whether a query's value depends on the other queries of its episode.
        unknown: whether these include queries of unknown classes, which have no value.

    Returns:
        the interval, or the reason why there is none.
    """
    count = len(episodes)
    if count < 2:
        return NewImages(None, "one episode has no spread")
    if episodes.sampler.get("kind") not in ("uniform", "unbalanced", "variable"):
        return NewImages(
            None, "it is not known how the episodes were drawn, so nor is how often each image could be in one"
        )
    if unknown and transductive:
        return NewImages(
            None, "queries of unknown classes change the results of the others, which is not accounted for"
        )
    queries = _Queries(episodes, values, np.unique(np.asarray(labels), return_inverse=True)[1])
    if queries.constant:
        return NewImages(None, "all queries have the same result, which says nothing about its spread")
    drawing = float(queries.means.var(ddof=1)) / count
    if not episodes.sampler.get("replacement", True):
        # No image is in two episodes, so episodes are independent draws of images already.
        return NewImages(float(stdtrit(count - 1, 0.975)) * math.sqrt(drawing))
    if (reason := queries.too_few_images(transductive)) is not None:
        return NewImages(None, reason, few=True)
    variance, noise = queries.variance(transductive=False)
    least = variance
    if transductive:
        # What queries do to each other is far noisier than the rest, which is a lower bound.
        variance, noise = queries.variance(transductive=True)
        variance = max(variance, least)
    if noise > NOISE_RATIO * (max(least, 0.0) + drawing):
        return NewImages(None, f"{count:,} episodes are too few to tell the influence of single images from chance")
    freedom = float((queries.images - 1).sum())
    # A variance below its own noise cannot be told from one that is as large as the noise.
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(max(variance, noise) + drawing)
    few = half > max(FEW_IMAGES_HALF_WIDTH, FEW_IMAGES_RATIO * 1.96 * math.sqrt(drawing))
    return NewImages(half, few=few)


class _Queries:
    """What was found for each query, against what is usual for its image and its class.

    values, residual: (E, W, Q) a query's value, and that minus the mean of its image over all episodes; 0 for padding.
    share: (E,) weight of a query in the mean of its episode. means: (E,) that mean. images: (C,) how many each class has.
    """

    def __init__(
        self,
        episodes: Episodes,
        values: Float[np.ndarray, "E Q"] | Bool[np.ndarray, "E Q"],
        index: Int[np.ndarray, "N"],
    ) -> None:
        self.episodes, self.index, self.images = episodes, index, np.bincount(index)
        query = episodes.query
        self.asked = query >= 0 if episodes.ragged else None
        self.number = np.full(query.shape[:2], query.shape[2]) if self.asked is None else self.asked.sum(axis=2)
        self.values = values.reshape(query.shape).astype(np.float64)
        # Padding falls into one bin after the last, which nothing is read from.
        self.rows = query.ravel().astype(np.int64)
        if self.asked is not None:
            self.values[~self.asked] = 0.0
            self.rows[self.rows < 0] = len(index)
        self.share = 1 / self.number.sum(axis=1)
        self.means = self.values.sum(axis=(1, 2)) * self.share
        weights, totals = self._sums(np.ones_like(self.values)), self._sums(self.values)
        usual = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        self.residual = self.values - usual[self.rows].reshape(query.shape)
        weights, totals = (np.bincount(index, part[:-1]) for part in (weights, totals))
        self._usual_of_class = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        if self.asked is not None:
            self.residual[~self.asked] = 0.0

    def _sums(self, values: Float[np.ndarray, "E W Q"]) -> Float[np.ndarray, "M"]:
        """Weighted sums by image."""
        weighted = values * self.share[:, None, None]
        return np.bincount(self.rows, weighted.ravel(), len(self.index) + 1)

    @property
    def constant(self) -> bool:
        """Whether all queries have the same value."""
        if np.ptp(self.means) > 0:
            return False
        values = self.values if self.asked is None else self.values[self.asked]
        return bool(values.min() == values.max())

    def too_few_images(self, transductive: bool) -> str | None:
        """Why a class has too few images for what episodes take of it; None where it has enough."""
        episodes = self.episodes
        supports = (episodes.support >= 0).sum(axis=2)
        needed = np.where(episodes.classes >= 0, supports + (self.number if transductive else 1), 0)
        short = np.argwhere(needed >= self.images[episodes.classes])
        if not len(short):
            return None
        e, w = short[0]
        have = int(self.images[episodes.classes[e, w]])
        if transductive:
            return f"an episode uses all {have} images of a class, so it is not known what the others do without one of them"
        return f"an episode uses {int(supports[e, w])} of {have} images of a class as supports, so a query has no other supports"

    def variance(self, *, transductive: bool) -> tuple[float, float]:
        """The variance of the accuracy over draws of images, and the standard error of that from the number of episodes.

        φ = n/E·Σ x over the episodes is the influence of an image of a class of n images, with x its part in one episode. The variance
        is Σ over the classes of (variance of φ within the class)/n.

        As a query, x is the weight of a query times its value minus the mean of its class. As a support, x is what the residuals
        of the episode sum to, times a factor for the finite class: where one image is chosen, there is less room for the others. With k
        of n images drawn, the mean over episodes that have one image differs from the mean over all by (n − k)/(n − 1) of that image's
        effect. For a query of the same class, n − 1 images are left to choose supports from. In a transductive method, the
        same holds for what a query does to the other queries, with k the supports and queries together.
        """
        episodes, share = self.episodes, self.share[:, None]
        classes = episodes.classes
        real = episodes.support >= 0
        n = self.images[classes].astype(np.float64)  # of a class that is not there, anything: all its parts are 0
        left = n - real.sum(axis=2) - (self.number if transductive else 0)
        own = self.residual.sum(axis=2)
        other = own.sum(axis=1, keepdims=True) - own
        for_own = share * (n - 2) / np.maximum(left if transductive else left - 1, 1) * n / np.maximum(n - 1, 1)
        for_other = share * (n - 1) / np.maximum(left, 1)
        as_support = np.where(real, (for_own * own + for_other * other)[:, :, None], 0.0)
        as_query = self.values - self._usual_of_class[classes][:, :, None]
        as_query *= share[:, :, None]
        if transductive:
            as_query += (for_own * own + for_other * other)[:, :, None] - for_own[:, :, None] * self.residual
        if self.asked is not None:
            as_query[~self.asked] = 0.0

        total, squares = np.zeros(len(self.index) + 1), np.zeros(len(self.index) + 1)
        of_supports = np.where(real, episodes.support, len(self.index)).ravel()
        for rows, x in ((of_supports, as_support.ravel()), (self.rows, as_query.ravel())):
            total += np.bincount(rows, x, len(total))
            squares += np.bincount(rows, x * x, len(total))
        together = as_support.sum(axis=2) + as_query.sum(axis=2)
        flat = np.where(classes < 0, len(self.images), classes).ravel()
        sums = np.bincount(flat, together.ravel(), len(self.images) + 1)[:-1]
        square_sums = np.bincount(flat, together.ravel() ** 2, len(self.images) + 1)[:-1]

        # Sums of products over pairs of different episodes: all pairs minus those of an episode with itself.
        m, count = self.images.astype(np.float64), len(episodes)
        factor = m / (np.maximum(m - 1, 1) * count * (count - 1))
        all_pairs = factor * (np.bincount(self.index, total[:-1] ** 2) - sums * sums / m)
        same = factor * (np.bincount(self.index, squares[:-1]) - square_sums / m)
        noise = math.sqrt(float((2 * same**2 / np.maximum(m - 1, 1)).sum()))
        return float((all_pairs - same).sum()), noise
