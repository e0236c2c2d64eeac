"""[limits]: fields derived from agent/model/limits.py, their ceilings, and comparison of two values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from agent.config.tables.fields import (
    OFF,
    ConfigTable,
    DecimalOrOff,
    DurationOrOff,
    GasPriceOrOff,
    Share,
    ShareOrOff,
    Switch,
)
from agent.model import LIMITS, Limits, LimitSpec, LimitUnit, TighterDirection
from agent.units import Token, format_bps, parse_raw

Limit = int | str | bool | None
"""A value of [limits], parsed by LimitsTable; None is "off"."""
ANY = "any"


def _per_asset(max_weight: object) -> object:
    """Turn a single share into a table for any asset."""
    if max_weight == OFF:
        return None
    if isinstance(max_weight, str | int | float):
        return {ANY: max_weight}
    return max_weight


MaxWeight = Annotated[dict[str, Share] | None, BeforeValidator(_per_asset)]
"""Bps by symbol. "any" applies to all other assets except the numeraire, which exits sell into."""
_FIELD_TYPES: Mapping[LimitUnit, Any] = {
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
        depeg: int | None
        gas_price: int | None
        native_floor: str | None
        native_top_up: str | None
        min_trade: str | None
        lp_max_weight: int | None
        futures_notional: int | None
        payout_per_day: str | None
        balance_jump_wait: int | None
        deposit_auto: int | None
        max_weight: dict[str, int] | None
        i_accept: list[str]

else:
    _FIELDS = {
        spec.key: (
            _FIELD_TYPES[spec.unit],
            Field(default=spec.default, validate_default=True) if spec.default else ...,
        )
        for spec in LIMITS.values()
    }
    LimitsTable = create_model(
        "LimitsTable",
        __base__=ConfigTable,
        __module__=__name__,
        __doc__=(
            "Limits of the guards (docs/limits.md). Shares are of the managed portfolio, of"
            " slippage, price_impact and plan_cost of what is traded; gas is in native coin, other"
            " amounts in the numeraire."
        ),
        **_FIELDS,
        max_weight=(MaxWeight | None, None),
        futures_notional=(
            ShareOrOff,
            Field(None, description="largest gross notional of [futures] over spot value"),
        ),
        i_accept=(
            list[str],
            Field(
                default_factory=list,
                description="limits with a ceiling that are off or above it on purpose",
            ),
        ),
    )


def build_limits_from_table(
    table: LimitsTable, max_live_value: str | None, numeraire: Token
) -> Limits:
    """Build the limits in exact units: values in the numeraire's base units, gas in wei."""
    limit_by_field: dict[str, Any] = {
        spec.field_name: _in_exact_units(spec, getattr(table, spec.key), numeraire)
        for spec in LIMITS.values()
    }
    max_live_value_raw = None
    if max_live_value is not None:
        max_live_value_raw = Fraction(
            parse_raw(max_live_value, numeraire.decimals, "portfolio.max_live_value")
        )
    return Limits(max_live_value=max_live_value_raw, **limit_by_field)


def _in_exact_units(spec: LimitSpec, limit: Any, numeraire: Token) -> Any:
    """Return the table's value in the unit of its field in Limits."""
    if limit is not None and spec.unit is LimitUnit.NATIVE:
        return parse_raw(limit, 18, f"limits.{spec.key}")
    if limit is not None and spec.unit is LimitUnit.COINS:
        return Fraction(parse_raw(limit, numeraire.decimals, f"limits.{spec.key}"))
    return limit


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
    limit_by_key = {key: getattr(limits, key) for key in CEILINGS}
    excessive_limits = {
        key: bps for key, bps in limit_by_key.items() if bps is None or bps > CEILINGS[key]
    }
    return {
        key: f"limits.{key}: off, and its ceiling is {_percent(CEILINGS[key])}"
        if bps is None
        else f"limits.{key}: {_percent(bps)} is above the ceiling of {_percent(CEILINGS[key])}"
        for key, bps in excessive_limits.items()
    }


def accepted_limit_texts(limits: LimitsTable) -> list[str]:
    """Describe the limits accepted by limits.i_accept."""
    return [
        f"{excess_text}, accepted by limits.i_accept"
        for key, excess_text in limits_beyond_ceiling(limits).items()
        if key in limits.i_accept
    ]


def needless_acceptances(limits: LimitsTable) -> list[str]:
    """Return the names in limits.i_accept whose limit is within its ceiling."""
    return sorted({*limits.i_accept} - limits_beyond_ceiling(limits).keys())


def _percent(bps: int | None) -> str:
    return OFF if bps is None else format_bps(bps)


OFF_TIGHTEST_DIRECTIONS = (TighterDirection.LESS_OR_OFF, TighterDirection.MORE_OR_OFF)


def is_tighter(key: str, other_limit: Limit, own_limit: Limit) -> bool:
    """Return whether `other_limit` is strictly tighter than `own_limit`, both parsed by
    LimitsTable; None is "off".
    """
    if key not in LIMITS or other_limit == own_limit:
        return False
    tighter_direction = LIMITS[key].tighter
    if other_limit is None or own_limit is None:
        return (other_limit is None) is (tighter_direction in OFF_TIGHTEST_DIRECTIONS)
    if tighter_direction is TighterDirection.ON:
        return False
    is_lower = Decimal(other_limit) < Decimal(own_limit)
    return is_lower is (tighter_direction in (TighterDirection.LESS, TighterDirection.LESS_OR_OFF))


def read_limits(profile_values: Mapping[str, object], own_limits: LimitsTable) -> dict[str, Limit]:
    """Parse the limits of a profile by LimitsTable; `profile_values` is the content of its file.
    Raises pydantic's ValidationError.
    """
    own_texts = {
        spec.key: _notation(spec, getattr(own_limits, spec.key)) for spec in LIMITS.values()
    }
    profile_limits = LimitsTable.model_validate({**own_texts, **profile_values})
    return {key: getattr(profile_limits, key) for key in profile_values}


def _notation(spec: LimitSpec, limit: Any) -> str:
    """Return a parsed limit in the notation of a config."""
    if limit is None:
        return OFF
    if limit is True:
        return "on"
    unit_suffixes = {LimitUnit.SHARE: "bps", LimitUnit.DURATION: "s", LimitUnit.GAS_PRICE: " wei"}
    return f"{limit}{unit_suffixes.get(spec.unit, '')}"
