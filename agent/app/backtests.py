"""Backtests, stress tests and parameter searches from command-line options: a price file, a config
or targets, and market options.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.app.offline import parse_bands, parse_pairs, target_bps
from agent.backtest.data import (
    PriceTable,
    has_gas_price,
    read_gas,
    read_owner_transfers,
    read_table,
    select_spec_symbols,
)
from agent.backtest.funding import read_funding, rename_funding_symbols
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

    `cost` is the fee of every pool. `depth` (of each side of a pool) and `value` (of the initial
    wallet) are in whole coins of the numeraire. `gas` is a price such as "20 gwei", `gas_prices` a
    file of prices. `flows` are such as 2021-03-01=+1000, `flow_file` has more; `pool_states` are
    such as WBTC/WETH=FILE.
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
        return SimulationSettings(
            depth=Fraction(parse_raw(self.depth, DECIMALS, "--depth"), 10**DECIMALS),
            fee_pips=parse_share_bps(self.cost, "--cost") * (PIPS // BPS),
            start_value=Fraction(parse_raw(self.value, DECIMALS, "--value"), 10**DECIMALS),
            pool=self.pool,
            gas_wei=parse_gas_price_wei(self.gas, "--gas"),
            latency_bars=self.latency,
            seed=self.seed,
            looks_at_all=every_bar,
            flows=(
                flows if self.flow_file is None else (*flows, *read_owner_transfers(self.flow_file))
            ),
            flows_in=self.flows_in,
            gone=self.gone,
        )

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the symbols of token0 and token1 of each recorded pool."""
        return tuple(pair for pair, _ in map(_pool_state, self.pool_states))

    def for_table(
        self, settings: SimulationSettings, wanted: BacktestSpec, table: PriceTable
    ) -> SimulationSettings:
        """Add gas prices for each bar, and pools of the portfolio's tokens. Raises ConfigError."""
        if self.gas_prices is not None:
            if settings.gas_wei:
                raise ConfigError("--gas-prices: --gas sets another price", "give one of the two")
            settings = replace(settings, gas_wei=read_gas(self.gas_prices, table.times_s))
        tokens = {token.symbol: token for token in wanted.tokens}
        pools = []
        for (first, second), path in map(_pool_state, self.pool_states):
            if strange := [symbol for symbol in (first, second) if symbol not in tokens]:
                raise ConfigError(
                    f"--pool-state: {strange[0]!r} is none of the portfolio",
                    f"choose from {', '.join(tokens)}",
                )
            pools.append(read_pool(path, tokens[first], tokens[second]))
        return replace(settings, recorded=tuple(pools))


