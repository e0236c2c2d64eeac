"""JSON documents of the commands (an interface: keys are added, never renamed). Raw amounts are decimal strings."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.cli.display.output import cell
from agent.units import BPS, decimal_text, price_text, value_text

if TYPE_CHECKING:
    from rich.console import Console

    from agent.app import PortfolioStatus
    from agent.app.describe import Sandwich, TriggerView
    from agent.cli.display.tables import FigureTable
    from agent.execution.step_context import StepOutcome
    from agent.model import (
        ExecutionProgress,
        Intent,
        Leg,
        LpAction,
        Plan,
        Portfolio,
        RiskCostTradeoff,
        SlicingComparison,
        StepInput,
        Verdict,
    )
    from agent.planning.planner import Quote
    from agent.policy.decide import DecisionResult
    from agent.policy.native_coin import NativeView
    from agent.policy.triggers.no_trade_zone import ZoneView


# --- Liquidity actions of a plan: as documents and as a table.


Document = dict[str, Any]


def action_document(action: LpAction, portfolio: Portfolio) -> Document:
    """One liquidity action. Amounts by symbol are base units as decimal strings, as the contracts move them at this block.

    `kind` is "withdraw", "collect" or "provide"; `min_raw`, `desired_raw`, `liquidity` and `ticks` are None if they do not apply.
    """
    symbols = [portfolio.token(address).label for address in (action.token0, action.token1)]

    def pair(name: str) -> dict[str, str] | None:
        raw = getattr(action, name, None)
        return None if raw is None else {symbol: str(amount) for symbol, amount in zip(symbols, raw, strict=True)}

    liquidity, ticks = getattr(action, "liquidity", None), getattr(action, "ticks", None)
    return {
        "kind": type(action).__name__.lower(),
        "position": action.name,
        "venue": action.venue,
        "contract": action.contract,
        "token_id": None if action.token_id is None else str(action.token_id),
        "pool": action.pool,
        "tokens": symbols,
        "liquidity": None if liquidity is None else str(liquidity),
        "ticks": None if ticks is None else list(ticks),
        "amounts_raw": pair("amounts_raw"),
        "desired_raw": pair("desired_raw"),
        "min_raw": pair("min_raw"),
        "fees_raw": pair("fees_raw"),
        "gas_units": action.gas_units,
        "reason": action.reason,
    }


def actions_table(found: list[Document], decimals: dict[str, int]) -> FigureTable:
    """Each liquidity action with its amounts and minimums."""
    from agent.cli.display import tables

    made = tables.table("Liquidity, one transaction each", ("", "position", "token", "why"), ("amount", "at least", "fees"),
                        order=("", "position", "token", "amount", "at least", "fees", "why"))  # fmt: skip
    for item in found:
        for number, symbol in enumerate(item["tokens"]):
            first = number == 0
            made.add_row(
                cell(item["kind"] if first else ""),
                cell(item["position"] if first else ""),
                cell(symbol),
                *(_amount(item[name], symbol, decimals) for name in ("amounts_raw", "min_raw", "fees_raw")),
                cell(item["reason"] if first else ""),
            )
    return made


def _amount(raw: dict[str, str] | None, symbol: str, decimals: dict[str, int]) -> str:
    from agent.cli.display import tables

    return "" if raw is None else tables.brief(decimal_text(int(raw[symbol]), decimals[symbol]))


# --- The cost-aware zone as a document: cost of risk, the interval of each asset, and the plan's trade-off.


ZONE_PARTS = ("fees", "impact", "skew", "gas", "approvals")


def zone_document(found: ZoneView | None, portfolio: Portfolio) -> Document | None:
    """Document of the no-trade zone; None without one.

    Values in the numeraire, edges in bps of the portfolio, marginal figures in bps of the traded value.
    """
    if found is None:
        return None

    def money(value: Fraction) -> str:
        return value_text(value, portfolio.numeraire.decimals)

    def weighed(saving: RiskCostTradeoff) -> Document:
        parts = {name: money(getattr(saving, name)) for name in ZONE_PARTS}
        return {"saved_risk": money(saving.saved), "cost": money(saving.cost), **parts, "worth_it": saving.worth_it}

    pair = found.pair
    return {
        "risk": money(found.risk),
        "horizon_s": found.horizon_s,
        "swap_gas": money(found.gas),
        "measured": found.measured or None,
        "pair": None
        if pair is None
        else {
            "sell": portfolio.token(pair.source).label,
            "buy": portfolio.token(pair.target).label,
            "saves_bps": decimal_text(round(pair.saves * BPS * 100), 2),
            "costs_bps": decimal_text(round(pair.costs * BPS * 100), 2),
        },
        "assets": [
            {
                "symbol": portfolio.token(item.token).label,
                "no_trade_bps": [round(item.low * BPS), round(item.high * BPS)],
                "trigger_bps": [round(item.trigger_low * BPS), round(item.trigger_high * BPS)],
            }
            for item in found.intervals
        ],
        "plan": None if found.saving is None else weighed(found.saving),
    }


# --- The trigger as a document and as a line: bands, sides, next review.


def trigger_document(found: TriggerView) -> Document:
    """The trigger as text; `next_s` is the next due time of a schedule (unix seconds; null: any cycle may act)."""
    return {
        "words": found.words,
        "bands": found.bands,
        "only": None if found.only is None else found.only.value,
        "only_words": found.only_words,
        "destination": found.destination.value,
        "cooldown_s": found.cooldown_s,
        "next_s": found.next_s,
        "next": found.next,
    }


# --- Gradual execution: as documents, and the cost of slices as a table.


SLICE_PARTS = ("moved", "fees", "impact", "skew", "gas", "waiting", "rest", "total")


def slicing_document(found: SlicingComparison | None, portfolio: Portfolio) -> Document | None:
    """Cost of each number of slices, and the chosen one; None if nothing was compared. Values in the numeraire."""
    if found is None:
        return None
    decimals = portfolio.numeraire.decimals
    options = [
        {"rounds": option.rounds, **{part: value_text(getattr(option, part), decimals) for part in SLICE_PARTS}} for option in found.options
    ]
    return {"chosen": found.chosen, "why": found.why, "options": options}


def execution_document(step: StepInput) -> Document | None:
    """The gradual execution under way when a step began; None without one. Values in the numeraire, at its initial prices."""
    return None if step.history.campaign is None else progress_document(step.history.campaign, step.portfolio)


def progress_document(under: ExecutionProgress, portfolio: Portfolio) -> Document:
    """Progress of a gradual execution."""
    begun, decimals = under.campaign, portfolio.numeraire.decimals
    return {
        "id": under.id,
        "style": begun.pace.style.value,
        "purchase": None if begun.purchase is None else begun.purchase.value,
        "began": _utc(begun.began_s),
        "expires": _utc(begun.expires_s),
        "rounds_done": under.done,
        "rounds_about": begun.rounds,
        "next": _utc(under.next_s),
        "wish": value_text(begun.wish, decimals),
        "moved": value_text(under.moved, decimals),
        "spent": value_text(under.spent, decimals),
        "budget": None if begun.budget is None else value_text(begun.budget, decimals),
    }


def show_execution(console: Console, document: Document) -> None:
    """Print the progress of a gradual execution, and the cost of slices; nothing without either."""
    if document.get("campaign") is not None:
        console.print(cell(format_execution(document["campaign"], document["numeraire"])))
    if document.get("pacing") is not None:
        console.print(slices_table(document["pacing"], document["numeraire"]))


def slices_table(found: Document, numeraire: str) -> FigureTable:
    """Comparison of slices, a row for each number of them."""
    from agent.cli.display.tables import money
    from agent.cli.display.tables import table as empty

    made = empty(f"Rounds against one, in {numeraire}: {found['why']}", (), ("rounds", *SLICE_PARTS))
    for option in found["options"]:
        chosen = option["rounds"] == found["chosen"]
        figures = [str(option["rounds"]), *(money(option[part]) for part in SLICE_PARTS)]
        made.add_row(*(cell(text, "bold" if chosen else "") for text in figures))
    return made


def executions_table(found: list[Document]) -> FigureTable:
    """Gradual executions, with progress or end of each."""
    from agent.cli.display.tables import table as empty

    made = empty("Corrections over time", ("id", "style", "began", "next", "state"), ("rounds",))
    for item in found:
        done, state = f"{item['rounds_done']} of ~{item['rounds_about']}", f"{item['state']}: {item['why']}".rstrip(": ")
        made.add_row(cell(item["id"]), item["style"], item["began"], item["next"] or "", cell(state), done)
    return made


def format_execution(found: Document, numeraire: str) -> str:
    """Describe the progress of a gradual execution in one sentence."""
    if found["purchase"] is not None:
        parts = max(found["rounds_about"], found["rounds_done"] + 1)
        bought = f"{found['moved']} of {found['wish']} {numeraire} moved"
        return f"{found['purchase'].capitalize()}: {found['rounds_done']} of {parts} parts done, {bought}; next at {found['next']} UTC"
    budget = "no budget" if found["budget"] is None else f"a budget of {found['budget']}"
    return (
        f"Under way since {found['began']}: {found['style']}, {found['rounds_done']} of about {found['rounds_about']} rounds done, "
        f"{found['moved']} of {found['wish']} {numeraire} moved, {found['spent']} lost against the prices at its start of {budget}; "
        f"next {found['next']}, over {found['expires']}"
    )


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def money(value: Fraction, portfolio: Portfolio) -> str:
    """A value as a decimal string of numeraire coins."""
    return value_text(value, portfolio.numeraire.decimals)


def status(found: PortfolioStatus) -> Document:
    """Holdings, weights, bands and the present decision."""
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
        "screen": quarantined_tokens(step),
        "warnings": list(found.warnings),
        "paused": found.paused,
        "pause_reason": found.pause_reason,
        "pause_hard": found.hard,
        "set_aside": [
            {"withdrawal": one.request, "symbol": portfolio.token(one.payment.token).label, "raw": str(one.payment.raw)}
            for one in step.history.claims
        ],
        "left_alone": excluded_holdings(step),
        "decision": decision(decided),
        "trigger": trigger_document(found.trigger),
        "least_total": found.least,
        "wishes": list(step.wishes),
        "stuck_exits": blocked_exits(decided, portfolio),
        "flows": transfer_documents(step),
        "campaign": execution_document(step),
        "zone": zone_document(decided.zone, portfolio),
        "strategies": netting(decided, portfolio),
        "endpoints": list(found.endpoints),
    }


def quarantined_tokens(step: StepInput) -> list[Document]:
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


def blocked_exits(decided: DecisionResult, portfolio: Portfolio) -> list[Document]:
    """Tokens of fired orders that cannot be sold now."""
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
    """Sandwich exposure of the transaction."""
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


def decision(decided: DecisionResult) -> Document:
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
    """One guard's verdict."""
    return {"guard": item.guard, "measured": item.measured, "limit": item.limit, "passed": item.passed}


