"""The config's [limits] table: fields derived from agent/model/limits.py, ceilings and their
acceptance in limits.i_accept, comparison of two values, and the values of all tables that would
disable a protection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from agent.config.fields import (
    OFF,
    ConfigTable,
    DecimalOrOff,
    DurationOrOff,
    GasPriceOrOff,
    Share,
    ShareOrOff,
    Switch,
)
from agent.config.presets import SEQUENCER_FEEDS, SEQUENCER_GRACE, require_known_fees
from agent.config.strategies import StrategyTable
from agent.config.weights import WeightsTable, weight_bounds
from agent.model import LIMITS, AllocationMethod, Limits, LimitSpec, LimitUnit, TighterDirection
from agent.units import BPS, Token, parse_raw

if TYPE_CHECKING:
    from agent.config.schema import Config, PortfolioTable

Limit = int | str | bool | None
"""A value of [limits], parsed by LimitsTable; None is "off"."""
ANY = "any"


def _table(value: object) -> object:
    """Turn a single share into a table for any asset."""
    if value == OFF:
        return None
    if isinstance(value, str | int | float):
        return {ANY: value}
    return value


MaxWeight = Annotated[dict[str, Share] | None, BeforeValidator(_table)]
"""Bps by symbol. "any" applies to all other assets except the numeraire, which exits sell into."""
_KINDS: Mapping[LimitUnit, Any] = {
    LimitUnit.SHARE: ShareOrOff,
    LimitUnit.DURATION: DurationOrOff,
    LimitUnit.GAS_PRICE: GasPriceOrOff,
    LimitUnit.NATIVE: DecimalOrOff,
    LimitUnit.COINS: DecimalOrOff,
    LimitUnit.SWITCH: Switch,
}
if TYPE_CHECKING:

    class LimitsTable(ConfigTable):
        """Keys that code accesses by name, for mypy. The actual model below is generated from
        LIMITS.
        """

        slippage: int | None
        plan_cost: int | None
        turnover: int | None
        daily_turnover: int | None
        oracle_deviation: int | None
        native_floor: str | None
        native_top_up: str | None
        min_trade: str | None
        lp_max_weight: int | None
        futures_notional: int | None
        balance_jump_wait: int | None
        max_weight: dict[str, int] | None
        i_accept: list[str]

else:
    _ROWS = {
        spec.key: (
            _KINDS[spec.unit],
            Field(default=spec.missing, validate_default=True) if spec.missing else ...,
        )
        for spec in LIMITS.values()
    }
    LimitsTable = create_model(
        "LimitsTable",
        __base__=ConfigTable,
        __module__=__name__,
        __doc__=(
            'Limits of the guards; each may be "off". `i_accept` names those that are off, or above'
            " their ceilings, on purpose."
        ),
        **_ROWS,
        max_weight=(MaxWeight | None, None),
        futures_notional=(ShareOrOff, None),
        i_accept=(list[str], Field(default_factory=list)),
    )


def build_limits_from_table(
    table: LimitsTable, max_live_value: str | None, numeraire: Token
) -> Limits:
    """Build the limits in exact units: values in the numeraire's base units, gas in wei."""
    values: dict[str, Any] = {
        spec.field: _exact(spec, getattr(table, spec.key), numeraire) for spec in LIMITS.values()
    }
    cap = None
    if max_live_value is not None:
        cap = Fraction(parse_raw(max_live_value, numeraire.decimals, "portfolio.max_live_value"))
    return Limits(max_live_value=cap, **values)


def _exact(spec: LimitSpec, value: Any, numeraire: Token) -> Any:
    """Return the table's value in the unit of its field in Limits."""
    if value is not None and spec.unit is LimitUnit.NATIVE:
        return parse_raw(value, 18, f"limits.{spec.key}")
    if value is not None and spec.unit is LimitUnit.COINS:
        return Fraction(parse_raw(value, numeraire.decimals, f"limits.{spec.key}"))
    return value


# --- Ceilings: a limit that is off or above its ceiling must be named in limits.i_accept.


CEILINGS = {
    spec.key: spec.ceiling_bps
    # the most frequently accepted limit first
    for spec in sorted(LIMITS.values(), key=lambda spec: spec.key != "slippage")
    if spec.ceiling_bps is not None
}
"""Ceilings in bps; limits.i_accept must name a limit above its ceiling (T21). A swap rarely needs 1
% of slippage or cost, so a value above the ceiling probably has a wrong unit.
"""


def limits_beyond_ceiling(limits: LimitsTable) -> dict[str, str]:
    """Describe each limit that is off or above its ceiling, by key."""
    values = {key: getattr(limits, key) for key in CEILINGS}
    beyond = {key: bps for key, bps in values.items() if bps is None or bps > CEILINGS[key]}
    return {
        key: f"limits.{key}: {_percent(bps)} is above the ceiling of {_percent(CEILINGS[key])}"
        for key, bps in beyond.items()
    }


