"""Backtests of a portfolio, or a config, over the prices of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

from agent.app.research.whatif import MIN_ASSETS, require_fit_bands
from agent.backtest.data import (
    PriceTable,
    has_gas_price,
    read_gas_prices,
    read_table,
    require_currency,
    require_unit_of_prices,
)
from agent.backtest.funding import FundingRateSeries, read_funding, rename_funding_symbols
from agent.backtest.jumps import note_without_suspects, suspect_closes, without_closes
from agent.backtest.result import SimulationResult
from agent.backtest.settings import (
    ROUTER,
    ROUTER_KIND,
    BacktestSpec,
    SimulatedTokens,
    SimulationSettings,
    TaxRule,
    make_spec,
    simulated_spec,
)
from agent.backtest.simulate import Progress, simulate
from agent.backtest.world import read_pool
from agent.config.build import (
    build_limits,
    build_policy,
    build_reference,
)
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.pace import build_pace
from agent.config.weights import offline_portfolio, without_max_change
from agent.errors import ConfigError
from agent.layers.settings import build_layer_settings
from agent.layers.tax.settings import year_limit
from agent.model import (
    Destination,
    Every,
    ExecutionConfig,
    LotMethod,
    NoTradeZone,
    Policy,
    Portfolio,
    Threshold,
    Trigger,
)
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.validation import validate_policy
from agent.price_files.layout import file_symbol
from agent.units import decimal_text, value_text
from agent.weights.asset_classes import is_cash

EXPIRE_BLOCKS = 25
USUAL_MARKET = SimulationSettings(
    depth=Fraction(10**9), fee_pips=1_000, start_value=Fraction(10_000)
)
SAMPLE_FOLDER = Path(__file__).parents[2] / "backtest" / "sample"


@dataclass(frozen=True, slots=True)
class PoolFile:
    """The file of a recorded pool, and the symbols of its tokens, that of the lower address first."""

    symbol0: str
    symbol1: str
    path: Path


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """The simulated market, and files that replace its gas price, by one for each bar, and pools.
    `written_fields` are the fields of `settings` that were written, at whatever value.
    """

    settings: SimulationSettings = USUAL_MARKET
    gas_prices_path: Path | None = None
    pool_files: tuple[PoolFile, ...] = ()
    written_fields: Set[str] = frozenset()

    @property
    def pool_pairs(self) -> tuple[tuple[str, str], ...]:
        """The two symbols of each recorded pool."""
        return tuple((pool_file.symbol0, pool_file.symbol1) for pool_file in self.pool_files)

    def settings_for_table(self, spec: BacktestSpec, table: PriceTable) -> SimulationSettings:
        """Return the settings with gas prices for each bar and the recorded pools. Raises
        ConfigError.
        """
        settings = self.settings
        if self.gas_prices_path is not None:
            if settings.gas_price_wei:
                raise ConfigError(
                    "--market gas-prices: --market gas sets another price", "give only one of them"
                )
            settings = replace(
                settings, gas_price_wei=read_gas_prices(self.gas_prices_path, table.times_s)
            )
        token_by_symbol = {token.symbol: token for token in spec.tokens}
        recorded_pools = []
        for pool_file in self.pool_files:
            for symbol in (pool_file.symbol0, pool_file.symbol1):
                if symbol not in token_by_symbol:
                    raise ConfigError(
                        f"--market pool-state: {symbol!r} is not in the portfolio",
                        f"choose from {', '.join(token_by_symbol)}",
                    )
            recorded_pools.append(
                read_pool(
                    pool_file.path,
                    token_by_symbol[pool_file.symbol0],
                    token_by_symbol[pool_file.symbol1],
                )
            )
        return replace(settings, recorded_pools=tuple(recorded_pools))


@dataclass(frozen=True, slots=True)
class PortfolioOptions:
    """The simulated portfolio and its policy: a config, or targets in basis points with a trigger and
    bands of single assets, all by symbol.

    Without a `trigger` it is the tracking rule, without a `destination` the usual one of the trigger.
    `symbol_by_file_symbol` are the assets of the files' symbols, `decimals_by_symbol` those of tokens
    that have other than 18. `native` is the asset that prices gas. An empty `numeraire` means the
    first target without a price in the file that is a known currency or stablecoin, or USD if every
    target has a price.
    """

    config: Path | None = None
    target_bps_by_symbol: Mapping[str, int] = field(default_factory=dict)
    trigger: Trigger | None = None
    band_by_symbol: Mapping[str, Threshold] = field(default_factory=dict)
    destination: Destination | None = None
    numeraire: str = ""
    native: str = ""
    symbol_by_file_symbol: Mapping[str, str] = field(default_factory=dict)
    decimals_by_symbol: Mapping[str, int] = field(default_factory=dict)

    def load_prices(self, prices_path: Path) -> PriceTable:
        """Load the file's prices under the portfolio's symbols. Raises ConfigError."""
        return rename_symbols(read_table(prices_path), self.symbol_by_file_symbol)

    def load_prices_and_funding(
        self, prices_path: Path, funding_path: Path | None
    ) -> tuple[PriceTable, tuple[FundingRateSeries, ...]]:
        """Load prices and funding rates under the portfolio's symbols; `--as` may name symbols of
        the funding file alone. Raises ConfigError.
        """
        table = read_table(prices_path)
        rate_series = () if funding_path is None else read_funding(funding_path)
        rates_only_symbols = {series.symbol for series in rate_series} - {*table.symbols}
        table = rename_symbols(
            table,
            {
                symbol: portfolio_symbol
                for symbol, portfolio_symbol in self.symbol_by_file_symbol.items()
                if symbol not in rates_only_symbols
            },
        )
        return table, rename_funding_symbols(rate_series, self.symbol_by_file_symbol)

    def spec(self, table: PriceTable, pools: Sequence[tuple[str, str]] = ()) -> BacktestSpec:
        """Return the backtest spec of the config, or of the targets, without limits. Raises
        ConfigError naming the option.
        """
        if self.config is None:
            return self._spec_without_config(table, pools)
        refuse_options(
            self,
            PortfolioOptions(),
            self.option_by_field,
            "the config sets it",
            "omit it, or --config",
        )
        spec = spec_from_config(load_config(self.config))
        symbol = spec.portfolio.numeraire.symbol
        if self.numeraire not in ("", symbol):
            raise ConfigError(
                f"--numeraire: {self.numeraire}, but portfolio.numeraire is {symbol}", "omit it"
            )
        if self.native and all(
            token.symbol != self.native or token.address != spec.portfolio.wrapped_native
            for token in spec.tokens
        ):
            raise ConfigError(
                f"--native: {self.native} is not the chain.wrapped_native of the config", "omit it"
            )
        if symbol not in table.symbols and not self.numeraire:
            require_unit_of_prices(
                symbol,
                f"use prices of {symbol} too; if the prices are in it, add --numeraire {symbol}",
            )
        require_currency(table, symbol, f"use prices in {symbol}, or prices of {symbol} too")
        return spec

    def _spec_without_config(
        self, table: PriceTable, pools: Sequence[tuple[str, str]]
    ) -> BacktestSpec:
        numeraire = numeraire_of(table, self.target_bps_by_symbol, self.numeraire)
        currency_remedy = (
            f"write {table.currency} in place of {numeraire}, or use prices in {numeraire}"
        )
        require_currency(table, numeraire, currency_remedy)
        trigger = self.trigger or build_tracking("")
        require_fit_bands(trigger, self.band_by_symbol, self.target_bps_by_symbol)
        spec = make_spec(
            self.target_bps_by_symbol,
            trigger,
            numeraire,
            destination=fit_destination(self.destination, trigger),
            interval_s=table.interval_s,
            native=self.native,
            tokens=SimulatedTokens(self.decimals_by_symbol, pools),
        )
        _require_valid_policy(spec.policy)
        if isinstance(trigger, NoTradeZone):
            require_numeraire_among_assets(spec.portfolio)
        assets = tuple(
            replace(asset, band=self.band_by_symbol.get(asset.token.symbol))
            for asset in spec.portfolio.assets
        )
        return replace(spec, portfolio=replace(spec.portfolio, assets=assets))

    @property
    def option_by_field(self) -> dict[str, str]:
        """The options that a config sets, by their fields."""
        match self.trigger:
            case Every():
                trigger_option = "--every"
            case NoTradeZone():
                trigger_option = "--tracking"
            case _:
                trigger_option = "--band"
        return {
            "target_bps_by_symbol": "--target",
            "trigger": trigger_option,
            "band_by_symbol": "--band",
            "destination": "--destination",
            "decimals_by_symbol": "--market decimals",
        }


def refuse_options(
    options: object,
    usual: object,
    option_by_field: Mapping[str, str],
    why: str,
    remedy: str,
    written_fields: Set[str] = frozenset(),
) -> None:
    """Raise ConfigError naming the first option by these fields that is written, or is not as in the
    `usual` ones: it would have no effect.
    """
    for field_name, option in option_by_field.items():
        is_usual = getattr(options, field_name) == getattr(usual, field_name)
        if field_name in written_fields or not is_usual:
            raise ConfigError(f"{option}: {why}", remedy)


def fit_destination(destination: Destination | None, trigger: Trigger) -> Destination:
    """Return the destination, without one the trigger's usual. Raises ConfigError if they do not fit."""
    is_tracking = isinstance(trigger, NoTradeZone)
    usual = Destination.ZONE if is_tracking else Destination.TARGET
    if destination in (None, usual):
        return usual
    if is_tracking:
        raise ConfigError(
            f"--destination: {destination.value}, but tracking trades to the edge of its zone",
            "omit it",
        )
    if destination is Destination.ZONE:
        raise ConfigError("--destination: zone, but only tracking has one", "omit it")
    return destination


