"""Backtest settings: the spec (portfolio, policy, limits, strategies), the simulated market, owner
transfers; and logs of the halts, of the choices of weights, of signals without an answer and of the
strategies' health.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.amm import POOL_KIND_BY_CURVE_NAME
from agent.amm.v3.pool import V3Pool
from agent.errors import ConfigError
from agent.layers.signals.host import SignalRunner
from agent.layers.strategies.state import CapitalSplit, StrategyBooks
from agent.model import (
    Allocation,
    Asset,
    Destination,
    ExecutionConfig,
    LayerConfig,
    Limits,
    LotMethod,
    Policy,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    SignalAnswer,
    SignalRequest,
    Trigger,
    TriggerFunction,
    part_of,
)
from agent.policy.targets import WeightChange, largest_change
from agent.units import (
    BPS,
    PIPS,
    Price,
    Token,
    Value,
    ceil_int,
    floor_int,
    format_bps,
    format_time,
    minute_text,
    pluralize,
    rough_duration,
)

IN_NUMERAIRE = "numeraire"
PRO_RATA = "pro-rata"
TRANSFER_MODES = (IN_NUMERAIRE, PRO_RATA)


@dataclass(frozen=True, slots=True)
class OwnerTransfer:
    """A deposit (above zero) or withdrawal, in whole coins of the numeraire, at the first bar at or
    after its time.
    """

    time_s: int
    amount: Fraction


@dataclass(frozen=True, slots=True)
class AppliedTransfer:
    """A deposit (positive) or withdrawal of the owner, at the prices of its bar.

    Values in numeraire base units. `value_before` is the portfolio value just before, net of gas,
    `hold_value_before` that of buy and hold.
    """

    bar: int
    time_s: int
    value: Value
    value_before: Value
    hold_value_before: Value


def bars_and_transfers(
    flows: Sequence[OwnerTransfer], times_s: Sequence[int]
) -> tuple[tuple[int, Fraction], ...]:
    """Return (bar, whole coins) of each transfer, oldest first. Raises ConfigError for a transfer
    outside the simulation.
    """
    transfers = []
    for flow in sorted(flows, key=lambda flow: flow.time_s):
        if not times_s[0] < flow.time_s <= times_s[-1]:
            time_text, first, last = (
                datetime.fromtimestamp(int(time_s), UTC).isoformat(sep=" ")
                for time_s in (flow.time_s, times_s[0], times_s[-1])
            )
            raise ConfigError(
                f"--flow: {time_text} is not within the simulation",
                f"write a time after {first}, at most {last}; --value sets the initial balance",
            )
        bar = next(bar_index for bar_index, time_s in enumerate(times_s) if time_s >= flow.time_s)
        transfers.append((bar, flow.amount))
    return tuple(transfers)


def apply_transfer(
    balances: Mapping[str, int],
    prices: Mapping[str, Price],
    transfer_value: Value,
    transfer_mode: str,
    numeraire: str,
    assets: Collection[str],
) -> dict[str, int]:
    """Return the balances after a transfer of `transfer_value` (signed, numeraire base units), each
    rounded against the wallet.

    In numeraire, a withdrawal takes any shortfall from all other assets in proportion. Pro rata,
    all `assets` change in proportion to the holdings. Raises
    ConfigError for a withdrawal of everything.
    """
    total_value = sum((raw * prices[token] for token, raw in balances.items()), Fraction(0))
    require_partial_withdrawal(transfer_value, total_value)
    if transfer_mode == IN_NUMERAIRE:
        return _apply_in_numeraire(balances, prices, transfer_value, numeraire)
    return _apply_pro_rata(balances, prices, transfer_value, assets)


def require_partial_withdrawal(
    transfer_value: Value, portfolio_value: Value, numeraire: Token | None = None, time_s: int = 0
) -> None:
    """Raise ConfigError for a withdrawal of the portfolio's value or more, numeraire base units; with
    a numeraire it names the amounts and the time.
    """
    if transfer_value > -portfolio_value:
        return
    withdrawal_text = "a withdrawal"
    value_text = "the portfolio's value"
    if numeraire is not None:
        unit = 10**numeraire.decimals
        withdrawal_text += f" of {float(-transfer_value / unit):,.2f} {numeraire.symbol}"
        withdrawal_text += f" at {minute_text(time_s)} UTC"
        value_text += f" of {float(portfolio_value / unit):,.2f} then"
    raise ConfigError(f"--flow: {withdrawal_text} is not below {value_text}", "withdraw less")


def _apply_in_numeraire(
    balances: Mapping[str, int],
    prices: Mapping[str, Price],
    transfer_value: Value,
    numeraire: str,
) -> dict[str, int]:
    balances_after = dict(balances)
    if transfer_value > 0:
        balances_after[numeraire] += floor_int(transfer_value / prices[numeraire])
        return balances_after
    paid_raw = min(balances[numeraire], ceil_int(-transfer_value / prices[numeraire]))
    balances_after[numeraire] -= paid_raw
    shortfall_value = min(Fraction(0), transfer_value + paid_raw * prices[numeraire])
    other_tokens = [token for token in balances if token != numeraire]
    return _apply_pro_rata(balances_after, prices, shortfall_value, other_tokens)


def _apply_pro_rata(
    balances: Mapping[str, int],
    prices: Mapping[str, Price],
    transfer_value: Value,
    tokens: Collection[str],
) -> dict[str, int]:
    """Return the balances after a transfer in proportion to the holdings of `tokens`."""
    balances_after = dict(balances)
    tokens_value = sum((balances[token] * prices[token] for token in tokens), Fraction(0))
    if transfer_value and tokens_value:
        for token in tokens:
            change_raw = floor_int(balances[token] * transfer_value / tokens_value)
            balances_after[token] = max(0, balances[token] + change_raw)
    return balances_after


DEFAULT_DECIMALS = 18
ROUTER_KIND = "swap_router_02"
NUMBER_PATTERN = re.compile(r"(?<![\w.])\d[\d,]*(\.\d+)?(?!\w)")
"""Numbers in a reason. Reasons that differ only in numbers count as one."""
STALE_PRICE = "a price is too old"
HALT_WHEN_GONE = "halt"
LEAVE_WHEN_GONE = "leave"
MAX_WHOLE_NUMBER = 2**32
"""Bound of latency and seed."""
MAX_AGE_BARS = 2
"""Default number of missed bars after which a feed is stale."""
PERMISSIVE_LIMITS = Limits(
    price_impact_bps=5_000,
    slippage_bps=None,
    plan_cost_bps=None,
    turnover_bps=None,
    daily_turnover_bps=None,
    daily_loss_bps=None,
    oracle_deviation_bps=None,
    second_quote_deviation_bps=None,
    depeg_bps=None,
    gas_price_wei=None,
    gas_per_day_wei=None,
    native_floor_wei=None,
    head_age_s=None,
    min_trade=None,
    pool_min_value=None,
    impermanent_loss_bps=None,
    balance_jump_bps=None,
    max_live_value=None,
    token_screen=None,
)
"""No limits except a price impact of at most half the price: without impact and slippage limits, no
minimum would bind a swap.
"""


def simulated_address(address_name: str) -> str:
    """Return a deterministic address for a name. No key exists for it."""
    return to_checksum_address(keccak(text=f"trimtab backtest {address_name}")[-20:])


ROUTER = simulated_address("router")
WALLET = simulated_address("wallet")


@dataclass(frozen=True, slots=True)
class TaxRule:
    """Lot rule of sales, the maximum gain of a year in numeraire base units (None: no limit), and
    the tax rate on realised gains (zero: tax is no cost).
    """

    method: LotMethod = LotMethod.FIFO
    year_limit: Value | None = None
    rate_bps: int = 0


@dataclass(frozen=True, slots=True)
class BacktestSpec:
    """Portfolio, policy, limits and strategies.

    `tokens_and_symbols` are the portfolio's tokens with their columns in the table. A numeraire
    missing from the table is the unit of the closes. Without `has_gas_price` the native coin has no
    price, and gas cannot be valued.
    """

    portfolio: Portfolio
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    tokens_and_symbols: tuple[tuple[str, str], ...]
    layers: tuple[LayerConfig, ...] = ()
    """Settings of the layers, other than futures."""
    tax: TaxRule = TaxRule()
    has_gas_price: bool = True
    signal_folder: Path | None = None
    """Folder of the files of signals."""
    trigger_function: TriggerFunction | None = None
    """Answers an AnsweredTrigger of the policy."""
    signal_runner: SignalRunner | None = None
    """Answers the signals in place of processes."""
    max_change_bps: int | None = None
    """Change of a weight by more than which a choice waits for the owner of a live agent; a backtest
    has none, and notes it.
    """

    @property
    def asks_functions(self) -> bool:
        """Whether functions of this process answer, which no other process can ask."""
        return self.trigger_function is not None or self.signal_runner is not None

    @property
    def split(self) -> CapitalSplit | None:
        """Strategies that divide the capital; None without strategies."""
        split = part_of(self.layers, CapitalSplit)
        return split if split.divides_wallet else None

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Assets and hubs."""
        return (*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs)


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """The simulated market and the initial wallet. Money in whole coins of the numeraire.

    Each asset has one pool with the numeraire: kind `pool_kind` (a key of POOL_KIND_BY_CURVE_NAME),
    over the full range, with `depth` on each side and a fee of `fee_pips`. `recorded_pools`, read
    from a chain, replace the pool of their pair or are added. `gas_price_wei` is the gas price: one
    number, or one per bar. `data_fee_wei` is the data fee of a swap of one leg on a rollup; others
    pay in proportion. Swaps and futures orders are mined `latency_bars` after they were sent.

    With `looks_at_all` a whole step evaluates every bar, else only bars at which a trade can be
    due. In the half-open range `silent_feed_bars`, feeds have no new answers; in the range of
    `thin_pool_bars`, pools have the given fraction of `depth`. `flows` are the owner's transfers,
    `transfer_mode` is "numeraire" or "pro-rata". While an asset's price is stale the step halts,
    like the live step; with `stale_asset_mode` set to "leave" it continues without that asset and
    keeps the holding.
    """

    depth: Fraction
    fee_pips: int
    start_value: Fraction
    pool_kind: str = "v2"
    gas_price_wei: int | Sequence[int] = field(default=0)
    latency_bars: int = 0
    seed: int = 0
    looks_at_all: bool = False
    silent_feed_bars: tuple[int, int] | None = None
    thin_pool_bars: tuple[int, int, Fraction] | None = None
    flows: tuple[OwnerTransfer, ...] = ()
    transfer_mode: str = IN_NUMERAIRE
    stale_asset_mode: str = HALT_WHEN_GONE
    recorded_pools: tuple[V3Pool, ...] = ()
    data_fee_wei: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError naming an invalid setting."""
        if self.pool_kind not in POOL_KIND_BY_CURVE_NAME:
            raise ConfigError(
                f"--market pool: {self.pool_kind!r}",
                f"choose from {', '.join(POOL_KIND_BY_CURVE_NAME)}",
            )
        if not 0 <= self.fee_pips < PIPS // 2:
            raise ConfigError(
                f"--market fee: {100 * self.fee_pips / PIPS:g} %",
                "use a fee of at least 0 and below 50 %, such as 30bps",
            )
        for option, amount in (("--market depth", self.depth), ("--value", self.start_value)):
            if amount <= 0:
                raise ConfigError(
                    f"{option}: {float(amount):g} is not above zero",
                    "write an amount of the numeraire, such as 10000",
                )
        for option, whole_number in (
            ("--market latency", self.latency_bars),
            ("--market seed", self.seed),
        ):
            if not 0 <= whole_number < MAX_WHOLE_NUMBER:
                raise ConfigError(
                    f"{option}: {whole_number}",
                    f"write a whole number from 0 to {MAX_WHOLE_NUMBER - 1}",
                )
        if self.transfer_mode not in TRANSFER_MODES:
            raise ConfigError(
                f"--flows-in: {self.transfer_mode!r}", f"choose from {', '.join(TRANSFER_MODES)}"
            )
        if self.stale_asset_mode not in (HALT_WHEN_GONE, LEAVE_WHEN_GONE):
            raise ConfigError(
                f"--market gone: {self.stale_asset_mode!r}",
                f"choose {HALT_WHEN_GONE} or {LEAVE_WHEN_GONE}",
            )


@dataclass(frozen=True, slots=True)
class SimulatedTokens:
    """Tokens of a portfolio without a config: their decimals if other than 18, and pairs whose
    first token has the lower address, as in a recorded pool.
    """

    decimals_by_symbol: Mapping[str, int] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()


def make_spec(
    targets: Mapping[str, int],
    trigger: Trigger,
    numeraire: str,
    *,
    destination: Destination = Destination.TARGET,
    interval_s: int = 3_600,
    native: str = "",
    tokens: SimulatedTokens | None = None,
) -> BacktestSpec:
    """Build a spec without a config: `targets` in bps by symbol, no limits, prices from simulated
    feeds.

    `native` is the symbol that pays gas (default: the numeraire). A numeraire without a target is a
    hub.
    """
    if sum(targets.values()) != BPS:
        sum_bps = sum(targets.values())
        excess_word = "missing" if sum_bps < BPS else "too much"
        excess_text = f"{format_bps(abs(BPS - sum_bps))} {excess_word}"
        raise ConfigError(
            f"--target: sums to {format_bps(sum_bps)}, not 100 %",
            f"{excess_text}; a bare number is percent, such as BTC=50,ETH=30,USD=20",
        )
    symbols = list(dict.fromkeys((*targets, numeraire)))
    tokens = tokens or SimulatedTokens()
    for option, listed_symbols in (
        ("--market decimals", (*tokens.decimals_by_symbol,)),
        ("--market pool-state", tuple(symbol for pair in tokens.pairs for symbol in pair)),
    ):
        if unknown_symbols := [
            listed_symbol for listed_symbol in listed_symbols if listed_symbol not in symbols
        ]:
            raise ConfigError(
                f"{option}: {unknown_symbols[0]!r} is not in the portfolio",
                f"choose from {', '.join(symbols)}",
            )
    address_by_symbol = _address_by_symbol(symbols, tokens.pairs)
    token_by_symbol = {
        symbol: Token(
            address_by_symbol[symbol],
            symbol,
            tokens.decimals_by_symbol.get(symbol, DEFAULT_DECIMALS),
        )
        for symbol in symbols
    }
    if native and native not in token_by_symbol:
        raise ConfigError(
            f"--native: {native!r} is not in the portfolio",
            f"choose from {', '.join(token_by_symbol)}, or give it a target",
        )
    numeraire_token = token_by_symbol[numeraire]
    portfolio = Portfolio(
        numeraire=numeraire_token,
        assets=tuple(Asset(token_by_symbol[symbol], bps, 0) for symbol, bps in targets.items()),
        hubs=() if numeraire in targets else (numeraire_token,),
        wrapped_native=token_by_symbol[native or numeraire].address,
    )
    policy = Policy(trigger, destination, cooldown_s=0)
    reference = ReferenceConfig(
        (PriceSource.FEED,), twap_window_s=1_800, feed_max_age_s=(MAX_AGE_BARS + 1) * interval_s - 1
    )
    execution = ExecutionConfig(
        ROUTER_KIND, ROUTER, deadline_s=90, expire_blocks=25, pinned=(ROUTER,), sweeps_outputs=True
    )
    return simulated_spec(
        BacktestSpec(
            portfolio,
            policy,
            reference,
            PERMISSIVE_LIMITS,
            execution,
            (),
            has_gas_price=bool(native),
        )
    )


def _address_by_symbol(symbols: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return addresses derived from the names, sorted where pools require an order."""
    address_by_symbol = {symbol: simulated_address(f"token {symbol}") for symbol in symbols}
    try:
        symbols_in_order = tuple(
            TopologicalSorter(
                {
                    symbol: [
                        lower_symbol
                        for lower_symbol, higher_symbol in pairs
                        if higher_symbol == symbol
                    ]
                    for symbol in symbols
                }
            ).static_order()
        )
    except CycleError:
        raise ConfigError(
            "--market pool-state: the token orders of these pools contradict each other",
            "name each pool's token0 first",
        ) from None
    if not pairs:
        return address_by_symbol
    sorted_addresses = sorted(address_by_symbol.values(), key=lambda address: int(address, 16))
    return dict(zip(symbols_in_order, sorted_addresses, strict=True))


