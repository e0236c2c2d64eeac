"""Faults: inputs of a step that are unknown, stale or contradictory, so that it cannot be decided."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from agent.model import (
    Destination,
    HaltCode,
    History,
    StepInput,
)
from agent.policy import (
    exits,
    minimum,
)
from agent.policy.drift import (
    has_band,
)
from agent.policy.liquidity import valuation
from agent.policy.strategies import netting
from agent.policy.triggers import no_trade_zone
from agent.policy.triggers.schedules import last_evaluation_s
from agent.reference import (
    ReferencePrices,
    depeg_fault,
    sequencer_fault,
    source_conflict,
)
from agent.units import BPS, format_time


@dataclass(frozen=True, slots=True)
class Fault:
    """A cause of a halt: its code for programs, its message for people."""

    code: HaltCode
    message: str


def unknown_balances(step: StepInput) -> list[Fault]:
    """Return a fault for each asset whose balance is quarantined, not read, or read with different
    results.
    """
    faults = []
    for asset in step.portfolio.assets:
        label, address = asset.token.label, asset.token.address
        balances = {holding.raw for holding in step.snapshot.holdings if holding.token == address}
        quarantined = [
            f"{item.item}: {item.why}"
            for item in step.snapshot.quarantined
            if item.address == address
        ]
        if quarantined:
            message = f"{label} is quarantined ({'; '.join(quarantined)})"
            faults.append(Fault(HaltCode.QUARANTINE, message))
        elif not balances:
            faults.append(Fault(HaltCode.BALANCE, f"the balance of {label} was not read"))
        elif len(balances) > 1:
            message = (
                f"the balance of {label} was read as {' and '.join(map(str, sorted(balances)))}"
                " base units"
            )
            faults.append(Fault(HaltCode.BALANCE, message))
    return faults


def store_ahead_faults(history: History, now_s: int) -> list[str]:
    """Return a fault if the store has a later time than the block: it is of another chain, or an
    endpoint lags behind.
    """
    last_s = last_evaluation_s(history)
    if last_s is None or last_s <= now_s:
        return []
    return [
        f"the last action in the store is of {format_time(last_s)}, the block only of"
        f" {format_time(now_s)}"
    ]


def decision_faults(step: StepInput, references: ReferencePrices) -> list[Fault]:
    """Return every unknown, stale or contradictory input; empty if the step can be decided."""
    assets = step.portfolio.assets
    if len(assets) < minimum.MIN_ASSETS:
        message = (
            f"a portfolio needs at least {minimum.MIN_ASSETS} assets, this one has {len(assets)}"
        )
        return [Fault(HaltCode.ASSETS, message)]
    faults = []
    untradable = {screened.token for screened in step.quarantine}
    tradable = [asset for asset in assets if asset.token.address not in untradable]
    if step.quarantine and len(tradable) < minimum.MIN_ASSETS:
        message = f"fewer than {minimum.MIN_ASSETS} tradable assets are left"
        faults.append(Fault(HaltCode.QUARANTINE, message))
    weights_bps = sum(asset.target_bps for asset in assets)
    if weights_bps != BPS or any(asset.target_bps < 0 for asset in assets):
        message = f"targets sum to {weights_bps} bps instead of {BPS}, or one is negative"
        faults.append(Fault(HaltCode.TARGETS, message))
    listed = Counter(asset.token.address for asset in assets)
    faults += [
        Fault(HaltCode.ASSETS, f"{step.portfolio.token(address).label} is listed {times} times")
        for address, times in listed.items()
        if times > 1
    ]
    if step.policy.destination is Destination.BAND and not has_band(step.policy.trigger):
        message = "the destination is a band, but the trigger has none"
        faults.append(Fault(HaltCode.DESTINATION, message))
    faults += [
        Fault(code, message)
        for code, message in (
            (HaltCode.SEQUENCER, sequencer_fault(step)),
            (HaltCode.DEPEG, depeg_fault(step, references)),
            (HaltCode.ORACLE_DEVIATION, source_conflict(step)),
            (HaltCode.STRATEGIES, netting.strategies_fault(step)),
        )
        if message
    ]
    faults += [Fault(HaltCode.ORDERS, message) for message in exits.faults(step, references)]
    faults += unknown_balances(step)
    faults += [Fault(HaltCode.POSITIONS, message) for message in valuation.faults(step)]
    faults += [Fault(HaltCode.ZONE, message) for message in no_trade_zone.faults(step, references)]
    faults += [
        Fault(HaltCode.STORE_AHEAD, message)
        for message in store_ahead_faults(step.history, step.snapshot.head.timestamp_s)
    ]
    faults += [
        Fault(HaltCode.REFERENCE_PRICE, f"{gap.label} has no reference price ({gap.why})")
        for gap in references.unpriced
        if gap.token in listed
    ]
    return faults
