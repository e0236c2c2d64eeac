"""Documents of a portfolio's status, of its settings, and of the minimum total at which they
work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    Address,
    ConvertedBy,
    DecimalText,
    FromAttributes,
    Hash,
    Money,
    Number,
    PriceText,
    Raw,
    Symbol,
    fill,
    money_text,
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
    excluded_holding_documents,
)
from agent.app.documents.executions import OpenExecutionProgress
from agent.app.documents.futures import FuturesSummaryDocument, optional_futures_summary
from agent.app.documents.plans import EndpointDocument
from agent.config.build import build_policy
from agent.config.networks import TypicalFees, typical_fees
from agent.config.schema import Config
from agent.figures import format_figure, stop_text
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.model import (
    MARGIN_PLACE,
    PRICE_ALERTS,
    Destination,
    Limits,
    OwnerRequest,
    RequestState,
    StepInput,
    action_interval_s,
    decision_name,
    is_tracking,
)
from agent.model.limits import ABOVE_CEILING_TEXT
from agent.policy import native_coin
from agent.policy.cash_flows.balance_changes import token_label, transfer_texts
from agent.policy.decision import DecisionResult
from agent.policy.drift import band, investable_total, portfolio_total
from agent.policy.minimum import (
    ASSUMED_FEE_PIPS,
    AssetThreshold,
    MinimumTotalInputs,
    compute_minimum_total,
    correction_drift,
    format_coins,
    format_minimum_total,
    minimum_total_inputs,
    suggested_settings,
)
from agent.policy.orders.conditional import format_price_alert
from agent.policy.rebalance import buys_to_targets_first
from agent.policy.triggers import bands, trigger_text
from agent.policy.triggers.exchange_costs import dearest_route_pips
from agent.reference import reference_prices
from agent.units import (
    BPS,
    DAY_S,
    GWEI,
    PIPS,
    Price,
    Value,
    format_time,
    pluralize,
    price_text,
    value_text,
)

if TYPE_CHECKING:
    from agent.model import AssetDrift


class UnreadItemDocument(TypedDict):
    item: Annotated[str, FromAttributes("subject")]
    address: str
    why: str


class ReservedPaymentDocument(TypedDict):
    withdrawal: Annotated[int, FromAttributes("request_id")]
    symbol: Annotated[Symbol, FromAttributes("payment.token")]
    raw: Annotated[Raw, FromAttributes("payment.raw")]


class HoldingDocument(TypedDict):
    """`back_to_bps` is the range to which an asset beyond its band is traded, None if that depends on
    how far beyond it is. `day_bps` is the change of the price in 24 h, None without a valuation of that
    time.
    """

    symbol: Annotated[str, shown("asset")]
    address: str
    decimals: int
    raw: Raw
    lp_raw: Raw
    amount: DecimalText
    price: PriceText
    value: Money
    weight_bps: int
    target_bps: int
    drift_bps: Annotated[int, shown(figure="points+")]
    band_bps: list[int]
    back_to_bps: Annotated[list[int] | None, shown("back to")]
    price_source: Annotated[str | None, shown("price from")]
    day_bps: Annotated[int | None, shown("24 h", "percent+")]
    margin_raw: NotRequired[Raw]
    price_alerts: NotRequired[list[str]]


class NativeCoinDocument(TypedDict):
    symbol: str | None
    counts_as_asset: Annotated[bool, FromAttributes("counts_in_portfolio")]
    native_wei: Raw
    wrapped_raw: Raw | None
    kept_wei: Raw
    top_up_wei: Raw | None


class TriggerDocument(TypedDict):
    """The trigger as text. `next_s` is the next due time of a schedule (unix seconds; None: any cycle
    may act).
    """

    text: str
    bands: str
    only: Annotated[str | None, FromAttributes("trade_side")]
    only_text: str
    destination: str
    cooldown_s: int
    next_s: int | None
    next: str | None


class MinimumTotalDocument(TypedDict):
    """Minimum total of a portfolio. `enough` compares it with the total, None: not compared."""

    total: DecimalText | None
    first_purchase: DecimalText | None
    unit: str
    by: str
    gas_gwei: DecimalText
    pool_fee_percent: DecimalText
    corrections_a_year: DecimalText
    cost_a_year: DecimalText
    enough: bool | None
    changes: list[str]
    summary: str
    text: str


class UnvaluedHoldingDocument(TypedDict):
    """A balance of the portfolio while its total is unknown; None: not known."""

    symbol: Annotated[str, shown("asset")]
    address: str
    raw: Raw | None
    amount: DecimalText | None
    price: PriceText | None


class ActiveStopDocument(TypedDict):
    """A stop that no `trimtab resume` has ended: `done` once no part of it waits, `since` then, and
    before since its request.
    """

    done: bool
    since: str
    to_stable: bool
    to: str | None


def active_stop_document(stop: OwnerRequest | None) -> dict[str, ActiveStopDocument]:
    """Return the field `stop` of a status; empty without an active stop."""
    if stop is None:
        return {}
    since_s = stop.asked_s if stop.ended_s is None else stop.ended_s
    return {
        "stop": {
            "done": stop.state is RequestState.DONE,
            "since": format_time(since_s),
            "to_stable": stop.sells_everything,
            "to": stop.to,
        }
    }


class StatusDocument(TypedDict):
    """Holdings, weights, bands and the current decision. `book_kind` is set for paper trading, `stop`
    from a stop of the owner until it is resumed.
    While a price or balance is unknown, `total_value` is None, and `unvalued` has the balances in
    place of `holdings`.
    """

    block: BlockNumber
    block_hash: Annotated[Hash, FromAttributes("step_input.snapshot.head.hash")]
    numeraire: NumeraireLabel
    total_value: Money | None
    holdings: list[HoldingDocument]
    unvalued: NotRequired[list[UnvaluedHoldingDocument]]
    native_wei: Annotated[Raw, FromAttributes("step_input.snapshot.native_wei")]
    native: NativeCoinDocument
    quarantined: Annotated[
        list[UnreadItemDocument], FromAttributes("step_input.snapshot.unreadable_items")
    ]
    screen: ScreenedTokens
    warnings: list[str]
    paused: bool
    pause_reason: str
    pause_hard: Annotated[bool, FromAttributes("is_hard_paused")]
    pause_signed: list[str]
    waits_for: str
    set_aside: Annotated[
        list[ReservedPaymentDocument],
        FromAttributes("step_input.history.cash_flows.pending_payments"),
    ]
    excluded: ExcludedHoldings
    decision: Annotated[
        DecisionDocument,
        ConvertedBy(lambda decision_result, _: decision_document(decision_result)),
        FromAttributes("decision_result"),
    ]
    trigger: TriggerDocument
    least_total: MinimumTotalDocument | None
    target_reasons: TargetReasons
    blocked_exits: BlockedExits
    flows: UnexplainedTransfers
    gradual_execution: OpenExecutionProgress
    zone: Zone
    strategies: Netting
    endpoints: list[EndpointDocument]
    stop: NotRequired[ActiveStopDocument]
    book_kind: NotRequired[str]
    futures: NotRequired[FuturesSummaryDocument]


@dataclass(frozen=True, slots=True)
class PortfolioStatus:
    """Status of a portfolio. `paused` is the state of the kill switch, `is_hard_paused` that of its
    hard level, which also cancels and revokes, `pause_signed` what others can still execute.
    `warnings` concern proposals that wait, the number of assets, overweight, liquidity positions,
    paused strategies, portfolio.max_live_value and accepted limits. `day_old_prices` are those of
    the valuation of 24 h ago, by token.
    """

    step_input: StepInput
    decision_result: DecisionResult
    paused: bool
    pause_reason: str
    warnings: tuple[str, ...]
    endpoints: tuple[EndpointDocument, ...] = ()
    is_hard_paused: bool = False
    pause_signed: tuple[str, ...] = ()
    day_old_prices: Mapping[str, Price] = field(default_factory=dict)
    stop: OwnerRequest | None = None
    """The active stop; None without one."""
    waits_for: str = ""
    """The newest proposal that waits, and for what; empty without one."""

    def __repr__(self) -> str:
        portfolio = self.step_input.portfolio
        drifts = self.decision_result.drifts
        total_text = (
            portfolio.numeraire.money_text(investable_total(drifts)) if drifts else "unknown"
        )
        shares_text = ", ".join(
            f"{drift.symbol} {drift.weight_bps / 100:.2f} %" for drift in drifts
        )
        paused_text = ", paused" if self.paused else ""
        notes_text = f", {pluralize(len(self.notes), 'note')}" if self.notes else ""
        return (
            f"PortfolioStatus(block {self.step_input.snapshot.head.number}, {total_text}: {shares_text};"
            f" {decision_name(type(self.decision_result.decision))}{paused_text}{notes_text})"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the command says beside holdings and decision: why nothing is sent, why the targets
        are not those of the config, the warnings, what is not read, not traded or not counted, and
        unexplained balance changes.
        """
        step = self.step_input
        stop = active_stop_document(self.stop)
        screened_tokens = step.targets.quarantined_tokens
        return (
            *([f"paused: {self.pause_reason}"] if self.paused else ()),
            *map(stop_text, stop.values()),
            *(f"targets: {reason}" for reason in step.targets.reasons),
            *self.warnings,
            *(
                f"not readable: {item.subject} {item.address}: {item.why}"
                for item in step.snapshot.unreadable_items
            ),
            *(
                f"in quarantine: {token_label(step.portfolio, screened.token)} {screened.why}."
                f" {screened.finding.remedy}"
                for screened in screened_tokens
            ),
            *(
                f"excluded: {holding['amount']} {holding['symbol']}: {holding['why']}"
                for holding in excluded_holding_documents(step)
            ),
            *transfer_texts(step),
        )

    @property
    def native(self) -> native_coin.NativeView:
        """Native coin held in addition to its wrapped token."""
        step = self.step_input
        return native_coin.native_view(step.snapshot, step.portfolio, step.limits)

    @property
    def least_total(self) -> MinimumTotalDocument | None:
        """Minimum total at which these settings work, its yearly cost, and the settings to change
        if the total is below it. None if it is unknown.
        """
        drifts = self.decision_result.drifts
        return current_minimum_total(self.step_input, investable_total(drifts)) if drifts else None

    @property
    def trigger(self) -> TriggerDocument:
        """The trigger and policy, with their texts."""
        policy = self.step_input.policy
        portfolio = self.step_input.portfolio
        next_s = self.decision_result.next_s
        return fill(
            TriggerDocument,
            policy,
            text=trigger_text.format_trigger(policy.trigger, portfolio),
            bands=bands.format_bands(portfolio),
            only_text=""
            if policy.trade_side is None
            else trigger_text.SIDE_TEXTS[policy.trade_side],
            next_s=next_s,
            next=None if next_s is None else format_time(next_s),
        )


