"""World of the embedded chain: tokens, prices, pools with liquidity ranges, accounts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from math import floor, log, sqrt

from agent.amm.v2 import get_amount_out
from agent.amm.v3.math import MAX_TICK
from agent.signing.keys import TEST_MNEMONIC
from agent.units import BPS, HOUR_S


class TokenKind(Enum):
    """Contract of a token."""

    WRAPPED_NATIVE = "WETH9"
    STANDARD = "TestToken"
    TETHER = "TetherLike"


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """A token: seeded USD price of a whole coin, target in the config's notation, and the wallet's
    balance in base units.
    """

    symbol: str
    decimals: int
    price_usd: Fraction
    target: str
    wallet_raw: int
    kind: TokenKind = TokenKind.STANDARD


@dataclass(frozen=True, slots=True)
class LiquidityRange:
    """Liquidity between two relative distances from the seeded price, in bps (None: to the last
    tick). `share_bps` is the share of the pool's value in this range. Ranges overlap to create many
    ticks; a range that excludes the price is one-sided, like a limit order.
    """

    from_bps: int | None
    to_bps: int | None
    share_bps: int


def v2_pool_name(symbol_a: str, symbol_b: str) -> str:
    """Return the name of a Uniswap V2 pair, such as "v2 WETH/USDC"."""
    return f"v2 {symbol_a}/{symbol_b}"


def v3_pool_name(symbol_a: str, symbol_b: str, fee_pips: int) -> str:
    """Return the name of a Uniswap V3 pool, such as "v3 WETH/USDC 500"."""
    return f"v3 {symbol_a}/{symbol_b} {fee_pips}"


@dataclass(frozen=True, slots=True)
class V2Spec:
    """A Uniswap V2 pair, and its value in USD."""

    token_a: str
    token_b: str
    value_usd: int

    @property
    def name(self) -> str:
        """Key in DeployedWorld.pool_by_name."""
        return v2_pool_name(self.token_a, self.token_b)


@dataclass(frozen=True, slots=True)
class V3Spec:
    """A Uniswap V3 pool: fee in pips, value in USD, and liquidity ranges."""

    token_a: str
    token_b: str
    fee_pips: int
    value_usd: int
    ranges: tuple[LiquidityRange, ...]

    @property
    def name(self) -> str:
        """Key in DeployedWorld.pool_by_name."""
        return v3_pool_name(self.token_a, self.token_b, self.fee_pips)


PoolSpec = V2Spec | V3Spec


@dataclass(frozen=True, slots=True)
class LocalWorld:
    """Tokens and pools in the order of deployment; `history_s` is the age of the pools."""

    tokens: tuple[TokenSpec, ...]
    pools: tuple[PoolSpec, ...]
    wallet_native_wei: int
    numeraire: str
    history_s: int = 3 * HOUR_S

    def token(self, symbol: str) -> TokenSpec:
        """Return the token with this symbol. Raises KeyError if there is none."""
        for token_spec in self.tokens:
            if token_spec.symbol == symbol:
                return token_spec
        raise KeyError(symbol)


STABLE_RANGES = (
    LiquidityRange(None, None, 500),
    LiquidityRange(-200, 200, 2_500),
    LiquidityRange(-50, 40, 3_000),
    LiquidityRange(-10, 10, 3_000),
    LiquidityRange(20, 120, 1_000),
)
DEEP_RANGES = (
    LiquidityRange(None, None, 2_000),
    LiquidityRange(-4_500, 8_000, 2_000),
    LiquidityRange(-1_200, 1_500, 2_500),
    LiquidityRange(-400, 300, 1_500),
    LiquidityRange(-150, 250, 1_000),
    LiquidityRange(100, 600, 500),
    LiquidityRange(-700, -200, 500),
)
WIDE_RANGES = (
    LiquidityRange(None, None, 4_000),
    LiquidityRange(-5_000, 10_000, 3_000),
    LiquidityRange(-1_500, 2_000, 2_000),
    LiquidityRange(-500, 1_000, 1_000),
)

DEFAULT_WORLD = LocalWorld(
    tokens=(
        TokenSpec("WETH", 18, Fraction(3_000), "30%", 10**18, TokenKind.WRAPPED_NATIVE),
        TokenSpec("WBTC", 8, Fraction(60_000), "25%", 4_166_667),
        TokenSpec("USDC", 6, Fraction(1), "20%", 2_000 * 10**6),
        TokenSpec("USDT", 6, Fraction(1), "15%", 1_500 * 10**6, TokenKind.TETHER),
        TokenSpec("LINK", 18, Fraction(15), "10%", 66_666_666_666_666_666_667),
    ),
    pools=(
        V2Spec("WETH", "USDC", 20_000_000),
        V2Spec("WBTC", "WETH", 12_000_000),
        V2Spec("WETH", "USDT", 8_000_000),
        V2Spec("LINK", "WETH", 3_000_000),
        V3Spec("USDC", "USDT", 100, 30_000_000, STABLE_RANGES),
        V3Spec("WETH", "USDC", 500, 40_000_000, DEEP_RANGES),
        V3Spec("WETH", "USDC", 3_000, 15_000_000, DEEP_RANGES),
        V3Spec("WBTC", "WETH", 500, 20_000_000, DEEP_RANGES),
        V3Spec("WBTC", "WETH", 3_000, 25_000_000, DEEP_RANGES),
        V3Spec("WETH", "USDT", 500, 20_000_000, DEEP_RANGES),
        V3Spec("WBTC", "USDC", 3_000, 8_000_000, DEEP_RANGES),
        V3Spec("LINK", "WETH", 3_000, 10_000_000, DEEP_RANGES),
        V3Spec("LINK", "USDC", 10_000, 400_000, WIDE_RANGES),
        V3Spec("WBTC", "USDT", 10_000, 250_000, WIDE_RANGES),
    ),
    wallet_native_wei=10 * 10**18,
    numeraire="USDC",
)
"""Five tokens at 3,000 / 60,000 / 1 / 1 / 15 USD, fourteen pools over V2 and every V3 fee tier, a
wallet of 10,000 USD at its targets."""


@dataclass(frozen=True, slots=True)
class PositionAmounts:
    """A range of ticks and the base units of both tokens to provide in it."""

    tick_lower: int
    tick_upper: int
    amount0_raw: int
    amount1_raw: int


def full_range(tick_spacing: int) -> tuple[int, int]:
    """Return the widest range whose ends are multiples of the spacing."""
    last_tick = MAX_TICK // tick_spacing * tick_spacing
    return -last_tick, last_tick


def range_ticks(
    price: Fraction, liquidity_range: LiquidityRange, tick_spacing: int
) -> tuple[int, int]:
    """Return the ends of a range as usable ticks, at least one spacing apart."""
    first_tick, last_tick = full_range(tick_spacing)

    def tick(distance_bps: int) -> int:
        return (
            floor(log(float(price) * (1 + distance_bps / BPS)) / log(1.0001) / tick_spacing)
            * tick_spacing
        )

    tick_lower = first_tick if liquidity_range.from_bps is None else tick(liquidity_range.from_bps)
    tick_upper = last_tick if liquidity_range.to_bps is None else tick(liquidity_range.to_bps)
    return tick_lower, max(tick_upper, tick_lower + tick_spacing)


def position_amounts(
    price: Fraction, tick_lower: int, tick_upper: int, value_in_token1_raw: float
) -> PositionAmounts:
    """Return amounts with a total value of `value_in_token1_raw` base units of token1
    (LiquidityAmounts.getAmountsForLiquidity). Floats are precise enough, because the contract
    calculates the liquidity from the amounts.
    """
    low_sqrt_price = 1.0001 ** (tick_lower / 2)
    high_sqrt_price = 1.0001 ** (tick_upper / 2)
    sqrt_price = sqrt(float(price))
    clamped_sqrt_price = min(max(sqrt_price, low_sqrt_price), high_sqrt_price)
    unit_amount0 = 1 / clamped_sqrt_price - 1 / high_sqrt_price
    unit_amount1 = clamped_sqrt_price - low_sqrt_price
    position_liquidity = value_in_token1_raw / (unit_amount0 * float(price) + unit_amount1)
    return PositionAmounts(
        tick_lower,
        tick_upper,
        _with_rounding_margin(unit_amount0 * position_liquidity),
        _with_rounding_margin(unit_amount1 * position_liquidity),
    )


def _with_rounding_margin(amount_raw: float) -> int:
    return floor(amount_raw * 1.000001) + 1 if amount_raw > 0 else 0


def v2_input_to_reach(reserve_in: int, reserve_out: int, min_price: Fraction) -> int:
    """Return the largest input after which the pair's marginal price, fee excluded, is still at
    least `min_price` token_out per token_in, bisected.
    """

    def pays_enough(amount_in: int) -> bool:
        amount_out = get_amount_out(amount_in, reserve_in, reserve_out)
        return Fraction(reserve_out - amount_out, reserve_in + amount_in) >= min_price

    if Fraction(reserve_out, reserve_in) < min_price:
        return 0
    low_input = 0
    high_input = reserve_in
    while pays_enough(high_input):
        low_input = high_input
        high_input = 2 * high_input
    while high_input - low_input > 1:
        middle_input = (low_input + high_input) // 2
        low_input, high_input = (
            (middle_input, high_input) if pays_enough(middle_input) else (low_input, middle_input)
        )
    return low_input


HD_PATH = "m/44'/60'/0'/0"
"""Path of the accounts of TEST_MNEMONIC, which is public: money sent to them is stolen."""
ACCOUNT_COUNT = 10
WALLET_INDEX = 0
WHALE_INDEX = 1
"""Account 0 is the agent's wallet; account 1 deploys, provides liquidity and moves the market."""


@dataclass(frozen=True, slots=True)
class DevAccount:
    """Checksummed address and 0x-hex key of a development account."""

    address: str
    private_key: str


@lru_cache(maxsize=1)
def dev_accounts() -> tuple[DevAccount, ...]:
    """Return the ten accounts, in order (BIP-44 path m/44'/60'/0'/0/i)."""
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic
    from eth_keys.main import KeyAPI

    seed = seed_from_mnemonic(TEST_MNEMONIC, "")
    private_keys = [
        KeyAPI().PrivateKey(key_from_seed(seed, f"{HD_PATH}/{i}")) for i in range(ACCOUNT_COUNT)
    ]
    return tuple(
        DevAccount(private_key.public_key.to_checksum_address(), private_key.to_hex())
        for private_key in private_keys
    )
