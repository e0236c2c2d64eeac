"""The weights that strategies go for, each and all together: what the portfolio's targets are while several share the wallet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.model import Allocation, Portfolio, StepInput
from agent.model.strategies import Split
from agent.policy import allocation, words
from agent.policy.sleeve_wishes import due_shares
from agent.policy.targets import retargeted
from agent.units import BPS, largest_remainder


def chosen(step: StepInput) -> StepInput:
    """The step with the weights that allocators of strategies choose now, each as that of a whole portfolio would, and the choices."""
    split, books = step.split, step.history.sleeves
    if split is None or books is None or not any(one.allocator for one in split.strategies):
        return step
    last, strategies, lacking = dict(books.choices), [], []
    for one in split.strategies:
        if one.allocator is None:
            strategies.append(one)
            continue
        weights = dict(one.weights_bps)
        assets = tuple(replace(asset, target_bps=weights.get(asset.token.address, 0)) for asset in step.portfolio.assets)
        portfolio = replace(step.portfolio, assets=assets, weights=one.allocator)
        history = replace(step.history, allocation=last.get(one.name), unchosen="")
        found = allocation.allocated(replace(step, portfolio=portfolio, history=history))
        if found.history.unchosen:
            lacking.append(f"strategy {one.name} has no weights to go by: {found.history.unchosen}")
        if found.history.allocation is not None:
            last[one.name] = found.history.allocation
        strategies.append(replace(one, weights_bps=tuple((asset.token.address, asset.target_bps) for asset in found.portfolio.assets)))
    told = replace(books, choices=tuple(last.items()), unchosen="; ".join(lacking))
    return replace(step, split=replace(split, strategies=tuple(strategies)), history=replace(step.history, sleeves=told))


def looks_back(split: Split | None, last: Mapping[str, Allocation], portfolio: Portfolio, now_s: int) -> tuple[tuple[int, int], ...]:
    """(seconds, step in seconds) of recorded prices that choices which are due need; `last` are those before by strategy."""
    found = []
    for one in () if split is None else split.strategies:
        if one.allocator is not None:
            whole = replace(portfolio, weights=one.allocator)
            found.append((allocation.looks_back_s(whole, last.get(one.name), now_s), one.allocator.step_s))
    return tuple((back_s, step_s) for back_s, step_s in found if back_s)


def combined(step: StepInput) -> StepInput:
    """The step with each strategy's weights by its share of the capital as targets, and that among its wishes."""
    step = chosen(step)
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
    targets = {asset.token.address: bps for asset, bps in zip(assets, largest_remainder(parts), strict=True)}
    told = f"targets are those of the strategies together: {', '.join(f'{name} {words.percent(share)}' for name, share in shares.items())}"
    return retargeted(step, targets, told)
