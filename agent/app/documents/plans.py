"""Documents of plans, their tax and their transactions: quote, plan, rebalance, swap, run."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, cast

from typing_extensions import TypedDict

from agent.accounting.tax_lots import PlannedGain, planned_gains
from agent.amm.lp.venues import LpVenue
from agent.app.describe import pool_names
from agent.app.documents import (
    Address,
    ConvertedBy,
    FromAttributes,
    Money,
    Number,
    PoolAddress,
    Raw,
    SmallMoney,
    Symbol,
    TimeText,
    TokenSymbol,
    TxHash,
    fill,
    money_text,
    one_of,
    shown,
)
from agent.app.documents.decisions import (
    BlockedExits,
    BlockNumber,
    DecisionDocument,
    ExcludedHoldings,
    Netting,
    NumeraireLabel,
    ScreenedTokens,
    TargetReasons,
    UnexplainedTransfers,
    Zone,
    decision_document,
)
from agent.app.documents.executions import OpenExecutionProgress
from agent.app.documents.futures import (
    FuturesFillDocument,
    FuturesSummaryDocument,
    HedgeComparisonDocument,
    optional_futures_summary,
    optional_hedge_comparisons,
    order_fill_documents,
)
from agent.guards.sandwich import plan_worst_case
from agent.layers import documents as layer_documents
from agent.layers.futures.state import planned_futures
from agent.layers.tax.state import TaxState
from agent.model import Collect, Portfolio, Provide, Snapshot, Withdraw
from agent.policy.cash_flows import balance_changes
from agent.reference import reference_prices
from agent.units import BPS, DAY_S, price_text

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome
    from agent.model import (
        Intent,
        LimitOrder,
        LpAction,
        Plan,
        PlanCost,
        StepInput,
    )
    from agent.planning.planner import Quote


class DisposalDocument(TypedDict):
    symbol: TokenSymbol
    raw: Raw
    proceeds: Money
    cost: Money | None
    gain: Money | None
    oldest_days: int | None
    newest_days: int | None


class PlanTaxDocument(TypedDict):
    method: str
    currency: str
    gain: Annotated[Money | None, shown(figure="money+")]
    unknown: str
    disposals: list[DisposalDocument]
    realised_this_year: Annotated[Money, FromAttributes("realised_gain")]
    year_limit: Money | None
    left_this_year: Money | None


def tax_document(step: StepInput, plan: Plan | None) -> PlanTaxDocument | None:
    """Return the document of the taxable gain of a plan; None without [tax]. A gain without tax
    lots is None, and `unknown` says why.
    """
    tax_inputs = step.layer(TaxState).inputs
    portfolio = step.portfolio
    if tax_inputs is None:
        return None
    now_s = step.snapshot.head.timestamp_s
    token_gains = tuple[PlannedGain, ...]()
    if plan is not None and plan.legs:
        price_by_token = reference_prices(step).price_by_token
        numeraire = portfolio.numeraire.address
        token_gains = planned_gains(
            plan, tax_inputs, price_by_token, numeraire, portfolio.wrapped_native, now_s
        )
    lot_ages_days = [
        [
            None if acquired_s is None else max(0, now_s - acquired_s) // DAY_S
            for acquired_s in (token_gain.oldest_acquired_s, token_gain.newest_acquired_s)
        ]
        for token_gain in token_gains
    ]
    tokens_without_lots = [
        balance_changes.token_label(step.portfolio, token_gain.token)
        for token_gain in token_gains
        if token_gain.raw_without_lot
    ]
    unknown_reason = (
        f"no tax lot covers all of the {', '.join(tokens_without_lots)} sold"
        if tokens_without_lots
        else ""
    )
    if tax_inputs.fault:
        unknown_reason = tax_inputs.fault
    elif tokens_without_lots and not tax_inputs.lots:
        unknown_reason = "no tax lots yet; the first cycle of rebalance or run opens the ledger"
    left_gain = (
        None
        if tax_inputs.year_limit is None
        else max(Fraction(0), tax_inputs.year_limit - tax_inputs.realised_gain)
    )
    return fill(
        PlanTaxDocument,
        tax_inputs,
        portfolio,
        currency=tax_inputs.currency or portfolio.numeraire.label,
        gain=None
        if unknown_reason
        else money_text(
            sum((token_gain.gain for token_gain in token_gains), Fraction(0)), portfolio
        ),
        unknown=unknown_reason,
        disposals=[
            fill(
                DisposalDocument,
                token_gain,
                portfolio,
                oldest_days=oldest_days,
                newest_days=newest_days,
                **({"cost": None, "gain": None} if token_gain.raw_without_lot else {}),
            )
            for token_gain, (oldest_days, newest_days) in zip(
                token_gains, lot_ages_days, strict=True
            )
        ],
        left_this_year=None if left_gain is None else money_text(left_gain, portfolio),
    )


LegEnd = Annotated[str, one_of("wallet", "router")]


class VerdictDocument(TypedDict):
    guard: str
    measured: Annotated[str, FromAttributes("measured_text")]
    limit: str
    passed: Annotated[bool, shown("verdict")]


class SkippedItemDocument(TypedDict):
    subject: str
    why: str


class RealisedChangeDocument(TypedDict):
    symbol: str
    planned_raw: Raw
    realised_raw: Raw


_TO_DECIMALS = ConvertedBy(lambda token, portfolio: portfolio.token(token).decimals)


class LegDocument(TypedDict):
    pool: PoolAddress
    venue: str
    token_in: Annotated[Symbol, shown("sell")]
    token_out: Annotated[Symbol, shown("buy")]
    decimals_in: Annotated[int, _TO_DECIMALS, FromAttributes("token_in")]
    decimals_out: Annotated[int, _TO_DECIMALS, FromAttributes("token_out")]
    fee_pips: int
    amount_in_raw: Annotated[Raw, shown("in")]
    amount_out_raw: Annotated[Raw, shown("out")]
    min_out_raw: Annotated[Raw, shown("at least")]
    fee_raw: Raw
    impact_bps: Annotated[int, shown("impact")]
    source: LegEnd
    sink: LegEnd


class ActionDocument(TypedDict):
    """One liquidity action; amounts by symbol as the contracts move them at this block, None if they do
    not apply.
    """

    kind: Annotated[str, one_of("withdraw", "collect", "provide")]
    position: str
    venue: Annotated[str, one_of(*LpVenue)]
    contract: Address
    token_id: Raw | None
    pool: Address
    tokens: list[str]
    liquidity: Raw | None
    ticks: list[int] | None
    amounts_raw: dict[str, Raw] | None
    desired_raw: dict[str, Raw] | None
    min_raw: dict[str, Raw] | None
    fees_raw: dict[str, Raw] | None
    gas_units: int
    reason: str


def action_document(action: LpAction, portfolio: Portfolio) -> ActionDocument:
    """Return the document of one liquidity action."""
    symbols = [portfolio.token(address).label for address in (action.token0, action.token1)]

    def by_symbol(amounts_raw: tuple[int, int]) -> dict[str, str]:
        return dict(zip(symbols, map(str, amounts_raw), strict=True))

    own_fields: dict[str, Any] = dict.fromkeys(
        ("liquidity", "ticks", "amounts_raw", "desired_raw", "min_raw", "fees_raw")
    )
    match action:
        case Withdraw():
            action_kind = "withdraw"
            own_fields |= {
                "liquidity": str(action.liquidity),
                "amounts_raw": by_symbol(action.amounts_raw),
                "min_raw": by_symbol(action.min_raw),
                "fees_raw": by_symbol(action.fees_raw),
            }
        case Collect():
            action_kind = "collect"
            own_fields["fees_raw"] = by_symbol(action.fees_raw)
        case Provide():
            action_kind = "provide"
            own_fields |= {
                "liquidity": str(action.liquidity),
                "ticks": None if action.ticks is None else list(action.ticks),
                "amounts_raw": by_symbol(action.amounts_raw),
                "desired_raw": by_symbol(action.desired_raw),
                "min_raw": by_symbol(action.min_raw),
            }
    return fill(
        ActionDocument,
        action,
        kind=action_kind,
        position=action.name,
        tokens=symbols,
        **own_fields,
    )


class CostDocument(TypedDict):
    """Cost of a plan. `funding` is given for futures orders with a funding horizon, `data_fee` on
    rollups: the part of `gas` and `approvals` beyond gas.
    """

    fees: SmallMoney
    impact: SmallMoney
    skew: SmallMoney
    gas: SmallMoney
    approvals: Annotated[SmallMoney, FromAttributes("approval_gas")]
    total: SmallMoney
    funding: NotRequired[SmallMoney]
    data_fee: NotRequired[SmallMoney]


NO_COST = CostDocument(fees="0", impact="0", skew="0", gas="0", approvals="0", total="0")


class EndpointDocument(TypedDict):
    operator: str
    state: Annotated[
        str,
        one_of("in service", "on trial", "resting", "lagging", "is rate limiting"),
        FromAttributes("circuit"),
    ]
    score: Annotated[float, ConvertedBy(lambda score, _: round(score, 4))]
    latency_ms: Annotated[
        float | None,
        ConvertedBy(lambda seconds, _: round(seconds * 1000, 1)),
        FromAttributes("latency_s"),
    ]
    rest_s: Annotated[float, ConvertedBy(lambda seconds, _: round(seconds, 1))]
    why: Annotated[str, FromAttributes("last_failure")]


class SandwichBoundsDocument(TypedDict):
    """Largest sandwich loss that the limits allow, in bps: `exchanged` of the turnover, the others
    of the portfolio. None if a limit is off.
    """

    exchanged: Annotated[int | None, FromAttributes("exchanged_loss_bps")]
    per_rebalance: Annotated[int | None, FromAttributes("per_rebalance_bps")]
    per_day: Annotated[int | None, FromAttributes("per_day_bps")]


class SandwichDocument(TypedDict):
    submission: str
    public: Annotated[bool, FromAttributes("is_public")]
    at_most: Annotated[Money | None, FromAttributes("max_loss")]
    at_most_bps: Annotated[int | None, FromAttributes("max_loss_bps")]
    profit_at_most: Annotated[Money | None, FromAttributes("max_profit")]
    by_limits_bps: Annotated[SandwichBoundsDocument, FromAttributes("exposure_under_limits")]
    text: Annotated[str, FromAttributes("exposure_under_limits.description")]


class TransactionDocument(TypedDict):
    """One transaction and its latest state; `block` and `gas_used` are -1 without a receipt.
    `data_fee_wei` is what a rollup charged beyond gas, given if it is not zero.
    """

    kind: str
    hash: TxHash
    nonce: Annotated[int, FromAttributes("tx.nonce")]
    status: Annotated[str, FromAttributes("state")]
    block: int
    gas_used: int
    gas_price_wei: Raw | None
    note: str
    data_fee_wei: NotRequired[Raw]


def transaction_document(intent: Intent) -> TransactionDocument:
    """Return the document of one transaction."""
    block = -1
    gas_used = -1
    gas_price_wei = None
    if receipt := intent.receipt:
        block = receipt.block_number
        gas_used = receipt.gas_used
        gas_price_wei = str(receipt.effective_gas_price_wei)
    transaction_fields = fill(
        TransactionDocument,
        intent,
        hash=intent.tx_hash or "",
        block=block,
        gas_used=gas_used,
        gas_price_wei=gas_price_wei,
        note=intent.note_with_reason,
    )
    if receipt and receipt.data_fee_wei:
        transaction_fields["data_fee_wei"] = str(receipt.data_fee_wei)
    return transaction_fields


SentTransactionDocument = Annotated[
    TransactionDocument, ConvertedBy(lambda intent, _: transaction_document(intent))
]
OutcomeDocument = Annotated["PlanDocument", ConvertedBy(lambda outcome, _: plan_document(outcome))]


class LimitPricesDocument(TypedDict):
    """Limit and market price, in both directions; `off_bps` is the distance of the limit from the
    market.
    """

    limit: list[str]
    market: list[str] | None
    off_bps: int | None


def limit_prices(order: LimitOrder, step: StepInput) -> LimitPricesDocument:
    """Return limit and market price, in both directions, in whole coins.

    `off_bps` is the distance of the limit from the market, positive if the limit is better than the
    market. Market prices are None if a reference price is missing.
    """
    token_in, token_out = (
        step.portfolio.token(token) for token in (order.token_in, order.token_out)
    )
    reference_by_token = reference_prices(step).reference_by_token

    def price_texts(price: Fraction) -> list[str]:
        return [
            f"{price_text(price, token_in.decimals, token_out.decimals)} {token_out.label}/{token_in.label}",
            f"{price_text(1 / price, token_out.decimals, token_in.decimals)} {token_in.label}/{token_out.label}",
        ]

    market_prices = None
    off_bps = None
    if token_in.address in reference_by_token and token_out.address in reference_by_token:
        market_price = (
            reference_by_token[token_in.address].price / reference_by_token[token_out.address].price
        )
        market_prices = price_texts(market_price)
        off_bps = round((order.price / market_price - 1) * BPS)
    return {"limit": price_texts(order.price), "market": market_prices, "off_bps": off_bps}


class LimitOrderDocument(TypedDict):
    id: str
    note: str
    until: Annotated[TimeText, FromAttributes("until_s")]
    state: Annotated[str, one_of("open", "filled", "cancelled", "expired")]
    why: str


class StepDocument(TypedDict):
    """A step and its decision; `pools` maps addresses to names."""

    step: Annotated[
        str | None, ConvertedBy(lambda step_id, _: step_id or None), FromAttributes("step_id")
    ]
    outcome: Annotated[str, FromAttributes("kind")]
    block: BlockNumber
    numeraire: NumeraireLabel
    decision: DecisionDocument
    screen: ScreenedTokens
    zone: Zone
    strategies: Netting
    gradual_execution: OpenExecutionProgress
    target_reasons: TargetReasons
    blocked_exits: BlockedExits
    excluded: ExcludedHoldings
    flows: UnexplainedTransfers
    tax: Annotated[
        PlanTaxDocument | None,
        ConvertedBy(lambda step_and_plan, _: tax_document(*step_and_plan)),
        FromAttributes("step_input", "plan"),
    ]
    pools: Annotated[
        dict[str, str],
        ConvertedBy(lambda step, _: pool_names(step.snapshot, step.portfolio)),
        FromAttributes("step_input"),
    ]


class PlanDocument(StepDocument, layer_documents.LayerPlanKeys):
    """A plan; for a hold its legs are empty and the weights unchanged. `weights_before_bps` are those
    at its block, empty if prices are unknown. `futures_actions` describes the futures orders and
    margin moves, in sending order.
    """

    legs: list[LegDocument]
    actions: Annotated[
        list[Annotated[ActionDocument, ConvertedBy(action_document)]],
        FromAttributes("layer_actions"),
    ]
    weights_before_bps: dict[str, int]
    weights_after_bps: dict[str, int]
    cost: CostDocument
    turnover: Money
    gross_volume: NotRequired[Money]
    gas_units: NotRequired[int]
    gap_bps: Number | None
    verdicts: list[VerdictDocument]
    skipped: list[SkippedItemDocument]
    expires_block: int
    native_after_wei: NotRequired[Raw | None]
    worst_case: SmallMoney | None
    reason: str
    futures: NotRequired[FuturesSummaryDocument]
    futures_actions: NotRequired[list[str]]
    comparisons: NotRequired[list[HedgeComparisonDocument]]


class RebalanceDocument(PlanDocument):
    """A plan with the transactions that carried it out, the realised changes of the wallet, and the
    filled futures orders.
    """

    transactions: list[TransactionDocument]
    realised: list[RealisedChangeDocument]
    fills: NotRequired[list[FuturesFillDocument]]


class LivePlanDocument(PlanDocument, layer_documents.LayerLivePlanKeys):
    """A plan from a live or paper step, with its transactions if sending was allowed. `book_kind`
    is set for paper trading, `booked_proposals` if the command has booked earlier proposals as
    executed.
    """

    transactions: NotRequired[list[TransactionDocument]]
    realised: NotRequired[list[RealisedChangeDocument]]
    fills: NotRequired[list[FuturesFillDocument]]
    order: NotRequired[LimitOrderDocument]
    prices: NotRequired[LimitPricesDocument]
    book_kind: NotRequired[str]
    booked_proposals: NotRequired[list[str]]
    endpoints: list[EndpointDocument]
    sandwich: SandwichDocument


class QuoteDocument(TypedDict):
    block: int
    numeraire: str
    token_in: str
    token_out: str
    amount_in_raw: Raw
    amount_out_raw: Raw
    price_impact_bps: int
    fee: Money
    legs: list[LegDocument]
    pools: dict[str, str]


def decimals_by_label(portfolio: Portfolio) -> dict[str, int]:
    """Return the decimals by label of every token that a document may name."""
    return {
        token.label: token.decimals
        for token in (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    } | {"native": 18}


def plan_document(outcome: StepOutcome) -> PlanDocument:
    """Return the document of a step's plan."""
    step = outcome.step_input
    plan = outcome.plan
    portfolio = step.portfolio
    decision_fields: DecisionDocument = {
        **decision_document(outcome.decision_result),
        "outcome": outcome.kind.value,
    }
    futures_fields = optional_futures_summary(step, outcome.decision_result.drifts)
    comparison_fields = optional_hedge_comparisons(outcome)
    weights_before_bps = {
        portfolio.token(drift.token).label: drift.weight_bps
        for drift in outcome.decision_result.drifts
    }
    step_fields = {
        **fill(StepDocument, outcome, portfolio, decision=decision_fields),
        "weights_before_bps": weights_before_bps,
        **futures_fields,
        **comparison_fields,
    }
    if (futures_plan := planned_futures(plan)) is not None:
        from agent.layers.futures.notes import futures_action_note

        step_fields["futures_actions"] = [
            futures_action_note(step, action) for action in futures_plan.actions
        ]
    if plan is None:
        fields_without_plan = {
            "legs": [],
            "actions": [],
            "weights_after_bps": weights_before_bps,
            "cost": NO_COST,
            "turnover": "0",
            "gap_bps": None,
            "verdicts": [fill(VerdictDocument, verdict) for verdict in outcome.refusal_verdicts],
            "skipped": [],
            "worst_case": None,
            "reason": outcome.reason,
            "expires_block": step.snapshot.head.number,
        }
        return cast(PlanDocument, {**step_fields, **fields_without_plan})
    worst_case = plan_worst_case(step, plan)
    # a later refusal can follow passed guards; report both
    later_verdicts = [
        verdict for verdict in outcome.refusal_verdicts if verdict not in plan.verdicts
    ]
    return fill(
        PlanDocument,
        plan,
        portfolio,
        **step_fields,
        cost=_cost_document(plan.cost, portfolio),
        weights_after_bps={
            portfolio.token(token).label: bps for token, bps in plan.weights_after_bps
        },
        gross_volume=money_text(plan.gross_volume, portfolio),
        gas_units=plan.gas_units,
        verdicts=[fill(VerdictDocument, verdict) for verdict in (*plan.verdicts, *later_verdicts)],
        **layer_documents.plan_keys(plan, portfolio),
        native_after_wei=None if plan.native_after_wei is None else str(plan.native_after_wei),
        worst_case=None if worst_case is None else money_text(worst_case, portfolio),
        reason=outcome.reason,
    )


