"""Whether the ledger and the chain agree on every balance; where they do not, which balance, and by how much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.model import Books, Stand, StepInput
from agent.policy import flows
from agent.units import NATIVE, decimal_text

REMEDY = "see which entry with trimtab books check, or begin anew at the chain's balances with trimtab books open"


def agreed(step: StepInput, books: Books, stands: Iterable[Stand]) -> StepInput:
    """The step with what disagrees in its history. Changes that nobody made and that are not written down yet are no disagreement:
    they are flows. A snapshot that cannot be compared with the books is not compared with the ledger either.
    """
    if not flows.comparable(step.snapshot, books):
        return step
    unwritten = {token: delta for token, (delta, _) in flows.differences(step.snapshot, books).items()}
    sure = flows.balances_of(step.snapshot)
    counted = {asset.token.address for asset in step.portfolio.assets} | {NATIVE}
    wrong = []
    for stand in stands:
        expected = stand.raw + unwritten.get(stand.token, 0)
        if stand.token in counted and stand.token in sure and sure[stand.token] != expected:
            said, has = (_amount(step, stand.token, raw) for raw in (expected, sure[stand.token]))
            wrong.append(f"{flows.label(step, stand.token)}: {said} by the ledger, {has} on the chain")
    if not wrong:
        return step
    told = f"ledger and chain disagree at block {step.snapshot.head.number}: {'; '.join(wrong)}; {REMEDY}"
    return replace(step, history=replace(step.history, books=told))


def _amount(step: StepInput, token: str, raw: int) -> str:
    decimals = 18 if token == NATIVE else step.portfolio.token(token).decimals
    return decimal_text(raw, decimals)