def accepted_limits(limits: LimitsTable) -> list[str]:
    """Describe the limits accepted by limits.i_accept."""
    return [
        f"{text}, accepted by limits.i_accept"
        for key, text in limits_beyond_ceiling(limits).items()
        if key in limits.i_accept
    ]


def needless_acceptances(limits: LimitsTable) -> list[str]:
    """Return the names in limits.i_accept whose limit is within its ceiling."""
    return sorted({*limits.i_accept} - limits_beyond_ceiling(limits).keys())


def require_accepted(config: Config) -> None:
    """Raise ValueError for a limit beyond its ceiling that the owner has not accepted by name."""
    limits = config.limits
    unknown = next((name for name in limits.i_accept if name not in CEILINGS), None)
    if unknown is not None:
        raise ValueError(
            f"limits.i_accept: {unknown!r} is not a limit with a ceiling; choose from"
            f" {', '.join(CEILINGS)}"
        )
    refused = {
        key: text
        for key, text in limits_beyond_ceiling(limits).items()
        if key not in limits.i_accept
    }
    if refused:
        names = ", ".join(f'"{name}"' for name in (*limits.i_accept, *refused))
        raise ValueError(
            f"{'; '.join(refused.values())}; lower it, or accept it with i_accept = [{names}] in"
            " [limits]"
        )


def _percent(bps: int | None) -> str:
    return OFF if bps is None else f"{bps / 100:g}%"


# --- limits.max_weight: maximum weight of any asset, or of one by name.


def max_weight_bps(config: Config, symbol: str) -> int | None:
    """Return an asset's maximum weight; None without a limit."""
    table = config.limits.max_weight or {}
    if symbol in table or symbol == config.portfolio.numeraire:
        return table.get(symbol)
    return table.get(ANY)


def require_countable_cash(portfolio: PortfolioTable) -> None:
    """Raise ValueError for use_cash on a numeraire whose balance changes without transfers."""
    cash = next(asset for asset in portfolio.assets if asset.symbol == portfolio.numeraire)
    if portfolio.use_cash is not None and (cash.native or cash.rebasing):
        raise ValueError(
            f"use_cash: {cash.symbol} is {'the native coin' if cash.native else 'rebasing'}, so its"
            " transfers cannot be counted; omit use_cash, and set a reserve"
        )


def require_max_weight(config: Config) -> None:
    """Raise ValueError naming asset, value and remedy if a target, or a weight that an allocator
    may choose, is above its limit.
    """
    portfolio, table = config.portfolio, config.limits.max_weight or {}
    symbols = [asset.symbol for asset in portfolio.assets]
    unknown = next((name for name in table if name != ANY and name not in symbols), None)
    if unknown is not None:
        raise ValueError(
            f"limits.max_weight.{unknown}: not an asset; choose from {', '.join(symbols)}, or"
            " write any"
        )
    for symbol in symbols:
        limit = max_weight_bps(config, symbol)
        if limit is None:
            continue
        if not 0 < limit <= BPS:
            raise ValueError(
                f"limits.max_weight: {limit / 100:g}% for {symbol} is not above 0% and at most"
                " 100%;"
                " write for example 60%"
            )
        for key, bps in _highest_weights(config, symbol):
            if bps > limit:
                raise ValueError(
                    f"{key}: {bps / 100:g}% for {symbol} is above limits.max_weight of"
                    f" {limit / 100:g}%; lower it, or raise the limit"
                )