def status_document(portfolio_status: PortfolioStatus) -> StatusDocument:
    """Return the document of a portfolio's status."""
    portfolio = portfolio_status.step_input.portfolio
    drifts = portfolio_status.decision_result.drifts
    total_text = None
    if drifts:
        total_text = money_text(portfolio_total(portfolio_status.step_input, drifts), portfolio)
    return fill(
        StatusDocument,
        portfolio_status,
        portfolio,
        total_value=total_text,
        holdings=[_holding_document(drift, portfolio_status) for drift in drifts],
        **({} if drifts else {"unvalued": _unvalued_holdings(portfolio_status)}),
        **active_stop_document(portfolio_status.stop),
        **optional_futures_summary(portfolio_status.step_input, drifts),
    )


def _unvalued_holdings(portfolio_status: PortfolioStatus) -> list[UnvaluedHoldingDocument]:
    """Return each balance with its price, as far as they are known."""
    step = portfolio_status.step_input
    numeraire = step.portfolio.numeraire
    price_by_token = portfolio_status.decision_result.references.price_by_token
    raw_by_token = native_coin.held_balances(step)
    documents: list[UnvaluedHoldingDocument] = []
    for asset in step.portfolio.assets:
        token = asset.token
        raw = raw_by_token.get(token.address)
        price = price_by_token.get(token.address)
        documents.append(
            {
                "symbol": token.label,
                "address": token.address,
                "raw": None if raw is None else str(raw),
                "amount": None if raw is None else value_text(Fraction(raw), token.decimals),
                "price": None
                if price is None
                else price_text(price, token.decimals, numeraire.decimals),
            }
        )
    return documents