def _cost_document(cost: PlanCost, portfolio: Portfolio) -> CostDocument:
    """Return the document of a cost; `funding` and `data_fee` only where they count."""
    cost_fields = fill(CostDocument, cost, portfolio)
    if cost.funding:
        cost_fields["funding"] = money_text(cost.funding, portfolio)
    if cost.data_fee:
        cost_fields["data_fee"] = money_text(cost.data_fee, portfolio)
    return cost_fields


def rebalance_document(
    outcome: StepOutcome, realised_changes: list[RealisedChangeDocument]
) -> RebalanceDocument:
    """Return the document of a plan with its transactions and realised changes."""
    transactions = [transaction_document(intent) for intent in outcome.transactions]
    rebalance_fields = {
        **plan_document(outcome),
        "transactions": transactions,
        "realised": realised_changes,
    }
    if order_fills := order_fill_documents(outcome):
        rebalance_fields["fills"] = order_fills
    return cast(RebalanceDocument, rebalance_fields)


def quote_document(quote: Quote, snapshot: Snapshot, portfolio: Portfolio) -> QuoteDocument:
    """Return the document of a quote."""
    return fill(
        QuoteDocument,
        quote,
        portfolio,
        block=snapshot.head.number,
        numeraire=portfolio.numeraire.label,
        token_in=portfolio.token(quote.legs[0].token_in).label,
        token_out=portfolio.token(quote.legs[-1].token_out).label,
        legs=[fill(LegDocument, leg, portfolio) for leg in quote.legs],
        pools=pool_names(snapshot, portfolio),
    )