def simulated_spec(spec: BacktestSpec) -> BacktestSpec:
    """Return the spec for the simulated chain: its feeds, its router, and the wrapped token in
    place of native coin. Raises ConfigError for liquidity, which is not simulated.
    """
    portfolio = spec.portfolio
    if portfolio.positions or portfolio.lp_targets:
        raise ConfigError(
            "liquidity positions are not simulated",
            "omit portfolio.positions and lp.targets from the config of a backtest",
        )
    simulated_assets = tuple(_with_feed(asset) for asset in portfolio.assets)
    feed_by_original = {
        original_asset.feed: simulated_asset.feed
        for original_asset, simulated_asset in zip(portfolio.assets, simulated_assets, strict=True)
    }
    feed_ages = tuple(
        (feed, age_s)
        for original_feed, age_s in spec.reference.max_age_s_by_feed
        if (feed := feed_by_original.get(original_feed)) is not None
    )
    tokens = (*(asset.token for asset in simulated_assets), *portfolio.hubs)
    return replace(
        spec,
        portfolio=_with_assets(portfolio, simulated_assets),
        reference=ReferenceConfig(
            (PriceSource.FEED,),
            spec.reference.twap_window_s,
            spec.reference.feed_max_age_s,
            feed_ages,
        ),
        # no refill: the native coin, held outside the portfolio, suffices for any simulation
        limits=replace(spec.limits, native_top_up_wei=None),
        execution=ExecutionConfig(
            ROUTER_KIND,
            ROUTER,
            spec.execution.deadline_s,
            spec.execution.expire_blocks,
            (ROUTER,),
            pace=spec.execution.pace,
            sweeps_outputs=True,
        ),
        tokens_and_symbols=tuple((token.address, token.symbol) for token in tokens),
    )