def _holding_document(drift: AssetDrift, portfolio_status: PortfolioStatus) -> HoldingDocument:
    portfolio = portfolio_status.step_input.portfolio
    reference_price = portfolio_status.decision_result.references.reference_by_token.get(
        drift.token
    )
    token = portfolio.token(drift.token)
    old_price = portfolio_status.day_old_prices.get(drift.token)
    price_alerts = [
        format_price_alert(portfolio, order)
        for order in portfolio_status.step_input.history.orders.states
        if order.token == drift.token and order.kind in PRICE_ALERTS
    ]
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
        back_to_bps=_back_to_bps(
            drift, portfolio_status.step_input, portfolio_status.decision_result
        ),
        price_source=None if reference_price is None else reference_price.source.value,
        day_bps=round((drift.price / old_price - 1) * BPS) if old_price else None,
        lp_raw=str(drift.raw_at(POSITIONS_PLACE)),
        **({"margin_raw": str(margin_raw)} if (margin_raw := drift.raw_at(MARGIN_PLACE)) else {}),
        **({"price_alerts": price_alerts} if price_alerts else {}),
    )


def _back_to_bps(
    drift: AssetDrift, step: StepInput, decision_result: DecisionResult
) -> list[int] | None:
    """Return the range to which an asset beyond its band is traded."""
    if buys_to_targets_first(step):
        return [drift.target_bps, drift.target_bps]
    match step.policy.destination:
        case Destination.TARGET:
            return [drift.target_bps, drift.target_bps]
        case Destination.BAND:
            return [round(drift.band_low_bps), round(drift.band_high_bps)]
        case Destination.ZONE if decision_result.zone is not None:
            ranges_bps = (
                [round(interval.low * BPS), round(interval.high * BPS)]
                for interval in decision_result.zone.intervals
                if interval.token == drift.token
            )
            return next(ranges_bps, None)
        case _:
            return None


