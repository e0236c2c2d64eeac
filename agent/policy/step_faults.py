"""Faults: inputs that are unknown, stale or contradictory, so that the step cannot be decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.layers.questions import HOLDING_FAULTS, SPOT_FAULTS
from agent.model import (
    Asset,
    Destination,
    HaltCode,
    History,
    Snapshot,
    StepInput,
)
from agent.policy import minimum
from agent.policy.drift import has_band
from agent.policy.orders import exits
from agent.policy.triggers import no_trade_zone
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


def data_fee_fault(snapshot: Snapshot) -> str:
    """Return why the rollup's data fee is unknown; empty if it is known, or there is none (T13)."""
    unknown_reason = snapshot.data_fee_unknown_reason
    return f"the rollup's data fee was not read ({unknown_reason})" if unknown_reason else ""


def unknown_balances(snapshot: Snapshot, assets: Sequence[Asset]) -> list[Fault]:
    """Return a fault for each asset whose balance is quarantined, not read, or read with different
    results.
    """
    faults = []
    for asset in assets:
        label, address = asset.token.label, asset.token.address
        balances = {holding.raw for holding in snapshot.holdings if holding.token == address}
        quarantine_texts = [
            f"{item.subject}: {item.why}"
            for item in snapshot.quarantined
            if item.address == address
        ]
        if quarantine_texts:
            message = f"{label} is quarantined ({'; '.join(quarantine_texts)})"
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
    """Return a fault if the store has a later time than the block: the store belongs to another
    chain, or an endpoint lags behind.
    """
    last_s = history.reviews.last_evaluation_s
    if last_s is None or last_s <= now_s:
        return []
    return [
        f"the last action in the store was at {format_time(last_s)}, "
        f"but the block is from {format_time(now_s)}"
    ]


def decision_faults(step: StepInput, references: ReferencePrices) -> list[Fault]:
    """Return every unknown, stale or contradictory input; empty if the step can be decided."""
    assets = step.effective_assets
    if len(assets) < minimum.MIN_ASSETS:
        message = (
            f"a portfolio needs at least {minimum.MIN_ASSETS} assets, this one has {len(assets)}"
        )
        return [Fault(HaltCode.ASSETS, message)]
    faults = []
    untradable_tokens = {screened.token for screened in step.targets.quarantine}
    tradable_assets = [asset for asset in assets if asset.token.address not in untradable_tokens]
    if step.targets.quarantine and len(tradable_assets) < minimum.MIN_ASSETS:
        message = f"fewer than {minimum.MIN_ASSETS} tradable assets are left"
        faults.append(Fault(HaltCode.QUARANTINE, message))
    weights_bps = sum(asset.target_bps for asset in assets)
    if weights_bps != BPS or any(asset.target_bps < 0 for asset in assets):
        message = f"targets sum to {weights_bps} bps instead of {BPS}, or one is negative"
        faults.append(Fault(HaltCode.TARGETS, message))
    count_by_token = Counter(asset.token.address for asset in assets)
    faults += [
        Fault(HaltCode.ASSETS, f"{step.portfolio.token(address).label} is listed {count} times")
        for address, count in count_by_token.items()
        if count > 1
    ]
    if step.policy.destination is Destination.BAND and not has_band(step.policy.trigger):
        message = "the destination is a band, but the trigger has no band"
        faults.append(Fault(HaltCode.DESTINATION, message))
    faults += [
        Fault(code, message)
        for code, message in (
            (HaltCode.SEQUENCER, sequencer_fault(step.snapshot, step.reference)),
            (HaltCode.DATA_FEE, data_fee_fault(step.snapshot)),
            (HaltCode.DEPEG, depeg_fault(step, references)),
            (HaltCode.ORACLE_DEVIATION, source_conflict(step)),
            *((code, fault_of(step)) for code, fault_of in SPOT_FAULTS),
        )
        if message
    ]
    faults += [
        Fault(HaltCode.ORDERS, message)
        for message in exits.faults(step.portfolio, step.history.orders, references)
    ]
    faults += unknown_balances(step.snapshot, step.portfolio.assets)
    faults += [
        Fault(code, message) for code, faults_of in HOLDING_FAULTS for message in faults_of(step)
    ]
    faults += [
        Fault(HaltCode.ZONE, message)
        for message in no_trade_zone.faults(step.portfolio, step.policy, step.limits, references)
    ]
    faults += [
        Fault(HaltCode.STORE_AHEAD, message)
        for message in store_ahead_faults(step.history, step.snapshot.head.timestamp_s)
    ]
    faults += [
        Fault(HaltCode.REFERENCE_PRICE, f"{unpriced.label} has no reference price ({unpriced.why})")
        for unpriced in references.unpriced
        if unpriced.token in count_by_token
    ]
    return faults
