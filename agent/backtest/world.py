"""Simulated world at one bar: time, recorded prices, pools and wallet.

Later bars are not visible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.accounting.performance import buy_at_targets
from agent.amm import POOL_KIND_BY_CURVE_NAME
from agent.amm.v3.math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, get_tick_at_sqrt_ratio
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.backtest.data import PriceTable, columns_by_token, forward_fill, newest_close_bars
from agent.backtest.futures.venue import SimulatedVenue
from agent.backtest.settings import (
    IN_NUMERAIRE,
    LEAVE_WHEN_GONE,
    PRO_RATA,
    AppliedTransfer,
    BacktestSpec,
    SimulationSettings,
    apply_transfer,
    bars_and_transfers,
    require_partial_withdrawal,
    simulated_address,
)
from agent.errors import ConfigError
from agent.foreign_text import read_json
from agent.layers.strategies.state import Strategy
from agent.model import DataFeeQuote, FeedRound, Head, OrderKind, Pool, Receipt, UnsignedTx
from agent.model.rollups import scaled_fee_quote
from agent.units import BPS, PIPS, Price, Token, Value, floor_int

UINT112_MAX = 2**112 - 1


def make_pool(
    curve_name: str, token: Token, numeraire: Token, price: Price, depth_raw: int, fee_pips: int
) -> Pool:
    """Return a pool in which one base unit of `token` costs `price` base units of `numeraire`, with
    `depth_raw` of `numeraire`. `curve_name` is a key of POOL_KIND_BY_CURVE_NAME. Raises ConfigError
    if a reserve is zero or exceeds uint112.
    """
    token_raw = floor_int(depth_raw / price)
    if not 0 < token_raw <= UINT112_MAX or not 0 < depth_raw <= UINT112_MAX:
        raise ConfigError(
            f"--market depth: reserves of {depth_raw} base units of {numeraire.label} and {token_raw} of"
            f" {token.label} are out of range",
            "choose a depth with reserves of at least 1 base unit and less than 2^112",
        )
    is_token0 = int(token.address, 16) < int(numeraire.address, 16)
    tokens = (token, numeraire)
    reserves_raw = (token_raw, depth_raw)
    price0 = price
    if not is_token0:
        tokens = (numeraire, token)
        reserves_raw = (depth_raw, token_raw)
        price0 = 1 / price
    address = simulated_address(f"{curve_name} {token.address} {numeraire.address}")
    return POOL_KIND_BY_CURVE_NAME[curve_name].simulated(
        address, tokens, price0, reserves_raw, fee_pips
    )


MAX_SWAP_RAW = 2**255 - 1


def read_pool(pool_path: Path, token0: Token, token1: Token) -> V3Pool:
    """Read a JSON file with `scalars` (fee, tick_spacing, sqrt_price_x96, tick, liquidity) and
    `tick_data` by tick: [gross, net, …].

    `tick_data` must list every initialised tick. Raises ConfigError for another format, such as a
    number that is not whole, and unless net liquidity sums to `liquidity` up to the current tick, to
    zero over all ticks, and nowhere to less.
    """
    try:
        pool = _parse_pool(
            read_json(pool_path.read_text(encoding="utf-8")), pool_path, token0, token1
        )
    except OSError as error:
        raise ConfigError(
            f"--market pool-state: {pool_path} cannot be read: {error.strerror}",
            "name a readable JSON file",
        ) from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        fault = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        problem = f"--market pool-state: {pool_path.name} is not a pool: {fault}"[:160]
        remedy = (
            "write scalars (fee, tick_spacing, sqrt_price_x96, tick, liquidity) and tick_data, by tick"
            " [gross, net]"
        )
        raise ConfigError(problem, remedy) from None
    liquidity_at_tick = sum(
        initialised_tick.liquidity_net
        for initialised_tick in pool.ticks
        if initialised_tick.index <= pool.tick
    )
    if (
        liquidity_at_tick != pool.liquidity
        or sum(any_tick.liquidity_net for any_tick in pool.ticks) != 0
        or min(accumulate(any_tick.liquidity_net for any_tick in pool.ticks), default=0) < 0
    ):
        raise ConfigError(
            f"--market pool-state: the ticks of {pool_path.name} do not add up to its liquidity",
            "list every initialised tick",
        )
    if not int(token0.address, 16) < int(token1.address, 16):
        raise ConfigError(
            f"--market pool-state: {token0.label} has no lower address than {token1.label}",
            "put token0 first",
        )
    return pool


def _parse_pool(pool_document: Any, pool_path: Path, token0: Token, token1: Token) -> V3Pool:
    scalars = pool_document["scalars"]
    fee_pips, tick_spacing, sqrt_price_x96, tick, liquidity = (
        _whole_number(scalars[scalar_name], scalar_name)
        for scalar_name in ("fee", "tick_spacing", "sqrt_price_x96", "tick", "liquidity")
    )
    if not (
        0 <= fee_pips < PIPS
        and tick_spacing > 0
        and 0 <= liquidity < 2**128
        and MIN_SQRT_RATIO <= sqrt_price_x96 < MAX_SQRT_RATIO
    ):
        raise ValueError("fee, spacing, price or liquidity is out of range")
    if get_tick_at_sqrt_ratio(sqrt_price_x96) != tick:
        raise ValueError("the tick does not match the price")
    tick_data = pool_document["tick_data"]
    if not isinstance(tick_data, dict):
        raise ValueError("tick_data is not an object")
    if not all(isinstance(row, list) and len(row) > 1 for row in tick_data.values()):
        raise ValueError("a tick is no list of its gross and net liquidity")
    ticks = tuple(
        TickLiquidity(
            _whole_number(tick_index, "tick"), _whole_number(liquidity_row[1], f"tick {tick_index}")
        )
        for tick_index, liquidity_row in sorted(
            tick_data.items(), key=lambda tick_and_row: int(tick_and_row[0])
        )
    )
    if len({tick_liquidity.index for tick_liquidity in ticks}) < len(ticks):
        raise ValueError("a tick is given twice")
    last_tick = MAX_TICK // tick_spacing * tick_spacing
    if any(
        tick_liquidity.index % tick_spacing or abs(tick_liquidity.index) > last_tick
        for tick_liquidity in ticks
    ):
        raise ValueError("a tick does not match the spacing or is out of range")
    address = simulated_address(f"pool {pool_path.name} {token0.address} {token1.address}")
    return V3Pool(
        address,
        V3Pool.kind,
        token0.address,
        token1.address,
        fee_pips,
        tick_spacing,
        sqrt_price_x96,
        tick,
        liquidity,
        ticks,
        -last_tick,
        last_tick,
    )


def _whole_number(json_value: object, name: str) -> int:
    """Return an integer, also one in a text. Raises ValueError for any other value."""
    if re.fullmatch("-?[0-9]{1,78}", str(json_value)):
        return int(str(json_value))
    raise ValueError(f"{name}: {json_value!r} is not a whole number")


def arbitrage_pool(pool: V3Pool, price: Price) -> V3Pool:
    """Return the pool after a swap to `price` (token1 per base unit of token0), over every tick in
    between.

    Real arbitrage stops one fee short of the price. Raises ConfigError for a price outside the
    pool's range.
    """
    target_sqrt_price_x96 = isqrt(floor_int(price * 2**192))
    if not MIN_SQRT_RATIO < target_sqrt_price_x96 < MAX_SQRT_RATIO:
        raise ConfigError(
            "--market pool-state: a price in the table is outside a pool's range",
            "check the decimals of its tokens",
        )
    if target_sqrt_price_x96 == pool.sqrt_price_x96:
        return pool
    token_in = pool.token0 if target_sqrt_price_x96 < pool.sqrt_price_x96 else pool.token1
    return pool.swap(token_in, MAX_SWAP_RAW, target_sqrt_price_x96).pool_after


CHAIN_ID = 31337
FEED_DECIMALS = 18
INITIAL_NATIVE_WEI = 10**24
"""Initial native coin for gas, held outside the portfolio; enough for any simulation."""
FIRST_BLOCK = 1_000


class EndOfPrices(Exception):
    """Raised when there is no later bar."""


@dataclass(slots=True)
class SimulatedWallet:
    """Balances and allowances of the wallet, base units by token."""

    balances: dict[str, int]
    allowances: dict[str, int]
    native_wei: int = INITIAL_NATIVE_WEI
    nonce: int = 0


@dataclass(frozen=True, slots=True)
class BacktestSwap:
    """A swap in one pool: amounts in base units, the value of what was sold and the pool's fee in
    numeraire base units.
    """

    sold: Token
    bought: Token
    sold_raw: int
    bought_raw: int
    value: Value
    fee: Value


@dataclass(frozen=True, slots=True)
class TransactionCost:
    """Cost of one transaction at the bar of its execution, values in numeraire base units at the
    prices of its block; `turnover` is half of the traded value. `reason` is that of the decision.
    """

    bar: int
    time_s: int
    turnover: Value
    fees: Value
    impact: Value
    gas: Value
    succeeded: bool
    is_swap: bool
    swaps: tuple[BacktestSwap, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldingsRecord:
    """Holdings after a bar: balances, balances of buy and hold, and gas paid so far in numeraire
    base units.
    """

    bar: int
    balances: dict[str, int]
    hold_balances: dict[str, int]
    gas_paid: Fraction


@dataclass(slots=True)
class SimulatedWorld:
    """ports.Clock over a table: `sleep` advances to the next bar. Raises EndOfPrices after the
    last.
    """

    spec: BacktestSpec
    table: PriceTable
    settings: SimulationSettings
    wallet: SimulatedWallet
    bar: int = -1
    block_number: int = FIRST_BLOCK
    prices: dict[str, Price] = field(default_factory=dict)
    feed_rounds: tuple[FeedRound, ...] = ()
    pools: dict[str, Pool] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    pending_transactions: list[tuple[int, str, UnsignedTx]] = field(default_factory=list)
    venue: SimulatedVenue | None = None
    transaction_costs: list[TransactionCost] = field(default_factory=list)
    hold_balances: dict[str, int] = field(default_factory=dict)
    pending_transfers: tuple[tuple[int, Fraction], ...] = ()
    applied_transfers: list[AppliedTransfer] = field(default_factory=list)
    gas_paid: Fraction = Fraction(0)
    reserves_value: Fraction = Fraction(0)
    """Value of the reserves at the first bar, which the wallet holds beside its initial value."""
    holdings_records: list[HoldingsRecord] = field(default_factory=list)
    column_by_token: dict[str, int] = field(init=False)
    filled_closes: NDArray[np.float64] = field(init=False)
    newest_price_bars: NDArray[np.int64] = field(init=False)
    price_times_s: NDArray[np.int64] = field(init=False)
    is_stale: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Derive columns by token, forward-filled prices, and `is_stale` for prices past their
        maximum age.
        """
        self.column_by_token = columns_by_token(self.spec, self.table)
        self.filled_closes = forward_fill(self.table.closes)
        self.newest_price_bars = np.maximum(newest_close_bars(self.table.closes), 0)
        if self.settings.silent_feed_bars is not None:
            silent_start, silent_end = self.settings.silent_feed_bars
            self.newest_price_bars[silent_start:silent_end] = self.newest_price_bars[
                max(silent_start - 1, 0)
            ]
        self.price_times_s = self.table.close_times_s(self.newest_price_bars)
        self.is_stale = self.table.times_s[:, None] - self.price_times_s > np.array(
            [self._max_age_s(symbol) for symbol in self.table.symbols]
        )
        if self.settings.flows:
            self.pending_transfers = bars_and_transfers(
                self.settings.flows, self.table.times_s.tolist()
            )

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Assets and hubs."""
        return self.spec.tokens

    @property
    def numeraire(self) -> Token:
        """The numeraire."""
        return self.spec.portfolio.numeraire

    @property
    def bar_time_s(self) -> int:
        """Time of this bar, Unix seconds."""
        return int(self.table.times_s[self.bar])

    @property
    def excluded_tokens(self) -> frozenset[str]:
        """Tokens excluded at this bar because their price is stale; never the numeraire."""
        if self.settings.stale_asset_mode != LEAVE_WHEN_GONE:
            return frozenset()
        is_stale_by_column = self.is_stale[self.bar]
        return frozenset(
            token
            for token, column in self.column_by_token.items()
            if is_stale_by_column[column] and token != self.numeraire.address
        )

    @property
    def gas_price_wei(self) -> int:
        """Gas price at this bar."""
        gas_setting: int | Sequence[int] = self.settings.gas_price_wei
        return gas_setting if isinstance(gas_setting, int) else gas_setting[self.bar]

    @property
    def data_fee(self) -> DataFeeQuote | None:
        """Data fees of the simulated rollup; None without them."""
        one_swap_wei = self.settings.data_fee_wei
        return scaled_fee_quote(one_swap_wei) if one_swap_wei else None

    def now_s(self) -> int:
        """Return the bar's time, equal for all its blocks (ports.Clock): later times would delay
        every schedule by one bar.
        """
        return self.bar_time_s

    def sleep(self, seconds: float) -> None:
        """Advance to the next bar; the duration is ignored (ports.Clock)."""
        self.advance_to(self.bar + 1)

    def head(self) -> Head:
        """Return the newest block."""
        return Head(
            CHAIN_ID,
            self.block_number,
            block_hash(self.block_number),
            self.now_s(),
            self.gas_price_wei,
        )

    def advance_to(self, bar: int) -> None:
        """Advance to a bar: set its prices, reset the pools to them, and apply the transfers due.
        The impact of the wallet's trades ends with their bar. Raises EndOfPrices after the last
        bar.
        """
        if bar >= self.table.bar_count:
            raise EndOfPrices
        self.record_holdings()
        self.block_number += bar - self.bar
        self.bar = bar
        if self.venue is not None:
            self.venue.advance_to(bar)
        self._update_prices()
        self._reset_pools()
        self._apply_transfers_due()

    def record_holdings(self) -> None:
        """Record the holdings after this bar if they changed."""
        current_record = HoldingsRecord(
            self.bar, self.wallet.balances, self.hold_balances, self.gas_paid
        )
        previous_record = self.holdings_records[-1] if self.holdings_records else None
        if self.wallet.balances and (
            previous_record is None
            or (previous_record.balances, previous_record.hold_balances, previous_record.gas_paid)
            != (current_record.balances, current_record.hold_balances, current_record.gas_paid)
        ):
            self.holdings_records.append(
                replace(
                    current_record,
                    balances=dict(current_record.balances),
                    hold_balances=dict(current_record.hold_balances),
                )
            )

    def record_cost(self, cost: TransactionCost) -> None:
        """Record the cost of a transaction at this bar; its gas counts as paid."""
        self.transaction_costs.append(cost)
        self.gas_paid += cost.gas

    def next_transfer_bar(self) -> int:
        """Return the bar of the owner's next transfer; the number of bars if there is none."""
        return self.pending_transfers[0][0] if self.pending_transfers else self.table.bar_count

    def begin_block(self) -> None:
        """Begin a new block."""
        self.block_number += 1

    def table_price(self, token: str, bar: int) -> Fraction:
        """Return the close of a token in the table's unit; 1 for a token without a column, which is
        that unit.
        """
        column = self.column_by_token.get(token)
        return (
            Fraction(1) if column is None else Fraction(str(float(self.filled_closes[bar, column])))
        )

    def price(self, token: Token, bar: int) -> Price:
        """Return the price of a token at a bar, numeraire base units per base unit."""
        token_price = self.table_price(token.address, bar)
        numeraire_price = self.table_price(self.numeraire.address, bar)
        return (
            token_price
            / numeraire_price
            * Fraction(10) ** (self.numeraire.decimals - token.decimals)
        )

    def value(self, balances: dict[str, int]) -> Fraction:
        """Return the value of balances in numeraire base units, at this bar's prices."""
        return sum((raw * self.prices[token] for token, raw in balances.items()), Fraction(0))

    def net_value(self) -> Fraction:
        """Return the value of wallet and margin account after gas, at this bar's prices."""
        margin_value = (
            Fraction(0) if self.venue is None else self.venue.account_value(self.numeraire)
        )
        return self.value(self.wallet.balances) + margin_value - self.gas_paid

    def _apply_transfers_due(self) -> None:
        """Apply the transfers due at this bar to the wallet and to the buy-and-hold portfolio."""
        while self.pending_transfers and self.pending_transfers[0][0] <= self.bar:
            transfer_coins = self.pending_transfers[0][1]
            self.pending_transfers = self.pending_transfers[1:]
            transfer_value = transfer_coins * 10**self.numeraire.decimals
            value_before = self.net_value()
            require_partial_withdrawal(
                transfer_value, value_before, self.numeraire, self.bar_time_s
            )
            self.applied_transfers.append(
                AppliedTransfer(
                    self.bar,
                    self.bar_time_s,
                    transfer_value,
                    value_before,
                    self.value(self.hold_balances),
                )
            )
            asset_addresses = [asset.token.address for asset in self.spec.portfolio.assets]
            transfer_mode = self.settings.transfer_mode
            numeraire = self.numeraire.address
            self.wallet.balances = apply_transfer(
                self.wallet.balances,
                self.prices,
                transfer_value,
                transfer_mode,
                numeraire,
                asset_addresses,
            )
            if (
                transfer_value > 0 and transfer_mode == IN_NUMERAIRE
            ):  # as in the ledger's buy and hold
                target_bps_by_token = target_shares_bps(self.spec)
                for token, bought_raw in buy_at_targets(
                    transfer_value, target_bps_by_token, self.prices, numeraire
                ).items():
                    self.hold_balances[token] += floor_int(bought_raw)
            else:
                self.hold_balances = apply_transfer(
                    self.hold_balances,
                    self.prices,
                    transfer_value,
                    PRO_RATA,
                    numeraire,
                    tuple(self.hold_balances),
                )

    def _max_age_s(self, symbol: str) -> int:
        spec = self.spec
        feed_by_symbol = {
            symbol_of_token: spec.portfolio.feed(address)
            for address, symbol_of_token in spec.tokens_and_symbols
        }
        return spec.reference.max_age_s(feed_by_symbol.get(symbol) or "")

    def _update_prices(self) -> None:
        portfolio = self.spec.portfolio
        excluded_tokens = self.excluded_tokens
        feed_rounds = []
        for token in self.tokens:
            column = self.column_by_token.get(token.address)
            price_bar = self.bar
            updated_at_s = self.bar_time_s
            if (
                column is not None and token.address not in excluded_tokens
            ):  # steps do not read excluded feeds
                price_bar = int(self.newest_price_bars[self.bar, column])
                updated_at_s = int(self.price_times_s[self.bar, column])
            feed = portfolio.feed(token.address)
            self.prices[token.address] = self.price(token, self.bar)
            feed_price = (
                Fraction(1)
                if column is None
                else Fraction(str(float(self.filled_closes[price_bar, column])))
            )
            if feed is not None:
                feed_rounds.append(
                    FeedRound(
                        feed,
                        FEED_DECIMALS,
                        price_bar + 1,
                        floor_int(feed_price * 10**FEED_DECIMALS),
                        updated_at_s,
                        updated_at_s,
                        price_bar + 1,
                    )
                )
        self.feed_rounds = tuple(feed_rounds)

    def _reset_pools(self) -> None:
        settings = self.settings
        numeraire = self.numeraire
        thin_start, thin_end, thin_share = settings.thin_pool_bars or (0, 0, Fraction(1))
        depth = settings.depth
        if thin_start <= self.bar < thin_end:
            depth *= thin_share
        depth_raw = floor_int(depth * 10**numeraire.decimals)
        excluded_tokens = self.excluded_tokens
        pools_with_pair = [(pool, {pool.token0, pool.token1}) for pool in settings.recorded_pools]
        pools = [
            make_pool(
                settings.pool_kind,
                token,
                numeraire,
                self.prices[token.address],
                depth_raw,
                settings.fee_pips,
            )
            for token in self.tokens
            if token.address not in (numeraire.address, *excluded_tokens)
            and all(
                token_pair != {token.address, numeraire.address}
                for _, token_pair in pools_with_pair
            )
        ]
        for pool, token_pair in pools_with_pair:
            previous_pool = self.pools.get(pool.address, pool)
            if isinstance(previous_pool, V3Pool) and not token_pair & excluded_tokens:
                pools.append(
                    arbitrage_pool(
                        previous_pool, self.prices[pool.token0] / self.prices[pool.token1]
                    )
                )
        self.pools = {pool.address: pool for pool in pools}


