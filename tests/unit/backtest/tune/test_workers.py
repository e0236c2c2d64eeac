"""Chunks of a search in processes: a search that ends early waits for none of them."""

from __future__ import annotations

import time

import pytest

from agent.backtest.workers import run_in_processes


class Sleeps:
    """Chunks are the seconds that they take; a negative one fails."""

    def run(self, chunk: int) -> int:
        time.sleep(chunk)
        return chunk


def test_search_that_is_broken_off__ends_its_running_chunks() -> None:
    results = run_in_processes(Sleeps(), [0, 60, 60, 60], 2, "")
    next(results)
    start_s = time.monotonic()
    results.close()
    assert time.monotonic() - start_s < 20


def test_failed_chunk__ends_those_that_run_beside_it() -> None:
    start_s = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        list(run_in_processes(Sleeps(), [-1, 60, 60, 60], 2, ""))
    assert time.monotonic() - start_s < 40
