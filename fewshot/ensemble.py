"""Features of several encoders or layers as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import unit
from fewmatch.fewshot.table import as_table


def concatenate(features: Sequence[Float[np.ndarray | Tensor, "N _"]]) -> Float32[np.ndarray, "N D"]:
    """Feature vectors of the same images side by side, each brought to length one first.

    EASY's ensemble joins them as they are, so that an encoder whose features are longer decides more; here all count the same.

    Args:
        features: of each encoder or layer (N, D_i) raw features, rows in the same order.

    Raises:
        InputError: no features, another number of rows, or a vector that is zero.

    Source: ensembles of EASY (Bendou et al. 2022), normalised.
    """
    if not features:
        raise InputError("expected features of one encoder or more to join, got none")
    tables = [as_table(part) for part in features]
    counts = [len(table) for table in tables]
    if len(set(counts)) > 1:
        raise InputError(f"expected features of the same images, got tables of {', '.join(map(str, counts))} rows")
    parts = [unit(table.double(), what=f"feature vector (of table {i})") for i, table in enumerate(tables)]
    return torch.cat(parts, dim=1).float().cpu().numpy()
