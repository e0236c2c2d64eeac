"""What the allocator would choose now, from which data and why, beside what was chosen last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.api.agent import Agent
from agent.errors import ConfigError, Refused
from agent.model import Allocation, Method, StepInput, Weights
from agent.policy import allocation
from agent.weights import choose
from agent.weights.allocators import Bounds
from agent.weights.returns import Returns

Document = dict[str, Any]


def weights(agent: Agent) -> Document:
    """Writes nothing. Raises ConfigError where the config has no allocator."""
    settings = agent.portfolio.weights
    if settings is None or settings.method is Method.FIXED:
        raise ConfigError("portfolio.weights: the config has no allocator; targets are fixed", "see docs/weights.md")
    step = agent.step_input()
    now_s, store, assets = allocation.believed_s(step.snapshot), agent.desk.store, agent.portfolio.assets
    since_s = now_s - settings.window_s - max(settings.step_s, settings.max_age_s)
    recorded = store.prices(agent.portfolio.numeraire.address, since_s, now_s, settings.step_s)
    facts = allocation.facts(replace(step, history=replace(step.history, prices=recorded)))
    last = store.allocation()
    standing = choose.counting(settings, assets, last)
    seen: Returns | None = None
    bounds: Bounds | None = None
    chosen: Allocation | None = None
    fault = ""
    try:
        bounds = choose.bounds_of(settings, assets)
        seen = choose.wanted(settings, assets, facts)[1].seen
        chosen = choose.choose(settings, assets, facts, last)
    except Refused as missing:
        fault = str(missing)
    return {
        "block": step.snapshot.head.number,
        "at_s": now_s,
        "kind": settings.method.value,
        "due": choose.due(settings, assets, last, now_s),
        "next_s": None if standing is None else standing.at_s + settings.every_s,
        "standing": None if standing is None else _told(step, standing),
        "now": None if chosen is None else _told(step, chosen),
        "fault": fault,
        "turnover_bps": None if chosen is None or standing is None else _turnover_bps(chosen, standing),
        "assets": _assets(step, settings, bounds, standing, chosen, seen, agent),
        "correlations": _correlations(step, seen),
        "wishes": list(step.wishes),
    }


def _told(step: StepInput, chosen: Allocation) -> Document:
    return {
        "at_s": chosen.at_s,
        "weights_bps": {step.portfolio.token(token).label: bps for token, bps in chosen.weights_bps},
        "why": chosen.why,
        "data": chosen.data,
        "from_s": chosen.from_s,
        "until_s": chosen.until_s,
        "returns": chosen.returns,
    }


def _assets(
    step: StepInput,
    settings: Weights,
    bounds: Bounds | None,
    standing: Allocation | None,
    chosen: Allocation | None,
    seen: Returns | None,
    agent: Agent,
) -> list[Document]:
    volatility = {} if seen is None else dict(zip(seen.tokens, seen.volatility, strict=True))
    limits = {} if bounds is None else {t: [low, high] for t, low, high in zip(bounds.tokens, bounds.low, bounds.high, strict=True)}
    supplies = {one.token: one for one in (*step.snapshot.supplies, *settings.supplies)} if settings.method is Method.MARKET_CAP else {}
    found = []
    for asset in agent.portfolio.assets:
        address, supply = asset.token.address, supplies.get(asset.token.address)
        found.append(
            {
                "symbol": asset.token.label,
                "address": address,
                "fixed": address in settings.fixed,
                "target_bps": asset.target_bps,
                "standing_bps": None if standing is None else standing.bps(address),
                "now_bps": None if chosen is None else chosen.bps(address),
                "limits_bps": limits.get(address),
                "volatility": f"{volatility[address]:.6f}" if address in volatility else None,
                "supply_raw": None if supply is None else str(supply.raw),
                "supply_source": None if supply is None else supply.source or "its contract",
            }
        )
    return found


def _correlations(step: StepInput, seen: Returns | None) -> dict[str, str]:
    """Sample correlations by pair "A/B"; each pair once."""
    if seen is None:
        return {}
    names, table = [step.portfolio.token(token).label for token in seen.tokens], seen.correlation
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return {f"{names[i]}/{names[j]}": f"{table[i, j]:.6f}" for i, j in pairs}


def _turnover_bps(chosen: Allocation, standing: Allocation) -> int:
    """Half of what weights move by in all, rounded up."""
    return -(-sum(abs(bps - standing.bps(token)) for token, bps in chosen.weights_bps) // 2)
