"""Sharing of the compiled kernel: one process of a test run compiles it, the others find it in numba's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import ModuleType

import numpy as np
from filelock import FileLock

from agent.backtest import sweep
from agent.backtest.sweep import KernelSetting, TradingCosts, prepare_prices, run_kernel
from agent.model import Destination, Every

SETTING = KernelSetting((5_000, 5_000), Every(86_400), Destination.TARGET, TradingCosts.for_pools(10, inf, 2))


def _compile() -> None:
    bars = prepare_prices(("A", "B"), np.arange(2, dtype=np.int64) * 86_400, np.ones((2, 2)))
    run_kernel(bars, SETTING, 1.0)
    sweep.sweep(bars, [SETTING], 1.0, cores=1)


@contextmanager
def compiled_by_one(shared: Path) -> Iterator[None]:
    """Let the first user of the kernel compile it while the other processes wait, since each would need 6 s. `shared` is a folder of all
    of them.
    """
    make = sweep._kernel

    def first() -> ModuleType:
        sweep._kernel = make
        if find_spec("numba") is not None:
            with FileLock(shared / "kernel.lock"):
                _compile()
        return make()

    sweep._kernel = first
    try:
        yield
    finally:
        sweep._kernel = make
