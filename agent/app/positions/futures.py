"""Futures: state on the chain, funding by day and market, what-if computations without a venue, and
manual actions (reductions, hedges).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.accounting.futures import FundingDay, funding_days, futures_changes
from agent.app.agent import Agent
from agent.app.cycles import Confirm, Progress
from agent.app.documents.futures import ratio_text
from agent.app.documents.futures_report import FuturesReport, build_futures_report
from agent.app.research.whatif import VALUE_PLACES
from agent.config.futures import futures_markets, require_hedge_market
from agent.config.writing.futures_template import LEVERAGE_BAND
from agent.errors import ConfigError
from agent.execution.bookkeeping import entry_prices, valuation
from agent.execution.step_context import StepOutcome
from agent.layers.futures.accounting import funding_entries
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.hedges import comparison_text, short_costs, with_choice
from agent.layers.futures.policy.targets import (
    due_triggers,
    notional_drifts,
    reduction_sizes,
)
from agent.layers.futures.requests import CloseHedge, Deleverage, OpenHedge
from agent.layers.futures.state import margin_account
from agent.margin import account as margin
from agent.margin.contract_sizes import size_for_notional_raw
from agent.margin.state import after_fill_at_mark, breaches, largest_allowed_raw, margin_state
from agent.model import (
    FuturesLimits,
    FuturesPolicy,
    FuturesTarget,
    HedgeComparison,
    MarginAccount,
    PerpMarket,
    Position,
)
from agent.policy.decide import current_drifts
from agent.reference import reference_prices
from agent.units import BPS, DAY_S, Price, Token, parse_share_with_unit_bps, value_text

if TYPE_CHECKING:
    from agent.app.documents.research import (
        FuturesWhatIfDocument,
        WhatIfHedgeDocument,
        WhatIfMarketDocument,
    )


COIN_RAW = 10**VALUE_PLACES
QUOTE_TOKEN = Token("", "", VALUE_PLACES)
HEDGE_FEE_PPM = 1_000
SALE_COST_BPS = 10
"""Fee for opening and for closing a short, and cost of a spot sale, when the two are compared."""
USUAL_LEVERAGE_BAND_BPS = parse_share_with_unit_bps(LEVERAGE_BAND, "leverage_band")
UNLIMITED = 10**9
"""Value in place of a missing limit; it is never reached."""
NO_MARKET_REASON = "it is sold: it has no futures market"
NO_SHORT_REASON = "it is sold: no short keeps the limits"
SHOWN_PLACES = 9
"""Decimal places of shown amounts; nine hide the truncation of sizes at the 18th place."""


@dataclass(frozen=True, slots=True)
class FuturesOptions:
    """Futures of a what-if: notionals, signed weights whose absolute values sum to one, prices and lots
    (in units of 10^-18) by symbol.

    Without `margin` it is the value of the spot portfolio, without `leverage_bps` and weights those of
    the positions stay, and a band of the leverage that is None is the usual one, or off without
    `leverage_bps`. `hedge_bps` is the share of a sale to short, `tax_by_symbol` the tax of a sale,
    `funding_by_symbol` the funding rate a day, both over `horizon_s`.
    """

    notional_by_symbol: Mapping[str, Fraction]
    weight_bps_by_symbol: Mapping[str, int] = field(default_factory=dict)
    band_bps: int = 0
    margin: Fraction | None = None
    leverage_bps: int = 0
    leverage_band_bps: int | None = None
    max_leverage_bps: int = UNLIMITED
    max_utilisation_bps: int = UNLIMITED
    max_position_bps: int = BPS
    spot_multiple_bps: int = 0
    stress_move_bps: int = 0
    price_by_symbol: Mapping[str, Price] = field(default_factory=dict)
    lot_raw_by_symbol: Mapping[str, int] = field(default_factory=dict)
    hedge_bps: int = 0
    tax_by_symbol: Mapping[str, Fraction] = field(default_factory=dict)
    funding_by_symbol: Mapping[str, Fraction] = field(default_factory=dict)
    horizon_s: int | None = None


def what_if_futures(
    options: FuturesOptions,
    spot_values: Mapping[str, Fraction],
    trade_values: Mapping[str, Fraction],
) -> FuturesWhatIfDocument:
    """Return the futures together with a spot portfolio. A hedge replaces part of a sale, as in a
    live step: its short is among the orders, and the purchases shrink in proportion.

    `spot_values` are values by symbol, `trade_values` the spot trades, both in whole units. Raises
    ConfigError naming the option.
    """
    spot_value = sum(spot_values.values(), Fraction(0))
    account = _whatif_account(options, spot_value)
    policy = _whatif_policy(options, account)
    spot_value_raw = Fraction(spot_value * COIN_RAW)
    account_state = margin_state(account, policy.limits, policy.leverage_bps)
    fired_triggers = due_triggers(account, policy, spot_value_raw)
    reduction_sizes_raw = reduction_sizes(account, policy, spot_value_raw)
    plan = plan_futures(account, policy, spot_value_raw, now_s=0)
    order_sizes_raw = {order.market: order.size_raw for order in plan.orders}
    hedges = _hedge_documents(
        options, spot_values, trade_values, _account_after_fills(account, order_sizes_raw), policy
    )
    trade_values = _trades_after_hedges(trade_values, hedges)
    for hedge in hedges:
        if short_value_raw := Fraction(hedge["short"]) * COIN_RAW:
            size_raw = size_for_notional_raw(account.market(hedge["symbol"]), -short_value_raw)
            order_sizes_raw = {
                **order_sizes_raw,
                hedge["symbol"]: order_sizes_raw.get(hedge["symbol"], 0) + size_raw,
            }
    position_values_raw = [
        margin.value_at_mark_raw(account, position) for position in account.positions
    ]
    account_after = _account_after_fills(account, order_sizes_raw)
    return {
        "gross": _raw_text(account_state.gross_notional_raw),
        "long": _raw_text(sum(value_raw for value_raw in position_values_raw if value_raw > 0)),
        "short": _raw_text(-sum(value_raw for value_raw in position_values_raw if value_raw < 0)),
        "net": _raw_text(account_state.net_notional_raw),
        "margin": _raw_text(account_state.account_value_raw),
        "leverage": ratio_text(account_state.leverage),
        "utilisation": ratio_text(account_state.utilisation),
        "maintenance": _raw_text(margin.maintenance_margin_raw(account)),
        "spot_multiple": ratio_text(
            Fraction(account_state.gross_notional_raw) / spot_value_raw if spot_value_raw else None
        ),
        "triggers": [trigger.value for trigger in fired_triggers],
        "breaches": [
            {
                "limit": breach.limit_name,
                "measured": breach.measured_text,
                "allowed": breach.limit_text,
            }
            for breach in breaches(account_state, policy.limits, spot_value_raw)
        ],
        "allowed_gross": _raw_text(
            margin.gross_notional_raw(_account_after_fills(account, reduction_sizes_raw))
        ),
        "gross_after": _raw_text(margin.gross_notional_raw(account_after)),
        "leverage_after": ratio_text(margin.leverage(account_after)),
        "notes": list(plan.refusal_texts),
        "markets": _market_documents(account, policy, order_sizes_raw),
        "hedges": hedges,
        "trades": {
            symbol: _value_text(trade_value) for symbol, trade_value in trade_values.items()
        },
        "net_exposure": _net_exposure(account_after, spot_values, trade_values),
    }


def _account_after_fills(
    account: MarginAccount, order_sizes_raw: Mapping[str, int]
) -> MarginAccount:
    for market, size_raw in order_sizes_raw.items():
        account = after_fill_at_mark(account, market, size_raw)
    return account


def _trades_after_hedges(
    trade_values: Mapping[str, Fraction], hedges: Sequence[WhatIfHedgeDocument]
) -> dict[str, Fraction]:
    """Return the spot trades with the sales that the hedges leave; purchases shrink in
    proportion.
    """
    sale_values = {
        symbol: trade_value for symbol, trade_value in trade_values.items() if trade_value < 0
    }
    remaining_sale_values = {
        **sale_values,
        **{hedge["symbol"]: -Fraction(hedge["sell"]) for hedge in hedges},
    }
    total_sold_before, total_sold_after = (
        sum(values_by_symbol.values(), Fraction(0))
        for values_by_symbol in (sale_values, remaining_sale_values)
    )
    remaining_share = total_sold_after / total_sold_before if total_sold_before else Fraction(1)
    return {
        symbol: remaining_sale_values.get(symbol, trade_value * remaining_share)
        for symbol, trade_value in trade_values.items()
    }


def _whatif_account(options: FuturesOptions, spot_value: Fraction) -> MarginAccount:
    """Return the account of the options. Positions are opened at the mark price, without unrealised
    profit.
    """
    for option, symbols in (
        ("--futures lot", options.lot_raw_by_symbol),
        ("--futures target", options.weight_bps_by_symbol),
    ):
        for symbol in symbols:
            if symbol not in options.notional_by_symbol:
                raise ConfigError(
                    f"{option}: {symbol!r} is not in --futures", f"add {symbol}=0 to --futures"
                )
    for symbol in options.lot_raw_by_symbol:
        if symbol not in options.price_by_symbol:
            raise ConfigError(
                f"--futures lot: {symbol} has no price, so its contracts have no value",
                f"add its price: --price {symbol}=…",
            )
    account_value = spot_value if options.margin is None else options.margin
    account_value_raw = int(account_value * COIN_RAW)
    if account_value_raw == 0:
        raise ConfigError(
            "--futures margin: is zero", "give the account value, such as --futures margin=5000"
        )
    markets = []
    positions = []
    for symbol, notional in options.notional_by_symbol.items():
        price = options.price_by_symbol.get(symbol, Fraction(1))
        market = _perp_market(symbol, price, options.lot_raw_by_symbol.get(symbol, 1))
        markets.append(market)
        size_raw = int(notional * COIN_RAW / market.mark)
        if size_raw:
            open_notional_raw = -margin.position_value_raw(market, size_raw)
            positions.append(Position(symbol, size_raw, open_notional_raw))
    return MarginAccount(QUOTE_TOKEN, 1, account_value_raw, 0, tuple(positions), tuple(markets))


def _whatif_policy(options: FuturesOptions, account: MarginAccount) -> FuturesPolicy:
    """Return the policy of the options, by default with the current weights and gross notional."""
    gross_notional_raw = margin.gross_notional_raw(account)
    weight_bps_by_symbol = options.weight_bps_by_symbol or {
        market.symbol: round(
            Fraction(
                margin.position_value_raw(market, account.size_raw(market.market)),
                gross_notional_raw,
            )
            * BPS
        )
        for market in account.markets
        if gross_notional_raw
    }
    account_value_raw = margin.account_value_raw(account)
    leverage_bps = options.leverage_bps or round(
        Fraction(gross_notional_raw, account_value_raw) * BPS
    )
    limits = FuturesLimits(
        max_leverage_bps=options.max_leverage_bps,
        max_utilisation_bps=options.max_utilisation_bps,
        max_position_bps=options.max_position_bps,
        spot_multiple_bps=options.spot_multiple_bps,
        stress_move_bps=options.stress_move_bps,
        slippage_bps=0,
        hysteresis_bps=0,
        emergency_distance_bps=0,
        emergency_slippage_bps=0,
        max_basis_bps=UNLIMITED,
        index_age_s=UNLIMITED,
    )
    return FuturesPolicy(
        tuple(
            FuturesTarget(symbol, weight_bps) for symbol, weight_bps in weight_bps_by_symbol.items()
        ),
        leverage_bps,
        options.band_bps,
        limits,
        leverage_band_bps=_leverage_band_bps(options),
        margin_in_weights=False,
    )


def _leverage_band_bps(options: FuturesOptions) -> int:
    """Return the band of the target leverage: that of the profiles if only the leverage is given;
    zero if neither is, which keeps the notional.
    """
    if options.leverage_band_bps is None:
        return USUAL_LEVERAGE_BAND_BPS if options.leverage_bps else 0
    return options.leverage_band_bps


def _market_documents(
    account: MarginAccount, policy: FuturesPolicy, order_sizes_raw: Mapping[str, int]
) -> list[WhatIfMarketDocument]:
    drift_by_market = {drift.market: drift for drift in notional_drifts(account, policy)}
    market_documents: list[WhatIfMarketDocument] = []
    for market in account.markets:
        drift = drift_by_market.get(market.market)
        order_size_raw = order_sizes_raw.get(market.market, 0)
        if drift is None and not order_size_raw:
            continue
        share = drift.share if drift else Fraction(0)
        target_share = drift.target_share if drift else Fraction(0)
        liquidation_price = margin.liquidation_price(account, market.market)
        market_documents.append(
            {
                "symbol": market.symbol,
                "notional": _raw_text(int(drift.notional) if drift else 0),
                "weight_bps": round(share * BPS),
                "target_bps": round(target_share * BPS),
                "drift_bps": round((share - target_share) * BPS),
                "order_notional": _raw_text(margin.position_value_raw(market, order_size_raw)),
                "order_size": _raw_text(order_size_raw),
                "size_after": _raw_text(account.size_raw(market.market) + order_size_raw),
                "liquidation_price": None
                if liquidation_price is None
                else value_text(liquidation_price, 0, VALUE_PLACES),
            }
        )
    return market_documents


def _hedge_documents(
    options: FuturesOptions,
    spot_values: Mapping[str, Fraction],
    trade_values: Mapping[str, Fraction],
    account: MarginAccount,
    policy: FuturesPolicy,
) -> list[WhatIfHedgeDocument]:
    """Return the hedges of the assets that are sold. An asset without a market is sold; a short is
    cut to what the limits allow after the orders and the earlier shorts, in whole lots.
    """
    sale_values = {
        symbol: -trade_value for symbol, trade_value in trade_values.items() if trade_value < 0
    }
    compare_costs = _hedge_comparer(options, spot_values, sale_values)
    market_names = {market.market for market in account.markets}
    spot_value_raw = sum(spot_values.values(), Fraction(0)) * COIN_RAW
    hedge_documents: list[WhatIfHedgeDocument] = []
    for symbol, excess_value in sale_values.items() if options.hedge_bps else ():
        short_value = Fraction(0)
        if symbol in market_names:
            short_size_raw = size_for_notional_raw(
                account.market(symbol), -excess_value * options.hedge_bps * COIN_RAW / BPS
            )
            allowed_size_raw = largest_allowed_raw(
                account, symbol, short_size_raw, policy.limits, spot_value_raw, policy.leverage_bps
            )
            short_value = abs(allowed_size_raw) * account.market(symbol).mark / COIN_RAW
        if compare_costs is not None and short_value:
            hedge_document = compare_costs(symbol, short_value)
        else:
            hedge_document = {
                "symbol": symbol,
                "excess": _value_text(excess_value),
                "sell": _value_text(excess_value - short_value),
                "short": _value_text(short_value),
                "net_exposure": _value_text(spot_values[symbol] - excess_value),
            }
        if not short_value:
            hedge_document["reason"] = (
                NO_SHORT_REASON if symbol in market_names else NO_MARKET_REASON
            )
        elif Fraction(hedge_document["short"]):
            account = after_fill_at_mark(account, symbol, allowed_size_raw)
        hedge_documents.append(hedge_document)
    return hedge_documents


def _hedge_comparer(
    options: FuturesOptions,
    spot_values: Mapping[str, Fraction],
    sale_values: Mapping[str, Fraction],
) -> Callable[[str, Fraction], WhatIfHedgeDocument] | None:
    """Return a function that compares the costs of sale and short; None without a horizon. Raises
    ConfigError.
    """
    if (horizon_s := options.horizon_s) is None:
        if options.tax_by_symbol or options.funding_by_symbol:
            raise ConfigError(
                "--futures tax, funding: horizon is missing",
                "give the duration of the hedge: --futures horizon=30d",
            )
        return None
    for option, symbols in (
        ("--futures tax", options.tax_by_symbol),
        ("--futures funding", options.funding_by_symbol),
    ):
        if unknown_symbols := [symbol for symbol in symbols if symbol not in spot_values]:
            raise ConfigError(
                f"{option}: {unknown_symbols[0]!r} has no value",
                f"add {unknown_symbols[0]} to --value",
            )

    def compare(symbol: str, short_value: Fraction) -> WhatIfHedgeDocument:
        market = replace(
            _perp_market(symbol, Fraction(1), 1),
            fee_ppm=HEDGE_FEE_PPM,
            funding_daily=options.funding_by_symbol.get(symbol, Fraction(0)),
        )
        excess_value = sale_values[symbol]
        initial_margin_rate = Fraction(market.tiers[0].initial_ppm, margin.PPM)
        short_fees, funding_cost, margin_needed, _ = short_costs(
            market, short_value, horizon_s, initial_margin_rate, 0
        )
        comparison = HedgeComparison(
            token=symbol,
            excess=excess_value,
            hedged_value=short_value,
            sale_fees=short_value * SALE_COST_BPS / BPS,
            sale_impact=Fraction(0),
            sale_tax=options.tax_by_symbol.get(symbol, Fraction(0)),
            hedge_fees=short_fees,
            hedge_funding=funding_cost,
            capital_cost=Fraction(0),
            required_margin=margin_needed,
            horizon_s=horizon_s,
        )
        comparison = with_choice(comparison, Fraction(0), counts_income=True)
        short_value = short_value if comparison.is_hedged else Fraction(0)
        return {
            "symbol": symbol,
            "excess": _value_text(excess_value),
            "sell": _value_text(excess_value - short_value),
            "short": _value_text(short_value),
            "net_exposure": _value_text(spot_values[symbol] - excess_value),
            "cost_of_sale": _value_text(comparison.sale_cost),
            "cost_of_hedge": _value_text(comparison.hedge_cost),
            "reason": comparison_text(comparison, symbol, 0),
        }

    return compare


def _perp_market(symbol: str, price: Price, lot_raw: int) -> PerpMarket:
    return PerpMarket(
        market=symbol,
        symbol=symbol,
        asset=symbol,
        size_decimals=VALUE_PLACES,
        lot_raw=lot_raw,
        tiers=margin.PERPETUAL_PROTOCOL_TIERS,
        fee_ppm=0,
        mark=price,
        index=price,
        index_s=0,
        funding_daily=Fraction(0),
    )


def _net_exposure(
    account: MarginAccount,
    spot_values: Mapping[str, Fraction],
    trade_values: Mapping[str, Fraction],
) -> dict[str, str]:
    """Return the value exposed to each symbol's price after all trades and orders; `account` is
    that after the orders.
    """
    exposure_by_symbol = {
        symbol: spot_value + trade_values[symbol] for symbol, spot_value in spot_values.items()
    }
    for market in account.markets:
        position_value = Fraction(
            margin.position_value_raw(market, account.size_raw(market.market)), COIN_RAW
        )
        exposure_by_symbol[market.symbol] = (
            exposure_by_symbol.get(market.symbol, Fraction(0)) + position_value
        )
    return {
        symbol: _value_text(exposure_value) for symbol, exposure_value in exposure_by_symbol.items()
    }


def _raw_text(amount_raw: int) -> str:
    return value_text(Fraction(amount_raw), VALUE_PLACES, SHOWN_PLACES)


def _value_text(value: Fraction) -> str:
    return value_text(value, 0, VALUE_PLACES)


def current_futures_report(agent: Agent) -> FuturesReport:
    """Return the futures report of a new step. Raises ConfigError without [futures]."""
    step = agent.step_input()
    return build_futures_report(step, agent.futures_policy(), current_drifts(step))


def futures_funding(agent: Agent, days: int) -> tuple[FuturesReport, tuple[FundingDay, ...]]:
    """Return the futures report of a new step, and the funding of the last `days` by day and
    market. Today's funding from this block is included, but not recorded. Raises ConfigError
    without [futures].
    """
    report = current_futures_report(agent)
    store = agent.context.store
    prices = entry_prices(report.step.portfolio, reference_prices(report.step))
    valuations = list(store.valuations.between())
    current_valuation = valuation(report.step, prices)
    if current_valuation is not None and (
        not valuations or current_valuation.block > valuations[-1].block
    ):
        valuations.append(current_valuation)
    first_day_s = report.step.snapshot.head.timestamp_s // DAY_S * DAY_S - (days - 1) * DAY_S
    first_index = bisect_left([valuation.chain_s for valuation in valuations], first_day_s)
    valuations = valuations[max(0, first_index - 1) :]
    entries = store.ledger.entries()
    entry_ids = {entry.id for entry in entries}
    new_entries = [
        entry for entry in funding_entries(report.step, prices) if entry.id not in entry_ids
    ]
    all_funding_days = funding_days(
        valuations, futures_changes((*entries, *new_entries), valuations)
    )
    return report, tuple(
        funding_day for funding_day in all_funding_days if funding_day.day_s >= first_day_s
    )


def hedge(
    agent: Agent,
    asset: str,
    ratio: str,
    *,
    close: bool,
    send: bool,
    confirm: Confirm,
    progress: Progress,
) -> StepOutcome:
    """Short `ratio` of an asset's excess over its target (empty: the config's ratio), or close the
    short. Raises ConfigError.
    """
    if close and ratio:
        raise ConfigError(
            "--ratio: cannot be combined with --close", "omit it; --close closes the whole hedge"
        )
    token = agent.token(asset, "hedge")
    hedge_terms = agent.futures_policy().hedge_policy
    require_hedge_market(agent.context.config, token.symbol)
    request: OpenHedge | CloseHedge = CloseHedge(token.address)
    if not close:
        if hedge_terms is None:
            raise ConfigError(
                "futures.hedge: missing",
                "add [futures.hedge] with horizon, min_saving, tax_rate and capital_cost",
            )
        ratio_bps = parse_share_with_unit_bps(ratio, "--ratio") if ratio else hedge_terms.ratio_bps
        if not 0 < ratio_bps <= BPS:
            raise ConfigError(f"--ratio: {ratio}", "write more than 0 % and at most 100 %")
        request = OpenHedge(token.address, ratio_bps)
    return agent.adjust_futures(request, send=send, confirm=confirm, progress=progress)


def deleverage(
    agent: Agent,
    leverage: str | None,
    symbol: str | None,
    *,
    send: bool,
    confirm: Confirm,
    progress: Progress,
) -> StepOutcome:
    """Reduce positions to a leverage, overall or in one market; without a leverage close that
    market. Raises ConfigError.
    """
    if leverage is None and symbol is None:
        raise ConfigError("--to, --market: at least one is required", "for example --to 2x")
    symbols = [market.symbol for market in futures_markets(agent.context.config)]
    if symbol is not None and symbol not in symbols:
        account = margin_account(agent.step_input().snapshot)
        if account is not None:
            symbols += [perp_market.symbol for perp_market in account.markets]
    if symbol is not None and symbol not in symbols:
        symbols = list(dict.fromkeys(symbols))
        raise ConfigError(
            f"--market: {symbol!r} is not a futures market", f"choose from {', '.join(symbols)}"
        )
    leverage_bps = None if leverage is None else _parse_leverage_bps(leverage)
    request = Deleverage(leverage_bps, symbol or "")
    return agent.adjust_futures(request, send=send, confirm=confirm, progress=progress)


def reopening_note(agent: Agent, leverage: str | None) -> str:
    """Return a note if the next step opens again what a reduction to a leverage closes; else an
    empty text.
    """
    target_bps = agent.futures_policy().leverage_bps
    if (0 if leverage is None else _parse_leverage_bps(leverage)) >= target_bps:
        return ""
    return (
        "The targets are unchanged: the next step may raise leverage back to futures.leverage of"
        f" {target_bps / BPS:g}x. Lower it first, or run trimtab pause."
    )


def _parse_leverage_bps(leverage_text: str) -> int:
    """Return the basis points of "2x". Raises ConfigError."""
    try:
        return parse_share_with_unit_bps(leverage_text, "--to")
    except ConfigError as error:
        raise ConfigError(error.message, "write it as a multiple, such as 2x or 0.5x") from None