DAY_NAMES = ("quiet", "ordinary", "busy")
"""Names of the days with the gas prices of estimates."""
ORDINARY_DAY_INDEX = DAY_NAMES.index("ordinary")
"""Position of an ordinary day among them."""
MIN_HEADROOM = Fraction(6, 5)
"""Least ceiling without a warning, as a multiple of the amount to use."""
SUGGESTED_HEADROOM = Fraction(3, 2)
"""Ceiling that init suggests, as a multiple of the amount to use."""
VALUE_PLACES = 6
"""Decimals of a value in coins: one coin may be worth thousands."""


def current_minimum_total(step: StepInput, total: Value) -> MinimumTotalDocument | None:
    """Return the minimum total of a running agent at the current gas price; None if plan_cost is
    off or gas has no price.

    For a day after a rebalance it is not compared with `total`: that trade was worth its cost, so
    the estimate must not contradict it.
    """
    references = reference_prices(step)
    fee_pips = dearest_route_pips(step, references.price_by_token)
    inputs = minimum_total_inputs(step, references, fee_pips)
    if inputs is None:
        return None
    numeraire = step.portfolio.numeraire
    last_rebalance_s = step.history.reviews.last_rebalance_s
    is_just_rebalanced = (
        last_rebalance_s is not None and step.snapshot.head.timestamp_s - last_rebalance_s < DAY_S
    )
    compared_total = None if is_just_rebalanced else total
    return minimum_total_document(inputs, compared_total, numeraire.decimals, numeraire.label)


def minimum_total_document(
    inputs: MinimumTotalInputs, total: Value | None, decimals: int, unit: str
) -> MinimumTotalDocument:
    """Return the document of the minimum total, with the settings to change if `total` (None:
    unknown) is below it.
    """
    minimum_total = compute_minimum_total(inputs)
    setting_changes: tuple[str, ...] = ()
    is_enough = None
    compared_total = minimum_total.total or Fraction(0)
    if total is not None and inputs.corrected_assets:
        setting_changes = tuple(suggested_settings(inputs, total))
        is_enough = minimum_total.total is not None and total >= minimum_total.total
        compared_total = total
    summary = format_minimum_total(inputs, compared_total, decimals, unit)
    full_text = summary
    if minimum_total.total is not None and setting_changes:
        full_text = f"{summary} To change that: {'; or '.join(setting_changes)}."

    def coins_or_none(coin_value: Value | None) -> str | None:
        return (
            None
            if coin_value is None
            else value_text(coin_value, decimals, min(decimals, VALUE_PLACES))
        )

    return {
        "total": coins_or_none(minimum_total.total),
        "first_purchase": coins_or_none(minimum_total.purchase_total),
        "unit": unit,
        "by": minimum_total.binding_limit,
        "gas_gwei": value_text(Fraction(inputs.gas_price_wei, GWEI), 0, 4),
        "pool_fee_percent": value_text(Fraction(100 * inputs.fee_pips, PIPS), 0, 4),
        "corrections_a_year": value_text(minimum_total.corrections_per_year, 0, 1),
        "cost_a_year": value_text(minimum_total.yearly_cost, decimals, min(decimals, VALUE_PLACES)),
        "enough": is_enough,
        "changes": list(setting_changes),
        "summary": summary,
        "text": full_text,
    }


