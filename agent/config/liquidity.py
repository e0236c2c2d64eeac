"""[lp] and [[portfolio.positions]]: liquidity targets, confirmed positions, and their risk
settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from agent.config.fields import Address, ConfigTable, DecimalOrOff, Duration, PlainDecimal, Share
from agent.errors import ConfigError
from agent.model import ConfirmedPosition, LpTarget, Portfolio
from agent.units import BPS, Token, parse_raw

if TYPE_CHECKING:
    from agent.chain.watch import PoolRef
    from agent.config.schema import Config


LEAST_WIDTH_BPS = 10
MOST_WIDTH_BPS = 100_000
MOST_VOLATILITY_BPS = 100_000
"""Maximum annual volatility, 1000 %."""


def sane_volatility(value: int) -> int:
    """Return the annual volatility in basis points. Raises ValueError if implausible."""
    if not 0 < value <= MOST_VOLATILITY_BPS:
        raise ValueError(
            "an annual volatility is above 0% and at most 1000%; write for example 60%"
        )
    return value


class _LpTargetTable(ConfigTable):
    """A liquidity target. `share` is the target share of the portfolio; 0% withdraws everything.
    `volatility` overrides that of [lp] for this pair.
    """

    share: Share
    volatility: Share | None = None

    @field_validator("share")
    @classmethod
    def _of_one(cls, value: int) -> int:
        if value > BPS:
            raise ValueError("a share is at most 100% of the portfolio")
        return value

    @field_validator("volatility")
    @classmethod
    def _sane(cls, value: int | None) -> int | None:
        return None if value is None else sane_volatility(value)


class V2TargetTable(_LpTargetTable):
    """Liquidity in a Uniswap V2 pair, where fees compound automatically."""

    kind: Literal["uniswap_v2"]
    pair: Address

    @property
    def at(self) -> str:
        """The pool's address."""
        return self.pair


class V3TargetTable(_LpTargetTable):
    """Liquidity in a range of a Uniswap V3 pool: from price / (1 + width) to price · (1 +
    width).
    """

    kind: Literal["uniswap_v3"]
    pool: Address
    width: Share
    compound_above: DecimalOrOff

    @field_validator("width")
    @classmethod
    def _within(cls, value: int) -> int:
        if not LEAST_WIDTH_BPS <= value <= MOST_WIDTH_BPS:
            raise ValueError("a width is from 0.1% to 1000%; write for example 20%")
        return value

    @property
    def at(self) -> str:
        """The pool's address."""
        return self.pool


LpTargetTable = Annotated[V2TargetTable | V3TargetTable, Field(discriminator="kind")]


def require_targets(config: Config) -> None:
    """Raise ValueError naming the field if targets repeat a pool, lack a venue or exceed the
    limits.
    """
    targets = [] if config.lp is None else config.lp.targets
    if not targets:
        return
    for number, target in enumerate(targets):
        key = f"lp.targets.{target.at}"
        if target.at in [earlier.at for earlier in targets[:number]]:
            raise ValueError(f"{key}: given twice; list each pool once")
        if getattr(config.venues, target.kind) is None:
            raise ValueError(f"{key}: needs [venues.{target.kind}]")
    limit = config.limits.lp_max_weight
    if limit is None:
        raise ValueError(
            "limits.lp_max_weight: missing or off; required by [[lp.targets]]; write a share such as"
            ' "25%"'
        )
    shares = sum(target.share for target in targets)
    if shares > limit:
        raise ValueError(
            f"lp.targets: shares sum to {shares / 100:g}%, but limits.lp_max_weight is"
            f" {limit / 100:g}%;"
            " lower the shares or raise the limit"
        )


def build_targets(
    config: Config, portfolio: Portfolio, pools: Sequence[PoolRef]
) -> tuple[LpTarget, ...]:
    """Build the targets; `pools` are those of the venues. Raises ConfigError if a pool is unknown,
    or has a token that is not an asset.
    """
    if config.lp is None:
        return ()
    lp = config.lp
    return tuple(_build_target(config, lp, table, portfolio, pools) for table in lp.targets)


def _build_target(
    config: Config,
    lp: LpTable,
    table: V2TargetTable | V3TargetTable,
    portfolio: Portfolio,
    pools: Sequence[PoolRef],
) -> LpTarget:
    key = f"lp.targets.{table.at}"
    pool = next(
        (pool for pool in pools if pool.address == table.at and pool.venue == table.kind), None
    )
    if pool is None:
        raise ConfigError(
            f"{key}: not a priced pool of [venues.{table.kind}] between the portfolio's tokens",
            "check the address; add its fee tier to fee_tiers, or the pool to the venue's pools",
        )
    assets = {asset.token.address for asset in portfolio.assets}
    foreign = [
        portfolio.token(token).label for token in (pool.token0, pool.token1) if token not in assets
    ]
    if foreign:
        raise ConfigError(
            f"{key}: holds {' and '.join(foreign)}, not an asset of the portfolio",
            "add it to portfolio.assets (a target of 0% is allowed), or use another pool",
        )
    v3 = config.venues.uniswap_v3
    above, width = None, None
    if isinstance(table, V3TargetTable):
        width = table.width
        if table.compound_above is not None:
            above = Fraction(
                parse_raw(
                    table.compound_above, portfolio.numeraire.decimals, f"{key}.compound_above"
                )
            )
    return LpTarget(
        venue=table.kind,
        contract=table.at if width is None or v3 is None else v3.position_manager,
        pool=table.at,
        token0=pool.token0,
        token1=pool.token1,
        fee_pips=pool.fee_pips,
        tick_spacing=None if width is None else pool.tick_spacing,
        share_bps=table.share,
        width_bps=width,
        compound_above=above,
        volatility_bps=lp.volatility if table.volatility is None else table.volatility,
        horizon_s=lp.horizon,
    )