def _with_feed(asset: Asset) -> Asset:
    feed = simulated_address(f"feed {asset.token.address}")
    return replace(asset, feed=feed, includes_native=False)


def _with_assets(portfolio: Portfolio, assets: tuple[Asset, ...]) -> Portfolio:
    feeds = tuple((hub.address, simulated_address(f"feed {hub.address}")) for hub in portfolio.hubs)
    return replace(
        portfolio,
        assets=assets,
        hub_feeds=feeds,
        orders=portfolio.orders.without_alerts,
        # the owner's transfers bring and take what the agent manages
        use_cash_raw=None,
    )


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """A strategy's health from a point in time: "active" or "paused", the reason, and its Sharpe
    ratio in thousandths (None if not known yet).
    """

    time_s: int
    name: str
    health: str
    reason: str
    sharpe_milli: int | None


_STALE_FEED = re.compile(
    r"(\S+) has no reference price"
    r" \(feed: the feed of \1 is [0-9]+ s old, the limit is ([0-9]+) s\)"
)
"""Reason of a step whose feed is old, which in a backtest is the recorded price."""


def _missing_price_text(stale_feed: re.Match[str]) -> str:
    duration_text = rough_duration(int(stale_feed[2]) + 1)
    return (
        f"{stale_feed[1]} had no price for {duration_text} or more; a trade that is due then waits"
    )


