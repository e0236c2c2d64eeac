"""Build complete StepInputs from short arguments, so that pure tests state only what differs.

Amounts of money are whole coins of the numeraire (USDC, 6 decimals), prices are numeraire coins per whole token. `step_input()` without
arguments is a balanced half-and-half of WETH and USDC worth 10,000, with one V2 pool, fresh feeds and the limits of the template config
(only `max_live_value` is higher).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.layers.futures.state import FuturesState
from agent.layers.liquidity.state import LiquidityState
from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.policy.inputs import combine_targets
from agent.layers.strategies.state import (
    STRATEGY_UNITS,
    CapitalSplit,
    StrategiesState,
    Strategy,
    StrategyBooking,
    StrategyBookingKind,
    StrategyBooks,
    StrategyHealthRule,
    StrategyLedger,
    StrategyState,
)
from agent.model import (
    NEW_STORE_HISTORY,
    Allowance,
    Asset,
    CodeHash,
    Destination,
    ExecutionConfig,
    ExternalTransfer,
    FeedRound,
    FuturesReading,
    Head,
    History,
    Holding,
    Intent,
    Limits,
    NoTradeZone,
    Policy,
    Pool,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    StepInput,
    Threshold,
    TrackingRisk,
    Trigger,
)
from agent.model.layers import LayerState
from agent.model.parts import with_part
from agent.units import Token, floor_int
from tests.support.constants import DAY_S, ETHER, GWEI, MONTH_S

DECIMALS = {"USDC": 6, "USDT": 6, "USD": 6, "WBTC": 8, "GUSD": 2, "EURS": 2, "TENTH": 1, "WHOLE": 0, "CENTS": 0}
"""Decimals by symbol; every other token has 18."""
PRICES = {"USDC": 1, "USDT": 1, "USD": 1, "DAI": 1, "WETH": 2_000, "WBTC": 60_000}
"""Numeraire coins per whole token if a test gives no price; every other token is worth 1."""
NOW_S = 1_800_000_000
Number = int | str | Fraction


@cache
def address(name: str) -> str:
    """Return a checksummed address derived from the name."""
    return to_checksum_address(keccak(text=name)[-20:])


OWNER = address("owner")
ROUTER = address("router")


def token(symbol: str, decimals: int | None = None, at: str | None = None) -> Token:
    """Return a token with an address derived from its symbol."""
    return Token(at or address(f"token {symbol}"), symbol, DECIMALS.get(symbol, 18) if decimals is None else decimals)


def price_of(symbol: str, prices: Mapping[str, Number] | None = None) -> Fraction:
    """Return the whole-coin price from `prices` or PRICES."""
    return Fraction((prices or {}).get(symbol, PRICES.get(symbol, 1)))


def raw(amount: Number, of: Token) -> int:
    """Return the base units of a number of whole coins, rounded down."""
    return floor_int(Fraction(amount) * Fraction(10) ** of.decimals)


def unit_price(of: Token, price: Number, numeraire: Token) -> Fraction:
    """Convert a whole-coin price to numeraire base units per token base unit."""
    return Fraction(price) * Fraction(10) ** (numeraire.decimals - of.decimals)


def v2_pool(a: Token, b: Token, price: Number, depth: Number = 1_000_000, name: str = "", fee_pips: int = 3000) -> V2Pool:
    """Return a pair in which one whole `a` costs `price` whole `b`, with `depth` whole `b` on that side."""
    reserves = {a.address: raw(Fraction(depth) / Fraction(price), a), b.address: raw(depth, b)}
    token0, token1 = sorted(reserves, key=lambda key: int(key, 16))
    return V2Pool(address(f"v2 {a.symbol} {b.symbol} {name}"), "uniswap_v2", token0, token1, reserves[token0], reserves[token1], fee_pips)


def v3_pool(
    a: Token,
    b: Token,
    price: Number,
    depth: Number = 1_000_000,
    fee_pips: int = 500,
    twap_price: Number | None = None,
    window_s: int | None = 1_800,
    name: str = "",
) -> V3Pool:
    """Return a pool with one wide range in which one whole `a` costs `price` whole `b`; `depth` whole `b` are virtual reserves.

    `twap_price` is the mean of the window (default: the price now); with window_s None the pool has no observations.
    """
    spacing = {100: 1, 500: 10, 3000: 60, 10_000: 200}[fee_pips]
    a_is_0 = int(a.address, 16) < int(b.address, 16)

    def raw_ratio(whole: Number) -> Fraction:
        in_b = unit_price(a, whole, b)
        return in_b if a_is_0 else 1 / in_b

    ratio = raw_ratio(price)
    sqrt_x96 = math.isqrt(floor_int(ratio * 2**192))
    b_raw = raw(depth, b)
    liquidity = (b_raw << 96) // sqrt_x96 if a_is_0 else (b_raw * sqrt_x96) >> 96
    edge = 887_200 // spacing * spacing
    mean = None if window_s is None else _tick(raw_ratio(price if twap_price is None else twap_price))
    return V3Pool(
        address=address(f"v3 {a.symbol} {b.symbol} {fee_pips} {name}"),
        venue="uniswap_v3",
        token0=a.address if a_is_0 else b.address,
        token1=b.address if a_is_0 else a.address,
        fee_pips=fee_pips,
        tick_spacing=spacing,
        sqrt_price_x96=sqrt_x96,
        tick=_tick(ratio),
        liquidity=liquidity,
        ticks=(TickLiquidity(-edge, liquidity), TickLiquidity(edge, -liquidity)),
        known_from_tick=-edge,
        known_to_tick=edge,
        twap_tick=mean,
        twap_liquidity=None if mean is None else liquidity,
        twap_window_s=None if mean is None else window_s,
    )


def _tick(ratio: Fraction) -> int:
    return math.floor((math.log(ratio.numerator) - math.log(ratio.denominator)) / math.log(1.0001))


def feed_address(symbol: str) -> str:
    """Return the address of a token's USD feed."""
    return address(f"feed {symbol}")


