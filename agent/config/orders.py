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
    notes = {}
    for asset in portfolio.assets:
        for kind, level in order_levels(asset):
            if level.price is None:
                continue
            price_text = _decimal_text(level.price)
            meaning = "distance" if kind is OrderKind.TRAILING_STOP else "price"
            share_hint = f'; a share is written "{price_text}%"' if level.price < 100 else ""
            notes[f"{asset.symbol} {kind.value}"] = (
                f"{price_text} is a {meaning} in {portfolio.numeraire}{share_hint}"
            )
    return notes


def unsent_alert_notes(config: Config, level_names: Iterable[str]) -> tuple[str, ...]:
    """Return a note if one of these levels, by kind or display name, is a price alert that no target
    takes.
    """
    event, table = AlertKind.PRICE.value, config.alerts
    is_sent = event in table.events and any(
        event in (target.events or table.events) for target in table.targets
    )
    kinds = tuple(kind.value for kind in PRICE_ALERTS)
    if is_sent or not any(name.startswith(kinds) for name in level_names):
        return ()
    return (f'no alert target takes the event "{event}", so no message is sent (docs/alerts.md)',)


def named_levels(portfolio: PortfolioTable) -> set[tuple[str, OrderLevel]]:
    """Return all orders of a portfolio by display name, such as "stop_loss of WETH"."""
    tables: list[tuple[str, ExitKeys]] = [("the portfolio", portfolio.orders or OrdersTable())]
    tables += [(asset.symbol, asset) for asset in portfolio.assets]
    return {
        (f"{kind.value} of {subject}", level)
        for subject, table in tables
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
    with_entry = next((asset.symbol for asset in portfolio.assets if asset.entry is not None), None)
    if with_entry is not None:
        raise ValueError(
            f"portfolio.assets.{with_entry}.entry: strategies do not support entries; remove the entry"
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
    table = portfolio.orders or OrdersTable()
    tokens = {asset.token.symbol: asset.token for asset in assets}
    terms = [
        OrderTerms(PORTFOLIO_SUBJECT, kind, None, level.share_bps)
        for kind, level in order_levels(table)
    ]
    for asset in portfolio.assets:
        token = tokens[asset.symbol]
        scale = Fraction(10) ** (numeraire.decimals - token.decimals)
        for kind, level in order_levels(asset):
            price = None if level.price is None else level.price * scale
            terms.append(OrderTerms(token.address, kind, price, level.share_bps))
    return OrdersConfig(
        tuple(terms),
        WeightReallocation(table.absent),
        table.hysteresis,
        table.entry_above_price == "refuse",
    )
