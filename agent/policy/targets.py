"""Other targets than before, with the reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.model import StepInput


def retargeted(step: StepInput, targets_bps: Mapping[str, int], why: str) -> StepInput:
    """The step with these targets by token address, which sum to 10,000 over all assets; `why` is told with every decision."""
    assets = tuple(replace(asset, target_bps=targets_bps[asset.token.address]) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets), wishes=(*step.wishes, why))
