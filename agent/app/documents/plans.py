"""Documents of plans and their transactions: quote, plan, rebalance, swap, run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, cast

from typing_extensions import TypedDict

from agent.app.describe import pool_names
from agent.app.documents import (
    Address,
    ConvertedBy,
    Money,
    Number,
    Of,
    Raw,
    Symbol,
    Time,
    TxHash,
    fill,
    money,
    one_of,
)
from agent.app.documents.futures import (
    FuturesFillDocument,
    FuturesSummaryDocument,
    HedgeComparisonDocument,
    fills,
    optional_comparisons,
    optional_summary,
)
from agent.app.documents.steps import (
    Block,
    BlockedExits,
    DecisionDocument,
    Excluded,
    Netting,
    Numeraire,
    PlanTaxDocument,
    Progress,
    Screened,
    TargetReasons,
    Transfers,
    Zone,
    decision,
    tax_document,
)

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.execution.step_context import StepOutcome
    from agent.model import Intent, LpAction, PlanCost, Portfolio, StepInput
    from agent.planning.planner import Quote

End = Annotated[str, one_of("wallet", "router")]

VerdictDocument = TypedDict(
    "VerdictDocument", {"guard": str, "measured": str, "limit": str, "passed": bool}
)
SkippedDocument = TypedDict("SkippedDocument", {"what": str, "why": str})
RealisedDocument = TypedDict(
    "RealisedDocument", {"symbol": str, "planned_raw": Raw, "realised_raw": Raw}
)
LegDocument = TypedDict("LegDocument", {
    "pool": Address, "venue": str, "token_in": Symbol, "token_out": Symbol, "fee_pips": int,
    "amount_in_raw": Raw, "amount_out_raw": Raw, "min_out_raw": Raw, "fee_raw": Raw,
    "impact_bps": int, "source": End, "sink": End,
})  # fmt: skip
ActionDocument = TypedDict("ActionDocument", {
    "kind": Annotated[str, one_of("withdraw", "collect", "provide")], "position": str,
    "venue": Annotated[str, one_of("uniswap_v2", "uniswap_v3")], "contract": Address,
    "token_id": Raw | None, "pool": Address, "tokens": list[str], "liquidity": Raw | None,
    "ticks": list[int] | None, "amounts_raw": dict[str, Raw] | None,
    "desired_raw": dict[str, Raw] | None, "min_raw": dict[str, Raw] | None,
    "fees_raw": dict[str, Raw] | None, "gas_units": int, "reason": str,
})  # fmt: skip
"""One liquidity action; amounts by symbol as the contracts move them at this block, None if they do
not apply."""


def action_document(action: LpAction, portfolio: Portfolio) -> ActionDocument:
    """Document of one liquidity action."""
    symbols = [portfolio.token(address).label for address in (action.token0, action.token1)]
    given: dict[str, Any] = {}
    for name in ("amounts_raw", "desired_raw", "min_raw", "fees_raw"):
        given[name] = None
        if (raw := getattr(action, name, None)) is not None:
            given[name] = {symbol: str(amount) for symbol, amount in zip(symbols, raw, strict=True)}
    liquidity, ticks = getattr(action, "liquidity", None), getattr(action, "ticks", None)
    given["liquidity"] = None if liquidity is None else str(liquidity)
    given["ticks"] = None if ticks is None else list(ticks)
    kind = type(action).__name__.lower()
    return fill(ActionDocument, action, kind=kind, position=action.name, tokens=symbols, **given)


CostDocument = TypedDict("CostDocument", {
    "fees": Money, "impact": Money, "skew": Money, "gas": Money, "approvals": Money, "total": Money,
    "funding": NotRequired[Money],
})  # fmt: skip
"""Cost of a plan. `funding` is given for futures orders with a funding horizon."""
NO_COST = CostDocument(fees="0", impact="0", skew="0", gas="0", approvals="0", total="0")

SliceDocument = TypedDict("SliceDocument", {
    "rounds": int, "moved": Money, "fees": Money, "impact": Money, "skew": Money, "gas": Money,
    "waiting": Money, "rest": Money, "total": Money,
})  # fmt: skip


class EndpointDocument(TypedDict):
    operator: str
    state: Annotated[
        str,
        one_of("in service", "on trial", "resting", "lagging", "is rate limiting"),
        Of("circuit"),
    ]
    score: Annotated[float, ConvertedBy(lambda score, _: round(score, 4))]
    latency_ms: Annotated[
        float | None, ConvertedBy(lambda seconds, _: round(seconds * 1000, 1)), Of("latency_s")
    ]
    rest_s: Annotated[float, ConvertedBy(lambda seconds, _: round(seconds, 1))]
    why: str


class ExposureDocument(TypedDict):
    """Largest sandwich loss that the limits allow, in bps: `exchanged` of turnover, the others of
    the portfolio. None if a limit is off.
    """

    exchanged: Annotated[int | None, Of("exchanged_bps")]
    per_rebalance: Annotated[int | None, Of("per_rebalance_bps")]
    per_day: Annotated[int | None, Of("per_day_bps")]


SandwichDocument = TypedDict("SandwichDocument", {
    "submission": str, "public": bool, "at_most": Money | None, "at_most_bps": int | None,
    "profit_at_most": Money | None, "by_limits_bps": Annotated[ExposureDocument, Of("by_limits")],
    "words": Annotated[str, Of("by_limits.words")],
})  # fmt: skip
TransactionDocument = TypedDict("TransactionDocument", {
    "kind": str, "hash": TxHash, "nonce": Annotated[int, Of("tx.nonce")],
    "status": Annotated[str, Of("state")], "block": int, "gas_used": int,
    "gas_price_wei": Raw | None, "note": str,
})  # fmt: skip
"""One transaction and its latest state; `block` and `gas_used` are -1 without a receipt."""


def transaction(intent: Intent) -> TransactionDocument:
    """Document of one transaction."""
    receipt = intent.receipt
    return fill(
        TransactionDocument,
        intent,
        hash=intent.tx_hash or "",
        block=receipt.block_number if receipt else -1,
        gas_used=receipt.gas_used if receipt else -1,
        gas_price_wei=str(receipt.effective_gas_price_wei) if receipt else None,
    )


SentDocument = Annotated[TransactionDocument, ConvertedBy(lambda intent, _: transaction(intent))]
OutcomeDocument = Annotated["PlanDocument", ConvertedBy(lambda outcome, _: plan(outcome))]

LimitPricesDocument = TypedDict("LimitPricesDocument", {
    "limit": list[str], "market": list[str] | None, "off_bps": int | None,
})  # fmt: skip
"""Limit and market price, in both directions; `off_bps` is the distance of the limit from the
market.
"""


class LimitOrderDocument(TypedDict):
    id: str
    what: Annotated[str, Of("note")]
    until: Annotated[Time, Of("until_s")]
    state: Annotated[str, one_of("open", "filled", "cancelled", "expired")]
    why: str


class StepDocument(TypedDict):
    """A step and its decision; `pools` maps addresses to names."""

    step: Annotated[str | None, ConvertedBy(lambda step_id, _: step_id or None), Of("step_id")]
    outcome: Annotated[str, Of("kind")]
    block: Block
    numeraire: Numeraire
    decision: DecisionDocument
    screen: Screened
    zone: Zone
    strategies: Netting
    campaign: Progress
    wishes: TargetReasons
    stuck_exits: BlockedExits
    left_alone: Excluded
    flows: Transfers
    tax: Annotated[
        PlanTaxDocument | None,
        ConvertedBy(lambda pair, _: tax_document(*pair)),
        Of("step_input", "plan"),
    ]
    pools: Annotated[
        dict[str, str], ConvertedBy(lambda step, _: pool_names(step)), Of("step_input")
    ]


class PlanDocument(StepDocument):
    """A plan; for a hold its legs are empty and the weights unchanged. `futures_actions` describes
    the futures orders and margin moves, in sending order.
    """

    legs: list[LegDocument]
    actions: list[Annotated[ActionDocument, ConvertedBy(action_document)]]
    weights_after_bps: dict[str, int]
    cost: CostDocument
    turnover: Money
    gross_volume: NotRequired[Money]
    gas_units: NotRequired[int]
    gap_bps: Number | None
    verdicts: list[VerdictDocument]
    skipped: list[SkippedDocument]
    pacing: NotRequired[SlicingDocument | None]
    expires_block: int
    native_after_wei: NotRequired[Raw | None]
    worst_case: Money | None
    reason: str
    futures: NotRequired[FuturesSummaryDocument]
    futures_actions: NotRequired[list[str]]
    comparisons: NotRequired[list[HedgeComparisonDocument]]


class RebalanceDocument(PlanDocument):
    """A plan with the transactions that carried it out, the realised changes of the wallet, and the
    filled futures orders.
    """

    transactions: list[TransactionDocument]
    realised: list[RealisedDocument]
    fills: NotRequired[list[FuturesFillDocument]]


class LivePlanDocument(PlanDocument):
    """A plan from a live or paper step, with its transactions if sending was allowed. `books` is
    set for paper trading.
    """

    transactions: NotRequired[list[TransactionDocument]]
    realised: NotRequired[list[RealisedDocument]]
    fills: NotRequired[list[FuturesFillDocument]]
    order: NotRequired[LimitOrderDocument]
    prices: NotRequired[LimitPricesDocument]
    books: NotRequired[str]
    endpoints: list[EndpointDocument]
    sandwich: SandwichDocument


QuoteDocument = TypedDict("QuoteDocument", {
    "block": int, "numeraire": str, "token_in": str, "token_out": str, "amount_in_raw": Raw,
    "amount_out_raw": Raw, "price_impact_bps": int, "fee": Money, "legs": list[LegDocument],
    "pools": dict[str, str],
})  # fmt: skip


def decimals(portfolio: Portfolio) -> dict[str, int]:
    """Return the decimals by label of every token that a document may name."""
    return {
        token.label: token.decimals
        for token in (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    } | {"native": 18}


def plan(outcome: StepOutcome) -> PlanDocument:
    """Document of a step's plan."""
    from agent.app import describe

    step, found = outcome.step_input, outcome.plan
    portfolio = step.portfolio
    decided: DecisionDocument = {**decision(outcome.decided), "outcome": outcome.kind.value}
    futures = optional_summary(step, outcome.decided.drifts)
    parts = optional_comparisons(outcome)
    head = {**fill(StepDocument, outcome, portfolio, decision=decided), **futures, **parts}
    if found is not None and found.futures is not None:
        from agent.venues.allowances import futures_note

        head["futures_actions"] = [futures_note(step, one) for one in found.futures.actions]
    if found is None:
        held = {
            "legs": [],
            "actions": [],
            "weights_after_bps": {
                portfolio.token(d.token).label: d.weight_bps for d in outcome.decided.drifts
            },
            "cost": NO_COST,
            "turnover": "0",
            "gap_bps": None,
            "verdicts": [fill(VerdictDocument, item) for item in outcome.verdicts],
            "skipped": [],
            "worst_case": None,
            "reason": outcome.reason,
            "expires_block": step.snapshot.head.number,
        }
        return cast(PlanDocument, {**head, **held})
    short = describe.plan_sandwich_loss(step, found)
    # a later refusal can follow passed guards; report both
    later = [item for item in outcome.verdicts if item not in found.verdicts]
    return fill(
        PlanDocument,
        found,
        portfolio,
        **head,
        cost=_cost(found.cost, portfolio),
        weights_after_bps={
            portfolio.token(token).label: bps for token, bps in found.weights_after_bps
        },
        gross_volume=money(found.gross_volume, portfolio),
        gas_units=found.gas_units,
        verdicts=[fill(VerdictDocument, item) for item in (*found.verdicts, *later)],
        pacing=None if found.pacing is None else fill(SlicingDocument, found.pacing, portfolio),
        native_after_wei=None if found.native_after_wei is None else str(found.native_after_wei),
        worst_case=None if short is None else money(found.cost.total + short, portfolio),
        reason=outcome.reason,
    )


