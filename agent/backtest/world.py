"""The simulated world at one bar: time, recorded prices, pools around them, and what the wallet has. It knows no later bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.columns import columns_of
from agent.backtest.flows import bars_of, moved
from agent.backtest.market import pool_at
from agent.backtest.recorded_pools import arbitraged
from agent.backtest.result import Flowed
from agent.backtest.table import PriceTable, carried
from agent.backtest.wanted import LEAVE, Settings, Wanted
from agent.errors import ConfigError
from agent.model import FeedRound, Head, OrderKind, PoolState, Receipt, UnsignedTx, V3Pool
from agent.model.strategies import Strategy
from agent.units import BPS, Price, Token, floor_int

CHAIN_ID = 31337
FEED_DECIMALS = 18
NATIVE_WEI = 10**24
"""Native coin for gas lies beside the portfolio, and is enough."""
FIRST_BLOCK = 1_000


class EndOfTable(Exception):
    """There is no later bar."""


@dataclass(slots=True)
class Wallet:
    """What the wallet has and allows, base units by token."""

    balances: dict[str, int]
    allowances: dict[str, int]
    native_wei: int = NATIVE_WEI
    nonce: int = 0


@dataclass(frozen=True, slots=True)
class Fill:
    """What one transaction cost, values in numeraire base units at the prices of its block; `turnover` is half of all that moved."""

    bar: int
    swap: bool
    succeeded: bool
    turnover: Fraction
    fees: Fraction
    impact: Fraction
    gas: Fraction


@dataclass(frozen=True, slots=True)
class Held:
    """What there is from the end of a bar on: balances, those of holding, and what gas has cost so far (numeraire base units)."""

    bar: int
    balances: dict[str, int]
    hold: dict[str, int]
    gas: Fraction


@dataclass(slots=True)
class World:
    """ports.Clock over a table: sleeping goes on to the next bar. Raises EndOfTable after the last."""

    wanted: Wanted
    table: PriceTable
    settings: Settings
    wallet: Wallet
    bar: int = -1
    block: int = FIRST_BLOCK
    prices: dict[str, Price] = field(default_factory=dict)
    feeds: tuple[FeedRound, ...] = ()
    pools: dict[str, PoolState] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    pending: list[tuple[int, str, UnsignedTx]] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    hold: dict[str, int] = field(default_factory=dict)
    flows: tuple[tuple[int, Fraction], ...] = ()
    flowed: list[Flowed] = field(default_factory=list)
    gas_paid: Fraction = Fraction(0)
    told: list[Held] = field(default_factory=list)
    columns: dict[str, int] = field(init=False)
    closes: NDArray[np.float64] = field(init=False)
    newest: NDArray[np.int64] = field(init=False)
    stale: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Columns by token; what stands in for missing prices: of each symbol the newest before; `stale` where that is too old to count."""
        self.columns = columns_of(self.wanted, self.table)
        self.closes = carried(self.table.closes)
        rows = np.where(np.isnan(self.table.closes), 0, np.arange(self.table.bars)[:, None])
        self.newest = np.maximum.accumulate(rows, axis=0)
        if self.settings.silent is not None:
            first, end = self.settings.silent
            self.newest[first:end] = self.newest[max(first - 1, 0)]
        ages_s = self.table.times_s[:, None] - self.table.times_s[self.newest]
        self.stale = ages_s > np.array([self._max_age_s(symbol) for symbol in self.table.symbols])
        self.flows = bars_of(self.settings.flows, self.table.times_s.tolist()) if self.settings.flows else ()

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Assets and hubs."""
        return self.wanted.tokens

    @property
    def money(self) -> Token:
        """The numeraire."""
        return self.wanted.portfolio.numeraire

    @property
    def bar_s(self) -> int:
        """Time of this bar, Unix seconds."""
        return int(self.table.times_s[self.bar])

    @property
    def gone(self) -> frozenset[str]:
        """Tokens that the step goes on without at this bar, since they have had no price for too long; never the numeraire."""
        if self.settings.gone != LEAVE:
            return frozenset()
        stale = self.stale[self.bar]
        return frozenset(token for token, column in self.columns.items() if stale[column] and token != self.money.address)

    @property
    def gas_wei(self) -> int:
        """What a unit of gas costs at this bar."""
        gas: int | Sequence[int] = self.settings.gas_wei
        return gas if isinstance(gas, int) else gas[self.bar]

    def now_s(self) -> int:
        """See ports.Clock: the bar's time, of all its blocks: were they later, each schedule would come due a bar later every time."""
        return self.bar_s

    def sleep(self, seconds: float) -> None:
        """See ports.Clock: whoever waits, waits for the next bar."""
        self.go_to(self.bar + 1)

    def head(self) -> Head:
        """The newest block."""
        return Head(CHAIN_ID, self.block, block_hash(self.block), self.now_s(), self.gas_wei)

    def go_to(self, bar: int) -> None:
        """Time passes to that bar: prices of then, pools traded to them, and nothing left of what this wallet did to them."""
        if bar >= self.table.bars:
            raise EndOfTable
        self.tell()
        self.block += bar - self.bar
        self.bar = bar
        self._price()
        self._trade_pools()
        self._pay_in_and_out()

    def tell(self) -> None:
        """Keeps what there is at the end of this bar, where it differs from what there was."""
        now = Held(self.bar, self.wallet.balances, self.hold, self.gas_paid)
        last = self.told[-1] if self.told else None
        if self.wallet.balances and (last is None or (last.balances, last.hold, last.gas) != (now.balances, now.hold, now.gas)):
            self.told.append(replace(now, balances=dict(now.balances), hold=dict(now.hold)))

    def next_flow(self) -> int:
        """The bar at which the owner next puts something in or takes something out; the number of bars when he does not."""
        return self.flows[0][0] if self.flows else self.table.bars

    def begin_block(self) -> None:
        """A block of its own for a transaction."""
        self.block += 1

    def quoted(self, token: str, bar: int) -> Fraction:
        """The recorded close of a token in the unit of the table; 1 for what is not in it, which is the numeraire alone."""
        column = self.columns.get(token)
        return Fraction(1) if column is None else Fraction(str(float(self.closes[bar, column])))

    def price(self, token: Token, bar: int) -> Price:
        """Numeraire base units per base unit of the token at that bar."""
        quoted, unit = self.quoted(token.address, bar), self.quoted(self.money.address, bar)
        return quoted / unit * Fraction(10) ** (self.money.decimals - token.decimals)

    def value(self, balances: dict[str, int]) -> Fraction:
        """Worth of balances in numeraire base units, at this bar's prices."""
        return sum((raw * self.prices[token] for token, raw in balances.items()), Fraction(0))

    def _pay_in_and_out(self) -> None:
        """What is due at this bar, to the wallet and to what is merely held."""
        while self.flows and self.flows[0][0] <= self.bar:
            amount, self.flows = self.flows[0][1], self.flows[1:]
            value, before = amount * 10**self.money.decimals, self.value(self.wallet.balances)
            self.flowed.append(Flowed(self.bar, self.bar_s, value, before - self.gas_paid, self.value(self.hold)))
            assets = [asset.token.address for asset in self.wanted.portfolio.assets]
            way, money = self.settings.flows_in, self.money.address
            self.wallet.balances = moved(self.wallet.balances, self.prices, value, way, money, assets)
            self.hold = moved(self.hold, self.prices, value, way, money, assets)

    def _max_age_s(self, symbol: str) -> int:
        wanted = self.wanted
        names = {ours: wanted.portfolio.feed(address) for address, ours in wanted.symbols}
        return wanted.reference.max_age_s(names.get(symbol) or "")

    def _price(self) -> None:
        portfolio, gone = self.wanted.portfolio, self.gone
        feeds = []
        for token in self.tokens:
            column = self.columns.get(token.address)
            left = token.address in gone  # nobody asks what it is worth: its last price stands
            at = self.bar if column is None or left else int(self.newest[self.bar, column])
            at_s, name = int(self.table.times_s[at]), portfolio.feed(token.address)
            self.prices[token.address] = self.price(token, self.bar)
            said = Fraction(1) if column is None else Fraction(str(float(self.closes[at, column])))
            if name is not None:
                feeds.append(FeedRound(name, FEED_DECIMALS, at + 1, floor_int(said * 10**FEED_DECIMALS), at_s, at_s, at + 1))
        self.feeds = tuple(feeds)

    def _trade_pools(self) -> None:
        settings, money = self.settings, self.money
        first, end, part = settings.thin or (0, 0, Fraction(1))
        depth_raw = floor_int(settings.depth * (part if first <= self.bar < end else 1) * 10**money.decimals)
        gone, recorded = self.gone, [(pool, {pool.token0, pool.token1}) for pool in settings.recorded]
        made = [
            pool_at(settings.pool, token, money, self.prices[token.address], depth_raw, settings.fee_pips)
            for token in self.tokens
            if token.address not in (money.address, *gone) and all(pair != {token.address, money.address} for _, pair in recorded)
        ]
        for pool, pair in recorded:
            stood = self.pools.get(pool.address, pool)
            if isinstance(stood, V3Pool) and not pair & gone:
                made.append(arbitraged(stood, self.prices[pool.token0] / self.prices[pool.token1]))
        self.pools = {pool.address: pool for pool in made}


