"""Blocked exits: triggered exits that cannot be sold now are excluded, and the rest continues.

Like a quarantined asset, a blocked one counts neither in the total nor in weights and is not
traded; each cycle tries the exit again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import (
    PORTFOLIO,
    BlockedExit,
    EffectiveTargets,
    Failures,
    History,
    OrderStage,
    OrderStates,
    Plan,
    Portfolio,
    Snapshot,
    StepInput,
    SubmissionRefusal,
    WeightReallocation,
)
from agent.policy import failures, native_coin
from agent.policy.drift import investable_total
from agent.policy.orders.conditional import fired_exit_order, order_subject
from agent.policy.orders.exits import _drifts
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, format_time, largest_remainder

REMEDY = (
    "wait for deeper pools, pin others with trimtab trust, or raise limits.price_impact or"
    " limits.plan_cost"
)
RETRY_REMEDY = (
    "find out why its token refuses the transfer; trimtab resume retries it in the next cycle"
)
FREE_RETRIES = 3
"""Number of consecutive refusals at submission after which an exit is still retried in the next
cycle, because markets move.
"""
BACKOFF_S, MAX_BACKOFF_S = 600, 3_600
"""Length of the first back-off after FREE_RETRIES, in seconds of chain time; it doubles with each
refusal up to the maximum. Every retry approves and revokes, which costs gas. The maximum is low,
because an attacker who moves the pool before our submission can trigger the back-off.
"""
DAY_S = 86_400


def retry_at_s(one: SubmissionRefusal) -> int:
    """Return the chain time from which an exit refused at submission is tried again."""
    more = one.times - FREE_RETRIES
    return one.at_s + (0 if more <= 0 else min(BACKOFF_S << min(more - 1, 16), MAX_BACKOFF_S))


def backing_off(snapshot: Snapshot, failures: Failures, token: str) -> BlockedExit | None:
    """Return the exit if it is backing off now. A refusal whose time is in the future, because of a
    wrong block header, does not count.
    """
    now_s = snapshot.head.timestamp_s
    for refusal in failures.submission_refusals:
        if refusal.token == token and refusal.at_s <= now_s < retry_at_s(refusal):
            why = f"{refusal.why}; {_often(refusal)}, so it backs off until {format_time(retry_at_s(refusal))}"
            return BlockedExit(token, why, RETRY_REMEDY)
    return None


def add_submission_refusal(
    snapshot: Snapshot, failures: Failures, refused: BlockedExit
) -> tuple[SubmissionRefusal, ...]:
    """Return the refusals to store after this exit was refused at submission; refusals less than a
    day apart count as consecutive.
    """
    now_s, known = (
        snapshot.head.timestamp_s,
        {refusal.token: refusal for refusal in failures.submission_refusals},
    )
    before = known.get(refused.token)
    times = 1 if before is None or now_s - before.at_s > DAY_S else before.times + 1
    known[refused.token] = SubmissionRefusal(refused.token, now_s, times, refused.why)
    return tuple(known.values())


def avoids_other_tokens(history: History, direct: Collection[str], token: str) -> bool:
    """True if the exit of a token failed, so that a route without other tokens is preferred."""
    failed = failures.exit_failures(history, token).reverts
    return bool(
        token in direct
        or failed
        or any(refusal.token == token for refusal in history.failures.submission_refusals)
    )


def may_go_directly(
    portfolio: Portfolio, direct: Collection[str], plan: Plan | None, token: str
) -> bool:
    """True if the plan sells the token through another one and a plan without it was not tried in
    this step.
    """
    if plan is None or not token or token in direct:
        return False
    traded = {one for leg in plan.legs for one in (leg.token_in, leg.token_out)} - {NATIVE}
    return not traded <= {token, portfolio.numeraire.address}


def open_submission_refusals(history: History, sold: str) -> tuple[SubmissionRefusal, ...]:
    """Return the refusals to keep after this token was sold: those of fired exits that are not
    done.
    """
    fired = _being_sold(history)
    return tuple(
        refusal
        for refusal in history.failures.submission_refusals
        if refusal.token != sold and {refusal.token, PORTFOLIO} & fired
    )


def format_retries(portfolio: Portfolio, history: History, texts: Iterable[str]) -> list[str]:
    """Format the exits refused at submission that are retried in the next cycle, except those of
    the tokens in `texts`.
    """
    sold, known = _being_sold(history), {*texts}
    again = [
        refusal
        for refusal in history.failures.submission_refusals
        if refusal.token not in known and {refusal.token, PORTFOLIO} & sold
    ]
    return [
        f"{order_subject(portfolio, submission_refusal.token)}: {submission_refusal.why}; {_often(submission_refusal)}, last at"
        f" {format_time(submission_refusal.at_s)}; it is retried in the next cycle; {RETRY_REMEDY}, or"
        f" {disarm_command(portfolio, history.orders, BlockedExit(submission_refusal.token, '', ''))}"
        for submission_refusal in again
    ]


def _being_sold(history: History) -> set[str]:
    return {
        order.token
        for order in history.orders.states
        if order.is_exit and order.stage is OrderStage.FIRED
    }


def _often(one: SubmissionRefusal) -> str:
    if one.times == 1:
        return "once"
    return f"{one.times} times in a row"


def exclude_blocked_exits(step: StepInput, found: Iterable[BlockedExit]) -> StepInput:
    """Return the step with these exits excluded, so that their assets keep their holdings."""
    known = {blocked_exit.token for blocked_exit in step.blocked_exits}
    new = {blocked.token: blocked for blocked in found if blocked.token not in known}
    if not new:
        return step
    targets, balances = _targets(step, {*new}), native_coin.held_balances(step)
    for asset in step.portfolio.assets:
        if (one := new.get(token := asset.token.address)) is not None and token in balances:
            raw = max(0, balances[token] - native_coin.reserved_raw(step.limits, asset))
            new[token] = replace(one, raw=raw)
    assets = tuple(
        replace(
            asset,
            reserve_raw=native_coin.full_reserve_raw(
                native_coin.held_balances(step), step.limits, asset
            ),
        )
        if asset.token.address in new
        else asset
        for asset in step.portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        targets=replace(step.targets, effective_bps=tuple(targets.items())),
        blocked_exits=(*step.blocked_exits, *new.values()),
    )


def _targets(step: StepInput, shut: set[str]) -> dict[str, int]:
    """Return the targets of the remaining assets in bps by token.

    If the weight of exited assets is held in the numeraire, unsold exits are not part of it yet.
    The other assets therefore keep their value, and the blocked exits reduce the numeraire's share.
    """
    before = {asset.token.address: asset.target_bps for asset in step.effective_assets}
    if step.portfolio.orders.absent is not WeightReallocation.CASH or step.divides_wallet:
        return before  # redistributed already, or handled by each part of the wallet
    prices = reference_prices(step).by_token
    if not (drifts := _drifts(step, prices)):
        return before  # the total is unknown, so only exits are decided
    whole = investable_total(drifts)
    left = whole - sum(
        (drift.investable_raw * drift.price for drift in drifts if drift.token in shut), Fraction(0)
    )
    if left <= 0:
        return before
    numeraire = step.portfolio.numeraire.address
    others = {token: bps * whole / left for token, bps in before.items() if token != numeraire}
    rest = max(Fraction(0), BPS - sum(others.values(), Fraction(0)))
    shares = largest_remainder([others.get(token, rest) for token in before])
    return dict(zip(before, shares, strict=True))


def excluded_tokens(targets: EffectiveTargets, blocked: Sequence[BlockedExit]) -> set[str]:
    """Return excluded tokens: in quarantine, or with a blocked exit."""
    return {token.token for token in targets.quarantine} | {
        blocked_exit.token for blocked_exit in blocked
    }


def format_blocked_exits(step: StepInput, only: Iterable[str] | None = None) -> str:
    """Format blocked exits, of all tokens or of `only`, with reason and remedies; empty without
    any.
    """
    blocked: Sequence[BlockedExit] = step.blocked_exits
    if only is not None:
        blocked = [exit_ for exit_ in step.blocked_exits if exit_.token in {*only}]
    return "; ".join(
        format_blocked_exit(step.snapshot, step.portfolio, step.history, blocked_exit)
        for blocked_exit in blocked
    )


def format_blocked_exit(
    snapshot: Snapshot, portfolio: Portfolio, history: History, one: BlockedExit
) -> str:
    """Format one blocked exit: the order, the reason, and the remedy."""
    label, back = (
        order_subject(portfolio, one.token),
        disarm_command(portfolio, history.orders, one),
    )
    if backing_off(snapshot, history.failures, one.token):
        again = "is kept until then"
    else:
        again = "is kept and retried in each cycle"
    return (
        f"{label} is to be sold but cannot be sold now: {one.why}; "
        f"it {again}; {one.remedy}, or {back}"
    )


def disarm_command(portfolio: Portfolio, orders: OrderStates, one: BlockedExit) -> str:
    """Return the command that cancels an exit order."""
    whole = fired_exit_order(orders.states, PORTFOLIO) is not None
    return (
        "cancel the order: trimtab orders disarm"
        f" {PORTFOLIO if whole else order_subject(portfolio, one.token)}"
    )
