"""Keys of conditional orders (entry, stop loss, take profit, trailing stop) and of the execution
style.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from agent.config.schema import Config
from agent.config.tables.orders import ExitKeys, OrderLevel, OrdersTable, order_levels
from agent.config.tables.portfolio import PortfolioTable
from agent.model import (
    PORTFOLIO_SUBJECT,
    PRICE_ALERTS,
    AlertKind,
    Asset,
    OrderKind,
    OrdersConfig,
    OrderTerms,
    WeightReallocation,
)
from agent.units import Token


def price_level_notes(portfolio: PortfolioTable) -> dict[str, str]:
    """Return notes on levels written as amounts, by symbol and kind, in case a share was meant."""
    note_by_level = {}
    for asset in portfolio.assets:
        for kind, level in order_levels(asset):
            if level.price is None:
                continue
            price_text = _decimal_text(level.price)
            amount_meaning = "distance" if kind is OrderKind.TRAILING_STOP else "price"
            share_hint = f'; a share is written "{price_text}%"' if level.price < 100 else ""
            note_by_level[f"{asset.symbol} {kind.value}"] = (
                f"{price_text} is a {amount_meaning} in {portfolio.numeraire}{share_hint}"
            )
    return note_by_level


def unsent_alert_notes(config: Config, level_names: Iterable[str]) -> tuple[str, ...]:
    """Return a note if one of these levels, by kind or display name, is a price alert that no target
    takes.
    """
    price_event = AlertKind.PRICE.value
    alerts_table = config.alerts
    is_sent = price_event in alerts_table.events and any(
        price_event in alerts_table.events_of(target) for target in alerts_table.targets
    )
    price_alert_kinds = tuple(kind.value for kind in PRICE_ALERTS)
    if is_sent or not any(name.startswith(price_alert_kinds) for name in level_names):
        return ()
    return (
        f'no alert target takes the event "{price_event}", so no message is sent (docs/alerts.md)',
    )


def named_levels(portfolio: PortfolioTable) -> set[tuple[str, OrderLevel]]:
    """Return all orders of a portfolio by display name, such as "stop_loss of WETH"."""
    subject_tables: list[tuple[str, ExitKeys]] = [
        ("the portfolio", portfolio.orders or OrdersTable())
    ]
    subject_tables += [(asset.symbol, asset) for asset in portfolio.assets]
    return {
        (f"{kind.value} of {subject}", level)
        for subject, table in subject_tables
        for kind, level in order_levels(table)
    }


def _decimal_text(price: Fraction) -> str:
    return f"{Decimal(price.numerator) / Decimal(price.denominator):f}"


def require_strategy_orders(config: Config) -> None:
    """Raise ValueError for orders that strategies do not support: entries, and exits into tokens
    other than the numeraire.
    """
    portfolio = config.portfolio
    if not config.strategies:
        return
    symbol_with_entry = next(
        (asset.symbol for asset in portfolio.assets if asset.entry is not None), None
    )
    if symbol_with_entry is not None:
        raise ValueError(
            f"portfolio.assets.{symbol_with_entry}.entry: strategies do not support entries; remove the entry"
            " or [[strategies]]"
        )
    if portfolio.orders is not None and portfolio.orders.absent != "cash":
        raise ValueError(
            "portfolio.orders.absent: strategies keep the weight of a sold asset in the"
            ' numeraire; write "cash"'
        )


def build_orders(
    portfolio: PortfolioTable, assets: Iterable[Asset], numeraire: Token
) -> OrdersConfig:
    """Build the orders in exact units, by token address."""
    orders_table = portfolio.orders or OrdersTable()
    token_by_symbol = {asset.token.symbol: asset.token for asset in assets}
    order_terms = [
        OrderTerms(PORTFOLIO_SUBJECT, kind, None, level.share_bps)
        for kind, level in order_levels(orders_table)
    ]
    for asset in portfolio.assets:
        token = token_by_symbol[asset.symbol]
        price_scale = Fraction(10) ** (numeraire.decimals - token.decimals)
        for kind, level in order_levels(asset):
            price_raw = None if level.price is None else level.price * price_scale
            order_terms.append(OrderTerms(token.address, kind, price_raw, level.share_bps))
    return OrdersConfig(
        tuple(order_terms),
        WeightReallocation(orders_table.absent),
        orders_table.hysteresis,
        orders_table.entry_above_price == "refuse",
    )
