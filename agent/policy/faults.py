"""Why a step cannot be decided: everything in it that is unknown, stale or contradictory."""

from __future__ import annotations

from collections import Counter

from agent.model import Destination, StepInput
from agent.policy import liquidity, minimum, order_targets, sleeves, unread, zone
from agent.policy.bands import has_band
from agent.reference import References, contradiction, depeg_fault, sequencer_fault
from agent.units import BPS


def faults_of(step: StepInput, references: References) -> list[str]:
    """Everything that is unknown, stale or contradictory; empty when the step can be decided."""
    assets = step.portfolio.assets
    if len(assets) < minimum.FEWEST:
        return [f"a portfolio needs at least {minimum.FEWEST} assets, this one has {len(assets)}"]
    faults = []
    if (
        step.quarantine
        and len(assets) - len({one.token for one in step.quarantine} & {asset.token.address for asset in assets}) < minimum.FEWEST
    ):
        faults.append(f"fewer than {minimum.FEWEST} assets are left that may be traded")
    weights_bps = sum(asset.target_bps for asset in assets)
    if weights_bps != BPS or any(asset.target_bps < 0 for asset in assets):
        faults.append(f"targets sum to {weights_bps} bps instead of {BPS}, or one is negative")
    listed = Counter(asset.token.address for asset in assets)
    faults += [f"{step.portfolio.token(address).label} is listed {times} times" for address, times in listed.items() if times > 1]
    if step.policy.destination is Destination.BAND and not has_band(step.policy.trigger):
        faults.append("the destination is a band, but the trigger has none")
    faults += [fault for fault in (sequencer_fault(step), depeg_fault(step, references), contradiction(step)) if fault]
    faults += [fault for fault in (sleeves.fault(step),) if fault]
    faults += order_targets.faults(step, references)
    faults += unread.balances(step)
    faults += liquidity.faults(step)
    faults += zone.faults(step, references)
    faults += unread.from_the_future(step.history, step.snapshot.head.timestamp_s)
    faults += [f"{gap.label} has no reference price ({gap.why})" for gap in references.unpriced if gap.token in listed]
    return faults