# --- [lp], and positions that the owner has confirmed, with the amounts provided.


LONGEST_HORIZON_S = 365 * 86_400


class LpTable(ConfigTable):
    """Risk settings of liquidity: annual volatility of a pair's price, and the horizon of
    forecasts.

    `targets` are the pools in which liquidity is provided.
    """

    volatility: Share
    horizon: Duration
    targets: list[LpTargetTable] = Field(default_factory=list)

    _sane = field_validator("volatility")(sane_volatility)

    @field_validator("horizon")
    @classmethod
    def _within_a_year(cls, value: int) -> int:
        if not 0 < value <= LONGEST_HORIZON_S:
            raise ValueError("a horizon is above 0s and at most 365d; write for example 30d")
        return value


class _LpPositionTable(ConfigTable):
    """A confirmed position. `entry` is the amount provided, in whole coins by symbol; `volatility`
    overrides that of [lp] for this pair.
    """

    entry: dict[str, PlainDecimal]
    entry_block: int | None = Field(default=None, ge=0)
    volatility: Share | None = None

    @field_validator("entry")
    @classmethod
    def _of_two(cls, entry: dict[str, str]) -> dict[str, str]:
        if len(entry) != 2:
            raise ValueError(
                f'has {len(entry)} tokens, but a position has two; write entry = {{ WETH = "1.5",'
                ' USDC = "4500" }'
            )
        return entry

    @field_validator("volatility")
    @classmethod
    def _sane(cls, value: int | None) -> int | None:
        return None if value is None else sane_volatility(value)


class V2PositionTable(_LpPositionTable):
    """LP tokens in a Uniswap V2 pair."""

    kind: Literal["uniswap_v2"]
    pair: Address

    @property
    def name(self) -> str:
        """Unique name of the position."""
        return self.pair


class V3PositionTable(_LpPositionTable):
    """A token of the Uniswap V3 position manager."""

    kind: Literal["uniswap_v3"]
    token_id: int = Field(ge=0, lt=2**256)

    @property
    def name(self) -> str:
        """Unique name of the position."""
        return f"token_id {self.token_id}"


LpPositionTable = Annotated[V2PositionTable | V3PositionTable, Field(discriminator="kind")]


def require_usable(config: Config) -> None:
    """Raise ValueError naming the field if a position or target could not be read, valued or
    bounded.
    """
    require_targets(config)
    positions = config.portfolio.positions
    if not positions:
        return
    names = [(position.kind, position.name) for position in positions]
    for number, position in enumerate(positions):
        key = f"portfolio.positions.{position.name.removeprefix('token_id ')}"
        if (position.kind, position.name) in names[:number]:
            raise ValueError(
                f"{key}: {position.kind} {position.name} is given twice; list each position once"
            )
        if getattr(config.venues, position.kind) is None:
            raise ValueError(f"{key}: needs [venues.{position.kind}]")
        held = [asset.symbol for asset in config.portfolio.assets]
        foreign = [symbol for symbol in position.entry if symbol not in held]
        if foreign:
            raise ValueError(
                f"{key}.entry: {foreign[0]!r} is not an asset; add it to portfolio.assets"
                " (a target of 0% is allowed)"
            )
    if config.lp is None:
        raise ValueError(
            'lp: missing; positions need [lp] with volatility = "60%" and horizon = "30d",'
            " for example"
        )
    if "lp_max_weight" not in config.limits.model_fields_set:
        raise ValueError(
            'limits.lp_max_weight: missing; required by positions; write a share such as "25%", or'
            ' "off"'
        )


def build_positions(config: Config, tokens: Mapping[str, Token]) -> tuple[ConfirmedPosition, ...]:
    """Build the confirmed positions; `tokens` by symbol. Raises ConfigError for an entry with more
    decimals than its token.
    """
    if config.lp is None:
        return ()
    lp = config.lp
    return tuple(_build_position(config, lp, table, tokens) for table in config.portfolio.positions)


def _build_position(
    config: Config,
    lp: LpTable,
    table: V2PositionTable | V3PositionTable,
    tokens: Mapping[str, Token],
) -> ConfirmedPosition:
    key = f"portfolio.positions.{table.name.removeprefix('token_id ')}.entry"
    entry = sorted(
        (int(tokens[symbol].address, 16), tokens[symbol], amount)
        for symbol, amount in table.entry.items()
    )
    (_, token0, first), (_, token1, second) = entry
    return ConfirmedPosition(
        venue=table.kind,
        contract=table.pair if isinstance(table, V2PositionTable) else _manager(config),
        token_id=None if isinstance(table, V2PositionTable) else table.token_id,
        token0=token0.address,
        token1=token1.address,
        entry_raw=(
            parse_raw(first, token0.decimals, f"{key}.{token0.symbol}"),
            parse_raw(second, token1.decimals, f"{key}.{token1.symbol}"),
        ),
        entry_block=table.entry_block,
        volatility_bps=lp.volatility if table.volatility is None else table.volatility,
        horizon_s=lp.horizon,
    )


def _manager(config: Config) -> str:
    if config.venues.uniswap_v3 is None:
        raise ConfigError("portfolio.positions: a uniswap_v3 position needs [venues.uniswap_v3]")
    return config.venues.uniswap_v3.position_manager
