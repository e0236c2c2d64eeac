"""Faults: inputs that are unknown, stale or contradictory, so that the step cannot be decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.layers import questions
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


def balance_faults(snapshot: Snapshot, assets: Sequence[Asset]) -> list[Fault]:
    """Return a fault for each asset whose balance is quarantined, not read, or read with different
    results.
    """
    faults = []
    for asset in assets:
        label = asset.token.label
        address = asset.token.address
        balances_read_raw = {
            holding.raw for holding in snapshot.holdings if holding.token == address
        }
        quarantine_texts = [
            f"{unreadable_item.subject}: {unreadable_item.why}"
            for unreadable_item in snapshot.unreadable_items
            if unreadable_item.address == address
        ]
        if quarantine_texts:
            fault_message = f"{label} is quarantined ({'; '.join(quarantine_texts)})"
            faults.append(Fault(HaltCode.QUARANTINE, fault_message))
        elif not balances_read_raw:
            faults.append(Fault(HaltCode.BALANCE, f"the balance of {label} was not read"))
        elif len(balances_read_raw) > 1:
            fault_message = (
                f"the balance of {label} was read as {' and '.join(map(str, sorted(balances_read_raw)))}"
                " base units"
            )
            faults.append(Fault(HaltCode.BALANCE, fault_message))
    return faults


def store_ahead_faults(history: History, now_s: int) -> list[str]:
    """Return a fault if the store has a later time than the block: the store belongs to another
    chain, or an endpoint lags behind.
    """
    last_evaluation_s = history.reviews.last_evaluation_s
    if last_evaluation_s is None or last_evaluation_s <= now_s:
        return []
    return [
        f"the last action in the store was at {format_time(last_evaluation_s)}, "
        f"but the block is from {format_time(now_s)}"
    ]


def decision_faults(step: StepInput, references: ReferencePrices) -> list[Fault]:
    """Return every unknown, stale or contradictory input, or only that there are fewer than MIN_ASSETS
    assets; empty if the step can be decided.
    """
    assets = step.effective_assets
    if len(assets) < minimum.MIN_ASSETS:
        fault_message = (
            f"a portfolio needs at least {minimum.MIN_ASSETS} assets, this one has {len(assets)}"
        )
        return [Fault(HaltCode.ASSETS, fault_message)]
    faults = []
    untradable_tokens = {screened_token.token for screened_token in step.targets.quarantined_tokens}
    tradable_assets = [asset for asset in assets if asset.token.address not in untradable_tokens]
    if step.targets.quarantined_tokens and len(tradable_assets) < minimum.MIN_ASSETS:
        fault_message = f"fewer than {minimum.MIN_ASSETS} tradable assets are left"
        faults.append(Fault(HaltCode.QUARANTINE, fault_message))
    target_sum_bps = sum(asset.target_bps for asset in assets)
    if target_sum_bps != BPS or any(asset.target_bps < 0 for asset in assets):
        fault_message = (
            f"targets sum to {target_sum_bps} bps instead of {BPS} bps, or one is negative"
        )
        faults.append(Fault(HaltCode.TARGETS, fault_message))
    count_by_token = Counter(asset.token.address for asset in assets)
    faults += [
        Fault(HaltCode.ASSETS, f"{step.portfolio.token(address).label} is listed {count} times")
        for address, count in count_by_token.items()
        if count > 1
    ]
    if step.policy.destination is Destination.BAND and not has_band(step.policy.trigger):
        fault_message = "the destination is a band, but the trigger has no band"
        faults.append(Fault(HaltCode.DESTINATION, fault_message))
    faults += [
        Fault(halt_code, fault_message)
        for halt_code, fault_message in (
            (HaltCode.SEQUENCER, sequencer_fault(step.snapshot, step.reference)),
            (HaltCode.DATA_FEE, data_fee_fault(step.snapshot)),
            (HaltCode.DEPEG, depeg_fault(step, references)),
            (HaltCode.ORACLE_DEVIATION, source_conflict(step)),
            *((layer.code, layer.spot(step)) for layer in questions.FAULTS),
        )
        if fault_message
    ]
    faults += [
        Fault(HaltCode.ORDERS, fault_message)
        for fault_message in exits.price_contradictions(
            step.portfolio, step.history.orders, references
        )
    ]
    faults += balance_faults(step.snapshot, step.portfolio.assets)
    faults += [
        Fault(layer.code, fault_message)
        for layer in questions.FAULTS
        for fault_message in layer.holdings(step)
    ]
    faults += [
        Fault(HaltCode.ZONE, fault_message)
        for fault_message in no_trade_zone.faults(step, references)
    ]
    faults += [
        Fault(HaltCode.STORE_AHEAD, fault_message)
        for fault_message in store_ahead_faults(step.history, step.snapshot.head.timestamp_s)
    ]
    faults += [
        Fault(
            HaltCode.REFERENCE_PRICE,
            f"{unpriced_token.label} has no reference price ({unpriced_token.why})",
        )
        for unpriced_token in references.unpriced
        if unpriced_token.token in count_by_token
    ]
    return faults
