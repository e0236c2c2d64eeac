"""Backtests, stress tests and parameter searches, from a price file and command-line options."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.app.research.whatif import parse_bands, parse_pairs, parse_targets
from agent.backtest.data import (
    PriceTable,
    has_gas_price,
    read_gas,
    read_owner_transfers,
    read_table,
    select_spec_symbols,
)
from agent.backtest.funding import FundingRateSeries, read_funding, rename_funding_symbols
from agent.backtest.futures.report import futures_page, futures_section
from agent.backtest.futures.simulate import FuturesResult
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.page import ReportPage, write_document, write_page
from agent.backtest.report.series import backtest_document
from agent.backtest.result import SimulationResult
from agent.backtest.settings import (
    DECIMALS,
    HALT,
    IN_NUMERAIRE,
    ROUTER,
    ROUTER_KIND,
    BacktestSpec,
    SimulationSettings,
    TaxRule,
    make_spec,
    parse_owner_transfer,
    simulated_spec,
)
from agent.backtest.simulate import Progress, simulate
from agent.backtest.stress.paths import Scenario, Severity
from agent.backtest.stress.report import stress_document, stress_page
from agent.backtest.stress.run import (
    MOST_BARS,
    StressResult,
    StressSpec,
    estimate_s,
    run_stress_test,
)
from agent.backtest.stress.run import Progress as StressProgress
from agent.backtest.stress.work import PieceResult, StressPiece, StressWork, run_sequentially
from agent.backtest.sweep import available_cores
from agent.backtest.tune.grid import PolicyChoice, parse_calendar_rule, parse_choice, parse_grid
from agent.backtest.tune.jobs import (
    CONFIRM_ABOVE_S,
    AllocatorSchedule,
    RunEngine,
    RunResult,
    TuneChunk,
    TuneJob,
    WorkEstimate,
    estimate_work,
    spec_for_choice,
)
from agent.backtest.tune.report import document as tune_document
from agent.backtest.tune.report import tune_page
from agent.backtest.tune.search import Progress as TuneProgress
from agent.backtest.tune.search import TuneResult, TuneSpec, tune
from agent.backtest.tune.statistics import Objective, WalkForwardMode
from agent.backtest.workers import check_address, run_in_processes, run_locally, run_on_cluster
from agent.backtest.world import read_pool
from agent.config import build_limits, build_policy, build_portfolio, build_reference
from agent.config.build import build_split, starting_limits, with_allocators
from agent.config.fields import parse_duration_s, parse_gas_price_wei
from agent.config.load import LoadedConfig, load_config
from agent.config.orders import build_pace
from agent.config.schema import year_limit
from agent.config.signals import build_signals
from agent.config.weights import build_weights
from agent.errors import ConfigError, Refused
from agent.model import (
    AllocationMethod,
    Destination,
    Every,
    ExecutionConfig,
    HybridTrigger,
    LotMethod,
    Policy,
    Threshold,
    Trigger,
)
from agent.policy.triggers.rules import validate_policy
from agent.units import BPS, PIPS, Token, parse_raw, parse_share_bps

__all__ = [
    "PortfolioOptions",
    "PreparedStressTest",
    "StressOptions",
    "TuneOptions",
    "backtest_document",
    "check_report_path",
    "prepare_stress",
    "prepare_tune",
    "run_stress",
    "run_tune",
    "stress_document",
    "tune_document",
    "write_pages",
    "write_report",
    "write_stress_report",
    "write_tune_report",
]
EXPIRE_BLOCKS = 25
MOST_DECIMALS = 36
SAMPLE = Path(__file__).parent.parent / "backtest" / "sample"


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """Options of the simulated market, as entered.

    `cost` is the fee of every pool. `depth` (one side of a pool) and `value` (the initial wallet)
    are in whole coins of the numeraire. `gas` is a price such as "20 gwei", `gas_prices` a file of
    prices. `flows` have the form 2021-03-01=+1000, and `flow_file` adds more from a file;
    `pool_states` have the form WBTC/WETH=FILE.
    """

    cost: str = "10bps"
    depth: str = "1000000000"
    value: str = "10000"
    pool: str = "v2"
    gas: str = "0 wei"
    latency: int = 0
    seed: int = 0
    gas_prices: Path | None = None
    flows: tuple[str, ...] = ()
    flow_file: Path | None = None
    flows_in: str = IN_NUMERAIRE
    gone: str = HALT
    pool_states: tuple[str, ...] = ()

    def settings(self, every_bar: bool) -> SimulationSettings:
        """Parse the options that do not depend on the price table. Raises ConfigError naming the
        option.
        """
        flows = tuple(parse_owner_transfer(text) for text in self.flows)
        if self.flow_file is not None:
            flows += tuple(read_owner_transfers(self.flow_file))
        return SimulationSettings(
            depth=Fraction(parse_raw(self.depth, DECIMALS, "--depth"), 10**DECIMALS),
            fee_pips=parse_share_bps(self.cost, "--cost") * (PIPS // BPS),
            start_value=Fraction(parse_raw(self.value, DECIMALS, "--value"), 10**DECIMALS),
            pool=self.pool,
            gas_wei=parse_gas_price_wei(self.gas, "--gas"),
            latency_bars=self.latency,
            seed=self.seed,
            looks_at_all=every_bar,
            flows=flows,
            flows_in=self.flows_in,
            gone=self.gone,
        )

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the two symbols of each recorded pool."""
        return tuple(pair for pair, _ in map(_pool_state, self.pool_states))

    def for_table(
        self, settings: SimulationSettings, spec: BacktestSpec, table: PriceTable
    ) -> SimulationSettings:
        """Return the settings with gas prices for each bar and the recorded pools. Raises
        ConfigError.
        """
        if self.gas_prices is not None:
            if settings.gas_wei:
                raise ConfigError("--gas-prices: --gas sets another price", "give only one of them")
            settings = replace(settings, gas_wei=read_gas(self.gas_prices, table.times_s))
        tokens = {token.symbol: token for token in spec.tokens}
        pools = []
        for (first, second), path in map(_pool_state, self.pool_states):
            if unknown := [symbol for symbol in (first, second) if symbol not in tokens]:
                raise ConfigError(
                    f"--pool-state: {unknown[0]!r} is not in the portfolio",
                    f"choose from {', '.join(tokens)}",
                )
            pools.append(read_pool(path, tokens[first], tokens[second]))
        return replace(settings, recorded=tuple(pools))


