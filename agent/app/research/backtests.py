"""Backtests from a price file and command-line options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.research.whatif import MIN_ASSETS, parse_bands, parse_targets
from agent.backtest.data import (
    PriceTable,
    has_gas_price,
    read_gas_prices,
    read_table,
    require_currency,
    require_unit_of_prices,
)
from agent.backtest.funding import FundingRateSeries, read_funding, rename_funding_symbols
from agent.backtest.jumps import suspect_closes, suspect_note, without_closes
from agent.backtest.result import SimulationResult
from agent.backtest.settings import (
    DEFAULT_DECIMALS,
    HALT_WHEN_GONE,
    IN_NUMERAIRE,
    ROUTER,
    ROUTER_KIND,
    BacktestSpec,
    SimulatedTokens,
    SimulationSettings,
    TaxRule,
    make_spec,
    parse_owner_transfer,
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
from agent.config.tables.fields import (
    parse_choice,
    parse_duration_s,
    parse_gas_price_wei,
    parse_pairs,
)
from agent.config.weights import offline_portfolio, without_max_change
from agent.errors import ConfigError
from agent.layers.settings import build_layer_settings
from agent.layers.tax.settings import year_limit
from agent.model import (
    Destination,
    Every,
    ExecutionConfig,
    HybridTrigger,
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
from agent.units import BPS, PIPS, parse_raw, parse_share_with_unit_bps, value_text
from agent.weights.asset_classes import is_cash

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EXPIRE_BLOCKS = 25
MAX_DECIMALS = 36
DESTINATION_BY_NAME = {destination.value: destination for destination in Destination}
OPTION_BY_CONFIG_FIELD = {
    "target": "--target",
    "band": "--band",
    "every": "--every",
    "strictness": "--tracking",
    "destination": "--destination",
    "decimals": "--market decimals",
}
"""Options of a portfolio that a config sets, by their fields."""
SPOT_OPTION_BY_FIELD = {
    **OPTION_BY_CONFIG_FIELD,
    "native": "--native",
    "numeraire": "--numeraire",
    "pool_fee": "--market fee",
    "depth": "--market depth",
    "pool_kind": "--market pool",
    "gas_price_text": "--market gas",
    "gas_prices_path": "--market gas-prices",
    "flows": "--flow",
    "flow_form": "--flows-in",
    "when_prices_end": "--market gone",
    "pool_states": "--market pool-state",
    "data_fee": "--market data-fee",
}
"""Options of a portfolio and its market that a futures book without one does not have."""
SAMPLE_FOLDER = Path(__file__).parents[2] / "backtest" / "sample"


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """Options of the simulated market, as entered.

    `pool_fee` is the fee of every pool. `depth` (one side of a pool) and `start_value` (the initial
    wallet) are in whole coins of the numeraire. `gas_price_text` is a price such as "20 gwei",
    `gas_prices_path` a file of prices. `flows`, the owner's transfers, have the form
    2021-03-01=+1000; `flow_form` says whether they are in the numeraire or pro rata. `data_fee` is
    that of a swap of one leg, such as "300 gwei". `when_prices_end` says what happens to an asset
    whose prices end. `pool_states` have the form WBTC/WETH=FILE.
    """

    pool_fee: str = "10bps"
    depth: str = "1000000000"
    start_value: str = "10000"
    pool_kind: str = "v2"
    gas_price_text: str = "0 wei"
    latency_bars: int = 0
    seed: int = 0
    gas_prices_path: Path | None = None
    flows: tuple[str, ...] = ()
    flow_form: str = IN_NUMERAIRE
    when_prices_end: str = HALT_WHEN_GONE
    pool_states: tuple[str, ...] = ()
    data_fee: str = "0 wei"

    def settings(self) -> SimulationSettings:
        """Parse the options that do not depend on the price table. Raises ConfigError naming the
        option.
        """
        return SimulationSettings(
            depth=Fraction(
                parse_raw(self.depth, DEFAULT_DECIMALS, "--market depth"), 10**DEFAULT_DECIMALS
            ),
            fee_pips=parse_share_with_unit_bps(self.pool_fee, "--market fee") * (PIPS // BPS),
            start_value=Fraction(
                parse_raw(self.start_value, DEFAULT_DECIMALS, "--value"), 10**DEFAULT_DECIMALS
            ),
            pool_kind=self.pool_kind,
            gas_price_wei=parse_gas_price_wei(self.gas_price_text, "--market gas"),
            data_fee_wei=parse_gas_price_wei(self.data_fee, "--market data-fee"),
            latency_bars=self.latency_bars,
            seed=self.seed,
            flows=tuple(parse_owner_transfer(transfer_text) for transfer_text in self.flows),
            transfer_mode=self.flow_form,
            stale_asset_mode=self.when_prices_end,
        )

    def pool_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the two symbols of each recorded pool."""
        return tuple(symbol_pair for symbol_pair, _ in map(_parse_pool_state, self.pool_states))

    def settings_for_table(self, spec: BacktestSpec, table: PriceTable) -> SimulationSettings:
        """Return the settings with gas prices for each bar and the recorded pools. Raises
        ConfigError.
        """
        settings = self.settings()
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
        for (symbol0, symbol1), state_path in map(_parse_pool_state, self.pool_states):
            if unknown_symbols := [
                symbol for symbol in (symbol0, symbol1) if symbol not in token_by_symbol
            ]:
                raise ConfigError(
                    f"--market pool-state: {unknown_symbols[0]!r} is not in the portfolio",
                    f"choose from {', '.join(token_by_symbol)}",
                )
            recorded_pools.append(
                read_pool(state_path, token_by_symbol[symbol0], token_by_symbol[symbol1])
            )
        return replace(settings, recorded_pools=tuple(recorded_pools))


