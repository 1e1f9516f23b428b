"""Transductive methods written out in float64, one episode of D-dimensional vectors at a time, and episodes to try them on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fewmatch.fewshot.batch import EpisodeBatch


@dataclass
class Episode:
    """support (s, d), labels (s,), query (q, d), truth (q,), ways."""

    support: np.ndarray
    labels: np.ndarray
    query: np.ndarray
    truth: np.ndarray
    ways: int


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


def draw(
    rng: np.random.Generator,
    shots: list[int],
    queries: list[int],
    dims: int,
    spread: float = 0.6,
    center: str = "separate",
) -> Episode:
    """Gaussian classes around Gaussian means, centred (by the supports, or separately) and projected; queries shuffled."""
    means = rng.normal(size=(len(shots), dims)) * spread
    labels, truth = np.repeat(np.arange(len(shots)), shots), rng.permutation(np.repeat(np.arange(len(shots)), queries))
    support = means[labels] + rng.normal(size=(len(labels), dims))
    query = means[truth] + rng.normal(size=(len(truth), dims))
    own = query.mean(axis=0) if center == "separate" else support.mean(axis=0)
    return Episode(unit(support - support.mean(axis=0)), labels, unit(query - own), truth, len(shots))


def dirichlet_counts(rng: np.random.Generator, ways: int, queries: int) -> list[int]:
    return rng.multinomial(queries, rng.dirichlet(np.full(ways, 2.0))).tolist()


@dataclass
class Packed:
    """A batch, and where each episode's classes and queries lie in it."""

    batch: EpisodeBatch
    classes: list[np.ndarray]
    queries: list[np.ndarray]

    def of(self, scores: torch.Tensor, index: int) -> np.ndarray:
        """(q, w) the scores of one episode, without padding."""
        return scores[index].numpy()[np.ix_(self.queries[index], self.classes[index])]


