"""A backtest from what a command line says: a file of prices, a config or targets, and how the market is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.api.whatif import bands, pairs, target_bps
from agent.backtest.columns import priced_gas
from agent.backtest.files import read_flows, read_funding, read_gas, read_table
from agent.backtest.flows import IN_NUMERAIRE, parse_flow
from agent.backtest.funding import renamed
from agent.backtest.recorded_pools import read_pool
from agent.backtest.simulate import Progress, SimulationResult, simulate
from agent.backtest.table import PriceTable
from agent.backtest.wanted import DECIMALS, HALT, ROUTER, ROUTER_KIND, Settings, TaxRule, Wanted, simple, simulated
from agent.config import build_limits, build_policy, build_portfolio, build_reference
from agent.config.fields import parse_duration_s, parse_gas_price_wei
from agent.config.load import LoadedConfig, load_config
from agent.config.pace import build_pace
from agent.config.split import build_split, with_allocators
from agent.config.tax import year_limit
from agent.config.weights import build_weights
from agent.errors import ConfigError
from agent.model import Destination, Every, Execution, Hybrid, LotMethod, Policy, Trigger
from agent.policy.trigger_rules import validate_policy
from agent.units import BPS, PIPS, Token, parse_raw, parse_share_bps

EXPIRE_BLOCKS = 25
MOST_DECIMALS = 36
SAMPLE = Path(__file__).parent.parent / "backtest" / "sample"


@dataclass(frozen=True, slots=True)
class Market:
    """How the market is made, as it is written: `cost` is the fee of every pool, `depth` what it holds on either side, `value` what
    the wallet begins with, both in whole coins of the numeraire; `gas` a price such as "20 gwei", or `gas_prices` a file of them. `flows`
    are such as 2021-03-01=+1000, `flow_file` has more of them; `pool_states` are such as WBTC/WETH=FILE.
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

    def settings(self, every_bar: bool) -> Settings:
        """The same as numbers, but for what depends on the table. Raises ConfigError naming the option."""
        flows = tuple(parse_flow(text) for text in self.flows)
        return Settings(
            depth=Fraction(parse_raw(self.depth, DECIMALS, "--depth"), 10**DECIMALS),
            fee_pips=parse_share_bps(self.cost, "--cost") * (PIPS // BPS),
            start_value=Fraction(parse_raw(self.value, DECIMALS, "--value"), 10**DECIMALS),
            pool=self.pool,
            gas_wei=parse_gas_price_wei(self.gas, "--gas"),
            latency_bars=self.latency,
            seed=self.seed,
            looks_at_all=every_bar,
            flows=flows if self.flow_file is None else (*flows, *read_flows(self.flow_file)),
            flows_in=self.flows_in,
            gone=self.gone,
        )

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Symbols of token0 and token1 of each recorded pool."""
        return tuple(pair for pair, _ in map(_pool_state, self.pool_states))

    def for_table(self, settings: Settings, wanted: Wanted, table: PriceTable) -> Settings:
        """With gas prices for each bar, and pools of the portfolio's tokens. Raises ConfigError."""
        if self.gas_prices is not None:
            if settings.gas_wei:
                raise ConfigError("--gas-prices: --gas says another price", "give one of the two")
            settings = replace(settings, gas_wei=read_gas(self.gas_prices, table.times_s))
        tokens = {token.symbol: token for token in wanted.tokens}
        pools = []
        for (first, second), path in map(_pool_state, self.pool_states):
            if strange := [symbol for symbol in (first, second) if symbol not in tokens]:
                raise ConfigError(f"--pool-state: {strange[0]!r} is none of the portfolio", f"choose from {', '.join(tokens)}")
            pools.append(read_pool(path, tokens[first], tokens[second]))
        return replace(settings, recorded=tuple(pools))


def _pool_state(text: str) -> tuple[tuple[str, str], Path]:
    pair, equals, path = text.partition("=")
    first, slash, second = pair.partition("/")
    if not (equals and slash and first and second and path):
        raise ConfigError(f"--pool-state: {text[:60]!r}", "write its tokens and its file: WBTC/WETH=pool.json")
    return (first.strip(), second.strip()), Path(path)


def sample() -> tuple[Path, Path]:
    """The prices and the gas prices of 2021 that come with trimtab; agent/backtest/sample/README.md says where they are from."""
    return SAMPLE / "prices_2021.csv", SAMPLE / "gas_2021.csv"


def prices_file(prices: Path | None, of_sample: bool) -> Path:
    """The file that is named, or that of the sample. Raises ConfigError for both and for neither."""
    if of_sample == (prices is not None):
        raise ConfigError("--prices or --sample is needed, and only one of them", "name a file, or try it out with --sample")
    return sample()[0] if prices is None else prices


def backtest(
    prices: Path,
    market: Market,
    *,
    config: Path | None = None,
    target: str = "",
    band: str = "",
    every: str = "",
    destination: str = "target",
    numeraire: str = "",
    native: str = "",
    names: str = "",
    decimals: str = "",
    every_bar: bool = False,
    funding: Path | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulates the file's prices, by the config where one is named, else by targets with a band, a schedule, or both.

    `names` are SYMBOL=SYMBOL, of a file and of the portfolio. `native` is the asset whose price pays the gas, `decimals` those of
    tokens, as SYMBOL=NUMBER. With `every_bar` no bar is passed over, which changes no trade. `funding` is a file of funding rates, by
    which the result tells what shorts of the holdings would have got. Raises ConfigError naming the option.
    """
    known_as, table = pairs(names, "--as") if names else {}, read_table(prices)
    rates = () if funding is None else read_funding(funding)
    of_rates_alone = {one.symbol for one in rates} - {*table.symbols}
    table = named(table, {symbol: name for symbol, name in known_as.items() if symbol not in of_rates_alone})
    rates = renamed(rates, known_as)
    settings = market.settings(every_bar)
    if config is not None:
        if target or band or every:
            raise ConfigError("--config: says targets and triggers itself", "leave --target, --band and --every away")
        wanted = from_config(load_config(config))
    else:
        known = _decimals(decimals)
        wanted = from_options(table, target, band, every, destination, numeraire, native, decimals=known, pools=market.pairs())
    settings = market.for_table(settings, wanted, table)
    require_priced_gas(settings, wanted, table)
    return simulate(wanted, table, settings, progress, rates)


def from_config(loaded: LoadedConfig) -> Wanted:
    """What the config wants, on the simulated chain: its own router and feeds; tokens have the decimals that it names, else 18."""
    config = loaded.config
    listed = config.portfolio.listed
    tokens = {one.address: Token(one.address, one.symbol, DECIMALS if one.decimals is None else one.decimals) for one in listed}
    portfolio = build_portfolio(config, tokens)
    portfolio = replace(portfolio, weights=build_weights(config.portfolio, portfolio, loaded.path.parent))
    split = with_allocators(config, build_split(config), portfolio, loaded.path.parent)
    execution = Execution(ROUTER_KIND, ROUTER, config.execution.deadline, EXPIRE_BLOCKS, (ROUTER,), pace=build_pace(config))
    limits, tax = build_limits(config, portfolio.numeraire), config.tax
    if tax is not None and tax.year_limit is not None and tax.currency is not None:
        raise ConfigError("tax.year_limit in another currency is not simulated", "leave tax.currency out of the config of a backtest")
    rule = TaxRule() if tax is None else TaxRule(LotMethod(tax.method), year_limit(tax.year_limit, portfolio.numeraire.decimals))
    return simulated(Wanted(portfolio, build_policy(config), build_reference(config), limits, execution, (), split, rule))


def _decimals(text: str) -> dict[str, int]:
    found = pairs(text, "--decimals") if text else {}
    for symbol, number in found.items():
        if not number.isdecimal() or int(number) > MOST_DECIMALS:
            raise ConfigError(f"--decimals {symbol}: {number!r}", f"write a whole number from 0 to {MOST_DECIMALS}: WBTC=8")
    return {symbol: int(number) for symbol, number in found.items()}


def from_options(
    table: PriceTable,
    target: str,
    band: str,
    every: str,
    destination: str,
    numeraire: str,
    native: str,
    *,
    decimals: Mapping[str, int] | None = None,
    pools: Sequence[tuple[str, str]] = (),
) -> Wanted:
    """What the options of a command line want, with every limit off. Raises ConfigError naming the option."""
    targets, money = targets_of(table, target, numeraire)
    if destination not in ("target", "band", "halfway"):
        raise ConfigError(f"--destination: {destination!r}", "choose from target, band, halfway")
    whole, own = bands(band, targets) if band else (None, {})
    trigger: Trigger
    if every:
        schedule = Every(parse_duration_s(every, "--every"))
        trigger = schedule if whole is None else Hybrid(whole, schedule)
    elif whole is not None:
        trigger = whole
    else:
        raise ConfigError("--band or --every is needed", "write when to act: --band 10%rel, --every 7d, or both")
    wanted = simple(
        targets,
        trigger,
        money,
        destination=Destination(destination),
        interval_s=table.interval_s,
        native=native,
        decimals=decimals,
        pairs=pools,
    )
    _require_sound(wanted.policy)
    assets = tuple(replace(asset, band=own.get(asset.token.symbol)) for asset in wanted.portfolio.assets)
    return replace(wanted, portfolio=replace(wanted.portfolio, assets=assets))


def _require_sound(policy: Policy) -> None:
    """Raises ConfigError naming the option, in the place of the key of a config that says the same."""
    try:
        validate_policy(policy)
    except ConfigError as error:
        words = error.message.replace("policy.trigger.every", "--every").replace("policy.destination", "--destination")
        raise ConfigError(words, error.remedy.replace("use a threshold or hybrid trigger", "give --band too")) from None


def targets_of(table: PriceTable, target: str, numeraire: str) -> tuple[dict[str, int], str]:
    """Targets in bps by symbol, and what all is counted in: `numeraire`, else the target that the file lacks. Raises ConfigError."""
    if not target:
        raise ConfigError("--target or --config is needed", "write for example --target BTC=50,USD=50 --band 10%rel")
    targets = {symbol: target_bps(symbol, text) for symbol, text in pairs(target, "--target").items()}
    money = numeraire or next((symbol for symbol in targets if symbol not in table.symbols), "USD")
    strange = [symbol for symbol in targets if symbol not in table.symbols and symbol != money]
    if strange:
        raise ConfigError(f"--target: {strange[0]} is not in the file", f"its symbols are {', '.join(table.symbols)}")
    return targets, money


def named(table: PriceTable, names: Mapping[str, str]) -> PriceTable:
    """The table under other symbols: `names` are ours by those of the file. Raises ConfigError naming --as."""
    strange = [name for name in names if name not in table.symbols]
    if strange:
        raise ConfigError(f"--as: {strange[0]!r} is not in the file", f"its symbols are {', '.join(table.symbols)}")
    symbols = tuple(names.get(symbol, symbol) for symbol in table.symbols)
    if len(set(symbols)) < len(symbols):
        raise ConfigError(f"--as: two symbols of the file get the name {_twice(symbols)!r}", "give each a name of its own")
    return replace(table, symbols=symbols)


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def priced(prices: Path, names: str) -> PriceTable:
    """The file's prices by our symbols: `names` are SYMBOL=SYMBOL, of the file and of the portfolio. Raises ConfigError."""
    return named(read_table(prices), pairs(names, "--as") if names else {})


def require_priced_gas(settings: Settings, wanted: Wanted, table: PriceTable) -> None:
    """Raises ConfigError where gas costs something and nothing says in what."""
    if settings.gas_wei and not priced_gas(wanted, table):
        raise ConfigError("--gas: no price of the native coin is known", "name the asset that it is: --native ETH")
