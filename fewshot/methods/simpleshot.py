"""SimpleShot's nearest class mean on raw features, UN (Wang et al. 2019); L2N and CL2N are `ncm` with fixed centring."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch


def simpleshot_un(batch: EpisodeBatch) -> Float[Tensor, "e q w"]:
    """Score every query by its squared Euclidean distance to the mean of every class, for vectors of any length.

    Raw features may share an offset that is far larger than what tells them apart, so all are moved by (about) the mean of the episode's
    supports first; that changes no distance, and float32 loses no digits to the offset.

    Args:
        batch: episodes with their vectors; classes may differ in their shots.

    Returns:
        (e, q, w) minus the squared distances, in the unit of the features squared and in their dtype.
    """
    support, query = batch.vectors
    onehot = batch.onehot.to(support.dtype)
    offset = support.sum(dim=1, keepdim=True) / onehot.sum(dim=(1, 2))[:, None, None]
    query = query - offset
    means = torch.bmm(onehot.transpose(1, 2), support - offset) / batch.shots.to(support.dtype).clamp(min=1)[:, :, None]
    squared = query.square().sum(dim=2)[:, :, None] + means.square().sum(dim=2)[:, None, :]
    return torch.baddbmm(squared, query, means.transpose(1, 2), alpha=-2).clamp_(min=0).neg_()