def feed_round(symbol: str, usd: Number, updated_at_s: int = NOW_S - 60, decimals: int = 8, round_id: int = 7) -> FeedRound:
    """Return a complete round of the token's USD feed."""
    answer = floor_int(Fraction(usd) * 10**decimals)
    return FeedRound(feed_address(symbol), decimals, round_id, answer, updated_at_s, updated_at_s, round_id)


def limits(numeraire_decimals: int = 6) -> Limits:
    """Return the template config's limits; only max_live_value is higher, a million, so that it does not affect every test."""
    coin = 10**numeraire_decimals
    return Limits(
        price_impact_bps=100,
        slippage_bps=30,
        plan_cost_bps=50,
        turnover_bps=3_000,
        daily_turnover_bps=6_000,
        daily_loss_bps=100,
        oracle_deviation_bps=150,
        second_quote_deviation_bps=50,
        depeg_bps=200,
        gas_price_wei=60 * GWEI,
        gas_per_day_wei=ETHER // 20,
        native_floor_wei=ETHER // 20,
        head_age_s=90,
        min_trade=Fraction(10 * coin),
        pool_min_value=Fraction(50_000 * coin),
        impermanent_loss_bps=100,
        balance_jump_bps=200,
        max_live_value=Fraction(1_000_000 * coin),
    )


VALUES = {group.name: getattr(NEW_STORE_HISTORY, group.name) for group in fields(History)}
GROUPS = {field.name: name for name, value in VALUES.items() if is_dataclass(value) for field in fields(value)}
"""The value of History that holds each field."""
FLAT: dict[type[LayerState], dict[str, str]] = {
    FuturesState: {field.name: field.name for field in fields(FuturesState)} | {"emergency_gas_24h_wei": "emergency_gas_wei"},
    LiquidityState: {"last_liquidity_s": "last_action_s", "undecided": "undecided_positions"},
}
"""Fields of the layers' states, by their name in a flat history."""


READING_CHAIN = {
    "futures": "account",
    "futures_unknown": "unknown_reason",
    "futures_blocked": "blocked_reason",
    "key_approval_expires_s": "key_approval_expires_s",
}
"""Fields of the reading of the margin account, by their name in `with_snapshot`."""