def block_hash(block_number: int) -> str:
    """Return a unique pseudo-hash for each block."""
    return f"0x{block_number:064x}"


def balances_at_targets(world: SimulatedWorld) -> dict[str, int]:
    """Return the initial wallet: the initial value spread over the targets, rounded down, plus
    reserves. A margin account counts in the share of its collateral if it does so in the step.

    The share of an asset with a pending entry order starts as numeraire, if that is an asset.
    Strategy weights replace the targets. Raises ConfigError if an asset's share is less than one
    base unit.
    """
    portfolio = world.spec.portfolio
    settings = world.settings
    numeraire = world.numeraire.address
    start_value = settings.start_value * 10**portfolio.numeraire.decimals
    balances = {token.address: 0 for token in world.tokens}
    entry_tokens = {
        terms.token for terms in portfolio.orders.terms if terms.kind is OrderKind.ENTRY
    }
    entry_substitute_token = (
        numeraire if any(asset.token.address == numeraire for asset in portfolio.assets) else ""
    )
    target_bps_by_token = target_shares_bps(world.spec)
    value_by_token = _without_margin(
        world, {token: start_value * bps / BPS for token, bps in target_bps_by_token.items()}
    )
    for asset in portfolio.assets:
        token = (
            entry_substitute_token
            if entry_substitute_token and asset.token.address in entry_tokens
            else asset.token.address
        )
        bought_raw = floor_int(value_by_token[asset.token.address] / world.prices[token])
        if value_by_token[asset.token.address] and not bought_raw:
            raise ConfigError(
                f"--value: {float(settings.start_value):g} is too low for one base unit of"
                f" {asset.token.label} ({asset.token.decimals} decimals)",
                "raise --value, or check --market decimals",
            )
        balances[token] += bought_raw
        balances[asset.token.address] += asset.reserve_raw
    return balances