@dataclass(frozen=True, slots=True)
class PortfolioOptions:
    """Options of the simulated portfolio and its policy, as entered: a config, or targets with a
    band, a schedule, or both, else the tracking rule of that strictness.

    An empty `destination` is the usual one of the trigger.
    `symbol_mapping` has texts of pairs FILE_SYMBOL=PORTFOLIO_SYMBOL with commas, `decimals` pairs
    SYMBOL=NUMBER. `native` is the asset that prices gas. An empty `numeraire` means the first
    target without a price in the file that is a known currency or stablecoin, or USD if every
    target has a price.
    """

    config: Path | None = None
    target: str = ""
    band: str = ""
    every: str = ""
    destination: str = ""
    numeraire: str = ""
    native: str = ""
    symbol_mapping: Sequence[str] = ()
    decimals: str = ""
    strictness: str = ""

    def parse_symbol_mapping(self) -> dict[str, str]:
        """Return the portfolio's symbols, keyed by the file's symbols."""
        return parse_pairs(",".join(self.symbol_mapping), "--as") if self.symbol_mapping else {}

    def load_prices(self, prices_path: Path) -> PriceTable:
        """Load the file's prices under the portfolio's symbols. Raises ConfigError."""
        return rename_symbols(read_table(prices_path), self.parse_symbol_mapping())

    def load_prices_and_funding(
        self, prices_path: Path, funding_path: Path | None
    ) -> tuple[PriceTable, tuple[FundingRateSeries, ...]]:
        """Load prices and funding rates under the portfolio's symbols; `--as` may name symbols of
        the funding file alone. Raises ConfigError.
        """
        symbol_by_file_symbol = self.parse_symbol_mapping()
        table = read_table(prices_path)
        rate_series = () if funding_path is None else read_funding(funding_path)
        rates_only_symbols = {series.symbol for series in rate_series} - {*table.symbols}
        table = rename_symbols(
            table,
            {
                symbol: portfolio_symbol
                for symbol, portfolio_symbol in symbol_by_file_symbol.items()
                if symbol not in rates_only_symbols
            },
        )
        return table, rename_funding_symbols(rate_series, symbol_by_file_symbol)

    def spec(self, table: PriceTable, pools: Sequence[tuple[str, str]] = ()) -> BacktestSpec:
        """Return the backtest spec of the config, or of the options, without limits. Raises
        ConfigError naming the option.
        """
        if self.config is None:
            return self._spec_without_config(table, pools)
        refuse_options(self, OPTION_BY_CONFIG_FIELD, "the config sets it", "omit it, or --config")
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
        decimals = _parse_decimals(self.decimals)
        target_bps_by_symbol, numeraire = targets_of(table, self.target, self.numeraire)
        currency_remedy = (
            f"write {table.currency} in place of {numeraire}, or use prices in {numeraire}"
        )
        require_currency(table, numeraire, currency_remedy)
        common_band, asset_bands = (
            parse_bands(self.band, target_bps_by_symbol) if self.band else (None, {})
        )
        trigger = self._trigger(common_band)
        destination = (
            parse_choice(self.destination, "--destination", DESTINATION_BY_NAME)
            if self.destination
            else None
        )
        spec = make_spec(
            target_bps_by_symbol,
            trigger,
            numeraire,
            destination=fit_destination(destination, trigger),
            interval_s=table.interval_s,
            native=self.native,
            tokens=SimulatedTokens(decimals, pools),
        )
        _require_valid_policy(spec.policy)
        if isinstance(trigger, NoTradeZone):
            require_numeraire_among_assets(spec.portfolio)
        assets = tuple(
            replace(asset, band=asset_bands.get(asset.token.symbol))
            for asset in spec.portfolio.assets
        )
        return replace(spec, portfolio=replace(spec.portfolio, assets=assets))

    def _trigger(self, threshold: Threshold | None) -> Trigger:
        if self.strictness and (self.every or threshold is not None):
            raise ConfigError(
                f"--tracking: {self.strictness} beside --band or --every", "choose one of them"
            )
        if self.every:
            schedule = Every(parse_duration_s(self.every, "--every"))
            return schedule if threshold is None else HybridTrigger(threshold, schedule)
        return threshold or build_tracking(self.strictness)


