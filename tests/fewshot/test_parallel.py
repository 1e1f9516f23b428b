"""Chunks side by side: results in order, errors passed on, torch's threads as before."""

from __future__ import annotations

import pytest
import torch

from fewmatch.fewshot.parallel import in_chunks

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_are_in_order_and_each_chunk_has_one_thread(threads: int) -> None:
    seen: list[int] = []

    def work(start: int) -> int:
        seen.append(torch.get_num_threads())
        return start * start

    assert list(in_chunks(work, range(0, 50, 7), CPU)) == [start * start for start in range(0, 50, 7)]
    assert set(seen) == {1} and torch.get_num_threads() == threads


def test_an_error_in_a_chunk_comes_out_and_threads_are_set_back(threads: int) -> None:
    def work(start: int) -> int:
        if start == 4:
            raise ValueError("chunk 4")
        return start

    with pytest.raises(ValueError, match="chunk 4"):
        list(in_chunks(work, range(10), CPU))
    assert torch.get_num_threads() == threads


def test_stopping_early_sets_threads_back(threads: int) -> None:
    results = in_chunks(lambda start: start, range(100), CPU)
    assert next(results) == 0
    results.close()
    assert torch.get_num_threads() == threads


def test_nothing_to_do() -> None:
    assert list(in_chunks(lambda start: start, range(0), CPU)) == []
