"""Exits that fired and cannot be done now: what is left as it is for them, so that everything else goes on, and how that is said.

An asset that is stuck keeps exactly what it has, as one in quarantine does: it counts neither in the total nor in weights, is neither
sold nor bought, and its exit is tried again at each look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from agent.model import PORTFOLIO, Absent, LateRefusal, OrderStage, StepInput, StuckExit
from agent.policy import coin, words
from agent.policy.drift import drift, total
from agent.policy.order_levels import subject
from agent.policy.order_moves import out_of
from agent.reference import reference_prices
from agent.units import BPS, largest_remainder

REMEDY = "wait for deeper pools, take in others by trimtab trust, or widen limits.price_impact or limits.plan_cost"


SOONER = "find out why its token refuses; trimtab resume has it tried at the next look"
FREE_TIMES = 3
"""How often in a row an exit may be refused when about to be sent and is tried again at the very next look: markets move."""
REST_S, LONGEST_REST_S = 600, 3_600
"""Chain time for which it rests after one time more, doubled with each, and at most: every try approves and takes back, for gas. No
longer, since who pushes its pool between look and send makes it rest too.
"""
DAY_S = 86_400


def rests_until_s(one: LateRefusal) -> int:
    """Chain time before which an exit that was refused late is not tried."""
    more = one.times - FREE_TIMES
    return one.at_s + (0 if more <= 0 else min(REST_S << min(more - 1, 16), LONGEST_REST_S))


def resting(step: StepInput, tokens: Iterable[str]) -> list[StuckExit]:
    """Which of these exits rest now; none by a refusal whose time is still to come, whatever header told it."""
    now_s, wanted = step.snapshot.head.timestamp_s, {*tokens}
    resting = [one for one in step.history.late if one.token in wanted and one.at_s <= now_s < rests_until_s(one)]
    return [
        StuckExit(one.token, f"{one.why}; {_often(one)}, so it rests until {words.moment(rests_until_s(one))}", SOONER) for one in resting
    ]


def refused_late(step: StepInput, refused: Iterable[StuckExit]) -> tuple[LateRefusal, ...]:
    """What to remember once these were refused when about to be sent; in a row is what is less than a day apart."""
    now_s, known = step.snapshot.head.timestamp_s, {one.token: one for one in step.history.late}
    for one in refused:
        before = known.get(one.token)
        times = 1 if before is None or now_s - before.at_s > DAY_S else before.times + 1
        known[one.token] = LateRefusal(one.token, now_s, times, one.why)
    return tuple(known.values())


def still_late(step: StepInput, sold: Iterable[str]) -> tuple[LateRefusal, ...]:
    """What of it is still to be remembered once these were sold: exits that fired and are not done."""
    gone, fired = {*sold}, _being_sold(step)
    return tuple(one for one in step.history.late if one.token not in gone and {one.token, PORTFOLIO} & fired)


def tried_again(step: StepInput, told: Iterable[str]) -> list[str]:
    """What was refused late and is tried again at the next look, in words; not the tokens that are `told` already."""
    sold, known = _being_sold(step), {*told}
    again = [one for one in step.history.late if one.token not in known and {one.token, PORTFOLIO} & sold]
    return [
        f"{subject(step.portfolio, one.token)}: {one.why}; {_often(one)}, last at {words.moment(one.at_s)}; "
        f"it is tried at the next look; {SOONER}, or {disarmed(step, StuckExit(one.token, '', ''))}"
        for one in again
    ]


def by_orders(step: StepInput, tokens: Iterable[str]) -> bool:
    """Whether orders that fired sell all of these, and not their owner."""
    sold = _being_sold(step)
    return PORTFOLIO in sold or {*tokens} <= sold


def _being_sold(step: StepInput) -> set[str]:
    return {order.token for order in step.history.orders if order.is_exit and order.stage is OrderStage.FIRED}


def _often(one: LateRefusal) -> str:
    return "once" if one.times == 1 else f"{one.times} times in a row"


def left_alone(step: StepInput, found: Iterable[StuckExit]) -> StepInput:
    """The step in which these assets keep what they have; one that is stuck already changes nothing."""
    already = {one.token for one in step.stuck}
    new = {one.token: one for one in found if one.token not in already}
    if not new:
        return step
    targets = _targets(step, {*new})
    assets = tuple(
        replace(
            asset,
            target_bps=targets[asset.token.address],
            reserve_raw=coin.sealed_raw(step, asset) if asset.token.address in new else asset.reserve_raw,
        )
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets), stuck=(*step.stuck, *new.values()))


def _targets(step: StepInput, shut: set[str]) -> dict[str, int]:
    """Targets in bps by token of what is left: where the weight of what is out waits in the numeraire, what is not sold yet has not
    got there. So the others keep the value that they should have, and the numeraire's part is smaller by what is stuck.
    """
    before = {asset.token.address: asset.target_bps for asset in step.portfolio.assets}
    if step.portfolio.orders.absent is not Absent.CASH or step.split is not None:
        return before  # shared by the others already, or each strategy's own matter
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    drifts = drift(step, prices)
    whole = total(drifts)
    left = whole - sum((one.investable_raw * one.price for one in drifts if one.token in shut), Fraction(0))
    if left <= 0:
        return before
    numeraire = step.portfolio.numeraire.address
    others = {token: bps * whole / left for token, bps in before.items() if token != numeraire}
    rest = max(Fraction(0), BPS - sum(others.values(), Fraction(0)))
    shares = largest_remainder([others.get(token, rest) for token in before])
    return dict(zip(before, shares, strict=True))


def kept(step: StepInput) -> set[str]:
    """Tokens that are left as they are, in quarantine or stuck."""
    return {one.token for one in step.quarantine} | {one.token for one in step.stuck}


def named(step: StepInput, only: Iterable[str] | None = None) -> str:
    """Every exit that is stuck, or of the tokens `only` some, with the reason and the remedies; empty when there is none."""
    told = step.stuck if only is None else [one for one in step.stuck if one.token in {*only}]
    return "; ".join(in_words(step, one) for one in told)


def in_words(step: StepInput, one: StuckExit) -> str:
    """One of them: what fired, why it is stuck, and what can be done."""
    label, back = subject(step.portfolio, one.token), disarmed(step, one)
    again = "stays as it is until then" if resting(step, (one.token,)) else "stays as it is and is tried at each look"
    return f"{label} is out and cannot be sold now: {one.why}; it {again}; {one.remedy}, or {back}"


def disarmed(step: StepInput, one: StuckExit) -> str:
    """The command that calls its exit off."""
    whole = out_of(step.history.orders, PORTFOLIO) is not None
    return f"call it off: trimtab orders disarm {PORTFOLIO if whole else subject(step.portfolio, one.token)}"
