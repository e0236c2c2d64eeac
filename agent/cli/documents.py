"""The JSON documents of the commands (an interface: keys are added, never renamed). Raw amounts are decimal strings."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.cli import actions, flows, rounds, sleeves, triggers, zone
from agent.units import price_text, value_text

if TYPE_CHECKING:
    from agent.api import Standing
    from agent.api.submission import Sandwich
    from agent.execution.outcome import Outcome
    from agent.model import Intent, Leg, Plan, Portfolio, StepInput, Verdict
    from agent.planning.planner import Quote
    from agent.policy.coin import NativeView
    from agent.policy.decide import Decided

Document = dict[str, Any]


def money(value: Fraction, portfolio: Portfolio) -> str:
    """A value as a decimal string of numeraire coins."""
    return value_text(value, portfolio.numeraire.decimals)


def status(found: Standing) -> Document:
    """Holdings, weights, bands and what would be decided now."""
    step, decided = found.step_input, found.decided
    portfolio, head = step.portfolio, step.snapshot.head
    numeraire = portfolio.numeraire
    holdings = []
    for drift in decided.drifts:
        token = portfolio.token(drift.token)
        holdings.append(
            {
                "symbol": token.label,
                "address": token.address,
                "decimals": token.decimals,
                "raw": str(drift.raw),
                "lp_raw": str(drift.lp_raw),
                "amount": value_text(Fraction(drift.raw), token.decimals),
                "price": price_text(drift.price, token.decimals, numeraire.decimals),
                "value": money(drift.value, portfolio),
                "weight_bps": drift.weight_bps,
                "target_bps": drift.target_bps,
                "drift_bps": drift.drift_bps,
                "band_bps": [round(drift.band_low_bps), round(drift.band_high_bps)],
                "price_source": _source(decided, drift.token),
            }
        )
    return {
        "block": head.number,
        "block_hash": head.hash,
        "numeraire": numeraire.label,
        "total_value": money(sum((d.value for d in decided.drifts), Fraction(0)), portfolio),
        "holdings": holdings,
        "native_wei": str(step.snapshot.native_wei),
        "native": _native(found.native),
        "quarantined": [{"item": q.item, "address": q.address, "why": q.why} for q in step.snapshot.quarantined],
        "screen": screened(step),
        "warnings": list(found.warnings),
        "paused": found.paused,
        "pause_reason": found.pause_reason,
        "pause_hard": found.hard,
        "set_aside": [
            {"withdrawal": one.request, "symbol": portfolio.token(one.payment.token).label, "raw": str(one.payment.raw)}
            for one in step.history.claims
        ],
        "left_alone": flows.left_alone(step),
        "decision": decision(decided),
        "trigger": triggers.document(found.trigger),
        "least_total": found.least,
        "wishes": list(step.wishes),
        "stuck_exits": stuck_exits(decided, portfolio),
        "flows": flows.documents(step),
        "campaign": rounds.campaign(step),
        "zone": zone.document(decided.zone, portfolio),
        "strategies": sleeves.netting(decided, portfolio),
        "endpoints": list(found.endpoints),
    }


def screened(step: StepInput) -> list[Document]:
    """Tokens in quarantine: they are neither bought nor sold."""
    return [
        {
            "symbol": step.portfolio.token(one.token).label,
            "address": one.token,
            "finding": one.finding.value,
            "why": one.why,
            "remedy": one.finding.remedy,
        }
        for one in step.quarantine
    ]


def stuck_exits(decided: Decided, portfolio: Portfolio) -> list[Document]:
    """What orders that fired cannot sell now."""
    return [
        {"symbol": portfolio.token(one.token).label, "address": one.token, "why": one.why, "remedy": one.remedy} for one in decided.stuck
    ]


def _native(found: NativeView) -> Document:
    """The native coin beside its wrapped token."""
    return {
        "symbol": found.symbol,
        "counts": found.counts,
        "native_wei": str(found.native_wei),
        "wrapped_raw": None if found.wrapped_raw is None else str(found.wrapped_raw),
        "kept_wei": str(found.kept_wei),
        "top_up_wei": None if found.top_up_wei is None else str(found.top_up_wei),
    }


def sandwich(found: Sandwich, portfolio: Portfolio) -> Document:
    """What somebody who sees the transaction could take of it."""
    limits = found.by_limits
    return {
        "submission": found.submission,
        "public": found.public,
        "at_most": None if found.at_most is None else money(found.at_most, portfolio),
        "at_most_bps": found.at_most_bps,
        "profit_at_most": None if found.profit_at_most is None else money(found.profit_at_most, portfolio),
        "by_limits_bps": {
            "exchanged": limits.exchanged_bps,
            "per_rebalance": limits.per_rebalance_bps,
            "per_day": limits.per_day_bps,
        },
        "words": limits.words,
    }


def decision(decided: Decided) -> Document:
    """Kind and reason."""
    return {"kind": type(decided.decision).__name__.lower(), "reason": decided.decision.reason}


def decimals(portfolio: Portfolio) -> dict[str, int]:
    """Decimals by label of every token that a document may name."""
    return {token.label: token.decimals for token in (*(asset.token for asset in portfolio.assets), *portfolio.hubs)} | {"native": 18}


def leg(item: Leg, portfolio: Portfolio) -> Document:
    """One swap in one pool."""
    return {
        "pool": item.pool,
        "venue": item.venue,
        "token_in": portfolio.token(item.token_in).label,
        "token_out": portfolio.token(item.token_out).label,
        "fee_pips": item.fee_pips,
        "amount_in_raw": str(item.amount_in_raw),
        "amount_out_raw": str(item.amount_out_raw),
        "min_out_raw": str(item.min_out_raw),
        "fee_raw": str(item.fee_raw),
        "impact_bps": item.impact_bps,
        "source": item.source.value,
        "sink": item.sink.value,
    }


def verdict(item: Verdict) -> Document:
    """One guard's judgement."""
    return {"guard": item.guard, "measured": item.measured, "limit": item.limit, "passed": item.passed}


