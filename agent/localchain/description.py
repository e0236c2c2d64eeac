"""The world of the embedded chain in data: tokens, seeded prices, pools with their ranges of liquidity, what the wallet holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction


class TokenKind(Enum):
    """Which contract a token is."""

    WRAPPED_NATIVE = "WETH9"
    STANDARD = "TestToken"
    TETHER = "TetherLike"


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """A token: seeded USD price per whole coin, share of the portfolio as the config writes it, what the wallet holds in base units."""

    symbol: str
    decimals: int
    price_usd: Fraction
    target: str
    wallet_raw: int
    kind: TokenKind = TokenKind.STANDARD


@dataclass(frozen=True, slots=True)
class Range:
    """Liquidity between two relative distances from the seeded price, in bps (None: to the end of the ticks).

    `share_bps` is the part of the pool's value that lies in this range. Ranges overlap, so that ticks are many; a
    range that does not hold the price is one-sided, as a limit order is.
    """

    from_bps: int | None
    to_bps: int | None
    share_bps: int


@dataclass(frozen=True, slots=True)
class V2Spec:
    """A Uniswap V2 pair with this much USD in it."""

    token_a: str
    token_b: str
    value_usd: int

    @property
    def name(self) -> str:
        """Key in LocalChain.pools."""
        return f"v2 {self.token_a}/{self.token_b}"


@dataclass(frozen=True, slots=True)
class V3Spec:
    """A Uniswap V3 pool: fee in pips, USD in it, and the ranges it lies in."""

    token_a: str
    token_b: str
    fee_pips: int
    value_usd: int
    ranges: tuple[Range, ...]

    @property
    def name(self) -> str:
        """Key in LocalChain.pools."""
        return f"v3 {self.token_a}/{self.token_b} {self.fee_pips}"


PoolSpec = V2Spec | V3Spec


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is deployed, in order. `history_s` is how long the pools have traded before the present."""

    tokens: tuple[TokenSpec, ...]
    pools: tuple[PoolSpec, ...]
    wallet_native_wei: int
    numeraire: str
    history_s: int = 3 * 3600

    def token(self, symbol: str) -> TokenSpec:
        """The token of that symbol; KeyError when there is none."""
        for spec in self.tokens:
            if spec.symbol == symbol:
                return spec
        raise KeyError(symbol)


STABLE_RANGES = (
    Range(None, None, 500),
    Range(-200, 200, 2_500),
    Range(-50, 40, 3_000),
    Range(-10, 10, 3_000),
    Range(20, 120, 1_000),
)
DEEP_RANGES = (
    Range(None, None, 2_000),
    Range(-4_500, 8_000, 2_000),
    Range(-1_200, 1_500, 2_500),
    Range(-400, 300, 1_500),
    Range(-150, 250, 1_000),
    Range(100, 600, 500),
    Range(-700, -200, 500),
)
WIDE_RANGES = (
    Range(None, None, 4_000),
    Range(-5_000, 10_000, 3_000),
    Range(-1_500, 2_000, 2_000),
    Range(-500, 1_000, 1_000),
)

WORLD = World(
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
"""Five tokens at 3,000 / 60,000 / 1 / 1 / 15 USD, fourteen pools over V2 and every V3 fee tier, a wallet of 10,000 USD at its targets."""