@dataclass(frozen=True, slots=True)
class PortfolioOptions:
    """Options of the simulated portfolio and its policy, as entered: a config, or targets with a
    band, a schedule, or both. `names` are SYMBOL=SYMBOL, file to portfolio. `native` is the asset
    whose price pays gas, `decimals` are SYMBOL=NUMBER. If `numeraire` is empty, it is the target
    missing from the file.
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
        """Return config symbols by the file's symbols."""
        return parse_pairs(self.names, "--as") if self.names else {}

    def load_prices(self, prices: Path) -> PriceTable:
        """Load the file's prices by our symbols. Raises ConfigError."""
        return rename_symbols(read_table(prices), self.renamed())

    def spec(self, table: PriceTable, pools: Sequence[tuple[str, str]] = ()) -> BacktestSpec:
        """Return the backtest spec of the config, or of the options with every limit off. Raises
        ConfigError naming the option.
        """
        if self.config is None:
            return self._spec_without_config(table, pools)
        if self.target or self.band or self.every:
            raise ConfigError(
                "--config: it already sets targets and triggers",
                "leave --target, --band and --every away",
            )
        return spec_from_config(load_config(self.config))

    def _spec_without_config(
        self, table: PriceTable, pools: Sequence[tuple[str, str]]
    ) -> BacktestSpec:
        decimals = _decimals(self.decimals)
        targets, money = targets_of(table, self.target, self.numeraire)
        if self.destination not in ("target", "band", "halfway"):
            raise ConfigError(
                f"--destination: {self.destination!r}", "choose from target, band, halfway"
            )
        whole, own = parse_bands(self.band, targets) if self.band else (None, {})
        wanted = make_spec(
            targets,
            self._trigger(whole),
            money,
            destination=Destination(self.destination),
            interval_s=table.interval_s,
            native=self.native,
            decimals=decimals,
            pairs=pools,
        )
        _require_sound(wanted.policy)
        assets = tuple(
            replace(asset, band=own.get(asset.token.symbol)) for asset in wanted.portfolio.assets
        )
        return replace(wanted, portfolio=replace(wanted.portfolio, assets=assets))

    def _trigger(self, band: Threshold | None) -> Trigger:
        if self.every:
            schedule = Every(parse_duration_s(self.every, "--every"))
            return schedule if band is None else HybridTrigger(band, schedule)
        if band is None:
            raise ConfigError(
                "--band or --every is needed",
                "write when to act: --band 10%rel, --every 7d, or both",
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
    """Paths of the sample prices and gas prices of 2021; agent/backtest/sample/README.md names
    their sources.
    """
    return SAMPLE / "prices_2021.csv", SAMPLE / "gas_2021.csv"


def prices_file(prices: Path | None, of_sample: bool) -> Path:
    """Path of the named file, or of the sample. Raises ConfigError for both and for neither."""
    if of_sample == (prices is not None):
        raise ConfigError(
            "--prices or --sample is needed, and only one of them",
            "name a file, or try it out with --sample",
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

    `every_bar` skips no bar, which changes no trade. `funding` is a file of funding rates; the
    result then states the funding that shorts of the holdings would have received. Raises
    ConfigError naming the option.
    """
    known_as, table = portfolio.renamed(), read_table(prices)
    rates = () if funding is None else read_funding(funding)
    of_rates_alone = {one.symbol for one in rates} - {*table.symbols}
    table = rename_symbols(
        table, {symbol: name for symbol, name in known_as.items() if symbol not in of_rates_alone}
    )
    rates = rename_funding_symbols(rates, known_as)
    settings = market.settings(every_bar)
    wanted = portfolio.spec(table, market.pairs())
    settings = market.for_table(settings, wanted, table)
    require_priced_gas(settings, wanted, table)
    return simulate(wanted, table, settings, progress, rates)


def spec_from_config(loaded: LoadedConfig) -> BacktestSpec:
    """Backtest spec of a config on the simulated chain, with its own router and feeds; tokens have
    the named decimals, else 18.
    """
    config = loaded.config
    listed = config.portfolio.listed
    tokens = {
        one.address: Token(
            one.address, one.symbol, DECIMALS if one.decimals is None else one.decimals
        )
        for one in listed
    }
    portfolio = build_portfolio(config, tokens)
    portfolio = replace(
        portfolio, weights=build_weights(config.portfolio, portfolio, loaded.path.parent)
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
            "leave tax.currency out of the config of a backtest",
        )
    rule = (
        TaxRule()
        if tax is None
        else TaxRule(
            LotMethod(tax.method), year_limit(tax.year_limit, portfolio.numeraire.decimals)
        )
    )
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
    found = parse_pairs(text, "--decimals") if text else {}
    for symbol, number in found.items():
        if not number.isdecimal() or int(number) > MOST_DECIMALS:
            raise ConfigError(
                f"--decimals {symbol}: {number!r}",
                f"write a whole number from 0 to {MOST_DECIMALS}: WBTC=8",
            )
    return {symbol: int(number) for symbol, number in found.items()}


def _require_sound(policy: Policy) -> None:
    """Raise ConfigError naming the option instead of the equivalent config key."""
    try:
        validate_policy(policy)
    except ConfigError as error:
        words = error.message.replace("policy.trigger.every", "--every").replace(
            "policy.destination", "--destination"
        )
        raise ConfigError(
            words, error.remedy.replace("use a threshold or hybrid trigger", "give --band too")
        ) from None


def targets_of(table: PriceTable, target: str, numeraire: str) -> tuple[dict[str, int], str]:
    """Return targets in bps by symbol, and the numeraire: `numeraire`, or else the target missing
    from the file. Raises ConfigError.
    """
    if not target:
        raise ConfigError(
            "--target or --config is needed",
            "write for example --target BTC=50,USD=50 --band 10%rel",
        )
    targets = {
        symbol: target_bps(symbol, text) for symbol, text in parse_pairs(target, "--target").items()
    }
    money = numeraire or next((symbol for symbol in targets if symbol not in table.symbols), "USD")
    strange = [symbol for symbol in targets if symbol not in table.symbols and symbol != money]
    if strange:
        raise ConfigError(
            f"--target: {strange[0]} is not in the file",
            f"its symbols are {', '.join(table.symbols)}",
        )
    return targets, money


def rename_symbols(table: PriceTable, names: Mapping[str, str]) -> PriceTable:
    """Rename the table's symbols to the config's, by `names`. Raises ConfigError naming --as."""
    strange = [name for name in names if name not in table.symbols]
    if strange:
        raise ConfigError(
            f"--as: {strange[0]!r} is not in the file",
            f"its symbols are {', '.join(table.symbols)}",
        )
    symbols = tuple(names.get(symbol, symbol) for symbol in table.symbols)
    if len(set(symbols)) < len(symbols):
        raise ConfigError(
            f"--as: two symbols of the file get the name {_twice(symbols)!r}",
            "give each a name of its own",
        )
    return replace(table, symbols=symbols)


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def require_priced_gas(
    settings: SimulationSettings, wanted: BacktestSpec, table: PriceTable
) -> None:
    """Raise ConfigError if gas has a cost but no asset to price it in."""
    if settings.gas_wei and not has_gas_price(wanted, table):
        raise ConfigError(
            "--gas: no price of the native coin is known", "name the asset that it is: --native ETH"
        )


# --- Report files: checks of the path, and the writing.


SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raise ConfigError, before any work is done, if the report could not be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--html: {path.name} is not the name of a page",
            "let the name end with .html; the report as JSON is written beside it",
        )
    for one in (path, path.with_suffix(".json")):
        if not path.parent.is_dir() or one.is_dir():
            raise ConfigError(
                f"--html: {one} cannot be written", "name a file in a folder that is there"
            )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_pages(page: ReportPage, path: Path) -> tuple[Path, Path]:
    """Write the page and its data as JSON beside it; return both paths. Raises ConfigError on
    failure.
    """
    check_report_path(path)
    beside = path.with_suffix(".json")
    try:
        write_page(page, path)
        write_document(page, beside)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path, beside


def write_report(result: SimulationResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a simulation and its JSON; return both paths. Raises ConfigError on
    failure, Refused without empyrical.
    """
    check_report_path(path)
    return write_pages(backtest_page(result), path)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--html: {path} cannot be written: {error.strerror}",
        "name a file in a folder that you may write to",
    )


# --- Stress tests from command-line options: prices and spec of a backtest, number of paths,
# scenarios.


DEFAULT_BARS = 720
"""A month of hours."""
PLACES = 18
SHARED_FROM_S = 15.0
"""Work below this time on one core runs in this process: starting others takes seconds."""
LOST = "a process of the stress test died, perhaps for lack of memory"


@dataclass(frozen=True, slots=True)
class StressOptions:
    """Options of a stress test, as entered. `scenarios` "all" are those that apply to the
    portfolio; an empty `block` follows a rule.
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

    def wish(self, table: PriceTable) -> StressSpec:
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

    wanted: BacktestSpec
    table: PriceTable
    settings: SimulationSettings
    wish: StressSpec
    seconds: float


def prepare_stress(
    prices: Path,
    market: MarketOptions,
    shocks: StressOptions,
    portfolio: PortfolioOptions,
    *,
    limits: str = "usual",
) -> PreparedStressTest:
    """Check and build a stress test. Without a config the `limits` are "usual" (of `trimtab init`)
    or "off".

    Raises ConfigError naming the option.
    """
    table = portfolio.load_prices(prices)
    settings = market.settings(every_bar=False)
    if portfolio.config is None and limits not in ("usual", "off"):
        raise ConfigError(f"--limits: {limits!r}", "choose usual or off")
    wanted = portfolio.spec(table)
    if portfolio.config is None and limits == "usual":
        wanted = replace(wanted, limits=starting_limits(wanted.portfolio.numeraire))
    require_priced_gas(settings, wanted, table)
    spec = shocks.wish(table)
    return PreparedStressTest(wanted, table, settings, spec, estimate_s(spec, wanted, settings))


def run_stress(
    prepared: PreparedStressTest, progress: StressProgress | None = None, cores: int = 0
) -> StressResult:
    """Run the stress test on `cores` cores (0: all); the number does not change the result.

    See agent/backtest/stress/run.py. Short tests run in this process. Raises ConfigError if the
    options do not fit the prices, Retryable if a process died.
    """
    many = cores or available_cores()

    def share(
        work: StressWork, pieces: Sequence[StressPiece]
    ) -> Iterator[tuple[StressPiece, PieceResult]]:
        return run_in_processes(work, pieces, min(many, len(pieces)), LOST)

    alone = many == 1 or prepared.seconds < SHARED_FROM_S
    return run_stress_test(
        prepared.wanted,
        prepared.table,
        prepared.settings,
        prepared.wish,
        progress,
        run_sequentially if alone else share,
    )


def write_stress_report(found: StressResult, path: Path) -> tuple[Path, Path]:
    """Write the page and its data as JSON beside it; return both paths. Raises ConfigError on
    failure.
    """
    return write_pages(stress_page(found), path)


def _scenarios(text: str) -> tuple[Scenario, ...]:
    every = tuple(one for one in Scenario if one is not Scenario.CALM)
    if text == "all":
        return every
    known = {one.value: one for one in every}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    strange = [name for name in asked if name not in known]
    if strange or not asked:
        raise ConfigError(
            f"--scenarios: {(strange or [text])[0]!r}", f"choose from {', '.join(known)}, or all"
        )
    return tuple(known[name] for name in dict.fromkeys(asked))


def _number(text: str, option: str) -> Fraction:
    return Fraction(parse_raw(text, PLACES, option), 10**PLACES)


# --- Parameter searches from command-line options: prices and spec of a backtest, a grid, and the
# required confidence.


FEWEST_FOLDS, MOST_FOLDS = 1, 50


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options of a parameter search, as entered: the grid, and how settings are evaluated.

    `calendar` is the interval of the baseline rule. An allocator chooses anew every `rechoose` from
    the prices of `window`. `full` disables the fast kernel.
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
    """Check and build the search before anything runs. A config's limits apply; the grid replaces
    its trigger and destination.

    Raises ConfigError naming the option.
    """
    grid = parse_grid(grids.band, grids.every, grids.destination, grids.allocator, grids.trigger)
    calendar = parse_calendar_rule(grids.calendar)
    if market.flows or market.flow_file is not None:
        raise ConfigError("--flow: deposits would count as growth", "leave them away")
    if not FEWEST_FOLDS <= grids.folds <= MOST_FOLDS:
        raise ConfigError(
            f"--folds: {grids.folds}", f"write a number from {FEWEST_FOLDS} to {MOST_FOLDS}"
        )
    table = portfolio.load_prices(prices)
    if portfolio.config is None:
        wanted = replace(portfolio, band="", every=grids.calendar, destination="target").spec(table)
    elif portfolio.target:
        raise ConfigError("--config: it already sets targets", "leave --target away")
    else:
        wanted = portfolio.spec(table)
        if wanted.split is not None:
            raise ConfigError(
                "--config: several strategies have triggers of their own",
                "search for the setting of each by itself",
            )
    table = select_spec_symbols(wanted, table)
    settings = market.for_table(market.settings(False), wanted, table)
    require_priced_gas(settings, wanted, table)
    terms = AllocatorSchedule(
        parse_duration_s(grids.rechoose, "--rechoose"), parse_duration_s(grids.window, "--window")
    )
    for method in grid.allocators:
        if method is not AllocationMethod.FIXED:
            spec_for_choice(
                wanted,
                PolicyChoice(Every(terms.every_s), allocator=method),
                terms,
                table.interval_s,
            )
    objective = parse_choice(grids.objective, "--objective", {one.value: one for one in Objective})
    walk = parse_choice(grids.walk, "--walk", {one.value: one for one in WalkForwardMode})
    return TuneSpec(
        table, wanted, settings, grid, calendar, terms, objective, walk, grids.folds, grids.full
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

    `cores` 0 uses all; `scheduler` is the address of a Dask scheduler for runs of the full step.
    `confirm` is called for more than five minutes of work; None continues without asking. Raises
    Refused if declined, Retryable if a scheduler or process is lost, ConfigError for a folder of
    another search.
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
                remedy="start it with --yes, or use a smaller grid or fewer bars",
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


def write_tune_report(tuned: TuneResult, path: Path) -> tuple[Path, Path]:
    """Write the page and its data as JSON beside it; return both paths. Raises ConfigError on
    failure.
    """
    return write_pages(tune_page(tuned), path)
