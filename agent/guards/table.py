"""Judgement of plans by the table of guards, with `judge` and `require_all_passed`; and the guards
of payouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from agent.errors import ErrorCode, Refused
from agent.guards.case import build_guard_case
from agent.guards.guard import OFF, Guard, GuardScope, format_money
from agent.layers.guards import GUARDS
from agent.model import (
    CashFlows,
    Evidence,
    Limits,
    Payout,
    Plan,
    Portfolio,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.policy import native_coin
from agent.policy.cash_flows import transfers
from agent.reference import reference_prices
from agent.units import NATIVE, decimal_text

REMEDIES = {guard.name: guard.remedy for guard in GUARDS}
MARKET_GUARDS = frozenset(guard.name for guard in GUARDS if guard.scope is GuardScope.MARKET)
WALLET_GUARDS = frozenset(guard.name for guard in GUARDS if guard.scope is GuardScope.WALLET)


def judge(step: StepInput, plan: Plan, evidence: Evidence) -> tuple[Verdict, ...]:
    """Return the verdict of every guard. Never raises, whatever plan or chain data it gets."""
    case = build_guard_case(step, plan, evidence)
    return tuple(guard.judge(case) for guard in guards_of(plan))


class FaultKind(Enum):
    """What is wrong with a proposal."""

    LOW_MINIMUMS = "low_minimums"
    """Its minimums are lower than the limits allow at the prices now."""
    UNCHECKED_MINIMUMS = "unchecked_minimums"
    """They could not be checked."""
    NOT_ALLOWED = "not_allowed"
    """Its order has ended, or the signer's rules refuse it."""


@dataclass(frozen=True, slots=True)
class ProposalFault:
    """Why nobody should sign or execute a proposal."""

    kind: FaultKind
    reason: str

    @property
    def is_stale(self) -> bool:
        """False if its minimums could not be checked, which may pass."""
        return self.kind is not FaultKind.UNCHECKED_MINIMUMS

    @property
    def text(self) -> str:
        """Predicate of a sentence about the proposal."""
        return (
            f"is stale, {self.reason}"
            if self.is_stale
            else f"has minimums that could not be checked, {self.reason}"
        )


def judge_minimums(step: StepInput, plan: Plan) -> ProposalFault | None:
    """Return the fault of an earlier plan's minimums at the prices of this step. Never raises."""
    no_evidence = Evidence(None, "", (), (), has_quorum=False, now_s=step.snapshot.now_s)
    case = build_guard_case(step, plan, no_evidence)
    reasons = []
    is_low = False
    for guard in guards_of(plan):
        if guard.judges_minimums or guard.judges_prices:
            verdict = guard.judge(case)
            if not verdict.passed:
                reasons.append(f"{verdict.guard}: {verdict.measured_text}")
                is_low |= guard.judges_minimums and verdict.is_known
    kind = FaultKind.LOW_MINIMUMS if is_low else FaultKind.UNCHECKED_MINIMUMS
    return ProposalFault(kind, "; ".join(reasons)) if reasons else None


def guards_of(plan: Plan) -> tuple[Guard[Any], ...]:
    """Return the guards that judge a plan."""
    return tuple(guard for guard in GUARDS if guard.applies_to(plan))


def require_all_passed(plan: Plan, verdicts: Sequence[Verdict]) -> Plan:
    """Return the plan with its verdicts.

    Raises Refused, with all verdicts, unless every guard passed.
    """
    unjudged_guard_names = [
        guard.name
        for guard in guards_of(plan)
        if guard.name not in {verdict.guard for verdict in verdicts}
    ]
    if unjudged_guard_names:
        raise Refused(
            f"not judged by {', '.join(unjudged_guard_names)}",
            verdicts,
            "judge the plan before using it",
            code=ErrorCode.NOT_JUDGED,
        )
    _require_passed(verdicts, REMEDIES)
    return replace(plan, verdicts=tuple(verdicts))


def _require_passed(verdicts: Sequence[Verdict], remedies: Mapping[str, str]) -> None:
    refusing_verdicts = [verdict for verdict in verdicts if not verdict.passed]
    if refusing_verdicts:
        guards_by_text: dict[str, list[str]] = {}
        guards_by_remedy: dict[str, list[str]] = {}
        for verdict in refusing_verdicts:
            guards_by_text.setdefault(_refusal_text(verdict), []).append(verdict.guard)
            remedy = remedy_of(verdict, remedies)
            guards_by_remedy.setdefault(remedy, []).append(verdict.guard)
        message = "; ".join(f"{', '.join(names)}{text}" for text, names in guards_by_text.items())
        remedy_text = "; ".join(
            f"{', '.join(names)}: {remedy}" for remedy, names in guards_by_remedy.items()
        )
        raise Refused(f"refused: {message}", verdicts, remedy_text)


def remedy_of(verdict: Verdict, remedies: Mapping[str, str]) -> str:
    """Return the owner's remedy for a refusing guard: no higher limit where the measure is unknown."""
    remedy = remedies.get(verdict.guard, "plan again")
    if not verdict.is_known and "limits." in remedy:
        return "a higher limit does not help; see the message"
    return remedy


def _refusal_text(verdict: Verdict) -> str:
    """Describe a refusing verdict after the name of its guard; an address is not measured, and what is
    unknown has no limit.
    """
    if verdict.guard == "payout_address":
        return f": {verdict.measured_text} is not {verdict.limit}"
    if not verdict.is_known:
        return f" {verdict.measured_text}"
    return f" measured {verdict.measured_text}, limit {verdict.limit}"


