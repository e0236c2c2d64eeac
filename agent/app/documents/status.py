"""Document of the status of a portfolio."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents.fields import (
    ConvertedBy,
    Decimal,
    Hash,
    Money,
    Of,
    Raw,
    Symbol,
    fill,
    money,
)
from agent.app.documents.plans import EndpointDocument
from agent.app.documents.steps import (
    Block,
    BlockedExits,
    DecisionDocument,
    Excluded,
    Netting,
    Numeraire,
    Progress,
    Screened,
    TargetReasons,
    Transfers,
    Zone,
    decision,
)
from agent.units import price_text, value_text

if TYPE_CHECKING:
    from agent.app import PortfolioStatus
    from agent.model import AssetDrift

UnreadDocument = TypedDict("UnreadDocument", {"item": str, "address": str, "why": str})


class SetAsideDocument(TypedDict):
    withdrawal: Annotated[int, Of("request")]
    symbol: Annotated[Symbol, Of("payment.token")]
    raw: Annotated[Raw, Of("payment.raw")]


HoldingDocument = TypedDict("HoldingDocument", {
    "symbol": str, "address": str, "decimals": int, "raw": Raw, "lp_raw": Raw, "amount": Decimal,
    "price": Decimal, "value": Money, "weight_bps": int, "target_bps": int, "drift_bps": int,
    "band_bps": list[int], "price_source": str | None,
})  # fmt: skip
NativeDocument = TypedDict("NativeDocument", {
    "symbol": str | None, "counts": bool, "native_wei": Raw, "wrapped_raw": Raw | None,
    "kept_wei": Raw, "top_up_wei": Raw | None,
})  # fmt: skip
TriggerDocument = TypedDict("TriggerDocument", {
    "words": str, "bands": str, "only": str | None, "only_words": str, "destination": str,
    "cooldown_s": int, "next_s": int | None, "next": str | None,
})  # fmt: skip
"""The trigger as text; `next_s` is the next due time of a schedule (unix seconds; None: any cycle
may act)."""
LeastTotalDocument = TypedDict("LeastTotalDocument", {
    "total": Decimal | None, "first_purchase": Decimal | None, "unit": str, "by": str,
    "gas_gwei": Decimal, "pool_fee_percent": Decimal, "corrections_a_year": Decimal,
    "cost_a_year": Decimal, "enough": bool | None, "changes": list[str], "summary": str,
    "text": str,
})  # fmt: skip


class StatusDocument(TypedDict):
    """Holdings, weights, bands and the present decision. `books` marks paper trading."""

    block: Block
    block_hash: Annotated[Hash, Of("step_input.snapshot.head.hash")]
    numeraire: Numeraire
    total_value: Money
    holdings: list[HoldingDocument]
    native_wei: Annotated[Raw, Of("step_input.snapshot.native_wei")]
    native: NativeDocument
    quarantined: Annotated[list[UnreadDocument], Of("step_input.snapshot.quarantined")]
    screen: Screened
    warnings: list[str]
    paused: bool
    pause_reason: str
    pause_hard: Annotated[bool, Of("hard")]
    set_aside: Annotated[list[SetAsideDocument], Of("step_input.history.claims")]
    left_alone: Excluded
    decision: Annotated[
        DecisionDocument, ConvertedBy(lambda decided, _: decision(decided)), Of("decided")
    ]
    trigger: TriggerDocument
    least_total: Annotated[LeastTotalDocument | None, Of("least")]
    wishes: TargetReasons
    stuck_exits: BlockedExits
    flows: Transfers
    campaign: Progress
    zone: Zone
    strategies: Netting
    endpoints: list[EndpointDocument]
    books: NotRequired[str]


def status(found: PortfolioStatus) -> StatusDocument:
    """Document of a portfolio's status."""
    portfolio, drifts = found.step_input.portfolio, found.decided.drifts
    total = money(sum((drift.value for drift in drifts), Fraction(0)), portfolio)
    return fill(
        StatusDocument,
        found,
        portfolio,
        total_value=total,
        holdings=[_holding(drift, found) for drift in drifts],
    )


def _holding(drift: AssetDrift, found: PortfolioStatus) -> HoldingDocument:
    portfolio, reference = (
        found.step_input.portfolio,
        found.decided.references.prices.get(drift.token),
    )
    token = portfolio.token(drift.token)
    return fill(
        HoldingDocument,
        drift,
        portfolio,
        symbol=token.label,
        address=token.address,
        decimals=token.decimals,
        amount=value_text(Fraction(drift.raw), token.decimals),
        price=price_text(drift.price, token.decimals, portfolio.numeraire.decimals),
        band_bps=[round(drift.band_low_bps), round(drift.band_high_bps)],
        price_source=None if reference is None else reference.source.value,
    )