@dataclass(frozen=True, slots=True)
class PortfolioOptions:
    """Options of the simulated portfolio and its policy, as entered: a config, or targets with a
    band, a schedule, or both.

    `names` are pairs FILE_SYMBOL=PORTFOLIO_SYMBOL, `decimals` pairs SYMBOL=NUMBER. `native` is the
    asset that prices gas. An empty `numeraire` means the first target without a price in the file,
    or USD if every target has one.
    """

    config: Path | None = None
    target: str = ""
    band: str = ""
    every: str = ""
    destination: str = "target"
    numeraire: str = ""
    native: str = ""
    names: str = ""
    decimals: str = ""

    def renamed(self) -> dict[str, str]:
        """Return the portfolio's symbols, keyed by the file's symbols."""
        return parse_pairs(self.names, "--as") if self.names else {}

    def load_prices(self, prices: Path) -> PriceTable:
        """Load the file's prices under the portfolio's symbols. Raises ConfigError."""
        return rename_symbols(read_table(prices), self.renamed())

    def load_prices_and_funding(
        self, prices: Path, funding: Path | None
    ) -> tuple[PriceTable, tuple[FundingRateSeries, ...]]:
        """Load prices and funding rates under the portfolio's symbols; `--as` may name symbols of
        the funding file alone. Raises ConfigError.
        """
        names, table = self.renamed(), read_table(prices)
        rates = () if funding is None else read_funding(funding)
        only_in_rates = {rate.symbol for rate in rates} - {*table.symbols}
        table = rename_symbols(
            table, {symbol: name for symbol, name in names.items() if symbol not in only_in_rates}
        )
        return table, rename_funding_symbols(rates, names)

    def spec(self, table: PriceTable, pools: Sequence[tuple[str, str]] = ()) -> BacktestSpec:
        """Return the backtest spec of the config, or of the options without any limits. Raises
        ConfigError naming the option.
        """
        if self.config is None:
            return self._spec_without_config(table, pools)
        if self.target or self.band or self.every:
            raise ConfigError(
                "--config: it already sets targets and triggers",
                "omit --target, --band and --every",
            )
        return spec_from_config(load_config(self.config))

    def _spec_without_config(
        self, table: PriceTable, pools: Sequence[tuple[str, str]]
    ) -> BacktestSpec:
        decimals = _decimals(self.decimals)
        targets, numeraire = targets_of(table, self.target, self.numeraire)
        if self.destination not in ("target", "band", "halfway"):
            raise ConfigError(
                f"--destination: {self.destination!r}", "choose from target, band, halfway"
            )
        common, own = parse_bands(self.band, targets) if self.band else (None, {})
        spec = make_spec(
            targets,
            self._trigger(common),
            numeraire,
            destination=Destination(self.destination),
            interval_s=table.interval_s,
            native=self.native,
            decimals=decimals,
            pairs=pools,
        )
        _require_valid_policy(spec.policy)
        assets = tuple(
            replace(asset, band=own.get(asset.token.symbol)) for asset in spec.portfolio.assets
        )
        return replace(spec, portfolio=replace(spec.portfolio, assets=assets))

    def _trigger(self, band: Threshold | None) -> Trigger:
        if self.every:
            schedule = Every(parse_duration_s(self.every, "--every"))
            return schedule if band is None else HybridTrigger(band, schedule)
        if band is None:
            raise ConfigError(
                "--band or --every is needed",
                "write when to rebalance: --band 10%rel, --every 7d, or both",
            )
        return band


