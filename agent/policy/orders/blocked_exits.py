"""Blocked exits: triggered exits that cannot be sold now are excluded, and the rest continues.

Like a quarantined asset, a blocked one counts neither in the total nor in weights and is not
traded; each cycle tries the exit again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import (
    PORTFOLIO_SUBJECT,
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
    TokenRefusal,
    WeightReallocation,
)
from agent.policy import failures, native_coin
from agent.policy.drift import drifts_if_known, investable_total
from agent.policy.orders.conditional import fired_exit_of, order_subject
from agent.reference import reference_prices
from agent.units import BPS, DAY_S, NATIVE, format_time, largest_remainder

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
BACKOFF_S = 600
MAX_BACKOFF_S = 3_600
"""Length of the first back-off after FREE_RETRIES, in seconds of chain time; it doubles with each
refusal up to the maximum. Every retry approves and revokes, which costs gas. The maximum is low,
because an attacker who moves the pool before our submission can trigger the back-off.
"""


def retry_at_s(refusal: TokenRefusal) -> int:
    """Return the chain time from which an exit refused at submission is tried again."""
    excess_refusals = refusal.refusal_count - FREE_RETRIES
    return refusal.at_s + (
        0 if excess_refusals <= 0 else min(BACKOFF_S << min(excess_refusals - 1, 16), MAX_BACKOFF_S)
    )


def backing_off_exit(snapshot: Snapshot, failures: Failures, token: str) -> BlockedExit | None:
    """Return the exit if it is backing off now. A refusal whose time is in the future, because of a
    wrong block header, does not count.
    """
    for refusal in failures.submission_refusals:
        if refusal.token == token and _backs_off(snapshot, refusal):
            backoff_reason = f"{refusal.why}; {times_text(refusal)}, so it backs off until {format_time(retry_at_s(refusal))}"
            return BlockedExit(token, backoff_reason, RETRY_REMEDY)
    return None


def _backs_off(snapshot: Snapshot, refusal: TokenRefusal) -> bool:
    return refusal.at_s <= snapshot.head.timestamp_s < retry_at_s(refusal)


def add_submission_refusal(
    snapshot: Snapshot, failures: Failures, refused_exit: BlockedExit
) -> tuple[TokenRefusal, ...]:
    """Return the refusals to store after this exit was refused at submission."""
    return add_refusal(snapshot, failures.submission_refusals, refused_exit.token, refused_exit.why)


def add_refusal(
    snapshot: Snapshot, refusals: Iterable[TokenRefusal], token: str, why: str
) -> tuple[TokenRefusal, ...]:
    """Return the refusals with a new one of this token; those less than a day apart count as
    consecutive.
    """
    now_s = snapshot.head.timestamp_s
    refusal_by_token = {refusal.token: refusal for refusal in refusals}
    previous_refusal = refusal_by_token.get(token)
    refusal_count = (
        1
        if previous_refusal is None or now_s - previous_refusal.at_s > DAY_S
        else previous_refusal.refusal_count + 1
    )
    refusal_by_token[token] = TokenRefusal(token, now_s, refusal_count, why)
    return tuple(refusal_by_token.values())


def avoids_other_tokens(history: History, direct_tokens: Collection[str], token: str) -> bool:
    """True if the exit of a token failed, so that a route without other tokens is preferred."""
    failure_count = failures.exit_failures(history, token).revert_count
    return bool(
        token in direct_tokens
        or failure_count
        or any(refusal.token == token for refusal in history.failures.submission_refusals)
    )


def may_take_direct_route(
    portfolio: Portfolio, direct_tokens: Collection[str], plan: Plan | None, token: str
) -> bool:
    """True if the plan sells the token through another one and a plan without it was not tried in
    this step.
    """
    if plan is None or not token or token in direct_tokens:
        return False
    traded_tokens = {
        leg_token for leg in plan.legs for leg_token in (leg.token_in, leg.token_out)
    } - {NATIVE}
    return not traded_tokens <= {token, portfolio.numeraire.address}


def open_submission_refusals(history: History, sold_token: str) -> tuple[TokenRefusal, ...]:
    """Return the refusals to keep after this token was sold: those of fired exits that are not
    done.
    """
    fired_tokens = fired_exit_tokens(history)
    return tuple(
        refusal
        for refusal in history.failures.submission_refusals
        if refusal.token != sold_token and {refusal.token, PORTFOLIO_SUBJECT} & fired_tokens
    )


def format_retries(
    snapshot: Snapshot, portfolio: Portfolio, history: History, reported_tokens: Iterable[str]
) -> list[str]:
    """Format the exits refused at submission that are retried, with the time, except those of the
    tokens in `reported_tokens`.
    """
    fired_tokens = fired_exit_tokens(history)
    reported_token_set = {*reported_tokens}
    retried_refusals = [
        refusal
        for refusal in history.failures.submission_refusals
        if refusal.token not in reported_token_set
        and {refusal.token, PORTFOLIO_SUBJECT} & fired_tokens
    ]
    retry_times = (
        f"from {format_time(retry_at_s(refusal))} on"
        if _backs_off(snapshot, refusal)
        else "in the next cycle"
        for refusal in retried_refusals
    )
    return [
        f"{order_subject(portfolio, refusal.token)}: {refusal.why}; {times_text(refusal)}, last at"
        f" {format_time(refusal.at_s)}; it is retried {retry_time}; {RETRY_REMEDY}, or"
        f" {disarm_command(portfolio, history.orders, refusal.token)}"
        for refusal, retry_time in zip(retried_refusals, retry_times, strict=True)
    ]


def fired_exit_tokens(history: History) -> set[str]:
    """Return the subjects of triggered exits: tokens, or PORTFOLIO_SUBJECT."""
    return {
        order.token
        for order in history.orders.states
        if order.is_exit and order.stage is OrderStage.FIRED
    }


def times_text(refusal: TokenRefusal) -> str:
    """Format the number of consecutive refusals."""
    if refusal.refusal_count == 1:
        return "once"
    return f"{refusal.refusal_count} times in a row"


def exclude_blocked_exits(step: StepInput, new_exits: Iterable[BlockedExit]) -> StepInput:
    """Return the step with these exits excluded, so that their assets keep their holdings."""
    blocked_tokens_before = {blocked_exit.token for blocked_exit in step.blocked_exits}
    new_exit_by_token = {
        new_blocked_exit.token: new_blocked_exit
        for new_blocked_exit in new_exits
        if new_blocked_exit.token not in blocked_tokens_before
    }
    if not new_exit_by_token:
        return step
    target_bps_by_token = _remaining_targets(step, {*new_exit_by_token})
    balances_raw = native_coin.held_balances(step)
    for asset in step.portfolio.assets:
        token = asset.token.address
        new_exit = new_exit_by_token.get(token)
        if new_exit is not None and token in balances_raw:
            excluded_raw = max(
                0, balances_raw[token] - native_coin.reserved_raw(step.limits, asset)
            )
            new_exit_by_token[token] = replace(new_exit, excluded_raw=excluded_raw)
    assets = tuple(
        replace(
            asset,
            reserve_raw=native_coin.full_reserve_raw(
                native_coin.held_balances(step), step.limits, asset
            ),
        )
        if asset.token.address in new_exit_by_token
        else asset
        for asset in step.portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        targets=replace(step.targets, effective_bps=tuple(target_bps_by_token.items())),
        blocked_exits=(*step.blocked_exits, *new_exit_by_token.values()),
    )


def _remaining_targets(step: StepInput, blocked_tokens: set[str]) -> dict[str, int]:
    """Return the targets of the remaining assets in bps by token.

    If the weight of exited assets is held in the numeraire, unsold exits are not part of it yet.
    The other assets therefore keep their value, and the blocked exits reduce the numeraire's share.
    """
    target_bps_before = {asset.token.address: asset.target_bps for asset in step.effective_assets}
    if step.portfolio.orders.reallocation is not WeightReallocation.CASH or step.divides_wallet:
        return target_bps_before  # redistributed already, or handled by each part of the wallet
    prices = reference_prices(step).price_by_token
    if not (drifts := drifts_if_known(step, prices)):
        return target_bps_before  # the total is unknown, so only exits are decided
    total = investable_total(drifts)
    unblocked_total = total - sum(
        (drift.investable_raw * drift.price for drift in drifts if drift.token in blocked_tokens),
        Fraction(0),
    )
    if unblocked_total <= 0:
        return target_bps_before
    numeraire = step.portfolio.numeraire.address
    other_target_bps = {
        token: weight_bps * total / unblocked_total
        for token, weight_bps in target_bps_before.items()
        if token != numeraire
    }
    numeraire_bps = max(Fraction(0), BPS - sum(other_target_bps.values(), Fraction(0)))
    new_target_bps = largest_remainder(
        [other_target_bps.get(token, numeraire_bps) for token in target_bps_before]
    )
    return dict(zip(target_bps_before, new_target_bps, strict=True))


def excluded_tokens(targets: EffectiveTargets, blocked_exits: Sequence[BlockedExit]) -> set[str]:
    """Return excluded tokens: in quarantine, or with a blocked exit."""
    return {screened_token.token for screened_token in targets.quarantined_tokens} | {
        blocked_exit.token for blocked_exit in blocked_exits
    }


def format_blocked_exits(step: StepInput, shown_tokens: Iterable[str] | None = None) -> str:
    """Format blocked exits, of all tokens or of `shown_tokens`, with reason and remedies; empty
    without any.
    """
    shown_exits: Sequence[BlockedExit] = step.blocked_exits
    if shown_tokens is not None:
        shown_exits = [
            blocked_exit
            for blocked_exit in step.blocked_exits
            if blocked_exit.token in {*shown_tokens}
        ]
    return "; ".join(
        format_blocked_exit(step.snapshot, step.portfolio, step.history, blocked_exit)
        for blocked_exit in shown_exits
    )


def format_blocked_exit(
    snapshot: Snapshot, portfolio: Portfolio, history: History, blocked_exit: BlockedExit
) -> str:
    """Format one blocked exit: the order, the reason, and the remedy."""
    subject_text = order_subject(portfolio, blocked_exit.token)
    disarm_text = disarm_command(portfolio, history.orders, blocked_exit.token)
    if backing_off_exit(snapshot, history.failures, blocked_exit.token):
        retry_text = "is kept until then"
    else:
        retry_text = "is kept and retried in each cycle"
    return (
        f"{subject_text} is to be sold but cannot be sold now: {blocked_exit.why}; "
        f"it {retry_text}; {blocked_exit.remedy}, or {disarm_text}"
    )


def disarm_command(portfolio: Portfolio, orders: OrderStates, exit_token: str) -> str:
    """Return the command that cancels an exit order."""
    sells_portfolio = fired_exit_of(orders.states, PORTFOLIO_SUBJECT) is not None
    return (
        "cancel the order: trimtab orders disarm"
        f" {PORTFOLIO_SUBJECT if sells_portfolio else order_subject(portfolio, exit_token)}"
    )
