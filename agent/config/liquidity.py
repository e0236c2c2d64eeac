"""Liquidity positions in trimtab.toml: which ones the owner confirms, what he put in, and what their risk is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from agent.config.fields import Address, Duration, PlainDecimal, Share
from agent.config.lp_targets import TargetTable, require_targets, sane_volatility
from agent.config.table import Table
from agent.errors import ConfigError
from agent.model import ConfirmedPosition
from agent.units import Token, parse_raw

if TYPE_CHECKING:
    from agent.config.schema import Config

LONGEST_HORIZON_S = 365 * 86_400


class LpTable(Table):
    """By what the risk of liquidity is measured: annual volatility of a pair's price, and how far a forecast looks.

    `targets` are the pools in which liquidity is wanted.
    """

    volatility: Share
    horizon: Duration
    targets: list[TargetTable] = Field(default_factory=list)

    _sane = field_validator("volatility")(sane_volatility)

    @field_validator("horizon")
    @classmethod
    def _within_a_year(cls, value: int) -> int:
        if not 0 < value <= LONGEST_HORIZON_S:
            raise ValueError("a horizon is above 0s and at most 365d; write for example 30d")
        return value


class _Position(Table):
    """`entry` is what was provided, in whole coins by symbol; `volatility` replaces that of [lp] for this pair."""

    entry: dict[str, PlainDecimal]
    entry_block: int | None = Field(default=None, ge=0)
    volatility: Share | None = None

    @field_validator("entry")
    @classmethod
    def _of_two(cls, entry: dict[str, str]) -> dict[str, str]:
        if len(entry) != 2:
            raise ValueError(f'names {len(entry)} tokens, a position has two; write entry = {{ WETH = "1.5", USDC = "4500" }}')
        return entry

    @field_validator("volatility")
    @classmethod
    def _sane(cls, value: int | None) -> int | None:
        return None if value is None else sane_volatility(value)


class V2PositionTable(_Position):
    """LP tokens in a Uniswap V2 pair."""

    kind: Literal["uniswap_v2"]
    pair: Address

    @property
    def name(self) -> str:
        """What it is told from others by."""
        return self.pair


class V3PositionTable(_Position):
    """A token of the Uniswap V3 position manager."""

    kind: Literal["uniswap_v3"]
    token_id: int = Field(ge=0, lt=2**256)

    @property
    def name(self) -> str:
        """What it is told from others by."""
        return f"token_id {self.token_id}"


PositionTable = Annotated[V2PositionTable | V3PositionTable, Field(discriminator="kind")]


def require_usable(config: Config) -> None:
    """Raises ValueError naming the field when a position or target could not be read, valued or bounded."""
    require_targets(config)
    positions = config.portfolio.positions
    if not positions:
        return
    names = [(position.kind, position.name) for position in positions]
    for number, position in enumerate(positions):
        where = f"portfolio.positions.{position.name.removeprefix('token_id ')}"
        if (position.kind, position.name) in names[:number]:
            raise ValueError(f"{where}: {position.kind} {position.name} is given twice; each position once")
        if getattr(config.venues, position.kind) is None:
            raise ValueError(f"{where}: needs [venues.{position.kind}]")
        held = [asset.symbol for asset in config.portfolio.assets]
        strange = [symbol for symbol in position.entry if symbol not in held]
        if strange:
            raise ValueError(f"{where}.entry: {strange[0]!r} is none of the assets; add it to portfolio.assets (a target of 0% is allowed)")
    if config.lp is None:
        raise ValueError('lp: missing; positions are judged by [lp] with volatility = "60%" and horizon = "30d", for example')
    if "lp_max_weight" not in config.limits.model_fields_set:
        raise ValueError('limits.lp_max_weight: missing; positions need it: write a share such as "25%", or "off"')


def build_positions(config: Config, tokens: Mapping[str, Token]) -> tuple[ConfirmedPosition, ...]:
    """`tokens` by symbol. Raises ConfigError for an entry finer than a token's smallest unit."""
    if config.lp is None:
        return ()
    return tuple(_build(config, config.lp, number, tokens) for number in range(len(config.portfolio.positions)))


def _build(config: Config, lp: LpTable, number: int, tokens: Mapping[str, Token]) -> ConfirmedPosition:
    table = config.portfolio.positions[number]
    where = f"portfolio.positions.{table.name.removeprefix('token_id ')}.entry"
    entry = sorted((int(tokens[symbol].address, 16), tokens[symbol], amount) for symbol, amount in table.entry.items())
    (_, token0, first), (_, token1, second) = entry
    return ConfirmedPosition(
        venue=table.kind,
        contract=table.pair if isinstance(table, V2PositionTable) else _manager(config),
        token_id=None if isinstance(table, V2PositionTable) else table.token_id,
        token0=token0.address,
        token1=token1.address,
        entry_raw=(
            parse_raw(first, token0.decimals, f"{where}.{token0.symbol}"),
            parse_raw(second, token1.decimals, f"{where}.{token1.symbol}"),
        ),
        entry_block=table.entry_block,
        volatility_bps=lp.volatility if table.volatility is None else table.volatility,
        horizon_s=lp.horizon,
    )


def _manager(config: Config) -> str:
    if config.venues.uniswap_v3 is None:
        raise ConfigError("portfolio.positions: a uniswap_v3 position needs [venues.uniswap_v3]")
    return config.venues.uniswap_v3.position_manager