class HaltLog:
    """Counts the bars without a decision, by reason. Reasons that differ only in numbers count as
    one, in the words of the first.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first_reasons = {STALE_PRICE: STALE_PRICE}
        self._newest_key = STALE_PRICE

    def add(self, reason: str) -> None:
        """Add a bar with a halt."""
        reason = _STALE_FEED.sub(_missing_price_text, reason)
        self._newest_key = NUMBER_PATTERN.sub("…", reason)
        self._first_reasons.setdefault(self._newest_key, reason)
        self._counts[self._newest_key] = self._counts.get(self._newest_key, 0) + 1

    def add_unevaluated(self, bar_count: int) -> None:
        """Add bars that continue the newest halt."""
        if bar_count:
            newest_count = self._counts.get(self._newest_key, 0)
            self._counts[self._newest_key] = newest_count + bar_count

    @property
    def bar_count(self) -> int:
        """Number of bars without a decision."""
        return sum(self._counts.values())

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason."""
        return tuple(
            f"no decision at {pluralize(bar_count, 'bar')}: {self._first_reasons[key]}"
            for key, bar_count in self._counts.items()
        )


class ChoiceLog:
    """Counts the choices of weights that wait for the owner of a live agent, as they move one by more
    than `max_change_bps`; None: none waits.
    """

    def __init__(self, portfolio: Portfolio, max_change_bps: int | None) -> None:
        self._portfolio = portfolio
        self._max_change_bps = max_change_bps
        self._last: Allocation | None = None
        self._count = 0
        self._largest: tuple[WeightChange, int] | None = None

    def add(self, allocation: Allocation | None) -> None:
        """Add the weights that apply at a bar."""
        allocator = self._portfolio.allocator
        if allocator is None or allocation is None or allocation == self._last:
            return
        new_bps = dict(allocation.weights_bps) | dict(allocation.market_bps)
        change = largest_change(allocator, self._portfolio.assets, self._last, new_bps)
        self._last = allocation
        if change is None or self._max_change_bps is None or change.bps <= self._max_change_bps:
            return
        self._count += 1
        if self._largest is None or change.bps > self._largest[0].bps:
            self._largest = change, allocation.at_s

    def notes(self) -> tuple[str, ...]:
        """Return a sentence if there are any."""
        if self._largest is None or self._max_change_bps is None:
            return ()
        change, at_s = self._largest
        allocator = self._portfolio.allocator
        signal = None if allocator is None else allocator.signal
        label_by_name = {
            **{asset.token.address: asset.token.label for asset in self._portfolio.assets},
            **{market.market: market.symbol for market in (signal.markets if signal else ())},
        }
        largest_text = (
            f"{label_by_name.get(change.name, change.name)} from {format_bps(change.from_bps)} to"
            f" {format_bps(change.to_bps)} at {format_time(at_s)}"
        )
        return (
            f"{pluralize(self._count, 'choice')} of weights moved one by more than max_change of"
            f" {format_bps(self._max_change_bps)}, most {largest_text}: live each waits for trimtab"
            " weights --accept",
        )