def _pool_state(text: str) -> tuple[tuple[str, str], Path]:
    pair, equals, path = text.partition("=")
    first, slash, second = pair.partition("/")
    if not (equals and slash and first and second and path):
        raise ConfigError(
            f"--pool-state: {text[:60]!r}", "write its tokens and its file: WBTC/WETH=pool.json"
        )
    return (first.strip(), second.strip()), Path(path)


def sample() -> tuple[Path, Path]:
    """Paths of the sample prices and gas prices of 2021 (sources: agent/backtest/sample/README.md)."""
    return SAMPLE / "prices_2021.csv", SAMPLE / "gas_2021.csv"


def prices_file(prices: Path | None, of_sample: bool) -> Path:
    """Path of the given file, or of the sample. Raises ConfigError for both or neither."""
    if of_sample == (prices is not None):
        raise ConfigError(
            "--prices or --sample: exactly one is needed",
            "name a file, or try it with --sample",
        )
    return sample()[0] if prices is None else prices


def backtest(
    prices: Path,
    market: MarketOptions,
    portfolio: PortfolioOptions,
    *,
    every_bar: bool = False,
    funding: Path | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate the file's prices.

    `every_bar` also evaluates bars on which no trade is possible; trades are the same. With
    `funding`, a file of funding rates, the result states the funding that shorts of the holdings
    would have received. Raises ConfigError naming the option.
    """
    table, rates = portfolio.load_prices_and_funding(prices, funding)
    spec = portfolio.spec(table, market.pairs())
    settings = market.for_table(market.settings(every_bar), spec, table)
    require_priced_gas(settings, spec, table)
    return simulate(spec, table, settings, progress, rates)


def spec_from_config(loaded: LoadedConfig) -> BacktestSpec:
    """Backtest spec of a config. The simulated chain has its own router and feeds; a token without
    decimals in the config has 18.
    """
    config = loaded.config
    tokens = {}
    for listed in config.portfolio.listed:
        decimals = DECIMALS if listed.decimals is None else listed.decimals
        tokens[listed.address] = Token(listed.address, listed.symbol, decimals)
    portfolio = build_portfolio(config, tokens)
    portfolio = replace(
        portfolio,
        weights=build_weights(
            config.portfolio, portfolio, loaded.path.parent, build_signals(config)
        ),
    )
    split = with_allocators(config, build_split(config), portfolio, loaded.path.parent)
    execution = ExecutionConfig(
        ROUTER_KIND,
        ROUTER,
        config.execution.deadline,
        EXPIRE_BLOCKS,
        (ROUTER,),
        pace=build_pace(config),
    )
    limits, tax = build_limits(config, portfolio.numeraire), config.tax
    if tax is not None and tax.year_limit is not None and tax.currency is not None:
        raise ConfigError(
            "tax.year_limit in another currency is not simulated",
            "omit tax.currency from the config of a backtest",
        )
    rule = TaxRule()
    if tax is not None:
        limit = year_limit(tax.year_limit, portfolio.numeraire.decimals)
        rule = TaxRule(LotMethod(tax.method), limit)
    return simulated_spec(
        BacktestSpec(
            portfolio,
            build_policy(config),
            build_reference(config),
            limits,
            execution,
            (),
            split,
            rule,
        )
    )


def _decimals(text: str) -> dict[str, int]:
    numbers = parse_pairs(text, "--decimals") if text else {}
    for symbol, number in numbers.items():
        if not number.isdecimal() or int(number) > MOST_DECIMALS:
            raise ConfigError(
                f"--decimals {symbol}: {number!r}",
                f"write a whole number from 0 to {MOST_DECIMALS}: WBTC=8",
            )
    return {symbol: int(number) for symbol, number in numbers.items()}


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
    target that has no price in the file, else USD. Raises ConfigError.
    """
    if not target:
        raise ConfigError(
            "--target or --config is needed",
            "write for example --target BTC=50,USD=50 --band 10%rel",
        )
    targets = parse_targets(target)
    missing = [symbol for symbol in targets if symbol not in table.symbols]
    if not numeraire:
        numeraire = missing[0] if missing else "USD"
    if unknown := [symbol for symbol in missing if symbol != numeraire]:
        raise ConfigError(
            f"--target: {unknown[0]} is not in the file",
            f"its symbols are {', '.join(table.symbols)}",
        )
    return targets, numeraire


def rename_symbols(table: PriceTable, names: Mapping[str, str]) -> PriceTable:
    """Rename the table's symbols to the portfolio's, by `names`. Raises ConfigError naming --as."""
    unknown = [name for name in names if name not in table.symbols]
    if unknown:
        raise ConfigError(
            f"--as: {unknown[0]!r} is not in the file",
            f"its symbols are {', '.join(table.symbols)}",
        )
    symbols = tuple(names.get(symbol, symbol) for symbol in table.symbols)
    repeated = [symbol for symbol in symbols if symbols.count(symbol) > 1]
    if repeated:
        raise ConfigError(
            f"--as: two symbols of the file get the name {repeated[0]!r}",
            "give each symbol a different name",
        )
    return replace(table, symbols=symbols)


def require_priced_gas(settings: SimulationSettings, spec: BacktestSpec, table: PriceTable) -> None:
    """Raise ConfigError if gas has a cost but no asset provides its price."""
    if settings.gas_wei and not has_gas_price(spec, table):
        raise ConfigError("--gas: the native coin has no price", "name that asset: --native ETH")


# --- Report files: a page as HTML, and its data as JSON beside it.


SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raise ConfigError, before any work is done, if the report could not be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--html: {path.name} does not end in .html",
            "name a file such as report.html; its data are written beside it as JSON",
        )
    for target in (path, path.with_suffix(".json")):
        if not path.parent.is_dir() or target.is_dir():
            raise ConfigError(
                f"--html: {target} cannot be written", "name a file in an existing folder"
            )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_pages(page: ReportPage, path: Path) -> tuple[Path, Path]:
    """Write the page and its data, and return both paths. Raises ConfigError if one cannot be
    written.
    """
    check_report_path(path)
    data = path.with_suffix(".json")
    try:
        write_page(page, path)
        write_document(page, data)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path, data


