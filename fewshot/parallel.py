"""Chunks of one computation side by side: one thread per chunk on a CPU, one after the other elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

_R = TypeVar("_R")


def in_chunks(work: Callable[[int], _R], starts: Iterable[int], device: torch.device) -> Iterator[_R]:
    """`work(start)` for every start, results in order.

    On a CPU, torch would split each small operation over all cores and wait for the slowest, thousands of times; on a machine that
    has anything else to do this is many times slower than chunks that run through on one core each. While they do, the threads of
    torch and of NumPy's matrix products are set to one, and set back at the end.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(work, starts)
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield from pool.map(work, starts)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
