"""Planned against realised amounts of each swap, from the receipts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agent.execution.settlement import LegExecution, realised_legs
from agent.model import NATIVE_VENUE, Entry, Intent, IntentKind, IntentState, Plan
from agent.units import BPS, Value, decimal_text, value_text

if TYPE_CHECKING:
    from agent.accounting.export import TokenNames
    from agent.app.documents.records import ExecutionDocument, LegExecutionDocument
    from agent.model import Portfolio
    from agent.store.store import Store

UNSENT = "not sent"


def mined_or_newest_swaps(store: Store, intents: Iterable[Intent]) -> list[tuple[Plan, Intent]]:
    """Return the plans of a step's swaps with their transactions: those in a block, or else the
    newest.
    """
    swap_intents = [
        intent
        for intent in intents
        if intent.kind is IntentKind.SWAP and intent.state is not IntentState.REPLACED
    ]
    mined_or_newest_intents = [
        swap_intent for swap_intent in swap_intents if swap_intent.receipt is not None
    ] or swap_intents[-1:]
    plans_and_intents = (
        (store.journal.grant(swap_intent.id).plan, swap_intent)
        for swap_intent in mined_or_newest_intents
    )
    return [(plan, intent) for plan, intent in plans_and_intents if plan is not None]


def leg_executions(plan: Plan, intent: Intent | None) -> list[LegExecution]:
    """Return each swap of a plan with its realised amounts.

    Amounts are those of the Transfer events of its pool, or of its Swap events in a manager. If a
    pool has more or fewer of them than legs, they cannot be told apart, and the amount is unknown.
    """
    swap_legs = [leg for leg in plan.legs if leg.venue != NATIVE_VENUE]
    receipt = intent.receipt if intent is not None and intent.succeeded else None
    if receipt is None:
        return [LegExecution(leg) for leg in swap_legs]
    managed_counts = Counter(swap.pool for swap in receipt.managed_swaps)
    in_counts = Counter((transfer.token, transfer.recipient) for transfer in receipt.transfers)
    out_counts = Counter((transfer.token, transfer.sender) for transfer in receipt.transfers)
    leg_counts = Counter(leg.pool for leg in swap_legs)
    leg_in_counts = Counter((leg.token_in, leg.pool) for leg in swap_legs)
    leg_out_counts = Counter((leg.token_out, leg.pool) for leg in swap_legs)
    executions = []
    for execution in realised_legs(plan, receipt):
        leg = execution.leg
        if leg.venue == NATIVE_VENUE:
            continue
        in_key = (leg.token_in, leg.pool)
        out_key = (leg.token_out, leg.pool)
        if managed_counts[leg.pool]:
            shows_in = shows_out = managed_counts[leg.pool] == leg_counts[leg.pool]
        else:
            shows_in = in_counts[in_key] == leg_in_counts[in_key]
            shows_out = out_counts[out_key] == leg_out_counts[out_key]
        executions.append(
            LegExecution(
                leg,
                execution.in_raw if shows_in else None,
                execution.out_raw if shows_out else None,
            )
        )
    return executions


def leg_documents(
    plan: Plan, intent: Intent | None, portfolio: Portfolio, pool_names: Mapping[str, str]
) -> Iterator[LegExecutionDocument]:
    """Yield the document of each swap; `pool_names` are by address."""
    for execution in leg_executions(plan, intent):
        leg = execution.leg
        difference_share = execution.difference_share
        token_in = portfolio.token(leg.token_in)
        token_out = portfolio.token(leg.token_out)
        yield {
            "pool": leg.pool,
            "pool_name": pool_names.get(leg.pool, leg.venue),
            "state": UNSENT if intent is None else intent.state.value,
            "token_in": token_in.label,
            "token_out": token_out.label,
            "planned_in": decimal_text(leg.amount_in_raw, token_in.decimals),
            "planned_out": decimal_text(leg.amount_out_raw, token_out.decimals),
            "floor": decimal_text(leg.min_out_raw, token_out.decimals),
            "realised_in": _amount_text(execution.in_raw, token_in.decimals),
            "realised_out": _amount_text(execution.out_raw, token_out.decimals),
            "difference_bps": None
            if difference_share is None
            else round(float(difference_share * BPS), 2),
        }


def leg_sentences(legs: Sequence[LegExecutionDocument]) -> Iterator[str]:
    """Yield a sentence for each swap that was mined."""
    for leg_number, leg in enumerate(legs, 1):
        if leg["state"] not in (IntentState.MINED.value, IntentState.FINAL.value):
            continue
        amount_in = leg["realised_in"]
        amount_out = leg["realised_out"]
        difference_bps = leg["difference_bps"]
        yield (
            f"Swap {leg_number} exchanged {amount_in or 'an unknown amount of'} {leg['token_in']} for"
            f" {amount_out or 'an unknown amount of'} {leg['token_out']}"
            + ("." if difference_bps is None else f", {difference_bps:+g} bps against the plan.")
        )


def execution_document(
    plans_and_intents: Sequence[tuple[Plan, Intent]],
    entries: Iterable[Entry],
    token_names: TokenNames,
) -> ExecutionDocument | None:
    """Return the number of legs in a step's mined swaps, what they bought and sold in all, and
    their total difference from the plan at the reference prices of the `entries`, in whole coins of
    the numeraire; None if no swap was mined.
    """
    mined_swaps = [(plan, intent) for plan, intent in plans_and_intents if intent.succeeded]
    if not mined_swaps:
        return None
    executions = [
        execution for plan, intent in mined_swaps for execution in leg_executions(plan, intent)
    ]
    value_difference = _value_difference(executions, entries)
    turnover = sum((plan.turnover for plan, _ in mined_swaps), Value(0))
    unknown_leg_count = sum(not leg_execution.is_known for leg_execution in executions)
    raw_by_token: Counter[str] = Counter()
    for execution in executions:
        raw_by_token[execution.leg.token_in] -= execution.in_raw or 0
        raw_by_token[execution.leg.token_out] += execution.out_raw or 0
    return {
        "legs": len(executions),
        "unknown": unknown_leg_count,
        "amounts": None
        if unknown_leg_count
        else {
            token_names.label(token): decimal_text(raw, token_names.decimals(token))
            for token, raw in raw_by_token.items()
            if raw
        },
        "difference": None
        if value_difference is None
        else value_text(value_difference, token_names.numeraire.decimals),
        "difference_bps": (
            round(float(value_difference / turnover * BPS), 2)
            if value_difference is not None and turnover
            else None
        ),
    }


def _value_difference(executions: Sequence[LegExecution], entries: Iterable[Entry]) -> Value | None:
    """Return the value of all realised less planned amounts; None if an amount is unknown, or a
    token whose amount differs has no price.
    """
    price_by_token = {
        posting.token: posting.value / posting.raw
        for entry in entries
        for posting in entry.postings
        if posting.value is not None and posting.raw
    }
    difference_raw_by_token: Counter[str] = Counter()
    for execution in executions:
        if execution.in_raw is None or execution.out_raw is None:
            return None
        difference_raw_by_token[execution.leg.token_in] -= (
            execution.in_raw - execution.leg.amount_in_raw
        )
        difference_raw_by_token[execution.leg.token_out] += (
            execution.out_raw - execution.leg.amount_out_raw
        )
    nonzero_raw_by_token = {token: raw for token, raw in difference_raw_by_token.items() if raw}
    if not nonzero_raw_by_token.keys() <= price_by_token.keys():
        return None
    return sum(
        (raw * price_by_token[token] for token, raw in nonzero_raw_by_token.items()), Value(0)
    )


def _amount_text(amount_raw: int | None, decimals: int) -> str | None:
    return None if amount_raw is None else decimal_text(amount_raw, decimals)