def write_report(
    result: SimulationResult | None, path: Path, futures: FuturesResult | None = None
) -> tuple[Path, Path]:
    """Write the report of a backtest, of its futures book, or of both. See write_pages. Raises
    Refused without empyrical.
    """
    check_report_path(path)
    if futures is None or result is None:
        if result is not None:
            return write_pages(backtest_page(result), path)
        if futures is None:
            raise ValueError("a report needs a backtest")
        return write_pages(futures_page(futures), path)
    page = backtest_page(result)
    return write_pages(replace(page, sections=(*page.sections, futures_section(futures))), path)


def write_stress_report(result: StressResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a stress test; see write_pages."""
    return write_pages(stress_page(result), path)


def write_tune_report(result: TuneResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a parameter search; see write_pages."""
    return write_pages(tune_page(result), path)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--html: {path} cannot be written: {error.strerror}",
        "name a file in a folder that you may write to",
    )


# --- Stress tests: simulated paths and stress scenarios of a backtest's portfolio.


DEFAULT_BARS = 720
"""Default length of a path: one month of hourly bars."""
PLACES = 18
PARALLEL_FROM_S = 15.0
"""Estimated seconds on one core above which several processes share the work."""
LOST = "a process of the stress test died, perhaps for lack of memory"


@dataclass(frozen=True, slots=True)
class StressOptions:
    """Options of a stress test, as entered. `scenarios` "all" selects those that apply to the
    portfolio; an empty `block` is chosen from the data.
    """

    paths: int = 2_000
    step_paths: int = 3
    bars: int = 0
    scenarios: str = "all"
    block: str = ""
    drift: str = "recorded"
    crash: str = "50%"
    crash_bars: int = 24
    depeg: str = "10%"
    gas: str = "500 gwei"
    thin: str = "0.001"

    def spec(self, table: PriceTable) -> StressSpec:
        """Parse the options. Raises ConfigError naming the option."""
        if self.drift not in ("recorded", "none"):
            raise ConfigError(f"--drift: {self.drift!r}", "choose recorded or none")
        if self.bars < 0 or self.bars > MOST_BARS:
            raise ConfigError(f"--bars: {self.bars}", f"a path has 3 to {MOST_BARS:,} bars")
        severity = Severity(
            crash_bps=parse_share_bps(self.crash, "--crash"),
            crash_bars=self.crash_bars,
            depeg_bps=parse_share_bps(self.depeg, "--depeg"),
            gas_wei=parse_gas_price_wei(self.gas, "--gas-spike"),
            depth_part=_number(self.thin, "--thin"),
        )
        return StressSpec(
            paths=self.paths,
            step_paths=self.step_paths,
            bars=self.bars or min(DEFAULT_BARS, table.bars),
            scenarios=_scenarios(self.scenarios),
            severity=severity,
            block=float(_number(self.block, "--block")) if self.block else None,
            drift=self.drift == "recorded",
            named=self.scenarios != "all",
        )