def _highest_weights(config: Config, symbol: str) -> Iterator[tuple[str, int]]:
    """Yield (key, bps): the highest target weight of an asset in each part of the config."""
    table = config.portfolio
    if config.strategies:
        parts = [
            strategy.share * _of_strategy(strategy, symbol, len(table.assets))
            for strategy in config.strategies
        ]
        yield "strategies", -(-sum(parts) // BPS)
        return
    yield (
        f"portfolio.assets.{symbol}.target",
        next(asset.target for asset in table.assets if asset.symbol == symbol),
    )
    if table.weights is not None:
        yield "portfolio.weights.cap", _of_allocator(table.weights, symbol)


def _of_strategy(strategy: StrategyTable, symbol: str, assets: int) -> int:
    if strategy.weights is None:
        target = -(-BPS // assets)
    else:
        target = strategy.weights.get(symbol, 0)
    if isinstance(strategy.allocator, WeightsTable):
        return max(target, _of_allocator(strategy.allocator, symbol))
    return target


def _of_allocator(weights: WeightsTable, symbol: str) -> int:
    """Return the highest weight that the allocator may choose; zero for assets that keep their
    target.
    """
    if weights.method is AllocationMethod.FIXED or symbol in weights.fixed:
        return 0
    return weight_bounds(weights, symbol)[1]


# --- Comparison of limits. An imported profile may only tighten them.


OFF_IS_TIGHTEST = (TighterDirection.LESS_OR_OFF, TighterDirection.MORE_OR_OFF)


def is_tighter(key: str, theirs: Limit, mine: Limit) -> bool:
    """Return whether `theirs` is strictly tighter than `mine`, both parsed by LimitsTable; None is
    "off".
    """
    if key not in LIMITS or theirs == mine:
        return False
    tighter = LIMITS[key].tighter
    if theirs is None or mine is None:
        return (theirs is None) is (tighter in OFF_IS_TIGHTEST)
    if tighter is TighterDirection.ON:
        return False
    less = Decimal(theirs) < Decimal(mine)
    return less is (tighter in (TighterDirection.LESS, TighterDirection.LESS_OR_OFF))


def read_limits(raw: Mapping[str, object], mine: LimitsTable) -> dict[str, Limit]:
    """Parse the limits of a profile by LimitsTable; `raw` is the content of its file. Raises
    pydantic's ValidationError.
    """
    texts = {spec.key: _text(spec, getattr(mine, spec.key)) for spec in LIMITS.values()}
    parsed = LimitsTable.model_validate({**texts, **raw})
    return {name: getattr(parsed, name) for name in raw}


def _text(spec: LimitSpec, value: Any) -> str:
    """Return a parsed limit in the notation of a config."""
    if value is None:
        return OFF
    if value is True:
        return "on"
    units = {LimitUnit.SHARE: "bps", LimitUnit.DURATION: "s", LimitUnit.GAS_PRICE: " wei"}
    return f"{value}{units.get(spec.unit, '')}"


# --- Values that would disable a protection without the word "off" are rejected.


MIN_TWAP_WINDOW_S = 1_800
"""Minimum TWAP window. A shorter one can be manipulated within a few blocks (T3)."""
LONGEST_DEADLINE_S = 1_800
"""Longest deadline. A swap that is valid for longer is a free option for anyone who can delay it
(T7).
"""
LONGEST_JUMP_WAIT_S = 30 * 86_400
"""Longest time that an unsolicited transfer can delay purchases."""
LARGEST_JITTER_BPS = BPS // 2
"""Longest random delay, as a share of a schedule's interval."""


def require_protection(config: Config) -> None:
    """Raise ValueError naming the field if a value disables a protection."""
    if "spot" in config.reference.kind and not (config.chain.local or config.reference.allow_spot):
        raise ValueError(
            "reference.kind: anyone can move spot prices for a block; use feed or twap, or"
            " set reference.allow_spot = true"
        )
    if (
        "twap" in config.reference.kind
        and config.reference.twap_window < MIN_TWAP_WINDOW_S
        and not config.chain.local
    ):
        raise ValueError(
            "reference.twap_window: a TWAP over less than 30m can be manipulated within a few"
            " blocks; write 30m or more"
        )
    require_known_fees(config.chain.chain_id, local=config.chain.local)
    _require_settled_prices(config)
    if not 0 < config.execution.deadline <= LONGEST_DEADLINE_S:
        raise ValueError("execution.deadline: must be above 0s and at most 30m; for example 90s")
    if (config.limits.balance_jump_wait or 0) > LONGEST_JUMP_WAIT_S:
        raise ValueError('limits.balance_jump_wait: more than 30d; write less, such as "24h"')
    if config.limits.slippage is not None and config.limits.slippage >= BPS:
        raise ValueError(
            "limits.slippage: 100% or more accepts any price; write a lower value, such as 0.3%"
        )


def _require_settled_prices(config: Config) -> None:
    """Require explicit consent to triggers that one block can fire, and to a rollup without a
    sequencer feed (T3, T13).
    """
    reference, known = config.reference, SEQUENCER_FEEDS.get(config.chain.chain_id)
    if config.policy.confirm_blocks is None and not config.chain.local:
        raise ValueError(
            "policy.confirm_blocks: missing; write 3, or 0 to trigger on the prices of a single"
            " block"
        )
    if known is not None and "sequencer_feed" not in reference.model_fields_set:
        raise ValueError(
            f'reference.sequencer_feed: missing on this rollup; write "{known}" with'
            f' sequencer_grace = "{SEQUENCER_GRACE}", or "off"'
        )
    if reference.sequencer_feed is not None and reference.sequencer_grace is None:
        raise ValueError(
            f'reference.sequencer_grace: missing; write for example "{SEQUENCER_GRACE}"'
        )
    if config.policy.jitter is not None and config.policy.jitter > LARGEST_JITTER_BPS:
        raise ValueError('policy.jitter: more than half of the interval; write less, such as "10%"')
