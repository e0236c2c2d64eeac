"""[policy] trigger and risk: every kind of trigger, bands of assets, and the risk figures of a zone."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)

from agent.config.tables.fields import ConfigTable, Duration, Share, to_value_error, without_spaces
from agent.config.tables.weights import require_sampling
from agent.errors import ConfigError
from agent.model import AnsweredTrigger, AnyOf, NoTradeZone, Threshold, Trigger
from agent.policy.triggers.bands import KeyUnit, TriggerNotation
from agent.policy.triggers.rules import NOTATIONS
from agent.units import BPS, parse_share_with_unit_bps, written_number


def _parse_yearly_cost(config_value: object) -> Fraction:
    """Parse bps per year, such as "0.5bps" or "0.005%". Fractions of a basis point are allowed."""
    compact_text = without_spaces(config_value)
    unit = next((unit for unit in ("bps", "%") if compact_text.endswith(unit)), None)
    number = _number_or_none(compact_text.removesuffix(unit)) if unit else None
    if number is None:
        raise ValueError(
            f"{config_value!r} is not a cost per year; write the cost of 1 % of tracking error, such as"
            " 0.5bps"
        )
    return number * (100 if unit == "%" else 1)


def _parse_correlation(config_value: object) -> int:
    """Parse a correlation such as "80%" or "-20%" to bps."""
    compact_text = without_spaces(config_value)
    percent = (
        _number_or_none(compact_text.removesuffix("%")) if compact_text.endswith("%") else None
    )
    if percent is None or abs(bps := percent * 100) > BPS or bps != int(bps):
        raise ValueError(
            f"{config_value!r} is not a correlation; write a percentage from -99% to 99%, such as 60%"
        )
    return int(bps)


def _number_or_none(number_text: str) -> Fraction | None:
    try:
        return written_number(number_text)
    except ValueError:
        return None


YearlyCost = Annotated[Fraction, BeforeValidator(_parse_yearly_cost)]
Correlation = Annotated[int, BeforeValidator(_parse_correlation)]


class EstimateTable(ConfigTable):
    """Sampling of recorded prices for estimates of risk (docs/zone.md)."""

    window: Duration
    """Time whose returns count."""
    step: Duration
    """Time from one price to the next."""
    min_history: Duration
    """Shortest history from which anything is estimated."""
    max_age: Duration
    """Largest age of the newest price."""

    @model_validator(mode="after")
    def _check_sampling(self) -> EstimateTable:
        require_sampling(None, self.step, self.window, self.min_history, self.max_age)
        return self


class RiskTable(ConfigTable):
    """Risk of a zone or of the tracking rule (docs/zone.md); what is missing is the usual of the
    token's class.
    """

    volatilities: dict[str, Share] = Field(default_factory=dict)
    """Annual volatility by symbol."""
    estimate: EstimateTable | None = None
    """Estimates missing figures from recorded prices."""
    correlation: Correlation | None = None
    """Correlation of every pair without its own; not with `estimate`."""
    correlations: dict[str, Correlation] = Field(default_factory=dict)
    """Correlation by pair "A/B"."""


SINGLE = "single"
SEVERAL = "several"
TRACKING = "tracking"
FUNCTION = "function"
ZONE_KINDS = ("zone", TRACKING)
_FIELD_TYPES: Mapping[KeyUnit, Any] = {
    KeyUnit.SHARE: Share,
    KeyUnit.DURATION: Duration,
    KeyUnit.TEXT: str,
    KeyUnit.YEARLY_COST: YearlyCost,
    KeyUnit.FLAG: bool,
}
_DESCRIPTIONS: Mapping[str, str] = {
    "absolute": "width of the band in points of the portfolio; of two widths the narrower counts, one is needed",
    "relative": "width of the band as a share of the target",
    "every": "time from one review to the next, 30m to 28d; or `cron`",
    "cron": "five-field cron time of a review, in place of `every`",
    "timezone": "zone of cron times, such as Europe/Berlin",
    "review_every": "time from one review to the next; or `review_cron`",
    "review_cron": "cron time of a review, in place of `review_every`",
    "execute_every": "time from one execution to the next; or `execute_cron`",
    "execute_cron": "cron time of an execution, in place of `execute_every`",
    "fall": "distance of the price below its highest of the window, beyond which it fires",
    "within": "the window, 1h to 28d",
    "assets": "symbols whose prices count; default: all but the numeraire",
    "short": "time whose volatility is compared",
    "long": "time before it, with whose volatility it is compared",
    "jump": "ratio of the two beyond which it fires, above 100 %",
    "strictness": "weight of tracking error against costs: relaxed, normal or strict; default: normal",
    "after_tax": "true: the range counts the tax on the next unit sold, by tax.rate and tax.method; default: false",
    "tracking_error_cost": "what 1 % of tracking error costs a year",
    "horizon": "time over which risk and cost are compared",
    "signal": "name in [signals] of the function that answers whether a rebalance is due",
    "window": "time whose recorded prices it gets",
    "step": "time of which it gets the last price, from 1h on",
}


class AnyTriggerTable(ConfigTable):
    """One trigger (docs/triggers.md). The table of each kind is made from its row in NOTATIONS."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: str