def plan(outcome: StepOutcome) -> Document:
    """A step's plan; with nothing to do the legs are empty and the weights stay."""
    from agent.app import describe
    from agent.app.pool_names import pool_names

    step, found = outcome.step_input, outcome.plan
    portfolio = step.portfolio
    head: Document = {
        "step": outcome.step_id or None,
        "outcome": outcome.kind.value,
        "block": step.snapshot.head.number,
        "numeraire": portfolio.numeraire.label,
        "decision": {**decision(outcome.decided), "outcome": outcome.kind.value},
        "screen": quarantined_tokens(step),
        "zone": zone_document(outcome.decided.zone, portfolio),
        "strategies": netting(outcome.decided, portfolio),
        "campaign": execution_document(step),
        "wishes": list(step.wishes),
        "stuck_exits": blocked_exits(outcome.decided, portfolio),
        "left_alone": excluded_holdings(step),
        "flows": transfer_documents(step),
        "tax": describe.tax_document(step, found),
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
    short = describe.plan_sandwich_loss(step, found)
    worst = None if short is None else money(found.cost.total + short, portfolio)
    document = {**head, **_planned(found, portfolio), "worst_case": worst, "reason": outcome.reason}
    # A later refusal follows passed guards; then both are reported.
    document["verdicts"] += [verdict(item) for item in outcome.verdicts if item not in found.verdicts]
    return document


def _planned(found: Plan, portfolio: Portfolio) -> Document:
    cost = found.cost
    parts = {"fees": cost.fees, "impact": cost.impact, "skew": cost.skew, "gas": cost.gas, "approvals": cost.approvals, "total": cost.total}
    return {
        "legs": [leg(item, portfolio) for item in found.legs],
        "actions": [action_document(item, portfolio) for item in found.actions],
        "weights_after_bps": {portfolio.token(token).label: bps for token, bps in found.weights_after_bps},
        "cost": {name: money(value, portfolio) for name, value in parts.items()},
        "turnover": money(found.turnover, portfolio),
        "gross_volume": money(found.gross_volume, portfolio),
        "gas_units": found.gas_units,
        "gap_bps": None if found.gap_bps is None else float(found.gap_bps),
        "verdicts": [verdict(item) for item in found.verdicts],
        "skipped": [{"what": item.what, "why": item.why} for item in found.skipped],
        "pacing": slicing_document(found.pacing, portfolio),
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


def rebalance(outcome: StepOutcome, realised: list[Document]) -> Document:
    """The plan with its transactions and realised changes."""
    document = plan(outcome)
    document["transactions"] = [transaction(intent) for intent in outcome.transactions]
    document["realised"] = realised
    return document


def quote(found: Quote, step: StepInput) -> Document:
    """Proceeds of a swap."""
    from agent.app.pool_names import pool_names

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


def _source(decided: DecisionResult, token: str) -> str | None:
    found = decided.references.prices.get(token)
    return None if found is None else found.source.value


def transfer_documents(step: StepInput) -> list[Document]:
    """Unexplained balance changes, as documents."""
    from agent.app import describe

    return [describe.transfer_document(step, flow) for flow in step.history.flows]


def excluded_holdings(step: StepInput) -> list[Document]:
    """Holdings that are not part of the portfolio now, each with the reason."""
    from agent.app import describe

    return describe.excluded_holdings(step)


def netting(decided: DecisionResult, portfolio: Portfolio) -> Document | None:
    """Acting strategies, internal netting and its savings; None for a single strategy."""
    if decided.sleeves is None:
        return None
    from agent.app import describe

    return describe.netting_document(decided.sleeves, portfolio)
