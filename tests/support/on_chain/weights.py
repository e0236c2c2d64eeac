"""Portfolios of a local chain with weights that are worked out."""

from __future__ import annotations

from pathlib import Path

from agent.localchain import LocalChain
from tests.support.agents import ROOMY
from tests.support.planning_worlds import DAY_S, moves

TARGETS = {"WETH": "30%", "WBTC": "30%", "LINK": "20%", "USDC": "20%"}
VOLATILE = ("WETH", "WBTC", "LINK")
SETTINGS: dict[str, object] = {
    "kind": "inverse_volatility",
    "every": "7d",
    "window": "60d",
    "step": "1d",
    "min_history": "30d",
    "max_age": "2d",
    "keep": "2d",
    "churn": "0%",
    "max_change": "off",
    "until_chosen": "targets",
    "fixed": ["USDC"],
}
WEIGHED = ROOMY | {"portfolio.weights": SETTINGS}
SCALES = (0.2, 0.6, 1.0)
"""WETH hardly moves, LINK most."""


def closes(chain: LocalChain, path: Path, days: int = 60) -> Path:
    """Daily closes that end now at the present prices."""
    walk = moves(VOLATILE, days) * SCALES
    lines = ["time,symbol,close"]
    for symbol, column in zip(VOLATILE, walk.T, strict=True):
        price = float(chain.deployed_world.prices_usd[symbol])
        rows = []
        for day in range(days + 1):
            rows.append((chain.now_s() - day * DAY_S, price))
            price /= 1 + (column[days - 1 - day] if day < days else 0)
        lines += [f"{at_s},{symbol},{float(close)!r}" for at_s, close in reversed(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