def pack(episodes: list[Episode], extra: int = 0, rng: np.random.Generator | None = None) -> Packed:
    """Episodes side by side, padded to the largest and by `extra` more; with a generator, padding lies anywhere."""
    s, q, w = (
        max(sizes) + extra for sizes in zip(*((len(x.support), len(x.query), x.ways) for x in episodes), strict=True)
    )
    e, d = len(episodes), episodes[0].support.shape[1]
    onehot, asked, classes = (
        torch.zeros(e, s, w),
        torch.zeros(e, q, dtype=torch.bool),
        torch.zeros(e, w, dtype=torch.bool),
    )
    support, query = torch.zeros(e, s, d, dtype=torch.float64), torch.zeros(e, q, d, dtype=torch.float64)
    packed = Packed(EpisodeBatch(onehot, asked, classes, support, query), [], [])

    def places(size: int, count: int) -> np.ndarray:
        return np.arange(count) if rng is None else np.sort(rng.choice(size, count, replace=False))

    for i, x in enumerate(episodes):
        at_s, at_q, at_w = places(s, len(x.support)), places(q, len(x.query)), places(w, x.ways)
        onehot[i, at_s, at_w[x.labels]] = 1
        asked[i, at_q] = True
        classes[i, at_w] = True
        support[i, at_s] = torch.from_numpy(x.support)
        query[i, at_q] = torch.from_numpy(x.query)
        packed.classes.append(at_w)
        packed.queries.append(at_q)
    return packed


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def squared(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    return np.array([[((z - m) ** 2).sum() for m in means] for z in points])


def means_of(x: Episode) -> np.ndarray:
    return np.stack([x.support[x.labels == c].mean(axis=0) for c in range(x.ways)])


def soft_k_means(x: Episode, temperature: float = 20.0, iterations: int = 30) -> np.ndarray:
    means = means_of(x)
    for _ in range(iterations):
        p = softmax(-temperature * squared(x.query, means))
        for c in range(x.ways):
            own = x.support[x.labels == c]
            means[c] = (own.sum(axis=0) + (p[:, c, None] * x.query).sum(axis=0)) / (len(own) + p[:, c].sum())
    return p


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def rectified(x: Episode, temperature: float, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """The prototypes, and the shifted queries."""
    shifted = x.query + x.support.mean(axis=0) - x.query.mean(axis=0)
    points, means = np.concatenate([x.support, shifted]), means_of(x)
    cosines = np.array([[cosine(z, m) for m in means] for z in points])
    w, nearest = softmax(temperature * cosines), cosines.argmax(axis=1)
    prototypes = means.copy()
    for c in range(x.ways):
        mine = nearest == c
        if not mine.any():
            continue
        if weights == "shares":
            prototypes[c] = (w[mine, c, None] * points[mine]).mean(axis=0)
        elif weights == "normalised":
            prototypes[c] = (w[mine, c, None] * points[mine]).sum(axis=0) / w[mine, c].sum()
        else:
            prototypes[c] = (softmax(temperature * cosines[mine, c])[:, None] * points[mine]).sum(axis=0)
    return prototypes, shifted


def bd_cspn(
    x: Episode, temperature: float = 10.0, weights: str = "shares", classify: str = "shifted", metric: str = "cosine"
) -> np.ndarray:
    prototypes, shifted = rectified(x, temperature, weights)
    queries = shifted if classify == "shifted" else x.query
    if metric == "euclidean":
        return -squared(queries, prototypes)
    return np.array([[cosine(z, m) for m in prototypes] for z in queries])


def laplacian_shot(
    x: Episode,
    neighbours: int = 2,
    strength: float = 0.7,
    rectify: str = "shifted",
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> np.ndarray:
    if rectify == "none":
        unary = squared(x.query, means_of(x))
    else:
        prototypes, shifted = rectified(x, 10.0, "shares")
        unary = squared(shifted if rectify == "shifted" else x.query, prototypes)
    n = len(x.query)
    affinity = np.zeros((n, n))
    for i in range(n):
        order = [j for j in np.argsort(((x.query - x.query[i]) ** 2).sum(axis=1), kind="stable") if j != i]
        affinity[i, order[:neighbours]] = 1
    y, before = softmax(-unary), np.inf
    for i in range(iterations):
        y = softmax(-unary + strength * affinity @ y)
        energy = (y * np.log(y) + unary * y - strength * (affinity @ y) * y).sum()
        if i > 1 and abs(energy - before) <= tolerance * abs(before):
            break
        before = energy
    return y


def sinkhorn(kernel: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows to 1 and columns to the counts, in turn, until nothing moves."""
    kernel = kernel * (counts > 0)
    v = np.ones(len(counts))
    for _ in range(20_000):
        u = 1 / (kernel @ v)
        sums = v * (u @ kernel)
        if np.abs(sums - counts).max() < 1e-9:
            return u[:, None] * kernel * v
        v = np.where(counts > 0, counts / np.where(counts > 0, u @ kernel, 1), 0)
    raise AssertionError("Sinkhorn's iterations did not converge")


def pt_map(
    x: Episode,
    lam: float = 10.0,
    alpha: float = 0.2,
    epochs: int = 20,
    tolerance: float = 1e-6,
    prior: object = "balanced",
) -> np.ndarray:
    n, means = len(x.query), means_of(x)
    counts = np.full(x.ways, n / x.ways)
    if not isinstance(prior, str):
        counts = n * np.asarray(prior, dtype=np.float64) / np.sum(prior)
    for epoch in range(epochs + 1):
        logits = -lam * squared(x.query, means)
        if prior == "estimated":
            counts = softmax(logits + np.log(counts) / 2).sum(axis=0) + 1
            counts *= n / counts.sum()
        p = sinkhorn(np.exp(logits), counts)
        if epoch == epochs:
            return p
        for c in range(x.ways):
            own = x.support[x.labels == c]
            estimate = (own.sum(axis=0) + (p[:, c, None] * x.query).sum(axis=0)) / (len(own) + p[:, c].sum())
            means[c] += alpha * (estimate - means[c])
    raise AssertionError


def tim(
    x: Episode, temperature: float = 15.0, weights: tuple[float, ...] = (0.1, 1.0, 0.1), iterations: int = 150
) -> np.ndarray:
    """The closed forms of the paper's proposition 1, with the weight of the entropy of the mean left open."""
    ce, spread, certain = weights
    s, q, y = len(x.support), len(x.query), np.eye(x.ways)[x.labels]
    means = means_of(x)

    def p(points: np.ndarray) -> np.ndarray:
        return softmax(-temperature / 2 * squared(points, means))

    for _ in range(iterations):
        p_s, p_q = p(x.support), p(x.query)
        aux = p_q ** (1 + certain) / (p_q ** (1 + certain)).sum(axis=0) ** (spread / (1 + spread))
        aux /= aux.sum(axis=1, keepdims=True)
        new = np.zeros_like(means)
        for c in range(x.ways):
            above, below = np.zeros(means.shape[1]), 0.0
            for i in range(s):
                above += ce / (1 + certain) * (y[i, c] * x.support[i] + p_s[i, c] * (means[c] - x.support[i]))
                below += ce / (1 + certain) * y[i, c]
            for i in range(q):
                above += s / q * (aux[i, c] * x.query[i] + p_q[i, c] * (means[c] - x.query[i]))
                below += s / q * aux[i, c]
            new[c] = above / below
        means = new
    return p(x.query)


def tim_gd(
    x: Episode,
    temperature: float = 15.0,
    weights: tuple[float, ...] = (0.1, 1.0, 0.1),
    learning_rate: float = 1e-4,
    iterations: int = 1000,
    alpha: float = 1.0,
) -> np.ndarray:
    """The loss written out, its gradients by autograd, the steps by torch's own Adam."""
    support, query = torch.from_numpy(x.support), torch.from_numpy(x.query)
    y = torch.eye(x.ways, dtype=torch.float64)[torch.from_numpy(x.labels)]
    means = torch.from_numpy(means_of(x)).requires_grad_()
    adam = torch.optim.Adam([means], lr=learning_rate)

    def p(points: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-temperature / 2 * ((points[:, None] - means[None]) ** 2).sum(dim=2), dim=1)

    def entropy(p: torch.Tensor) -> torch.Tensor:
        if alpha == 1:
            return -(p * p.log()).sum(dim=-1)
        return (1 - (p**alpha).sum(dim=-1)) / (alpha - 1)

    for _ in range(iterations):
        p_q = p(query)
        loss = -weights[0] * (y * p(support).log()).sum(dim=1).mean()
        loss = loss - weights[1] * entropy(p_q.mean(dim=0)) + weights[2] * entropy(p_q).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return p(query).detach().numpy()


def alpha_tim(
    x: Episode, alpha: float | str = "auto", weights: tuple[float, ...] = (1.0, 1.0, 1.0), **options
) -> np.ndarray:
    if alpha == "auto":
        shots = len(x.labels) / x.ways
        alpha = 2.0 if shots <= 1 else 5.0 if shots < 5 else 7.0
    return tim_gd(x, weights=weights, alpha=alpha, **options)