def minimum_totals_of_config(
    config: Config, numeraire_usd: Fraction, total: Value | None = None
) -> list[MinimumTotalDocument]:
    """Return the minimum totals of a new config at its network's gas prices on quiet, ordinary and
    busy days; empty if plan_cost is off. `numeraire_usd` is the price of the numeraire, `total` the
    amount to invest in whole coins.
    """
    portfolio_table = config.portfolio
    trigger = build_policy(config).trigger
    if config.limits.plan_cost is None:
        return []
    target_drifts = [
        (
            asset.symbol,
            asset.target,
            correction_drift(trigger, asset.target, band(trigger, asset.target, asset.band)),
        )
        for asset in portfolio_table.assets
    ]
    min_trade = Fraction(config.limits.min_trade or "0")
    network_fees = typical_fees(config.chain.chain_id)
    wei_value = network_fees.native_usd / numeraire_usd / 10**18
    gas_price_inputs = _inputs_at_gas_prices(
        target_drifts,
        portfolio_table.numeraire,
        config.limits.plan_cost,
        min_trade,
        wei_value,
        network_fees,
    )
    interval_s = action_interval_s(trigger)
    return _minimum_total_documents(
        [
            replace(
                inputs,
                interval_s=interval_s,
                has_band=not is_tracking(trigger),
                is_tracking=is_tracking(trigger),
            )
            for inputs in gas_price_inputs
        ],
        portfolio_table.numeraire,
        total,
    )


def headroom_warnings(config: Config, total: Value | None) -> list[str]:
    """Return a warning if portfolio.max_live_value is little above `total`, the amount to invest in
    whole coins (None: unknown).
    """
    ceiling = config.portfolio.max_live_value
    if ceiling is None or total is None or not total <= Fraction(ceiling) < total * MIN_HEADROOM:
        return []
    unit = config.portfolio.numeraire
    return [
        f"A ceiling (portfolio.max_live_value) of {format_figure(ceiling, 'amount')} {unit} leaves little room"
        f" for gains over the {coins_text(total)} {unit} to use: above it {ABOVE_CEILING_TEXT}."
        f" {coins_text(total * SUGGESTED_HEADROOM)} would leave half as much more."
    ]


def ceiling_warnings(config: Config, numeraire_usd: Fraction, total: Value | None) -> list[str]:
    """Return a warning if portfolio.max_live_value is below `total`, the amount to invest in whole
    coins (None: unknown), or below the minimum total at some gas price.
    """
    ceiling = config.portfolio.max_live_value
    unit = config.portfolio.numeraire
    if ceiling is None:
        return []
    limit_text = f"{format_figure(ceiling, 'amount')} {unit}"
    ceiling_text = f"portfolio.max_live_value of {limit_text}"
    if total is not None and total > Fraction(ceiling):
        return [
            f"{ceiling_text} is below the {coins_text(total)} {unit} to use: above {limit_text}"
            f" {ABOVE_CEILING_TEXT}. Raise max_live_value if the agent may manage"
            " more."
        ]
    minimum_totals = minimum_totals_of_config(config, numeraire_usd, Fraction(ceiling))
    minimums_above_ceiling = [
        minimum_total
        for minimum_total in minimum_totals
        if minimum_total["total"] and not minimum_total["enough"]
    ]
    if not minimums_above_ceiling:
        return headroom_warnings(config, total)
    if minimums_above_ceiling == minimum_totals[ORDINARY_DAY_INDEX + 1 :]:
        busy_day_minimum = minimums_above_ceiling[0]
        return [
            *headroom_warnings(config, total),
            f"On a busy day, at {busy_day_minimum['gas_gwei']} gwei, corrections wait for cheaper gas: the minimum"
            f" total is then {coins_text(Fraction(busy_day_minimum['total'] or 0))} {unit}, above {ceiling_text}.",
        ]
    gas_prices_text = " and ".join(
        f"at {minimum_total['gas_gwei']} gwei ({coins_text(Fraction(minimum_total['total'] or 0))} {minimum_total['unit']})"
        for minimum_total in minimums_above_ceiling
    )
    changes = minimums_above_ceiling[0]["changes"]
    if total is None:
        remedy = "Raise max_live_value."
        if changes:
            remedy = f"Raise max_live_value, or, for {minimums_above_ceiling[0]['gas_gwei']} gwei, take {'; or '.join(changes)}."
    elif any(row["changes"] for row in minimum_totals_of_config(config, numeraire_usd, total)):
        remedy = f"With {coins_text(total)} {unit}, change a setting named below; more money needs a higher max_live_value."
    else:
        remedy = "More money needs a higher max_live_value."
    return [
        *headroom_warnings(config, total),
        f"{ceiling_text} is below the minimum total {gas_prices_text}: corrections would be held, and the cap prevents a"
        f" larger portfolio. {remedy}",
    ]