def plan(outcome: Outcome) -> Document:
    """A step's plan; with nothing to do the legs are empty and the weights stay."""
    from agent.api import submission, tax_words
    from agent.api.naming import pool_names

    step, found = outcome.step_input, outcome.plan
    portfolio = step.portfolio
    head: Document = {
        "step": outcome.step_id or None,
        "outcome": outcome.kind.value,
        "block": step.snapshot.head.number,
        "numeraire": portfolio.numeraire.label,
        "decision": {**decision(outcome.decided), "outcome": outcome.kind.value},
        "screen": screened(step),
        "zone": zone.document(outcome.decided.zone, portfolio),
        "strategies": sleeves.netting(outcome.decided, portfolio),
        "campaign": rounds.campaign(step),
        "wishes": list(step.wishes),
        "stuck_exits": stuck_exits(outcome.decided, portfolio),
        "left_alone": flows.left_alone(step),
        "flows": flows.documents(step),
        "tax": tax_words.document(step, found),
        "pools": pool_names(step),
    }
    if found is None:
        zero = {"fees": "0", "impact": "0", "skew": "0", "gas": "0", "approvals": "0", "total": "0"}
        weights = {portfolio.token(d.token).label: d.weight_bps for d in outcome.decided.drifts}
        rest: Document = {
            "legs": [],
            "actions": [],
            "weights_after_bps": weights,
            "cost": zero,
            "turnover": "0",
            "gap_bps": None,
            "verdicts": [verdict(item) for item in outcome.verdicts],
            "skipped": [],
            "worst_case": None,
        }
        return {**head, **rest, "reason": outcome.reason, "expires_block": step.snapshot.head.number}
    short = submission.of_plan(step, found)
    worst = None if short is None else money(found.cost.total + short, portfolio)
    document = {**head, **_planned(found, portfolio), "worst_case": worst, "reason": outcome.reason}
    # A plan's own guards all passed when something later said no; then both are told.
    document["verdicts"] += [verdict(item) for item in outcome.verdicts if item not in found.verdicts]
    return document


def _planned(found: Plan, portfolio: Portfolio) -> Document:
    cost = found.cost
    parts = {"fees": cost.fees, "impact": cost.impact, "skew": cost.skew, "gas": cost.gas, "approvals": cost.approvals, "total": cost.total}
    return {
        "legs": [leg(item, portfolio) for item in found.legs],
        "actions": [actions.document(item, portfolio) for item in found.actions],
        "weights_after_bps": {portfolio.token(token).label: bps for token, bps in found.weights_after_bps},
        "cost": {name: money(value, portfolio) for name, value in parts.items()},
        "turnover": money(found.turnover, portfolio),
        "gross_volume": money(found.gross_volume, portfolio),
        "gas_units": found.gas_units,
        "gap_bps": None if found.gap_bps is None else float(found.gap_bps),
        "verdicts": [verdict(item) for item in found.verdicts],
        "skipped": [{"what": item.what, "why": item.why} for item in found.skipped],
        "pacing": rounds.pacing(found.pacing, portfolio),
        "expires_block": found.expires_block,
        "native_after_wei": None if found.native_after_wei is None else str(found.native_after_wei),
    }


def transaction(intent: Intent) -> Document:
    """One transaction as it ended."""
    receipt = intent.receipt
    return {
        "kind": intent.kind.value,
        "hash": intent.tx_hash or "",
        "nonce": intent.tx.nonce,
        "status": intent.state.value,
        "block": receipt.block_number if receipt else -1,
        "gas_used": receipt.gas_used if receipt else -1,
        "gas_price_wei": str(receipt.effective_gas_price_wei) if receipt else None,
        "note": intent.note,
    }


def rebalance(outcome: Outcome, realised: list[Document]) -> Document:
    """The plan with what was sent and what came of it."""
    document = plan(outcome)
    document["transactions"] = [transaction(intent) for intent in outcome.transactions]
    document["realised"] = realised
    return document


def quote(found: Quote, step: StepInput) -> Document:
    """What a swap would pay."""
    from agent.api.naming import pool_names

    portfolio = step.portfolio
    token_in, token_out = found.legs[0].token_in, found.legs[-1].token_out
    return {
        "block": step.snapshot.head.number,
        "numeraire": portfolio.numeraire.label,
        "token_in": portfolio.token(token_in).label,
        "token_out": portfolio.token(token_out).label,
        "amount_in_raw": str(found.amount_in_raw),
        "amount_out_raw": str(found.amount_out_raw),
        "price_impact_bps": found.price_impact_bps,
        "fee": money(found.fee, portfolio),
        "legs": [leg(item, portfolio) for item in found.legs],
        "pools": pool_names(step),
    }


def _source(decided: Decided, token: str) -> str | None:
    found = decided.references.prices.get(token)
    return None if found is None else found.source.value
