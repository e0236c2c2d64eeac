"""Guards on money that leaves: confirmed address, cap of a day, what there is, kill switch; each a verdict with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import Refused
from agent.guards.words import OFF, money
from agent.model import Payout, StepInput, Verdict
from agent.policy import coin, outflow
from agent.units import NATIVE, decimal_text

REMEDIES = {
    "kill_switch": "trimtab resume, once you know why it was paused",
    "payout_address": "add it to wallet.payout_addresses (trimtab edit), then confirm it: trimtab trust",
    "payout_per_day": "pay less, wait until what was paid is a day old, or raise limits.payout_per_day",
    "balance": "ask for less: trimtab status shows what there is",
}
"""What its owner can do about each."""


def permission(step: StepInput, payouts: Sequence[Payout], confirmed: Sequence[str], paused: bool = False) -> tuple[Verdict, ...]:
    """Whether payments that belong together may be made at all; what there is of it is judged when each is made."""
    return (
        Verdict("kill_switch", "paused" if paused else "off", "not paused", not paused),
        _address(payouts, confirmed),
        _cap(step, payouts),
    )


def judge(step: StepInput, payout: Payout, confirmed: Sequence[str]) -> tuple[Verdict, ...]:
    """The verdict of every guard on one payment, passed ones too. The kill switch is read once more where it is sent."""
    return (*permission(step, (payout,), confirmed), _balance(step, payout))


def require(verdicts: Sequence[Verdict]) -> None:
    """Raises Refused, with all verdicts, when one of them says no."""
    refusing = [verdict for verdict in verdicts if not verdict.passed]
    if refusing:
        said = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in refusing)
        raise Refused(f"refused by {said}", verdicts, "; ".join(f"{v.guard}: {REMEDIES[v.guard]}" for v in refusing))


def remedies(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """What its owner can do about each limit that says no."""
    return tuple(REMEDIES[verdict.guard] for verdict in verdicts if not verdict.passed)


def _address(payouts: Sequence[Payout], confirmed: Sequence[str]) -> Verdict:
    strange = sorted({payout.to for payout in payouts} - set(confirmed))
    limit = "a confirmed payout address"
    return Verdict("payout_address", ", ".join(strange) or "confirmed", limit, not strange)


def _cap(step: StepInput, payouts: Sequence[Payout]) -> Verdict:
    limit, numeraire = step.limits.payout_per_day, step.portfolio.numeraire
    if limit is None:
        return Verdict("payout_per_day", "not measured", OFF, True)
    if step.history.unknown:
        return Verdict("payout_per_day", f"unknown: {step.history.unknown}", money(limit, numeraire), False)
    total = step.history.outflow_24h
    for payout in payouts:
        price = outflow.price_of(step, payout.token)
        if price is None:
            return Verdict("payout_per_day", f"unknown: no reference price of {payout.token}", money(limit, numeraire), False)
        total += payout.raw * price
    return Verdict("payout_per_day", f"{money(total, numeraire)} in 24 h", money(limit, numeraire), total <= limit)


def _balance(step: StepInput, payout: Payout) -> Verdict:
    """What there is of it, gas money and reserves left alone; what was set aside for this very request counts."""
    token = step.portfolio.token(payout.token)
    if payout.token == NATIVE:
        there = step.snapshot.native_wei - coin.floor_wei(step)
    else:
        asset = next((one for one in step.portfolio.assets if one.token.address == payout.token), None)
        own = sum(c.payment.raw for c in step.history.claims if (c.request, c.payment.token) == (payout.request, payout.token))
        held = {holding.token: holding.raw for holding in step.snapshot.holdings}.get(payout.token, 0)
        there = 0 if asset is None else held - max(0, asset.reserve_raw - own)
    shown = decimal_text(max(0, there), token.decimals)
    return Verdict("balance", f"{decimal_text(payout.raw, token.decimals)} {token.label}", f"{shown} {token.label}", payout.raw <= there)
