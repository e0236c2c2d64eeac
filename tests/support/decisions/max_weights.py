"""Steps whose assets have a maximum weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.model import StepInput
from tests.support.builders import step_input


def step_with_max_weights(most: Mapping[str, int], values: Mapping[str, int] | None = None, **changes: object) -> StepInput:
    """A step whose assets may be at most so many bps."""
    step = step_input(values=values or {"WETH": 5_000, "USDC": 5_000}, **changes)  # type: ignore[arg-type]  # keywords of step_input
    assets = tuple(replace(asset, max_bps=most.get(asset.token.symbol)) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))