@dataclass(frozen=True, slots=True)
class PreparedStressTest:
    """A checked stress test, and its estimated seconds on one core."""

    portfolio: BacktestSpec
    table: PriceTable
    settings: SimulationSettings
    test: StressSpec
    seconds: float


def prepare_stress(
    prices: Path,
    market: MarketOptions,
    shocks: StressOptions,
    portfolio: PortfolioOptions,
    *,
    limits: str = "usual",
) -> PreparedStressTest:
    """Check the options and build the stress test. Without a config, `limits` are "usual" (those of
    `trimtab init`) or "off". Raises ConfigError naming the option.
    """
    table = portfolio.load_prices(prices)
    settings = market.settings(every_bar=False)
    if portfolio.config is None and limits not in ("usual", "off"):
        raise ConfigError(f"--limits: {limits!r}", "choose usual or off")
    spec = portfolio.spec(table)
    if portfolio.config is None and limits == "usual":
        spec = replace(spec, limits=starting_limits(spec.portfolio.numeraire))
    require_priced_gas(settings, spec, table)
    test = shocks.spec(table)
    return PreparedStressTest(spec, table, settings, test, estimate_s(test, spec, settings))


def run_stress(
    prepared: PreparedStressTest, progress: StressProgress | None = None, cores: int = 0
) -> StressResult:
    """Run the stress test on `cores` cores (0: all); their number does not change the result.

    A short test runs in this process. Raises ConfigError if the options do not fit the prices,
    Retryable if a process died.
    """
    many = cores or available_cores()

    def share(
        work: StressWork, pieces: Sequence[StressPiece]
    ) -> Iterator[tuple[StressPiece, PieceResult]]:
        return run_in_processes(work, pieces, min(many, len(pieces)), LOST)

    alone = many == 1 or prepared.seconds < PARALLEL_FROM_S
    return run_stress_test(
        prepared.portfolio,
        prepared.table,
        prepared.settings,
        prepared.test,
        progress,
        run_sequentially if alone else share,
    )


def _scenarios(text: str) -> tuple[Scenario, ...]:
    known = {one.value: one for one in Scenario if one is not Scenario.CALM}
    if text == "all":
        return tuple(known.values())
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"--scenarios: {(unknown or [text])[0]!r}", f"choose from {', '.join(known)}, or all"
        )
    return tuple(known[name] for name in dict.fromkeys(names))


def _number(text: str, option: str) -> Fraction:
    return Fraction(parse_raw(text, PLACES, option), 10**PLACES)


# --- Parameter searches: a grid of triggers over a backtest's portfolio.


