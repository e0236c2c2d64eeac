"""Weights that the allocator would choose now, with the data used, and its last choice."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from agent.app.agent import Agent
from agent.app.documents import fill
from agent.app.documents.records import AllocationDocument, WeightedAssetDocument, WeightsDocument
from agent.errors import ConfigError, Refused
from agent.model import Allocation, AllocationMethod, AllocationNeeds, AllocatorConfig, StepInput
from agent.policy import targets
from agent.policy.signals import signal_requests
from agent.weights.allocators import WeightBounds
from agent.weights.returns import Returns

if TYPE_CHECKING:
    pass


def weights(agent: Agent) -> WeightsDocument:
    """Return the weights that the allocator would choose now. Writes nothing. Raises ConfigError if
    the config has no allocator.
    """
    settings = agent.portfolio.weights
    if settings is None or settings.method is AllocationMethod.FIXED:
        raise ConfigError(
            "portfolio.weights: the config has no allocator; targets are fixed",
            "see docs/weights.md",
        )
    step = agent.step_input()
    store, assets = agent.context.store, agent.portfolio.assets
    now_s = targets.trusted_time_s(step.snapshot)
    since_s = now_s - settings.window_s - max(settings.step_s, settings.max_age_s)
    recorded = store.prices.between(
        agent.portfolio.numeraire.address, since_s, now_s, settings.step_s
    )
    asked = replace(step, history=replace(step.history, prices=recorded, allocation=None))
    answers = agent.context.signals.answers(signal_requests(asked, {}))
    facts = targets.allocator_inputs(
        replace(asked, history=replace(asked.history, signals=answers))
    )
    last = store.allocations.newest()
    current = targets.valid_allocation(settings, assets, last)
    seen: Returns | None = None
    bounds: WeightBounds | None = None
    chosen: Allocation | None = None
    fault = ""
    try:
        bounds = targets.bounds_of(settings, assets)
        seen = targets.unrounded_weights(settings, assets, facts)[1].seen
        chosen = targets.choose_allocation(settings, assets, facts, last)
    except Refused as missing:
        fault = str(missing)
    return {
        "block": step.snapshot.head.number,
        "at_s": now_s,
        "kind": settings.method.value,
        "due": targets.is_allocation_due(settings, assets, last, now_s),
        "next_s": None if current is None else current.at_s + settings.every_s,
        "standing": _weights_document(step, current),
        "now": _weights_document(step, chosen),
        "fault": fault,
        "turnover_bps": _turnover_bps(chosen, current),
        "assets": _assets(step, settings, bounds, current, chosen, seen, agent),
        "correlations": _correlations(step, seen),
        "wishes": list(step.wishes),
    }


def _weights_document(step: StepInput, choice: Allocation | None) -> AllocationDocument | None:
    if choice is None:
        return None
    weights_bps = {step.portfolio.token(token).label: bps for token, bps in choice.weights_bps}
    return fill(AllocationDocument, choice, weights_bps=weights_bps)


def _assets(
    step: StepInput,
    settings: AllocatorConfig,
    bounds: WeightBounds | None,
    current: Allocation | None,
    chosen: Allocation | None,
    seen: Returns | None,
    agent: Agent,
) -> list[WeightedAssetDocument]:
    volatility = {} if seen is None else dict(zip(seen.tokens, seen.volatility, strict=True))
    limits = {}
    if bounds is not None:
        for token, low, high in zip(bounds.tokens, bounds.low, bounds.high, strict=True):
            limits[token] = [low, high]
    supplies = {}
    if settings.method.needs is AllocationNeeds.SUPPLIES:
        supplies = {one.token: one for one in (*step.snapshot.supplies, *settings.supplies)}
    rows: list[WeightedAssetDocument] = []
    for asset in agent.portfolio.assets:
        address, supply = asset.token.address, supplies.get(asset.token.address)
        rows.append(
            {
                "symbol": asset.token.label,
                "address": address,
                "fixed": address in settings.fixed,
                "target_bps": asset.target_bps,
                "standing_bps": None if current is None else current.bps(address),
                "now_bps": None if chosen is None else chosen.bps(address),
                "limits_bps": limits.get(address),
                "volatility": f"{volatility[address]:.6f}" if address in volatility else None,
                "supply_raw": None if supply is None else str(supply.raw),
                "supply_source": None if supply is None else supply.source or "its contract",
            }
        )
    return rows


def _correlations(step: StepInput, seen: Returns | None) -> dict[str, str]:
    """Return the sample correlation of each pair "A/B"."""
    if seen is None:
        return {}
    names = [step.portfolio.token(token).label for token in seen.tokens]
    pairs = combinations(range(len(names)), 2)
    return {f"{names[i]}/{names[j]}": f"{seen.correlation[i, j]:.6f}" for i, j in pairs}


def _turnover_bps(chosen: Allocation | None, current: Allocation | None) -> int | None:
    """Return half of the sum of absolute weight changes, rounded up; None unless both choices
    exist.
    """
    if chosen is None or current is None:
        return None
    return -(-sum(abs(bps - current.bps(token)) for token, bps in chosen.weights_bps) // 2)
