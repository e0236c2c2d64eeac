"""Documents of a step's decision: zone, quarantine, blocked exits, transfers, netting."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    ConvertedBy,
    DecimalText,
    FromAttributes,
    Money,
    Raw,
    SmallMoney,
    StartDate,
    Symbol,
    TokenAddress,
    TokenSymbol,
    fill,
    money_text,
    one_of,
    shown,
)
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.model import Halt, Hold, Portfolio, decision_name
from agent.policy.cash_flows import balance_changes, cash_limit
from agent.units import BPS, decimal_text

if TYPE_CHECKING:
    from agent.layers.strategies.policy.netting import NettingResult
    from agent.model import (
        ExternalTransfer,
        StepInput,
    )
    from agent.policy.decision import DecisionResult


def bps_text(share: Fraction) -> str:
    """Return a share in bps, with two decimals at most."""
    return decimal_text(round(share * BPS * 100), 2)


BpsText = Annotated[
    DecimalText, shown(figure="percent"), ConvertedBy(lambda share, _: bps_text(share))
]
TO_EDGES_BPS = ConvertedBy(lambda edges, _: [round(edge * BPS) for edge in edges])


class TradeoffDocument(TypedDict):
    saved_risk: SmallMoney
    cost: SmallMoney
    fees: Money
    impact: Money
    skew: Money
    gas: Money
    approvals: Annotated[Money, FromAttributes("approval_gas")]
    tax: Money
    covers_cost: bool


class ZonePairDocument(TypedDict):
    """The pair whose trade saves the most, in bps of the traded value."""

    sell: Annotated[Symbol, FromAttributes("source")]
    buy: Annotated[Symbol, FromAttributes("target")]
    saving_bps: Annotated[BpsText, FromAttributes("unit_saving")]
    cost_bps: Annotated[BpsText, FromAttributes("unit_cost")]


class CorrectionDocument(TypedDict):
    """Cost of trading an asset back now, and of a year at its present weight."""

    cost: Money
    waiting_year: Money


class ZoneAssetDocument(TypedDict):
    """Weight, target and edges of one asset, in bps of the portfolio. `correction` is None within
    the edges to which it is brought back, and for a zone with a horizon.
    """

    symbol: Annotated[TokenSymbol, shown("token")]
    weight_bps: int
    target_bps: int
    no_trade_bps: Annotated[
        list[int], TO_EDGES_BPS, FromAttributes("low", "high"), shown("back to")
    ]
    trigger_bps: Annotated[
        list[int],
        TO_EDGES_BPS,
        FromAttributes("trigger_low", "trigger_high"),
        shown("moves beyond"),
    ]
    correction: CorrectionDocument | None


class ZoneDocument(TypedDict):
    risk: Annotated[Money, FromAttributes("risk_value")]
    horizon_s: int
    swap_gas: Annotated[Money, FromAttributes("gas_value")]
    measured: Annotated[
        str | None,
        ConvertedBy(lambda measured, _: measured or None),
        FromAttributes("sample_text"),
    ]
    pair: Annotated[ZonePairDocument | None, FromAttributes("best_exchange")]
    assets: Annotated[list[ZoneAssetDocument], FromAttributes("intervals")]
    plan: Annotated[TradeoffDocument | None, FromAttributes("plan_tradeoff")]


class ScreenedTokenDocument(TypedDict):
    symbol: TokenSymbol
    address: TokenAddress
    finding: str
    why: str
    remedy: Annotated[str, FromAttributes("finding.remedy")]


class BlockedExitDocument(TypedDict):
    symbol: TokenSymbol
    address: TokenAddress
    why: str
    remedy: str


class ExcludedHoldingDocument(TypedDict):
    symbol: str
    address: str
    raw: Raw
    amount: DecimalText
    why: str


def excluded_holding_documents(step: StepInput) -> list[ExcludedHoldingDocument]:
    """Return the documents of the holdings excluded from the portfolio now."""
    holding_documents: list[ExcludedHoldingDocument] = []
    for address, raw, why in cash_limit.excluded_amounts(step):
        token = step.portfolio.token(address)
        holding_documents.append(
            {
                "symbol": token.label,
                "address": address,
                "raw": str(raw),
                "amount": decimal_text(raw, token.decimals),
                "why": why,
            }
        )
    return holding_documents


class TransferDocument(TypedDict):
    """An external transfer. `id` is None if not recorded, `kind` if not classified."""

    id: int | None
    symbol: str
    address: TokenAddress
    delta_raw: Raw
    value: Money | None
    since_block: int
    block: int
    chain_s: int
    halts: Annotated[bool, FromAttributes("blocks_trading")]
    counts_as_loss: Annotated[bool, FromAttributes("is_loss")]
    kind: str | None
    text: str


def transfer_document(transfer: ExternalTransfer, portfolio: Portfolio) -> TransferDocument:
    """Return the document of one external transfer."""
    symbol = balance_changes.token_label(portfolio, transfer.token)
    message = balance_changes.format_change(portfolio, transfer)
    return fill(
        TransferDocument, transfer, portfolio, id=transfer.id or None, symbol=symbol, text=message
    )


class CapitalMoveDocument(StartDate, TypedDict):
    to: str
    value: Money


class NettedTokenDocument(TypedDict):
    symbol: TokenSymbol
    bought: Annotated[Money, FromAttributes("bought_value")]
    sold: Annotated[Money, FromAttributes("sold_value")]
    crossed: Annotated[Money, FromAttributes("crossed_value")]
    net: Annotated[Money, FromAttributes("net_value")]


class NettingDocument(TypedDict):
    acting: list[str]
    reasons: dict[str, str]
    capital_moved: list[CapitalMoveDocument]
    netted: list[NettedTokenDocument]
    crossed: Annotated[Money, FromAttributes("crossed_value")]
    saved_fees: Money


def netting_document(netting: NettingResult | None, portfolio: Portfolio) -> NettingDocument | None:
    """Return the document of acting strategies and their netting; None without strategies."""
    if netting is None:
        return None
    return fill(
        NettingDocument,
        netting,
        portfolio,
        acting=[adjustment.name for adjustment in netting.adjustments if adjustment.acts],
        reasons={adjustment.name: adjustment.reason for adjustment in netting.adjustments},
        capital_moved=[
            {
                "from": from_strategy,
                "to": to_strategy,
                "value": money_text(capital_value, portfolio),
            }
            for from_strategy, to_strategy, capital_value in netting.transfers
        ],
        netted=[
            fill(NettedTokenDocument, netted_token, portfolio)
            for netted_token in netting.netted_tokens
            if netted_token.bought_value or netted_token.sold_value
        ],
    )


class DecisionDocument(TypedDict):
    kind: Annotated[
        str, one_of("hold", "rebalance", "halt", "adjustliquidity", "topup", "adjustfutures")
    ]
    reason: str
    codes: NotRequired[list[str]]
    outcome: NotRequired[str]


def decision_document(decision_result: DecisionResult) -> DecisionDocument:
    """Return the document of a decision: `codes` has the causes of a halt, or the setting that held
    back a trigger that fired.
    """
    decision = decision_result.decision
    decision_fields: DecisionDocument = {
        "kind": decision_name(type(decision)),
        "reason": decision.reason,
    }
    match decision:
        case Halt(codes=codes) if codes:
            decision_fields["codes"] = list(codes)
        case Hold(limiting_rule=limiting_rule) if limiting_rule:
            decision_fields["codes"] = [limiting_rule]
    return decision_fields


# Fields of every document about a step, filled from an object with `step_input` and `decision_result`.
BlockNumber = Annotated[int, FromAttributes("step_input.snapshot.head.number")]
NumeraireLabel = Annotated[str, FromAttributes("step_input.portfolio.numeraire.label")]
ScreenedTokens = Annotated[
    list[ScreenedTokenDocument], FromAttributes("step_input.targets.quarantined_tokens")
]
Zone = Annotated[ZoneDocument | None, FromAttributes("decision_result.zone")]
Netting = Annotated[
    NettingDocument | None,
    ConvertedBy(
        lambda decision_result, portfolio: netting_document(
            decision_result.layer(StrategiesResult).netting, portfolio
        )
    ),
    FromAttributes("decision_result"),
]
TargetReasons = Annotated[list[str], FromAttributes("step_input.targets.reasons")]
BlockedExits = Annotated[list[BlockedExitDocument], FromAttributes("decision_result.blocked_exits")]
ExcludedHoldings = Annotated[
    list[ExcludedHoldingDocument],
    ConvertedBy(lambda step, _: excluded_holding_documents(step)),
    FromAttributes("step_input"),
]
Transfers = list[Annotated[TransferDocument, ConvertedBy(transfer_document)]]
UnexplainedTransfers = Annotated[
    Transfers, FromAttributes("step_input.history.cash_flows.unexplained_transfers")
]
