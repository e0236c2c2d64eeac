"""[lp] and [[portfolio.positions]]: liquidity targets, confirmed positions, and their risk settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from agent.amm.lp.venues import PairKind, RangeKind
from agent.config.tables.fields import (
    Address,
    ConfigTable,
    DecimalOrOff,
    Duration,
    PlainDecimal,
    Share,
)
from agent.units import BPS, YEAR_S

LEAST_WIDTH_BPS = 10
MOST_WIDTH_BPS = 100_000
MAX_VOLATILITY_BPS = 100_000
"""Maximum annual volatility, 1000 %."""


def sane_volatility(volatility_bps: int) -> int:
    """Return the annual volatility in basis points. Raises ValueError if implausible."""
    if not 0 < volatility_bps <= MAX_VOLATILITY_BPS:
        raise ValueError(
            "an annual volatility is above 0 % and at most 1000 %; write for example 60%"
        )
    return volatility_bps


class _LpTargetTable(ConfigTable):
    """A liquidity target (docs/liquidity.md)."""

    share: Share
    """Target share of the portfolio; "0%" withdraws everything."""
    volatility: Share | None = None
    """Annual volatility of this pair's price; default: that of [lp]."""

    @field_validator("share")
    @classmethod
    def _check_share(cls, share_bps: int) -> int:
        if share_bps > BPS:
            raise ValueError("a share is at most 100 % of the portfolio")
        return share_bps

    @field_validator("volatility")
    @classmethod
    def _check_volatility(cls, volatility_bps: int | None) -> int | None:
        return None if volatility_bps is None else sane_volatility(volatility_bps)


class V2TargetTable(_LpTargetTable):
    """Liquidity in a Uniswap V2 pair, where fees compound automatically."""

    kind: PairKind
    """Kind of venue."""
    pair: Address
    """Address of the pair."""

    @property
    def pool_address(self) -> str:
        """The pool's address."""
        return self.pair


class V3TargetTable(_LpTargetTable):
    """Liquidity in a range of a Uniswap V3 pool: from price / (1 + width) to price · (1 +
    width).
    """

    kind: RangeKind
    """Kind of venue."""
    pool: Address
    """Address of the pool."""
    width: Share
    """The range is from price / (1 + width) to price · (1 + width)."""
    compound_above: DecimalOrOff
    """Fees in the numeraire above which they are reinvested; "off": they are left."""

    @field_validator("width")
    @classmethod
    def _check_width(cls, width_bps: int) -> int:
        if not LEAST_WIDTH_BPS <= width_bps <= MOST_WIDTH_BPS:
            raise ValueError("a width is from 0.1 % to 1000 %; write for example 20%")
        return width_bps

    @property
    def pool_address(self) -> str:
        """The pool's address."""
        return self.pool


LpTargetTable = Annotated[V2TargetTable | V3TargetTable, Field(discriminator="kind")]

MAX_HORIZON_S = YEAR_S


class LpTable(ConfigTable):
    """How liquidity is judged (docs/liquidity.md)."""

    volatility: Share
    """Annual volatility of a pair's price."""
    horizon: Duration
    """Time over which loss and fees are forecast."""
    targets: list[LpTargetTable] = Field(default_factory=list)
    """Pools in which liquidity is provided."""

    _check_volatility = field_validator("volatility")(sane_volatility)

    @field_validator("horizon")
    @classmethod
    def _check_horizon(cls, horizon_s: int) -> int:
        if not 0 < horizon_s <= MAX_HORIZON_S:
            raise ValueError("a horizon is above 0s and at most 365d; write for example 30d")
        return horizon_s


class _LpPositionTable(ConfigTable):
    """A confirmed position (docs/liquidity.md)."""

    entry: dict[str, PlainDecimal]
    """Amounts provided, in whole coins by symbol."""
    entry_block: int | None = Field(default=None, ge=0)
    """Block in which they were provided; what trimtab did later adds to them."""
    volatility: Share | None = None
    """Annual volatility of this pair's price; default: that of [lp]."""

    @field_validator("entry")
    @classmethod
    def _check_entry(cls, entry: dict[str, str]) -> dict[str, str]:
        if len(entry) != 2:
            raise ValueError(
                f'has {len(entry)} tokens, but a position has two; write entry = {{ WETH = "1.5",'
                ' USDC = "4500" }'
            )
        return entry

    @field_validator("volatility")
    @classmethod
    def _check_volatility(cls, volatility_bps: int | None) -> int | None:
        return None if volatility_bps is None else sane_volatility(volatility_bps)


class V2PositionTable(_LpPositionTable):
    """LP tokens in a Uniswap V2 pair."""

    kind: PairKind
    """Kind of venue."""
    pair: Address
    """Address of the pair."""

    @property
    def name(self) -> str:
        """Unique name of the position."""
        return self.pair


class V3PositionTable(_LpPositionTable):
    """A token of the Uniswap V3 position manager."""

    kind: RangeKind
    """Kind of venue."""
    token_id: int = Field(ge=0, lt=2**256)
    """Number of the position at the manager."""

    @property
    def name(self) -> str:
        """Unique name of the position."""
        return f"token_id {self.token_id}"


LpPositionTable = Annotated[V2PositionTable | V3PositionTable, Field(discriminator="kind")]
