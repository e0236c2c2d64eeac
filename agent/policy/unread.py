"""What a decision cannot rest on: balances that are not known for certain, and a memory that is ahead of the chain."""

from __future__ import annotations

from agent.model import History, StepInput
from agent.policy import words
from agent.policy.schedules import last_look_s


def balances(step: StepInput) -> list[str]:
    """Assets whose balance is unknown: quarantined, not read, or read twice with different answers."""
    faults = []
    for asset in step.portfolio.assets:
        label, address = asset.token.label, asset.token.address
        balances = {holding.raw for holding in step.snapshot.holdings if holding.token == address}
        quarantined = [f"{item.item}: {item.why}" for item in step.snapshot.quarantined if item.address == address]
        if quarantined:
            faults.append(f"{label} is quarantined ({'; '.join(quarantined)})")
        elif not balances:
            faults.append(f"the balance of {label} was not read")
        elif len(balances) > 1:
            faults.append(f"the balance of {label} was read as {' and '.join(map(str, sorted(balances)))} base units")
    return faults


def from_the_future(history: History, now_s: int) -> list[str]:
    """A store that knows a later time than the block has seen another chain, or an endpoint lags behind."""
    last_s = last_look_s(history)
    if last_s is None or last_s <= now_s:
        return []
    return [f"the last action in the store is of {words.moment(last_s)}, the block only of {words.moment(now_s)}"]
