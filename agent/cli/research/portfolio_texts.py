"""Texts of the command line as the typed options of a simulated portfolio, its market and its futures
book.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.app import FuturesBookOptions, MarketOptions, PortfolioOptions
from agent.app.research.backtests import USUAL_MARKET, PoolFile
from agent.backtest.settings import DEFAULT_DECIMALS, IN_NUMERAIRE, OwnerTransfer
from agent.backtest.tune.grid import RULE_BY_STRICTNESS
from agent.cli.research.futures_texts import POLICY_PARSERS, parse_positive_raw
from agent.cli.research.value_texts import (
    FieldParsers,
    parse_bands,
    parse_by_symbol,
    parse_fields,
    parse_fraction,
    parse_member,
    parse_targets,
)
from agent.config.tables.fields import (
    parse_choice,
    parse_duration_s,
    parse_gas_price_wei,
    parse_pairs,
)
from agent.errors import ConfigError
from agent.model import Destination, Every, HybridTrigger, Threshold, Trigger
from agent.units import (
    BPS,
    PIPS,
    format_bps,
    parse_raw,
    parse_share_with_unit_bps,
    whole_number,
    written_number,
)

MAX_DECIMALS = 36
MAX_TRANSFER_COINS = 10**30
EARLIEST_TRANSFER_S = 0
LATEST_TRANSFER_S = 4_102_444_800
"""2100-01-01."""


def portfolio_options(
    config: Path | None = None,
    *,
    target: str = "",
    band: str = "",
    every: str = "",
    tracking: str = "",
    destination: str = "",
    numeraire: str = "",
    native: str = "",
    symbol_mapping: Sequence[str] | None = None,
    decimals: str = "",
) -> PortfolioOptions:
    """Return the options of a portfolio; an empty text is not given. Raises ConfigError naming the
    option.
    """
    common_band, band_by_symbol = parse_bands(band)
    return PortfolioOptions(
        config,
        parse_targets(target) if target else {},
        _parse_trigger(common_band, every, tracking),
        band_by_symbol,
        parse_member(destination, "--destination", Destination) if destination else None,
        numeraire,
        native,
        parse_pairs(",".join(symbol_mapping), "--as") if symbol_mapping else {},
        parse_by_symbol(decimals, "--market decimals", _parse_decimals) if decimals else {},
    )


def _parse_trigger(band: Threshold | None, every: str, tracking: str) -> Trigger | None:
    if tracking and (every or band is not None):
        raise ConfigError(f"--tracking: {tracking} beside --band or --every", "choose one of them")
    if tracking:
        return parse_choice(tracking, "--tracking", RULE_BY_STRICTNESS)
    if not every:
        return band
    schedule = Every(parse_duration_s(every, "--every"))
    return schedule if band is None else HybridTrigger(band, schedule)


def _parse_decimals(decimals_text: str, option: str) -> int:
    decimals = whole_number(decimals_text)
    if decimals is None or decimals > MAX_DECIMALS:
        raise ConfigError(
            f"{option}: {decimals_text!r}",
            f"write a whole number from 0 to {MAX_DECIMALS}: WBTC=8",
        )
    return decimals


def market_options(
    texts: Mapping[str, Any] | None = None,
    *,
    value: str = "10000",
    flows: Sequence[str] | None = None,
    flow_form: str = IN_NUMERAIRE,
) -> MarketOptions:
    """Return the options of a market, from the texts of --market by their names, the initial value of
    the wallet, and the owner's transfers with their form. Raises ConfigError naming the option.
    """
    values = parse_fields(texts or {}, _MARKET_PARSERS)
    files = {name: values.pop(name) for name in ("gas_prices_path", "pool_files") if name in values}
    settings = replace(
        USUAL_MARKET,
        start_value=parse_fraction(value, "--value"),
        flows=tuple(map(parse_owner_transfer, flows or ())),
        transfer_mode=flow_form,
        **values,
    )
    return MarketOptions(settings, **files, written_fields=values.keys())


def parse_owner_transfer(flow_text: str) -> OwnerTransfer:
    """Parse 2021-03-01=+1000, or with a time of day; UTC unless a zone is named. Raises
    ConfigError.
    """
    time_text, _, amount_text = flow_text.partition("=")
    try:
        transfer_time = datetime.fromisoformat(time_text.strip())
        if not transfer_time.tzinfo:
            transfer_time = transfer_time.replace(tzinfo=UTC)
        transfer = OwnerTransfer(
            int(transfer_time.timestamp()), written_number(amount_text.strip())
        )
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--flow: {flow_text[:40]!r}",
            "write a time and an amount of the numeraire: 2021-03-01=+1000",
        ) from None
    if transfer.amount == 0:
        raise ConfigError(
            f"--flow: {flow_text[:40]!r} has an amount of zero",
            "write a positive amount for a deposit, a negative one for a withdrawal",
        )
    if (
        abs(transfer.amount) > MAX_TRANSFER_COINS
        or not EARLIEST_TRANSFER_S <= transfer.time_s <= LATEST_TRANSFER_S
    ):
        raise ConfigError(
            f"--flow: {flow_text[:40]!r} has a time or amount out of range",
            "write for example 2021-03-01=+1000",
        )
    return transfer


def _parse_pool_file(pool_text: str) -> PoolFile:
    pair_text, equals, path_text = pool_text.partition("=")
    symbol0, slash, symbol1 = pair_text.partition("/")
    if not (equals and slash and symbol0 and symbol1 and path_text):
        raise ConfigError(
            f"--market pool-state: {pool_text[:60]!r}",
            "write its tokens and its file: WBTC/WETH=pool.json",
        )
    return PoolFile(symbol0.strip(), symbol1.strip(), Path(path_text))


_MARKET_PARSERS: FieldParsers = {
    "depth": ("depth", lambda text: parse_fraction(text, "--market depth")),
    "fee": (
        "fee_pips",
        lambda text: parse_share_with_unit_bps(text, "--market fee") * (PIPS // BPS),
    ),
    "gas": ("gas_price_wei", lambda text: parse_gas_price_wei(text, "--market gas")),
    "data_fee": ("data_fee_wei", lambda text: parse_gas_price_wei(text, "--market data-fee")),
    "pool_state": ("pool_files", lambda texts: tuple(map(_parse_pool_file, texts))),
    "pool": ("pool_kind", str),
    "gas_prices": ("gas_prices_path", Path),
    "latency": ("latency_bars", int),
    "gone": ("stale_asset_mode", str),
}


def futures_book_options(
    texts: Mapping[str, str], config: Path | None = None
) -> FuturesBookOptions:
    """Return the options of a book, from the texts of --futures by their names. Raises ConfigError
    naming the option.
    """
    values = parse_fields(texts, _BOOK_PARSERS)
    return FuturesBookOptions(config=config, **values, written_fields=values.keys())


def _part_parser(name: str) -> Callable[[str], int]:
    """Return a parser of a share below a half."""

    def parse(text: str) -> int:
        share_bps = parse_share_with_unit_bps(text, f"--futures {name}")
        if share_bps >= BPS // 2:
            raise ConfigError(
                f"--futures {name}: {format_bps(share_bps)}", "write a share below 50 %"
            )
        return share_bps

    return parse


_BOOK_PARSERS: FieldParsers = {
    **POLICY_PARSERS,
    "margin": ("margin_raw", lambda text: parse_positive_raw(text, "--futures margin")),
    "reserve": ("reserve_raw", lambda text: parse_raw(text, DEFAULT_DECIMALS, "--futures reserve")),
    "fee": ("fee_bps", _part_parser("fee")),
    "slippage": ("slippage_bps", _part_parser("slippage")),
    "penalty": ("penalty_bps", _part_parser("penalty")),
    "bound": ("bound_bps", _part_parser("bound")),
}