def _cost(cost: PlanCost, portfolio: Portfolio) -> CostDocument:
    """Document of a cost; `funding` only where it counts."""
    document = fill(CostDocument, cost, portfolio)
    if cost.funding:
        document["funding"] = money(cost.funding, portfolio)
    return document


def rebalance(outcome: StepOutcome, realised: list[RealisedDocument]) -> RebalanceDocument:
    """Document of a plan with its transactions and realised changes."""
    sent = [transaction(intent) for intent in outcome.transactions]
    document = {**plan(outcome), "transactions": sent, "realised": realised}
    if filled := fills(outcome):
        document["fills"] = filled
    return cast(RebalanceDocument, document)


def live_plan(
    outcome: StepOutcome, agent: Agent, *, sent: bool, extra: Mapping[str, object]
) -> LivePlanDocument:
    """Document of an outcome, with its transactions if sending was allowed."""
    found = rebalance(outcome, agent.realised(outcome)) if sent else plan(outcome)
    document = cast(LivePlanDocument, {**found, **extra})
    if agent.on_paper:
        document["books"] = "paper"
    if sent and outcome.after is not None:
        document["weights_after_bps"] = agent.weights(outcome.after)
    document["endpoints"] = list(agent.endpoints())
    document["sandwich"] = fill(SandwichDocument, agent.sandwich(outcome), agent.portfolio)
    return document


def quote(found: Quote, step: StepInput) -> QuoteDocument:
    """Document of a quote."""
    portfolio = step.portfolio
    return fill(
        QuoteDocument,
        found,
        portfolio,
        block=step.snapshot.head.number,
        numeraire=portfolio.numeraire.label,
        token_in=portfolio.token(found.legs[0].token_in).label,
        token_out=portfolio.token(found.legs[-1].token_out).label,
        legs=[fill(LegDocument, item, portfolio) for item in found.legs],
        pools=pool_names(step),
    )


SlicingDocument = TypedDict(
    "SlicingDocument", {"chosen": int, "why": str, "options": list[SliceDocument]}
)