def require_numeraire_among_assets(portfolio: Portfolio) -> None:
    """Raise ConfigError if the tracking rule has no numeraire to trade the assets against."""
    numeraire = portfolio.numeraire
    if all(asset.token.address != numeraire.address for asset in portfolio.assets):
        raise ConfigError(
            f"--target: tracking trades against {numeraire.symbol}, which is not among the targets",
            f"add {numeraire.symbol}=0, or give --band or --every",
        )


def sample_files() -> tuple[Path, Path]:
    """Return the paths of the sample prices and gas prices of 2021 (sources:
    agent/backtest/sample/README.md).
    """
    return SAMPLE_FOLDER / "prices_2021.csv", SAMPLE_FOLDER / "gas_2021.csv"


def prices_file(prices_path: Path | None, uses_sample: bool) -> Path:
    """Return the path of the given file, or of the sample. Raises ConfigError for both or
    neither.
    """
    if uses_sample == (prices_path is not None):
        raise ConfigError(
            "--prices or --sample: exactly one is needed",
            "name a file, or try it with --sample",
        )
    return sample_files()[0] if prices_path is None else prices_path


def backtest(
    prices_path: Path,
    market_options: MarketOptions,
    portfolio_options: PortfolioOptions,
    *,
    funding: Path | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate the file's prices. With `funding`, a file of funding rates, the result states the
    funding that shorts of the holdings would have received. If closes are probably wrong, a note has
    the result without them. Raises ConfigError naming the option.
    """
    table, rate_series = portfolio_options.load_prices_and_funding(prices_path, funding)
    spec = portfolio_options.spec(table, market_options.pool_pairs)
    settings = market_options.settings_for_table(spec, table)
    require_priced_gas(settings, spec, table)
    return simulate_checked(spec, table, settings, progress, rate_series)


def simulate_checked(
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    progress: Progress | None = None,
    rate_series: Sequence[FundingRateSeries] = (),
) -> SimulationResult:
    """Simulate a table; if closes are probably wrong, a note has the result without them. Raises
    ConfigError.
    """
    result = simulate(spec, table, settings, progress, rate_series)
    if not (suspects := suspect_closes(table, spec)):
        return result

    def change_text() -> str:
        trusted_result = simulate(spec, without_closes(table, suspects), settings)
        values_text = " instead of ".join(
            value_text(value, result.decimals, 2)
            for value in (trusted_result.final_value, result.final_value)
        )
        return (
            f"Without them the portfolio ends at {values_text} {result.numeraire}, its return is"
            f" {trusted_result.twr * 100:.2f} % instead of {result.twr * 100:.2f} %"
        )

    note = note_without_suspects(suspects, change_text)
    return replace(result, notes=(note, *result.notes))


def spec_from_config(loaded_config: LoadedConfig) -> BacktestSpec:
    """Build the backtest spec of a config. The simulated chain has its own router and feeds; a
    token without decimals in the config has 18, and no choice of weights waits for an owner.
    Raises ConfigError.
    """
    weights_table = loaded_config.config.portfolio.weights
    loaded_config = replace(loaded_config, config=without_max_change(loaded_config.config))
    config = loaded_config.config
    portfolio = offline_portfolio(loaded_config)
    execution = ExecutionConfig(
        ROUTER_KIND,
        ROUTER,
        config.execution.deadline,
        EXPIRE_BLOCKS,
        (ROUTER,),
        pace=build_pace(config),
        sweeps_outputs=True,
    )
    limits = build_limits(config, portfolio.numeraire)
    tax_settings = config.tax
    if (
        tax_settings is not None
        and tax_settings.year_limit is not None
        and tax_settings.currency is not None
    ):
        raise ConfigError(
            "tax.year_limit in another currency is not simulated",
            "omit tax.currency from the config of a backtest",
        )
    tax_rule = TaxRule()
    if tax_settings is not None:
        year_limit_value = year_limit(tax_settings.year_limit, portfolio.numeraire.decimals)
        tax_rule = TaxRule(LotMethod(tax_settings.method), year_limit_value, tax_settings.rate or 0)
    return simulated_spec(
        BacktestSpec(
            portfolio,
            build_policy(config),
            build_reference(config),
            limits,
            execution,
            (),
            build_layer_settings(loaded_config, portfolio),
            tax_rule,
            signal_folder=loaded_config.path.parent,
            max_change_bps=None if weights_table is None else weights_table.max_change_bps,
        )
    )


def _require_valid_policy(policy: Policy) -> None:
    """Raise ConfigError for an invalid policy, naming the option in place of the config key."""
    try:
        validate_policy(policy)
    except ConfigError as error:
        message = error.message.replace("policy.trigger.every", "--every")
        message = message.replace("policy.destination", "--destination")
        remedy = error.remedy.replace("use a threshold or hybrid trigger", "give --band too")
        raise ConfigError(message, remedy) from None


def numeraire_of(table: PriceTable, target_bps_by_symbol: Mapping[str, int], numeraire: str) -> str:
    """Return the numeraire of two or more targets, the given or implied one. Raises ConfigError for
    another target without a price in the file.
    """
    if not target_bps_by_symbol:
        raise ConfigError(
            "--target or --config is needed",
            "write for example --target BTC=50,USD=50 --band 10%rel",
        )
    if len(target_bps_by_symbol) < MIN_ASSETS:
        ((symbol, target_bps),) = target_bps_by_symbol.items()
        target_text = f"{symbol}={decimal_text(target_bps, 2)}"
        raise ConfigError(
            f"--target: {target_text} is one asset, a portfolio needs at least {MIN_ASSETS}",
            f"add the other, such as {target_text},USD=0 for all of it in one",
        )
    numeraire, unknown_symbols = numeraire_and_unknown(table, target_bps_by_symbol, numeraire)
    if unknown_symbols:
        raise ConfigError(
            f"--target: {unknown_symbols[0]} is not in the file",
            _remedy_for_unknown(table, unknown_symbols, [*target_bps_by_symbol], numeraire),
        )
    return numeraire


def numeraire_and_unknown(
    table: PriceTable, symbols: Iterable[str], numeraire: str
) -> tuple[str, list[str]]:
    """Return the numeraire of targets, and the others without prices. An empty `numeraire` means the
    first target without prices that is a known currency or stablecoin; if every target has prices,
    their currency, USD if it is unknown; else "".
    """
    missing_symbols = [symbol for symbol in symbols if symbol not in table.symbols]
    usual_numeraire = "" if missing_symbols else table.currency or "USD"
    numeraire = numeraire or next(filter(is_cash, missing_symbols), usual_numeraire)
    return numeraire, [symbol for symbol in missing_symbols if symbol != numeraire]


def _remedy_for_unknown(
    table: PriceTable,
    unknown_symbols: Sequence[str],
    target_symbols: Sequence[str],
    numeraire: str,
) -> str:
    """Return the symbols of the table, and how to name the first unknown symbol: by --as, as the
    closest of them, or by --numeraire if it may be the unit of the prices.
    """
    symbol = unknown_symbols[0]
    remedy = table.renaming_remedy(unknown_symbols, target_symbols)
    if "--as " in remedy:
        return remedy
    if close_symbols := get_close_matches(symbol, table.symbols, n=1):
        return f"{remedy}; did you mean {close_symbols[0]}?"
    if not numeraire and len(unknown_symbols) == 1:
        return f"{remedy}; if the prices are in {symbol}, add --numeraire {symbol}"
    return remedy


def rename_symbols(table: PriceTable, symbol_by_file_symbol: Mapping[str, str]) -> PriceTable:
    """Rename the table's symbols to the portfolio's, by `symbol_by_file_symbol`. Raises ConfigError
    naming --as.
    """
    symbol_by_file_symbol = {
        file_symbol(name): symbol for name, symbol in symbol_by_file_symbol.items()
    }
    unknown_symbols = [symbol for symbol in symbol_by_file_symbol if symbol not in table.symbols]
    if unknown_symbols:
        raise ConfigError(
            f"--as: {unknown_symbols[0]!r} is not in the file",
            f"its symbols are {', '.join(table.symbols)}",
        )
    symbols = tuple(symbol_by_file_symbol.get(symbol, symbol) for symbol in table.symbols)
    repeated_symbols = [symbol for symbol in symbols if symbols.count(symbol) > 1]
    if repeated_symbols:
        raise ConfigError(
            f"--as: two symbols of the file get the name {repeated_symbols[0]!r}",
            "give each symbol a different name",
        )
    return replace(table, symbols=symbols)


def require_priced_gas(settings: SimulationSettings, spec: BacktestSpec, table: PriceTable) -> None:
    """Raise ConfigError if gas or data has a cost but no asset provides its price."""
    for option, fee_wei in (
        ("--market gas", settings.gas_price_wei),
        ("--market data-fee", settings.data_fee_wei),
    ):
        if fee_wei and not has_gas_price(spec, table):
            raise ConfigError(
                f"{option}: the native coin has no price", "name that asset: --native ETH"
            )