# --- Guards of payouts: kill switch, confirmed address, daily cap, balance.


PAYOUT_REMEDIES = {
    "kill_switch": "find out why it was paused, then run trimtab resume",
    "payout_address": (
        "add it to wallet.payout_addresses (trimtab edit), then confirm it: trimtab trust"
    ),
    "payout_per_day": (
        "pay less, wait until earlier payouts are 24 h old, or raise limits.payout_per_day"
    ),
    "balance": "withdraw less: trimtab status shows the balances",
}
"""Remedies for the owner by guard."""


def judge_payout_permission(
    step: StepInput,
    payouts: Sequence[Payout],
    confirmed_addresses: Sequence[str],
    paused: bool = False,
) -> tuple[Verdict, ...]:
    """Return the verdicts on all payments of a request, without those on balances."""
    return (
        Verdict("kill_switch", "paused" if paused else "off", "not paused", not paused),
        _judge_addresses((payout.to for payout in payouts), confirmed_addresses),
        _judge_daily_payouts(step, payouts),
    )


def judge_payout(
    step: StepInput, payout: Payout, confirmed_addresses: Sequence[str]
) -> tuple[Verdict, ...]:
    """Return the verdict of every guard on one payment. The kill switch is read again before
    sending.
    """
    return (
        *judge_payout_permission(step, (payout,), confirmed_addresses),
        _judge_balance(step.snapshot, step.portfolio, step.limits, step.history.cash_flows, payout),
    )


def require_payout_allowed(verdicts: Sequence[Verdict]) -> None:
    """Raise Refused, with all verdicts, unless every guard passed."""
    _require_passed(verdicts, PAYOUT_REMEDIES)


def payout_remedies(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the owner's remedy for each refusing guard."""
    return tuple(remedy_of(verdict, PAYOUT_REMEDIES) for verdict in verdicts if not verdict.passed)


def require_confirmed_address(payout_address: str, confirmed_addresses: Sequence[str]) -> None:
    """Raise Refused unless the owner has confirmed this payout address."""
    require_payout_allowed((_judge_addresses((payout_address,), confirmed_addresses),))


def _judge_addresses(
    payout_addresses: Iterable[str], confirmed_addresses: Sequence[str]
) -> Verdict:
    unconfirmed_addresses = sorted(set(payout_addresses) - set(confirmed_addresses))
    limit_text = "a confirmed payout address"
    return Verdict(
        "payout_address",
        ", ".join(unconfirmed_addresses) or "confirmed",
        limit_text,
        not unconfirmed_addresses,
    )


def _judge_daily_payouts(step: StepInput, payouts: Sequence[Payout]) -> Verdict:
    guard_name = "payout_per_day"
    daily_limit_value = step.limits.payout_per_day
    numeraire = step.portfolio.numeraire
    if daily_limit_value is None:
        return Verdict(guard_name, "not measured", OFF, True)
    limit_text = format_money(daily_limit_value, numeraire)
    if step.history.budgets.unknown_reason:
        measured_text = f"unknown: {step.history.budgets.unknown_reason}"
        return Verdict(guard_name, measured_text, limit_text, passed=False, is_known=False)
    day_outflow_value = step.history.budgets.outflow_24h
    for payout in payouts:
        price = transfers.token_price(step.portfolio, reference_prices(step), payout.token)
        if price is None:
            measured_text = f"unknown: no reference price of {payout.token}"
            return Verdict(guard_name, measured_text, limit_text, passed=False, is_known=False)
        day_outflow_value += payout.raw * price
    return Verdict(
        guard_name,
        f"{format_money(day_outflow_value, numeraire)} in 24 h",
        limit_text,
        day_outflow_value <= daily_limit_value,
    )


def _judge_balance(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, cash_flows: CashFlows, payout: Payout
) -> Verdict:
    """Judge a payment against the balance less gas floor and reserve, of native and wrapped coin
    against either balance and both less their reserve. The amount reserved for its request may be
    spent.
    """
    token = portfolio.token(payout.token)
    available_raw = _available_raw(snapshot, portfolio, limits, cash_flows, payout)
    return Verdict(
        "balance",
        f"{decimal_text(payout.raw, token.decimals)} {token.label}",
        f"{decimal_text(max(0, available_raw), token.decimals)} {token.label}",
        payout.raw <= available_raw,
    )


def _available_raw(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, cash_flows: CashFlows, payout: Payout
) -> int:
    is_native = payout.token == NATIVE
    asset = portfolio.find_asset(portfolio.wrapped_native if is_native else payout.token)
    free_wei = snapshot.native_wei - native_coin.floor_wei(limits)
    if asset is None or (is_native and not asset.includes_native):
        return free_wei if is_native else 0
    claimed_raw = sum(
        claim.payment.raw
        for claim in cash_flows.reserved_payments(snapshot.nonce_latest)
        if claim.request_id == payout.request_id
        and claim.payment.token == asset.token.address
        and claim.payment.native == is_native
    )
    raw_by_token = {holding.token: holding.raw for holding in snapshot.holdings}
    token_raw = raw_by_token.get(asset.token.address, 0)
    held_raw = token_raw + (max(0, free_wei) if asset.includes_native else 0)
    reserve_raw = max(0, asset.reserve_raw - claimed_raw)
    return min(free_wei if is_native else token_raw, held_raw - reserve_raw)