def history(past: History | None = None, /, **changes: object) -> History:
    """Return the history of a new store, or `past`, with these fields of it or of its values."""
    past = past or NEW_STORE_HISTORY
    parts: dict[str, dict[str, object]] = defaultdict(dict)
    for name, value in changes.items():
        parts[GROUPS.get(name, "")][name] = value
    own = parts.pop("", {})
    for kind, names in FLAT.items():
        if values := {names[name]: own.pop(name) for name in names.keys() & own.keys()}:
            state = replace(past.layer(kind), **values)  # type: ignore[arg-type]
            own["layers"] = with_part(own.get("layers", past.layers), state)  # type: ignore[type-var]
    own |= {group: replace(getattr(past, group), **values) for group, values in parts.items()}
    return replace(past, **own)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def with_history(step: StepInput, **changes: object) -> StepInput:
    """Return the step with these fields of its history, or of the values of its history."""
    return replace(step, history=history(step.history, **changes))


def threshold(absolute_bps: int | None = None, relative_bps: int | None = None) -> Threshold:
    """Return a band; without arguments the template's, 10 % of the target."""
    return Threshold(absolute_bps, 1_000 if absolute_bps is None and relative_bps is None else relative_bps)


def snapshot(
    holdings: Sequence[Holding] = (),
    pools: Sequence[Pool] = (),
    feeds: Sequence[FeedRound] = (),
    spenders: Sequence[str] = (ROUTER,),
    now_s: int = NOW_S,
    **changes: object,
) -> Snapshot:
    """Return a block on the local chain with these holdings, one native coin for gas, and no allowances."""
    code = [ROUTER, *(p.address for p in pools), *(h.token for h in holdings)]
    head = Head(31_337, 1_000, "0x" + keccak(text=f"block {now_s}").hex(), now_s, GWEI)
    plain = Snapshot(
        head=head,
        now_s=now_s,
        owner=OWNER,
        native_wei=ETHER,
        nonce_latest=3,
        nonce_pending=3,
        priority_fee_wei=GWEI // 10,
        gas_price_wei=GWEI + GWEI // 10,
        holdings=tuple(holdings),
        allowances=tuple(Allowance(h.token, spender, 0) for h in holdings for spender in spenders),
        pools=tuple(pools),
        feeds=tuple(feeds),
        code_hashes=tuple(CodeHash(at, "0x" + keccak(text=f"code {at}").hex()) for at in code),
        unreadable_items=(),
        operators=("local",),
        http_request_count=2,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def step_input(
    targets_bps: Mapping[str, int] | None = None,
    values: Mapping[str, Number] | None = None,
    prices: Mapping[str, Number] | None = None,
    *,
    numeraire: str = "USDC",
    hubs: Sequence[str] = (),
    reserves: Mapping[str, Number] | None = None,
    depth: Number = 1_000_000,
    pools: Sequence[Pool] | None = None,
    trigger: Trigger | None = None,
    destination: Destination = Destination.TARGET,
    cooldown_s: int = 3_600,
    kinds: Sequence[PriceSource] = (PriceSource.FEED, PriceSource.TWAP),
    past: History | None = None,
    bounds: Limits | None = None,
    now_s: int = NOW_S,
) -> StepInput:
    """Return a complete step: `targets_bps` by symbol, `values` in numeraire coins by symbol (default: exactly on target, 10,000 in
    total).

    Unless `pools` is given, every asset and hub has a V2 pool with the numeraire at its price, with `depth` numeraire coins. Every asset
    has a USD feed at its price, updated a minute ago.
    """
    weights = targets_bps or {"WETH": 5_000, "USDC": 5_000}
    money = token(numeraire)
    tokens = {symbol: token(symbol) for symbol in weights}
    hub_tokens = tuple(token(symbol) for symbol in hubs)
    value_by_symbol = values or {symbol: Fraction(bps) for symbol, bps in weights.items()}
    all_prices = {t.symbol: price_of(t.symbol, prices) for t in (*tokens.values(), *hub_tokens, money)}
    if pools is None:
        priced = {t.address: t for t in (*tokens.values(), *hub_tokens) if t.address != money.address}
        pools = [v2_pool(t, money, all_prices[t.symbol] / all_prices[numeraire], depth) for t in priced.values()]
    return StepInput(
        snapshot=snapshot(
            [
                Holding(
                    t.address,
                    raw(
                        Fraction(value_by_symbol.get(s, 0)) * all_prices[numeraire] / all_prices[s] + Fraction((reserves or {}).get(s, 0)),
                        t,
                    ),
                )
                for s, t in tokens.items()
            ],
            pools,
            [feed_round(s, all_prices[s], now_s - 60) for s in tokens],
            now_s=now_s,
        ),
        portfolio=Portfolio(
            numeraire=money,
            assets=tuple(Asset(t, weights[s], raw((reserves or {}).get(s, 0), t), feed_address(s)) for s, t in tokens.items()),
            hubs=hub_tokens,
            wrapped_native=token("WETH").address,
        ),
        policy=Policy(trigger or threshold(), destination, cooldown_s),
        reference=ReferenceConfig(tuple(kinds), twap_window_s=1_800, feed_max_age_s=3_600),
        limits=bounds or limits(money.decimals),
        execution=ExecutionConfig("swap_router_02", ROUTER, deadline_s=90, expire_blocks=5, pinned=(ROUTER,)),
        history=past or history(),
    )


def with_snapshot(step: StepInput, **changes: object) -> StepInput:
    """Return the step with these fields of its snapshot, or of its reading of the margin account."""
    own = {READING_CHAIN[name]: changes.pop(name) for name in READING_CHAIN.keys() & changes.keys()}
    reading = replace(step.snapshot.layer(FuturesReading), **own)  # type: ignore[arg-type]  # field names, checked by replace
    return replace(step, snapshot=replace(step.snapshot, **changes).with_layer(reading))  # type: ignore[arg-type]  # field names, checked by replace


def with_limits(step: StepInput, **changes: object) -> StepInput:
    """Return the step with changed limits."""
    return replace(step, limits=replace(step.limits, **changes))  # type: ignore[arg-type]  # field names, checked by replace


def with_feed(step: StepInput, symbol: str, **changes: object) -> StepInput:
    """Return the step with a changed latest round of one token's feed."""
    feeds = tuple(
        replace(f, **changes) if f.feed == feed_address(symbol) else f  # type: ignore[arg-type]  # field names, checked by replace
        for f in step.snapshot.feeds
    )
    return with_snapshot(step, feeds=feeds)


def without_feed(step: StepInput, symbol: str) -> StepInput:
    """Return the step without the latest round of one token's feed."""
    return with_snapshot(step, feeds=tuple(f for f in step.snapshot.feeds if f.feed != feed_address(symbol)))


# --- Zones for tests: a risk by symbols, and steps with a zone as trigger.


VOLATILITIES = {"WETH": 8_000, "USDC": 50, "WBTC": 6_000, "DAI": 50, "LINK": 10_000}
CORRELATIONS = {("WETH", "WBTC"): 8_000, ("WETH", "LINK"): 7_000, ("WBTC", "LINK"): 6_000}


def tracking(
    *symbols: str,
    cost_bps: Number = Fraction(1, 2),
    horizon_s: int = MONTH_S,
    volatilities: Mapping[str, int] | None = None,
    correlations: Mapping[tuple[str, str], int] | None = None,
) -> TrackingRisk:
    """Return the risk of these tokens; pairs without a correlation are uncorrelated."""
    known = {frozenset(pair): bps for pair, bps in (CORRELATIONS | dict(correlations or {})).items()}
    spread = VOLATILITIES | dict(volatilities or {})
    pairs = [(symbol, other) for number, other in enumerate(symbols) for symbol in symbols[:number]]
    return TrackingRisk(
        Fraction(cost_bps),
        horizon_s,
        tuple((token(symbol).address, spread[symbol]) for symbol in symbols),
        tuple((token(pair).address, token(other).address, known.get(frozenset((pair, other)), 0)) for pair, other in pairs),
    )


def zoned(targets_bps: Mapping[str, int], values: Mapping[str, Number], risk: Mapping[str, Any] | None = None, **step: Any) -> StepInput:
    """Return a step with a zone as trigger; `risk` as for `tracking`."""
    trigger = NoTradeZone(tracking(*targets_bps, **(risk or {})))
    return step_input(targets_bps, values, trigger=trigger, destination=Destination.ZONE, **step)


# --- Strategies over one wallet for pure tests: a split from short arguments, and steps with updated books.


RULE = StrategyHealthRule(limit_milli=500, recover_milli=800, window_s=30 * DAY_S, period_s=30 * DAY_S, recover_s=10 * DAY_S)


def strategy(
    name: str,
    share_bps: int,
    weights_bps: Mapping[str, int],
    trigger: Trigger | None = None,
    destination: Destination = Destination.TARGET,
    cooldown_s: int = 0,
    floor_bps: int = 0,
    health: StrategyHealthRule | None = None,
) -> Strategy:
    """Return one strategy with weights by symbol; by default with the template's band."""
    weights = tuple((token(symbol).address, bps) for symbol, bps in weights_bps.items())
    return Strategy(name, share_bps, weights, trigger or threshold(), destination, cooldown_s, floor_bps, health)


def split(*strategies: Strategy, absolute_bps: int | None = None, relative_bps: int | None = 2_000) -> CapitalSplit:
    """Return a split of several strategies, by default with a band of 20 % of each share."""
    return CapitalSplit(strategies, Threshold(absolute_bps, relative_bps))


def none_own(_: Intent) -> StepInput | None:
    """Return None: no transaction is the strategies' own."""
    return None


def brought_up(
    step: StepInput,
    ledger: StrategyLedger | None = None,
    fresh: Sequence[ExternalTransfer] = (),
    own: accounting.IntentStep = none_own,
) -> StepInput:
    """Return the step with updated books in its history and the combined targets of all strategies."""
    updated_books = accounting.update_books(step, ledger or StrategyLedger(), own, netting.strategy_adjustments, fresh)
    return combine_targets(step.with_layer(StrategiesState(updated_books)))


def books_of(step: StepInput) -> StrategyBooks:
    """Return the books of a step."""
    books = step.layer(StrategiesState).books
    assert books is not None
    return books


def with_stored_bookings(ledger: StrategyLedger, step: StepInput) -> StrategyLedger:
    """Return the ledger after the step's bookings are written."""
    return replace(ledger, bookings=(*ledger.bookings, *books_of(step).unstored_bookings), record_version=ledger.record_version + 1)


def opening(holdings: Mapping[str, Mapping[str, Fraction | int | str]], block: int = 1) -> StrategyLedger:
    """Return a ledger of these whole coins by strategy and symbol. Each strategy has 10^18 units."""
    changes: list[tuple[str, str, int]] = []
    for name, coins in holdings.items():
        changes += [(name, token(symbol).address, raw(amount, token(symbol))) for symbol, amount in coins.items()]
        changes.append((name, STRATEGY_UNITS, 10**18))
    return StrategyLedger((StrategyBooking("open", StrategyBookingKind.OPEN, block, 1, tuple(changes)),))


def strategy_coins(step: StepInput, name: str, symbol: str) -> Fraction:
    """Return the whole coins that a strategy holds."""
    priced_token = token(symbol)
    return Fraction(books_of(step).by_name[name].balance_raw(priced_token.address), 10**priced_token.decimals)


def with_state(step: StepInput, state: StrategyState) -> StepInput:
    """Return the step with another state of one strategy."""
    books = books_of(step)
    changed = tuple(
        replace(strategy_book, state=state) if strategy_book.name == state.name else strategy_book for strategy_book in books.strategy_books
    )
    return step.with_layer(StrategiesState(replace(books, strategy_books=changed)))


def sums_to_the_wallet(step: StepInput) -> bool:
    """Return whether strategies and amounts set aside add up to each balance, to the base unit, by the bookings alone."""
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    aside = {asset.token.address: min(raw_by_token[asset.token.address], asset.reserve_raw) for asset in step.portfolio.assets}
    return all(
        sum(strategy_book.balance_raw(address) for strategy_book in books_of(step).strategy_books) + aside[address] == raw_by_token[address]
        for address in aside
    )


def balances(step: StepInput, **coins: Fraction | int | str) -> StepInput:
    """Return the step with other balances of some tokens, in whole coins by symbol."""
    other = {token(symbol).address: raw(amount, token(symbol)) for symbol, amount in coins.items()}
    holdings = tuple(replace(holding, raw=other.get(holding.token, holding.raw)) for holding in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))
