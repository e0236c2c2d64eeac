"""Random walks of prices."""

from __future__ import annotations

import math
import random

import pytest

pytest.importorskip("polars")


def walk(seed: int, count: int = 120, volatility: float = 0.03) -> list[float]:
    chance = random.Random(seed)
    prices = [30_000.0]
    while len(prices) < count:
        prices.append(round(prices[-1] * math.exp(chance.gauss(0, volatility)), 2))
    return prices