def _trigger_table(notation: TriggerNotation) -> type[AnyTriggerTable]:
    field_definitions: dict[str, Any] = {
        "kind": (Literal[notation.kind], Field(description="kind of trigger"))
    }
    for key, unit in notation.keys.items():
        if unit is KeyUnit.SYMBOLS:
            field_definitions[key] = (
                list[str],
                Field(default_factory=list, description=_DESCRIPTIONS[key]),
            )
        elif notation.keys_required:
            field_definitions[key] = (_FIELD_TYPES[unit], Field(description=_DESCRIPTIONS[key]))
        else:
            field_definitions[key] = (
                _FIELD_TYPES[unit] | None,
                Field(None, description=_DESCRIPTIONS[key]),
            )
    return create_model(
        f"{notation.kind}_trigger",
        __base__=AnyTriggerTable,
        __module__=__name__,
        **field_definitions,
    )


def _trigger_tag(trigger_keys: object) -> str:
    return SEVERAL if isinstance(trigger_keys, list) else SINGLE


if TYPE_CHECKING:
    TriggerTable = AnyTriggerTable | list[AnyTriggerTable]
else:
    _SINGLE_TRIGGER = Annotated[
        reduce(or_, map(_trigger_table, NOTATIONS.values())), Field(discriminator="kind")
    ]
    TriggerTable = Annotated[
        Annotated[_SINGLE_TRIGGER, Tag(SINGLE)] | Annotated[list[_SINGLE_TRIGGER], Tag(SEVERAL)],
        Discriminator(_trigger_tag),
    ]
"""One trigger, or a list that fires if any of its triggers does."""


def is_zone(table: TriggerTable | None) -> bool:
    """Return whether a trigger is a zone, with a horizon or by the tracking rule."""
    return isinstance(table, AnyTriggerTable) and table.kind in ZONE_KINDS


def is_tracking(table: TriggerTable | None) -> bool:
    """Return whether a trigger is the tracking rule."""
    return isinstance(table, AnyTriggerTable) and table.kind == TRACKING


def parse_band(band_text: object, field: str) -> Threshold:
    """Parse a band such as "10%rel" of the target, or "5%abs" in points of the portfolio. Raises
    ConfigError.
    """
    compact_text = without_spaces(band_text)
    band_kind = next(
        (band_kind for band_kind in ("abs", "rel") if compact_text.endswith(band_kind)), None
    )
    if band_kind is None:
        raise ConfigError(
            f"{field}: {band_text!r} is not a band",
            "write 10%rel (of the target) or 5%abs (points of the portfolio)",
        )
    width_bps = parse_share_with_unit_bps(compact_text.removesuffix(band_kind), field)
    return Threshold(width_bps, None) if band_kind == "abs" else Threshold(None, width_bps)


def _validate_band(config_value: object) -> Threshold:
    try:
        return parse_band(config_value, "value")
    except ConfigError as error:
        raise to_value_error(error) from None


Band = Annotated[Any, BeforeValidator(_validate_band)]
"""A band of an asset, parsed to a Threshold."""


def build_trigger(table: TriggerTable, address_by_symbol: Mapping[str, str]) -> Trigger:
    """Build a trigger. The risk of a zone is added later. `address_by_symbol` are addresses by
    symbol, without the numeraire. Raises ConfigError.
    """
    if isinstance(table, AnyTriggerTable):
        return _build_single(table, address_by_symbol)
    triggers = []
    for trigger_table in table:
        trigger = _build_single(trigger_table, address_by_symbol)
        if isinstance(trigger, AnyOf):
            raise ConfigError(
                'policy.trigger: a list cannot contain a trigger of kind "either"',
                "write its threshold and its time as two triggers in the list",
            )
        if isinstance(trigger, NoTradeZone | AnsweredTrigger):
            raise ConfigError(
                f"policy.trigger: a list cannot contain a {trigger_table.kind}",
                f"write the {trigger_table.kind} alone, or remove it",
            )
        triggers.append(trigger)
    return AnyOf(tuple(triggers))


def _build_single(table: AnyTriggerTable, address_by_symbol: Mapping[str, str]) -> Trigger:
    notation = NOTATIONS[table.kind]
    arguments = []
    for key, unit in notation.keys.items():
        argument = getattr(table, key)
        arguments.append(
            _addresses(argument, address_by_symbol) if unit is KeyUnit.SYMBOLS else argument
        )
    return notation.build(*arguments)


def _addresses(symbols: list[str], address_by_symbol: Mapping[str, str]) -> tuple[str, ...]:
    unknown_symbols = [symbol for symbol in symbols if symbol not in address_by_symbol]
    if unknown_symbols:
        raise ConfigError(
            f"policy.trigger.assets: {unknown_symbols[0]!r} is not an asset other than the numeraire",
            f"choose from {', '.join(address_by_symbol)}",
        )
    return tuple(address_by_symbol[symbol] for symbol in symbols or address_by_symbol)
