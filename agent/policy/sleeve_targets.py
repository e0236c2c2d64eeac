"""The weights that all strategies together go for: what the portfolio's targets are while several share the wallet."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import StepInput
from agent.policy import words
from agent.policy.sleeve_wishes import due_shares
from agent.units import BPS, largest_remainder


def combined(step: StepInput) -> StepInput:
    """The step with each strategy's weights by its share of the capital as targets, and that among its wishes."""
    split, books = step.split, step.history.sleeves
    if split is None:
        return step
    shares = {one.name: Fraction(one.share_bps, BPS) for one in split.strategies}
    if books is not None and not books.fault:
        shares = due_shares(split, books.named)
    assets = step.portfolio.assets
    parts = [
        sum((shares[one.name] * dict(one.weights_bps).get(asset.token.address, 0) for one in split.strategies), Fraction(0))
        for asset in assets
    ]
    targets = tuple(replace(asset, target_bps=bps) for asset, bps in zip(assets, largest_remainder(parts), strict=True))
    told = f"targets are those of the strategies together: {', '.join(f'{name} {words.percent(share)}' for name, share in shares.items())}"
    return replace(step, portfolio=replace(step.portfolio, assets=targets), wishes=(*step.wishes, told))