def refuse_options(
    options: DataclassInstance, option_by_field: Mapping[str, str], why: str, remedy: str
) -> None:
    """Raise ConfigError naming the first option by these fields that is not its default: it would
    have no effect.
    """
    for field in fields(options):
        if field.name in option_by_field and getattr(options, field.name) != field.default:
            raise ConfigError(f"{option_by_field[field.name]}: {why}", remedy)


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


def _parse_pool_state(pool_state_text: str) -> tuple[tuple[str, str], Path]:
    pair_text, equals, path_text = pool_state_text.partition("=")
    symbol0, slash, symbol1 = pair_text.partition("/")
    if not (equals and slash and symbol0 and symbol1 and path_text):
        raise ConfigError(
            f"--market pool-state: {pool_state_text[:60]!r}",
            "write its tokens and its file: WBTC/WETH=pool.json",
        )
    return (symbol0.strip(), symbol1.strip()), Path(path_text)


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
    spec = portfolio_options.spec(table, market_options.pool_pairs())
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
    trusted_result = simulate(spec, without_closes(table, suspects), settings)
    values_text = " instead of ".join(
        value_text(value, result.decimals, 2)
        for value in (trusted_result.final_value, result.final_value)
    )
    note = (
        f"{suspect_note(suspects)}. Without them the portfolio ends at {values_text}"
        f" {result.numeraire}, its return is {trusted_result.twr * 100:.2f} % instead of {result.twr * 100:.2f} %"
    )
    return replace(result, notes=(note, *result.notes))


def spec_from_config(loaded_config: LoadedConfig) -> BacktestSpec:
    """Build the backtest spec of a config. The simulated chain has its own router and feeds; a
    token without decimals in the config has 18, and no choice of weights waits for an owner.
    Raises ConfigError.
    """
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
        )
    )


def _parse_decimals(pairs_text: str) -> dict[str, int]:
    decimals_text_by_symbol = parse_pairs(pairs_text, "--market decimals") if pairs_text else {}
    for symbol, decimals_text in decimals_text_by_symbol.items():
        if not decimals_text.isdecimal() or int(decimals_text) > MAX_DECIMALS:
            raise ConfigError(
                f"--market decimals {symbol}: {decimals_text!r}",
                f"write a whole number from 0 to {MAX_DECIMALS}: WBTC=8",
            )
    return {symbol: int(decimals_text) for symbol, decimals_text in decimals_text_by_symbol.items()}


def _require_valid_policy(policy: Policy) -> None:
    """Raise ConfigError for an invalid policy, naming the option in place of the config key."""
    try:
        validate_policy(policy)
    except ConfigError as error:
        message = error.message.replace("policy.trigger.every", "--every")
        message = message.replace("policy.destination", "--destination")
        remedy = error.remedy.replace("use a threshold or hybrid trigger", "give --band too")
        raise ConfigError(message, remedy) from None


def targets_of(table: PriceTable, target: str, numeraire: str) -> tuple[dict[str, int], str]:
    """Return targets in bps by symbol, and the numeraire: `numeraire` if given, else the first
    target without a price in the file that is a known currency or stablecoin, else that of the prices. Any other
    target has to be in the file. Raises ConfigError.
    """
    if not target:
        raise ConfigError(
            "--target or --config is needed",
            "write for example --target BTC=50,USD=50 --band 10%rel",
        )
    target_bps_by_symbol = parse_targets(target)
    if len(target_bps_by_symbol) < MIN_ASSETS:
        raise ConfigError(
            f"--target: {target} is one asset, a portfolio needs at least {MIN_ASSETS}",
            f"add the other, such as {target},USD=0 for all of it in one",
        )
    numeraire, unknown_symbols = numeraire_and_unknown(table, target_bps_by_symbol, numeraire)
    if unknown_symbols:
        raise ConfigError(
            f"--target: {unknown_symbols[0]} is not in the file",
            _remedy_for_unknown(table, unknown_symbols, [*target_bps_by_symbol], numeraire),
        )
    return target_bps_by_symbol, numeraire


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
