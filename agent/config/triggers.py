"""[policy] trigger and risk: every kind of trigger, bands of assets, and the risk figures of a
zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
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

from agent.config.fields import ConfigTable, Duration, Share, compact, to_value_error
from agent.config.weights import require_sampling
from agent.errors import ConfigError
from agent.model import AnyOf, NoTradeZone, RiskEstimationWindow, Threshold, Trigger
from agent.policy import risk
from agent.policy.triggers.bands import KeyUnit, TriggerNotation
from agent.policy.triggers.rules import NOTATIONS
from agent.units import BPS, parse_share_bps

if TYPE_CHECKING:
    from agent.config.schema import Config


def _cost(value: object) -> Fraction:
    """Parse bps per year, such as "0.5bps" or "0.005%". Fractions of a basis point are allowed."""
    plain = compact(value)
    unit = next((unit for unit in ("bps", "%") if plain.endswith(unit)), None)
    number = _finite_decimal(plain.removesuffix(unit)) if unit else None
    if number is None:
        raise ValueError(
            f"{value!r} is not a cost per year; write the cost of 1 % of tracking error, such as"
            " 0.5bps"
        )
    return Fraction(number) * (100 if unit == "%" else 1)


def _signed(value: object) -> int:
    """Parse a correlation such as "80%" or "-20%" to bps."""
    plain = compact(value)
    percent = _finite_decimal(plain.removesuffix("%")) if plain.endswith("%") else None
    if percent is None or abs(bps := percent * 100) > BPS or bps != int(bps):
        raise ValueError(
            f"{value!r} is not a correlation; write a percentage from -99% to 99%, such as 60%"
        )
    return int(bps)


def _finite_decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


YearlyCost = Annotated[Fraction, BeforeValidator(_cost)]
Correlation = Annotated[int, BeforeValidator(_signed)]


class EstimateTable(ConfigTable):
    """Sampling of recorded prices for estimates of volatilities and correlations, with the same
    keys as an allocator.
    """

    window: Duration
    step: Duration
    min_history: Duration
    max_age: Duration

    @model_validator(mode="after")
    def _possible(self) -> EstimateTable:
        require_sampling(None, self.step, self.window, self.min_history, self.max_age)
        return self


class RiskTable(ConfigTable):
    """Annual volatilities by symbol, and correlations by pair "A/B"; `correlation` is that of all
    other pairs.

    With `estimate`, missing figures are estimated from recorded prices.
    """

    volatilities: dict[str, Share] = Field(default_factory=dict)
    estimate: EstimateTable | None = None
    correlation: Correlation | None = None
    correlations: dict[str, Correlation] = Field(default_factory=dict)


def require_zone(config: Config) -> None:
    """Raise ValueError naming field and remedy if the zone could not be evaluated."""
    table = config.policy.risk
    if not is_zone(config.policy.trigger):
        return
    if config.limits.plan_cost is None:
        raise ValueError(
            "limits.plan_cost: off, but a zone needs it to limit the cost of a swap; write for"
            ' example "0.5%"'
        )
    if table is None or (not table.volatilities and table.estimate is None):
        raise ValueError(
            "policy.risk: missing; a zone needs [policy.risk] with volatilities and correlations,"
            " or with estimate (docs/zone.md)"
        )
    symbols = [asset.symbol for asset in config.portfolio.assets]
    unknown = [symbol for symbol in table.volatilities if symbol not in symbols]
    if unknown:
        raise ValueError(
            f"policy.risk.volatilities: {unknown[0]!r} is not an asset; remove it or correct"
            " its spelling"
        )
    named = [_pair(name, symbols) for name in table.correlations]
    twice = [
        name for name, pair in zip(table.correlations, named, strict=True) if named.count(pair) > 1
    ]
    if twice:
        raise ValueError(
            f"policy.risk.correlations: {' and '.join(twice)} are the same pair; keep one"
        )
    zone = build_policy_trigger(config)
    labels = {asset.address: asset.symbol for asset in config.portfolio.assets}
    if table.estimate is not None:
        labels = _require_estimate(table, table.estimate, labels)
    fault = next(risk.faults(zone.risk, labels), None) if isinstance(zone, NoTradeZone) else None
    if fault is not None:
        raise ValueError("; ".join(fault))


def _require_estimate(
    table: RiskTable, estimate: EstimateTable, labels: dict[str, str]
) -> dict[str, str]:
    """Return the symbols of assets with a configured volatility, by address. Raises ValueError if
    the rest cannot be estimated from prices.
    """
    if table.correlation is not None:
        raise ValueError(
            "policy.risk.correlation: estimate takes correlations from prices; write only those"
            " of pairs without prices"
        )
    far = [name for name, bps in table.correlations.items() if abs(bps) > risk.MOST_CORRELATION_BPS]
    if far:
        raise ValueError(
            f'policy.risk.correlations: {far[0]} is beyond 99%; write "99%" for tokens that move'
            " as one"
        )
    estimated = [symbol for symbol in labels.values() if symbol not in table.volatilities]
    count = len(estimated)
    if estimate.min_history < (count + 1) * estimate.step:
        raise ValueError(
            f"policy.risk.estimate.min_history: {count} assets need at least {count + 1}"
            " steps for a non-singular covariance; write a longer one"
        )
    return {address: symbol for address, symbol in labels.items() if symbol in table.volatilities}


def _pair(name: str, symbols: list[str]) -> frozenset[str]:
    pair = name.split("/")
    if len(pair) != 2 or len({*pair}) != 2 or not {*pair} <= {*symbols}:
        raise ValueError(
            f"policy.risk.correlations: {name!r} is not a pair of assets; write for example"
            f' "{symbols[0]}/{symbols[1]}"'
        )
    return frozenset(pair)


def _with_risk(
    zone: NoTradeZone, table: RiskTable | None, assets: Mapping[str, str]
) -> NoTradeZone:
    """Add the figures of [policy.risk] to a zone. `assets` are addresses by symbol. Raises
    ConfigError if the table is missing.
    """
    if table is None:
        raise ConfigError(
            "policy.risk: missing", "write [policy.risk] with volatilities and correlations"
        )
    return NoTradeZone(
        replace(
            zone.risk,
            volatilities_bps=tuple(
                (assets[symbol], bps) for symbol, bps in table.volatilities.items()
            ),
            correlations_bps=tuple(_correlations(table, assets)),
            measuring=None if table.estimate is None else _measuring(table.estimate),
        )
    )


def _measuring(estimate: EstimateTable) -> RiskEstimationWindow:
    return RiskEstimationWindow(
        estimate.window, estimate.step, -(-estimate.min_history // estimate.step), estimate.max_age
    )


def _correlations(table: RiskTable, addresses: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Return (token, token, bps) of every pair of assets with a correlation."""
    named = {frozenset(name.split("/")): bps for name, bps in table.correlations.items()}
    symbols, pairs = list(addresses), []
    for number, later in enumerate(symbols):
        for earlier in symbols[:number]:
            configured = later in table.volatilities and earlier in table.volatilities
            default = table.correlation if table.estimate is None or not configured else 0
            bps = named.get(frozenset((later, earlier)), default)
            if bps is not None:
                pairs.append((addresses[earlier], addresses[later], bps))
    return pairs


