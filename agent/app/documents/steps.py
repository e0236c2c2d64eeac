"""Documents of a step's decision: zone, gradual execution, quarantine, transfers, tax, netting,
decision.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.accounting.tax_lots import PlannedGain, planned_gains
from agent.app.documents import (
    ConvertedBy,
    Decimal,
    Money,
    Of,
    Raw,
    Symbol,
    Time,
    TokenAddress,
    TokenSymbol,
    fill,
    money,
    one_of,
)
from agent.model import Halt, Hold
from agent.policy.cash_flows import balance_changes
from agent.reference import reference_prices
from agent.units import BPS, decimal_text

if TYPE_CHECKING:
    from agent.model import ExternalTransfer, Plan, Portfolio, StepInput
    from agent.policy.decision import DecisionResult
    from agent.policy.strategies.netting import NettingResult


def bps_text(share: Fraction) -> str:
    """Return a share in bps, with two decimals at most."""
    return decimal_text(round(share * BPS * 100), 2)


BpsOfShare = Annotated[Decimal, ConvertedBy(lambda share, _: bps_text(share))]
EDGES = ConvertedBy(lambda edges, _: [round(edge * BPS) for edge in edges])

TradeoffDocument = TypedDict("TradeoffDocument", {
    "saved_risk": Annotated[Money, Of("saved")], "cost": Money, "fees": Money, "impact": Money,
    "skew": Money, "gas": Money, "approvals": Money, "worth_it": bool,
})  # fmt: skip


class ZonePairDocument(TypedDict):
    """The pair whose trade saves the most, in bps of the traded value."""

    sell: Annotated[Symbol, Of("source")]
    buy: Annotated[Symbol, Of("target")]
    saves_bps: Annotated[BpsOfShare, Of("saves")]
    costs_bps: Annotated[BpsOfShare, Of("costs")]


class ZoneAssetDocument(TypedDict):
    """Edges of one asset, in bps of the portfolio."""

    symbol: TokenSymbol
    no_trade_bps: Annotated[list[int], EDGES, Of("low", "high")]
    trigger_bps: Annotated[list[int], EDGES, Of("trigger_low", "trigger_high")]


class ZoneDocument(TypedDict):
    risk: Money
    horizon_s: int
    swap_gas: Annotated[Money, Of("gas")]
    measured: Annotated[str | None, ConvertedBy(lambda measured, _: measured or None)]
    pair: ZonePairDocument | None
    assets: Annotated[list[ZoneAssetDocument], Of("intervals")]
    plan: Annotated[TradeoffDocument | None, Of("saving")]


class ProgressDocument(TypedDict):
    """Progress of a gradual execution, at its initial prices."""

    id: str
    style: Annotated[str, Of("campaign.pace.style")]
    purchase: Annotated[str | None, Of("campaign.purchase")]
    began: Annotated[Time, Of("campaign.began_s")]
    expires: Annotated[Time, Of("campaign.expires_s")]
    rounds_done: Annotated[int, Of("done")]
    rounds_about: Annotated[int, Of("campaign.rounds")]
    next: Annotated[Time, Of("next_s")]
    wish: Annotated[Money, Of("campaign.wish")]
    moved: Money
    spent: Money
    budget: Annotated[Money | None, Of("campaign.budget")]


ScreenedDocument = TypedDict("ScreenedDocument", {
    "symbol": TokenSymbol, "address": TokenAddress, "finding": str, "why": str,
    "remedy": Annotated[str, Of("finding.remedy")],
})  # fmt: skip
BlockedExitDocument = TypedDict("BlockedExitDocument", {
    "symbol": TokenSymbol, "address": TokenAddress, "why": str, "remedy": str,
})  # fmt: skip
ExcludedDocument = TypedDict("ExcludedDocument", {
    "symbol": str, "address": str, "raw": Raw, "amount": Decimal, "why": str,
})  # fmt: skip


def excluded_holdings(step: StepInput) -> list[ExcludedDocument]:
    """Documents of the holdings excluded from the portfolio now."""
    found: list[ExcludedDocument] = []
    for address, raw, why in balance_changes.excluded_amounts(step):
        token = step.portfolio.token(address)
        found.append(
            {
                "symbol": token.label,
                "address": address,
                "raw": str(raw),
                "amount": decimal_text(raw, token.decimals),
                "why": why,
            }
        )
    return found


TransferDocument = TypedDict("TransferDocument", {
    "id": int | None, "symbol": str, "address": TokenAddress, "delta_raw": Raw,
    "value": Money | None, "since_block": int, "block": int, "chain_s": int,
    "halts": Annotated[bool, Of("holds")], "counts_as_loss": Annotated[bool, Of("is_loss")],
    "told": Annotated[str | None, Of("kind")], "words": str,
})  # fmt: skip
"""An external transfer. `id` is None if not recorded, `told` (its kind) if not classified."""


def transfer_document(step: StepInput, flow: ExternalTransfer) -> TransferDocument:
    """Document of one external transfer."""
    symbol, message = (
        balance_changes.token_label(step, flow.token),
        balance_changes.format_change(step, flow),
    )
    return fill(
        TransferDocument, flow, step.portfolio, id=flow.id or None, symbol=symbol, words=message
    )


DisposalDocument = TypedDict("DisposalDocument", {
    "symbol": TokenSymbol, "raw": Raw, "proceeds": Money, "cost": Money, "gain": Money,
    "oldest_days": int | None, "newest_days": int | None,
})  # fmt: skip
PlanTaxDocument = TypedDict("PlanTaxDocument", {
    "method": str, "currency": str, "gain": Money, "disposals": list[DisposalDocument],
    "realised_this_year": Annotated[Money, Of("realised")], "year_limit": Money | None,
    "left_this_year": Money | None,
})  # fmt: skip


def tax_document(step: StepInput, plan: Plan | None) -> PlanTaxDocument | None:
    """Document of the taxable gain of a plan; None without [tax]."""
    tax, portfolio = step.history.tax, step.portfolio
    if tax is None:
        return None
    at_s, gains = step.snapshot.head.timestamp_s, tuple[PlannedGain, ...]()
    if plan is not None and plan.legs:
        prices, numeraire = reference_prices(step).by_token, portfolio.numeraire.address
        gains = planned_gains(plan, tax, prices, numeraire, portfolio.wrapped_native, at_s)
    ages = [
        [
            None if then_s is None else max(0, at_s - then_s) // 86_400
            for then_s in (one.oldest_s, one.newest_s)
        ]
        for one in gains
    ]
    left = None if tax.year_limit is None else max(Fraction(0), tax.year_limit - tax.realised)
    return fill(
        PlanTaxDocument,
        tax,
        portfolio,
        currency=tax.currency or portfolio.numeraire.label,
        gain=money(sum((one.gain for one in gains), Fraction(0)), portfolio),
        disposals=[
            fill(DisposalDocument, one, portfolio, oldest_days=oldest, newest_days=newest)
            for one, (oldest, newest) in zip(gains, ages, strict=True)
        ],
        left_this_year=None if left is None else money(left, portfolio),
    )


CapitalMoveDocument = TypedDict("CapitalMoveDocument", {"from": str, "to": str, "value": Money})
NettedDocument = TypedDict("NettedDocument", {
    "symbol": TokenSymbol, "bought": Money, "sold": Money, "crossed": Money, "net": Money,
})  # fmt: skip
NettingDocument = TypedDict("NettingDocument", {
    "acting": list[str], "reasons": dict[str, str], "capital_moved": list[CapitalMoveDocument],
    "netted": list[NettedDocument], "crossed": Money, "saved_fees": Annotated[Money, Of("saved")],
})  # fmt: skip


def netting_document(found: NettingResult | None, portfolio: Portfolio) -> NettingDocument | None:
    """Document of acting strategies and their netting; None without strategies."""
    if found is None:
        return None
    return fill(
        NettingDocument,
        found,
        portfolio,
        acting=[one.name for one in found.wishes if one.acts],
        reasons={one.name: one.reason for one in found.wishes},
        capital_moved=[
            {"from": giver, "to": receiver, "value": money(value, portfolio)}
            for giver, receiver, value in found.moved
        ],
        netted=[
            fill(NettedDocument, one, portfolio) for one in found.netted if one.bought or one.sold
        ],
    )


class DecisionDocument(TypedDict):
    kind: Annotated[
        str, one_of("hold", "rebalance", "halt", "adjustliquidity", "topup", "adjustfutures")
    ]
    reason: str
    codes: NotRequired[list[str]]
    outcome: NotRequired[str]


def decision(decided: DecisionResult) -> DecisionDocument:
    """Document of a decision: `codes` has the causes of a halt, or the setting that held back a
    trigger that fired.
    """
    found = decided.decision
    shown: DecisionDocument = {"kind": type(found).__name__.lower(), "reason": found.reason}
    match found:
        case Halt(codes=codes) if codes:
            shown["codes"] = list(codes)
        case Hold(kept_by=kept_by) if kept_by:
            shown["codes"] = [kept_by]
    return shown


# Fields of every document about a step, filled from an object with `step_input` and `decided`.
Block = Annotated[int, Of("step_input.snapshot.head.number")]
Numeraire = Annotated[str, Of("step_input.portfolio.numeraire.label")]
Screened = Annotated[list[ScreenedDocument], Of("step_input.quarantine")]
Zone = Annotated[ZoneDocument | None, Of("decided.zone")]
Netting = Annotated[NettingDocument | None, ConvertedBy(netting_document), Of("decided.netting")]
Progress = Annotated[ProgressDocument | None, Of("step_input.history.campaign")]
TargetReasons = Annotated[list[str], Of("step_input.wishes")]
BlockedExits = Annotated[list[BlockedExitDocument], Of("decided.stuck")]
Excluded = Annotated[
    list[ExcludedDocument], ConvertedBy(lambda step, _: excluded_holdings(step)), Of("step_input")
]
TRANSFERS = ConvertedBy(lambda found, _: [transfer_document(found[0], flow) for flow in found[1]])
Transfers = Annotated[
    list[TransferDocument], TRANSFERS, Of("step_input", "step_input.history.flows")
]