class AnswerLog:
    """Asks a runner of signals, and collects the bars at which one failed to answer, by reason."""

    def __init__(self, runner: SignalRunner) -> None:
        self._runner = runner
        self._times_s: dict[tuple[str, str], set[int]] = {}

    def answers(self, requests: Sequence[SignalRequest]) -> tuple[SignalAnswer, ...]:
        """Return the answer to each request, in order."""
        answers = self._runner.answers(requests)
        for request, answer in zip(requests, answers, strict=True):
            if answer.why and not request.why:
                bar_times_s = self._times_s.setdefault((answer.name, answer.why), set())
                bar_times_s.add(request.view.now_s)
        return answers

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each signal and reason."""
        return tuple(
            f"signal {name}: {why}, at "
            + (f"{len(times_s):,} bars, first " if len(times_s) > 1 else "1 bar, ")
            + format_time(min(times_s))
            for (name, why), times_s in self._times_s.items()
        )


class HealthLog:
    """Collects the health of strategies bar by bar."""

    def __init__(self) -> None:
        self.changes: list[HealthRecord] = []
        self._newest: dict[str, HealthRecord] = {}

    def add(self, time_s: int, books: StrategyBooks | None) -> None:
        """Add the states after a step; None without strategies."""
        for book in () if books is None else books.strategy_books:
            strategy_state = book.state
            record = HealthRecord(
                time_s,
                book.name,
                strategy_state.health.value,
                strategy_state.reason,
                strategy_state.sharpe_milli,
            )
            previous_record = self._newest.get(book.name)
            if previous_record is not None and previous_record.health != record.health:
                self.changes.append(record)
            self._newest[book.name] = record

    @property
    def newest_records(self) -> tuple[HealthRecord, ...]:
        """Newest state of each strategy."""
        return tuple(self._newest.values())