def coins_text(total: Value) -> str:
    """Format a value in whole coins."""
    return format_coins(total * 10**VALUE_PLACES, VALUE_PLACES)


def minimum_totals_of_values(
    target_drifts: Sequence[tuple[str, int, Fraction]],
    numeraire: str,
    limits: Limits,
    native_price: Fraction,
    network_fees: TypicalFees,
    total: Value,
    *,
    has_band: bool,
) -> list[MinimumTotalDocument]:
    """Return the minimum totals of command-line targets at the three gas prices of a network, in whole units of
    value; `target_drifts` are (symbol, target in bps, drift at a correction).
    """
    gas_price_inputs = _inputs_at_gas_prices(
        target_drifts,
        numeraire,
        limits.plan_cost_bps or 0,
        limits.min_trade or Fraction(0),
        native_price / 10**18,
        network_fees,
    )
    return _minimum_total_documents(
        [replace(inputs, has_band=has_band) for inputs in gas_price_inputs], numeraire, total
    )


def _inputs_at_gas_prices(
    target_drifts: Sequence[tuple[str, int, Fraction]],
    numeraire: str,
    plan_cost_bps: int,
    min_trade: Value,
    wei_value: Fraction,
    network_fees: TypicalFees,
) -> list[MinimumTotalInputs]:
    assets = tuple(
        AssetThreshold(symbol, target_bps, drift)
        for symbol, target_bps, drift in target_drifts
        if symbol != numeraire
    )
    numeraire_bps = next(
        (target_bps for symbol, target_bps, _ in target_drifts if symbol == numeraire), 0
    )
    unit_raw = 10**VALUE_PLACES
    return [
        MinimumTotalInputs(
            assets,
            numeraire_bps,
            plan_cost_bps,
            min_trade * unit_raw,
            ASSUMED_FEE_PIPS,
            gas_price_wei,
            wei_value * unit_raw,
            data_fee_wei=network_fees.data_fee_wei,
        )
        for gas_price_wei in network_fees.gas_prices_wei
    ]


def _minimum_total_documents(
    gas_price_inputs: Sequence[MinimumTotalInputs], numeraire: str, total: Value | None = None
) -> list[MinimumTotalDocument]:
    total_raw = None if total is None else total * 10**VALUE_PLACES
    return [
        minimum_total_document(gas_inputs, total_raw, VALUE_PLACES, numeraire or "units")
        for gas_inputs in gas_price_inputs
    ]


class SettingDocument(TypedDict):
    """A setting by its key in the config; `about` may be empty."""

    key: Annotated[str, shown("setting")]
    about: str
    value: str


class SettingsSectionDocument(TypedDict):
    """Settings of one subject. A control may change the `editable` keys beside targets, triggers
    and limits.
    """

    title: str
    settings: list[SettingDocument]
    editable: list[str]


class TargetSettingDocument(TypedDict):
    """An asset with its target. `band_bps` is its band, None under a zone; `orders` are its
    conditional orders as in the config.
    """

    symbol: Annotated[str, shown("asset")]
    address: Address
    target_bps: int
    band_bps: list[Number] | None
    reserve: Annotated[DecimalText, shown(figure="number")]
    orders: str


class SettingsDocument(TypedDict):
    """The settings in force, without secrets: no endpoint, no password, no name of a file or of a
    variable. Keys that the config leaves out are left out. `config_hash` is the SHA-256 of its
    file, `changes_since_start` the lines that differ from the config that a paper run read at its
    start, if any do.
    """

    config_hash: str
    numeraire: str
    trigger: str
    assets: list[TargetSettingDocument]
    payout_addresses: list[str]
    sections: list[SettingsSectionDocument]
    changes_since_start: NotRequired[list[str]]