def target_shares_bps(spec: BacktestSpec) -> dict[str, Fraction]:
    """Return the targets of the assets; weights of strategies replace those of the portfolio."""
    split = spec.split
    target_bps_by_token = {
        asset.token.address: Fraction(asset.target_bps) for asset in spec.portfolio.assets
    }
    if split is None or not all(strategy.weights_bps for strategy in split.strategies):
        return target_bps_by_token
    return {
        token: sum(
            (_strategy_target_bps(strategy, token) for strategy in split.strategies), Fraction(0)
        )
        for token in target_bps_by_token
    }


def _without_margin(
    world: SimulatedWorld, value_by_token: dict[str, Fraction]
) -> dict[str, Fraction]:
    """Return the values that an initial wallet holds in addition to its margin account, so that
    both together are at the targets, or as close as the wallet allows if the collateral exceeds its
    target.
    """
    if world.venue is None or not world.venue.setup.policy.margin_in_weights:
        return value_by_token
    collateral_token = world.venue.setup.collateral.address
    start_value = sum(value_by_token.values(), Fraction(0))
    margin_value = world.venue.account_value(world.numeraire)
    value_by_token = {
        token: token_value * (start_value + margin_value) / start_value
        for token, token_value in value_by_token.items()
    }
    value_by_token[collateral_token] = max(
        Fraction(0), value_by_token[collateral_token] - margin_value
    )
    return {
        token: token_value * start_value / sum(value_by_token.values(), Fraction(0))
        for token, token_value in value_by_token.items()
    }


def _strategy_target_bps(strategy: Strategy, token: str) -> Fraction:
    """Return the part of the portfolio that one strategy targets in a token, bps."""
    return Fraction(strategy.share_bps * dict(strategy.weights_bps).get(token, 0), BPS)