# --- policy.trigger and bands of assets.


SINGLE, SEVERAL = "single", "several"
ZONE = "zone"
_UNITS: Mapping[KeyUnit, Any] = {
    KeyUnit.SHARE: Share,
    KeyUnit.DURATION: Duration,
    KeyUnit.TEXT: str,
    KeyUnit.YEARLY_COST: YearlyCost,
}


class AnyTriggerTable(ConfigTable):
    """One trigger. The table of each kind is generated from its row in NOTATIONS."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: str


def _table(notation: TriggerNotation) -> type[AnyTriggerTable]:
    fields: dict[str, Any] = {"kind": (Literal[notation.kind], ...)}
    for name, unit in notation.keys.items():
        if unit is KeyUnit.SYMBOLS:
            fields[name] = (list[str], Field(default_factory=list))
        elif notation.required:
            fields[name] = (_UNITS[unit], ...)
        else:
            fields[name] = (_UNITS[unit] | None, None)
    return create_model(
        f"{notation.kind}_trigger", __base__=AnyTriggerTable, __module__=__name__, **fields
    )


def _how_many(value: object) -> str:
    return SEVERAL if isinstance(value, list) else SINGLE


if TYPE_CHECKING:
    TriggerTable = AnyTriggerTable | list[AnyTriggerTable]
else:
    _ANY = Annotated[reduce(or_, map(_table, NOTATIONS.values())), Field(discriminator="kind")]
    TriggerTable = Annotated[
        Annotated[_ANY, Tag(SINGLE)] | Annotated[list[_ANY], Tag(SEVERAL)], Discriminator(_how_many)
    ]
"""One trigger, or a list that fires if any of its triggers does."""


def is_zone(table: TriggerTable | None) -> bool:
    """Return whether a trigger is a cost-aware zone."""
    return isinstance(table, AnyTriggerTable) and table.kind == ZONE


def parse_band(text: object, field: str) -> Threshold:
    """Parse a band such as "10%rel" of the target, or "5%abs" in points of the portfolio. Raises
    ConfigError.
    """
    plain = compact(text)
    kind = next((kind for kind in ("abs", "rel") if plain.endswith(kind)), None)
    if kind is None:
        raise ConfigError(
            f"{field}: {text!r} is not a band",
            "write 10%rel (of the target) or 5%abs (points of the portfolio)",
        )
    width_bps = parse_share_bps(plain.removesuffix(kind), field)
    return Threshold(width_bps, None) if kind == "abs" else Threshold(None, width_bps)


def _band(value: object) -> Threshold:
    try:
        return parse_band(value, "value")
    except ConfigError as error:
        raise to_value_error(error) from None


Band = Annotated[Any, BeforeValidator(_band)]
"""A band of an asset, parsed to a Threshold."""


def build_trigger(table: TriggerTable, tokens: Mapping[str, str]) -> Trigger:
    """Build a trigger. The risk of a zone is added later. `tokens` are addresses by symbol, without
    the numeraire. Raises ConfigError.
    """
    if isinstance(table, AnyTriggerTable):
        return _build(table, tokens)
    triggers = []
    for inner in table:
        built = _build(inner, tokens)
        if isinstance(built, AnyOf):
            raise ConfigError(
                'policy.trigger: a list cannot contain a trigger of kind "either"',
                "write its threshold and its time as two triggers in the list",
            )
        if isinstance(built, NoTradeZone):
            raise ConfigError(
                "policy.trigger: a list cannot contain a zone",
                "write the zone alone, or remove it",
            )
        triggers.append(built)
    return AnyOf(tuple(triggers))


def build_policy_trigger(config: Config) -> Trigger:
    """Build the trigger of [policy], a zone with its risk. Raises ConfigError."""
    addresses = {asset.symbol: asset.address for asset in config.portfolio.assets}
    risky = {
        symbol: address
        for symbol, address in addresses.items()
        if symbol != config.portfolio.numeraire
    }
    trigger = build_trigger(config.policy.trigger, risky)
    if isinstance(trigger, NoTradeZone):
        return _with_risk(trigger, config.policy.risk, addresses)
    return trigger


def _build(table: AnyTriggerTable, tokens: Mapping[str, str]) -> Trigger:
    notation = NOTATIONS[table.kind]
    values = []
    for name, unit in notation.keys.items():
        value = getattr(table, name)
        values.append(_addresses(value, tokens) if unit is KeyUnit.SYMBOLS else value)
    return notation.build(*values)


def _addresses(symbols: list[str], tokens: Mapping[str, str]) -> tuple[str, ...]:
    unknown = [symbol for symbol in symbols if symbol not in tokens]
    if unknown:
        raise ConfigError(
            f"policy.trigger.assets: {unknown[0]!r} is not an asset other than the numeraire",
            f"choose from {', '.join(tokens)}",
        )
    return tuple(tokens[symbol] for symbol in symbols or tokens)