MIN_FOLDS, MAX_FOLDS = 1, 50


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options of a parameter search, as entered: the grid, and the evaluation of its settings.

    `calendar` is the interval of the baseline rule. An allocator chooses weights every `rechoose`
    from the prices of the last `window`. `full` disables the fast kernel.
    """

    band: str = ""
    every: str = ""
    destination: str = "target"
    allocator: str = "fixed"
    trigger: str = ""
    calendar: str = "28d"
    objective: str = "growth"
    walk: str = "anchored"
    folds: int = 4
    window: str = "60d"
    rechoose: str = "7d"
    full: bool = False


def prepare_tune(
    prices: Path, market: MarketOptions, grids: TuneOptions, portfolio: PortfolioOptions
) -> TuneSpec:
    """Check the options and build the search. A config's limits apply; the grid replaces its
    trigger and destination. Raises ConfigError naming the option.
    """
    grid = parse_grid(grids.band, grids.every, grids.destination, grids.allocator, grids.trigger)
    calendar = parse_calendar_rule(grids.calendar)
    if market.flows or market.flow_file is not None:
        raise ConfigError("--flow: deposits would count as growth", "omit them")
    if not MIN_FOLDS <= grids.folds <= MAX_FOLDS:
        raise ConfigError(
            f"--folds: {grids.folds}", f"write a number from {MIN_FOLDS} to {MAX_FOLDS}"
        )
    table = portfolio.load_prices(prices)
    if portfolio.config is None:
        spec = replace(portfolio, band="", every=grids.calendar, destination="target").spec(table)
    elif portfolio.target:
        raise ConfigError("--config: it already sets targets", "omit --target")
    else:
        spec = portfolio.spec(table)
        if spec.split is not None:
            raise ConfigError(
                "--config: each of its strategies has its own trigger",
                "search the settings of one strategy at a time",
            )
    table = select_spec_symbols(spec, table)
    settings = market.for_table(market.settings(every_bar=False), spec, table)
    require_priced_gas(settings, spec, table)
    schedule = AllocatorSchedule(
        parse_duration_s(grids.rechoose, "--rechoose"), parse_duration_s(grids.window, "--window")
    )
    for method in grid.allocators:
        if method is not AllocationMethod.FIXED:
            spec_for_choice(
                spec,
                PolicyChoice(Every(schedule.every_s), allocator=method),
                schedule,
                table.interval_s,
            )
    objective = parse_choice(grids.objective, "--objective", {one.value: one for one in Objective})
    walk = parse_choice(grids.walk, "--walk", {one.value: one for one in WalkForwardMode})
    return TuneSpec(
        table, spec, settings, grid, calendar, schedule, objective, walk, grids.folds, grids.full
    )


def run_tune(
    search: TuneSpec,
    *,
    cores: int = 0,
    scheduler: str = "",
    folder: Path | None = None,
    confirm: Callable[[WorkEstimate], bool] | None = None,
    progress: TuneProgress | None = None,
) -> TuneResult:
    """Run the search, or resume the one in `folder`.

    It uses `cores` cores (0: all), and for runs of the full step the Dask scheduler at the address
    `scheduler`. `confirm` is called if the search would take more than five minutes; without it the
    search starts immediately. Raises Refused if declined, Retryable if the scheduler or a process
    is lost, ConfigError for the folder of another search.
    """
    many = cores or available_cores()
    if scheduler:
        check_address(scheduler)

    def allow(job: TuneJob, rest: Sequence[TuneChunk]) -> None:
        if confirm is None:
            return
        estimate = estimate_work(job, rest, many)
        if estimate.wall_s > CONFIRM_ABOVE_S and not confirm(estimate):
            raise Refused(
                f"not started: {estimate.words}",
                remedy="confirm it with --yes, or use a smaller grid or fewer bars",
            )

    def work(
        job: TuneJob, rest: Sequence[TuneChunk]
    ) -> Iterator[tuple[TuneChunk, list[RunResult]]]:
        if not scheduler:
            yield from run_locally(job, rest, many)
            return
        yield from run_locally(
            job, [chunk for chunk in rest if chunk.engine is RunEngine.KERNEL], many
        )
        steps = [chunk for chunk in rest if chunk.engine is RunEngine.FULL]
        if steps:
            yield from run_on_cluster(job, steps, scheduler)

    return tune(search, work, folder, allow, progress or (lambda _done, _runs: None))