def block_hash(number: int) -> str:
    """A name for each block."""
    return f"0x{number:064x}"


def at_targets(world: World) -> dict[str, int]:
    """What the wallet begins with: the settings' value at this bar's prices, spread over the targets and rounded down, and reserves.

    What waits for an entry order begins as numeraire, where that is an asset. Where strategies say their weights, those count.
    """
    portfolio, settings, money = world.wanted.portfolio, world.settings, world.money.address
    whole = settings.start_value * 10**portfolio.numeraire.decimals
    found = {token.address: 0 for token in world.tokens}
    waiting = {terms.token for terms in portfolio.orders.terms if terms.kind is OrderKind.ENTRY}
    waits_as = money if any(asset.token.address == money for asset in portfolio.assets) else ""
    targets = {asset.token.address: Fraction(asset.target_bps) for asset in portfolio.assets}
    split = world.wanted.split
    if split is not None and all(one.weights_bps for one in split.strategies):
        targets = {token: sum((_wants(one, token) for one in split.strategies), Fraction(0)) for token in targets}
    for asset in portfolio.assets:
        token = waits_as if waits_as and asset.token.address in waiting else asset.token.address
        bought = floor_int(whole * targets[asset.token.address] / BPS / world.prices[token])
        if targets[asset.token.address] and not bought:
            raise ConfigError(
                f"--value: {float(settings.start_value):g} buys no {asset.token.label} of {asset.token.decimals} decimals",
                "begin with more, or see --decimals",
            )
        found[token] += bought
        found[asset.token.address] += asset.reserve_raw
    return found


def _wants(one: Strategy, token: str) -> Fraction:
    """What a strategy wants of a token, bps of the whole."""
    return Fraction(one.share_bps * dict(one.weights_bps).get(token, 0), BPS)
