"""Triggers in trimtab.toml: thresholds, schedules, drawdowns, volatility, and the cost-aware zone with its risk figures."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from agent.config.fields import ConfigTable, Duration, Share, to_value_error
from agent.config.weights import require_sampling
from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    Cron,
    Drawdown,
    Every,
    HybridTrigger,
    NoTradeZone,
    RiskEstimationWindow,
    Schedule,
    SingleTrigger,
    StagedTrigger,
    Threshold,
    TrackingRisk,
    VolatilityJump,
)
from agent.policy import risk
from agent.units import BPS, parse_share_bps

if TYPE_CHECKING:
    from agent.config.schema import Config


def _cost(value: object) -> Fraction:
    """Parse bps a year, fractions of one too: "0.5bps" or "0.005%"."""
    plain = value.strip().replace(" ", "") if isinstance(value, str) else ""
    unit = next((unit for unit in ("bps", "%") if plain.endswith(unit)), None)
    try:
        number = Decimal(plain.removesuffix(unit)) if unit else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        raise ValueError(f"{value!r} is not a cost a year; write what 1 % of tracking error is worth, such as 0.5bps")
    return Fraction(number) * (100 if unit == "%" else 1)


def _signed(value: object) -> int:
    """Parse bps of a correlation: "80%" or "-20%"."""
    plain = value.strip().replace(" ", "") if isinstance(value, str) else ""
    try:
        number = Decimal(plain.removesuffix("%")) * 100 if plain.endswith("%") else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or abs(number) > BPS or number != int(number):
        raise ValueError(f"{value!r} is not a correlation; write a percentage from -99% to 99%, such as 60%")
    return int(number)


YearlyCost = Annotated[Fraction, BeforeValidator(_cost)]
Correlation = Annotated[int, BeforeValidator(_signed)]


class ZoneTable(ConfigTable):
    """Act when a plan saves more risk than it costs. `tracking_error_cost` is the annual cost of 1 % of tracking error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: Literal["zone"]
    tracking_error_cost: YearlyCost
    horizon: Duration


class EstimateTable(ConfigTable):
    """Sampling of recorded prices for estimates of volatilities and correlations, like that of an allocator."""

    window: Duration
    step: Duration
    min_history: Duration
    max_age: Duration

    @model_validator(mode="after")
    def _possible(self) -> EstimateTable:
        require_sampling(None, self.step, self.window, self.min_history, self.max_age)
        return self


class RiskTable(ConfigTable):
    """Annual volatilities by symbol; `correlation` is that of every pair that `correlations` does not name as "A/B".

    With `estimate` recorded prices supply the missing figures.
    """

    volatilities: dict[str, Share] = Field(default_factory=dict)
    estimate: EstimateTable | None = None
    correlation: Correlation | None = None
    correlations: dict[str, Correlation] = Field(default_factory=dict)


def require_zone(config: Config) -> None:
    """Raise ValueError naming field and remedy if the zone could not be evaluated."""
    table = config.policy.risk
    if not isinstance(config.policy.trigger, ZoneTable):
        return
    if config.limits.plan_cost is None:
        raise ValueError('limits.plan_cost: off, but a zone needs it as the most that an exchange may cost; write for example "0.5%"')
    if table is None or (not table.volatilities and table.estimate is None):
        raise ValueError(
            "policy.risk: missing; a zone is measured by [policy.risk] with volatilities and correlations, or by estimate; docs/zone.md"
        )
    symbols = [asset.symbol for asset in config.portfolio.assets]
    strange = [symbol for symbol in table.volatilities if symbol not in symbols]
    if strange:
        raise ValueError(f"policy.risk.volatilities: {strange[0]!r} is none of the assets; remove it or correct its spelling")
    named = [_pair(name, symbols) for name in table.correlations]
    twice = [name for name, pair in zip(table.correlations, named, strict=True) if named.count(pair) > 1]
    if twice:
        raise ValueError(f"policy.risk.correlations: {' and '.join(twice)} are the same pair; keep one")
    zone = build_zone(config)
    labels = {asset.address: asset.symbol for asset in config.portfolio.assets}
    if table.estimate is not None:
        labels = _require_estimate(table, table.estimate, labels)
    found = next(risk.faults(zone.risk, labels), None)
    if found is not None:
        raise ValueError("; ".join(found))


def _require_estimate(table: RiskTable, estimate: EstimateTable, labels: dict[str, str]) -> dict[str, str]:
    """Assets with a given volatility, by address. Raises ValueError if prices cannot supply the rest."""
    if table.correlation is not None:
        raise ValueError("policy.risk.correlation: prices tell correlations where there is estimate; name those of pairs that they do not")
    far = [name for name, bps in table.correlations.items() if abs(bps) > risk.MOST_CORRELATION_BPS]
    if far:
        raise ValueError(f'policy.risk.correlations: {far[0]} is beyond 99%; write "99%" for tokens that move as one')
    asked = [symbol for symbol in labels.values() if symbol not in table.volatilities]
    if estimate.min_history < (len(asked) + 1) * estimate.step:
        raise ValueError(
            f"policy.risk.estimate.min_history: {len(asked)} assets need at least {len(asked) + 1} steps for a covariance that is not "
            "singular; write a longer one"
        )
    return {address: symbol for address, symbol in labels.items() if symbol in table.volatilities}


def _pair(name: str, symbols: list[str]) -> frozenset[str]:
    pair = name.split("/")
    if len(pair) != 2 or len({*pair}) != 2 or not {*pair} <= {*symbols}:
        raise ValueError(f'policy.risk.correlations: {name!r} is no pair of assets; write for example "{symbols[0]}/{symbols[1]}"')
    return frozenset(pair)


def build_zone(config: Config) -> NoTradeZone:
    """Build the zone with its risk, by token address. Raises ConfigError without its table."""
    trigger, table = config.policy.trigger, config.policy.risk
    if not isinstance(trigger, ZoneTable) or table is None:
        raise ConfigError("policy.risk: missing", "write [policy.risk] with volatilities and correlations")
    addresses = {asset.symbol: asset.address for asset in config.portfolio.assets}
    return NoTradeZone(
        TrackingRisk(
            trigger.tracking_error_cost,
            trigger.horizon,
            tuple((addresses[symbol], bps) for symbol, bps in table.volatilities.items()),
            tuple(_correlations(table, addresses)),
            None if table.estimate is None else _measuring(table.estimate),
        )
    )


def _measuring(estimate: EstimateTable) -> RiskEstimationWindow:
    return RiskEstimationWindow(estimate.window, estimate.step, -(-estimate.min_history // estimate.step), estimate.max_age)


def _correlations(table: RiskTable, addresses: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Every pair of assets with a correlation."""
    named = {frozenset(name.split("/")): bps for name, bps in table.correlations.items()}
    symbols, found = list(addresses), []
    for number, one in enumerate(symbols):
        for other in symbols[:number]:
            both = one in table.volatilities and other in table.volatilities
            rest = table.correlation if table.estimate is None or not both else 0
            bps = named.get(frozenset((one, other)), rest)
            if bps is not None:
                found.append((addresses[other], addresses[one], bps))
    return found


# --- policy.trigger and the bands of assets: notation and parsing.


SINGLE, SEVERAL = "single", "several"


class ThresholdTable(ConfigTable):
    """Act beyond a band."""

    kind: Literal["threshold"]
    absolute: Share | None = None
    relative: Share | None = None


class TimeTable(ConfigTable):
    """Act on a schedule."""

    kind: Literal["time"]
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None


class HybridTable(ConfigTable):
    """Check on a schedule, act beyond a band."""

    kind: Literal["hybrid"]
    absolute: Share | None = None
    relative: Share | None = None
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None


class EitherTable(HybridTable):
    """Act on a schedule and beyond a band, whichever comes first."""

    kind: Literal["either"]  # type: ignore[assignment]  # the discriminator of another table with the same keys


class ReviewTable(ConfigTable):
    """Review on one schedule and report the trades; act on another, with a band only beyond it."""

    kind: Literal["review"]
    review_every: Duration | None = None
    review_cron: str | None = None
    execute_every: Duration | None = None
    execute_cron: str | None = None
    timezone: str | None = None
    absolute: Share | None = None
    relative: Share | None = None


class DrawdownTable(ConfigTable):
    """Act when a price has fallen by that much within that time; `assets` are symbols, by default all but the numeraire."""

    kind: Literal["drawdown"]
    fall: Share
    within: Duration
    assets: list[str] = Field(default_factory=list)


class VolatilityJumpTable(ConfigTable):
    """Act when short-term volatility exceeds `jump` times that of the longer window before it."""

    kind: Literal["volatility_jump"]
    short: Duration
    long: Duration
    jump: Share
    assets: list[str] = Field(default_factory=list)


SingleTable = ThresholdTable | TimeTable | HybridTable | EitherTable | ReviewTable | DrawdownTable | VolatilityJumpTable
AnyTriggerTable = Annotated[SingleTable | ZoneTable, Field(discriminator="kind")]


def _how_many(value: object) -> str:
    return SEVERAL if isinstance(value, list) else SINGLE


TriggerTable = Annotated[Annotated[AnyTriggerTable, Tag(SINGLE)] | Annotated[list[AnyTriggerTable], Tag(SEVERAL)], Discriminator(_how_many)]
"""One trigger, or a list of them, any of which fires."""


def parse_band(text: object, field: str) -> Threshold:
    """Parse a band such as "10%rel" of the target, or "5%abs" in points of the portfolio. Raises ConfigError."""
    plain = text.strip().replace(" ", "") if isinstance(text, str) else ""
    kind = next((kind for kind in ("abs", "rel") if plain.endswith(kind)), None)
    if kind is None:
        raise ConfigError(f"{field}: {text!r} is not a band", "write 10%rel (of the target) or 5%abs (points of the portfolio)")
    width_bps = parse_share_bps(plain.removesuffix(kind), field)
    return Threshold(width_bps, None) if kind == "abs" else Threshold(None, width_bps)


def _band(value: object) -> Threshold:
    try:
        return parse_band(value, "value")
    except ConfigError as error:
        raise to_value_error(error) from None


Band = Annotated[Any, BeforeValidator(_band)]
"""Becomes a Threshold."""


def build_trigger(table: SingleTable | list[SingleTable | ZoneTable], tokens: Mapping[str, str]) -> SingleTrigger | AnyOf:
    """Build the trigger of the policy table, other than a zone. `tokens` are addresses by symbol, without the numeraire."""
    if isinstance(table, list):
        return AnyOf(tuple(_one_of_several(one, tokens) for one in table))
    if isinstance(table, EitherTable):
        return AnyOf((_threshold(table), _schedule(table)))
    return _single(table, tokens)


def _one_of_several(table: SingleTable | ZoneTable, tokens: Mapping[str, str]) -> SingleTrigger:
    match table:
        case EitherTable():
            raise ConfigError("policy.trigger: either within a list", "write its threshold and its time as two triggers of the list")
        case ZoneTable():
            raise ConfigError("policy.trigger: a zone within a list", "a zone weighs risk against cost by itself; take the others out")
        case _:
            return _single(table, tokens)


def _single(table: SingleTable, tokens: Mapping[str, str]) -> SingleTrigger:
    match table:
        case ThresholdTable():
            return _threshold(table)
        case TimeTable():
            return _schedule(table)
        case HybridTable():
            return HybridTrigger(_threshold(table), _schedule(table))
        case ReviewTable():
            band = None if table.absolute is None and table.relative is None else Threshold(table.absolute, table.relative)
            review = _times(table.review_every, table.review_cron, table.timezone, "review_")
            return StagedTrigger(review, _times(table.execute_every, table.execute_cron, table.timezone, "execute_"), band)
        case DrawdownTable():
            return Drawdown(table.fall, table.within, _addresses(table.assets, tokens))
        case VolatilityJumpTable():
            return VolatilityJump(table.short, table.long, table.jump, _addresses(table.assets, tokens))


def _addresses(symbols: list[str], tokens: Mapping[str, str]) -> tuple[str, ...]:
    strange = [symbol for symbol in symbols if symbol not in tokens]
    if strange:
        raise ConfigError(
            f"policy.trigger.assets: {strange[0]!r} is none of the assets beside the numeraire", f"choose from {', '.join(tokens)}"
        )
    return tuple(tokens[symbol] for symbol in symbols or tokens)


def _threshold(table: ThresholdTable | HybridTable) -> Threshold:
    if table.absolute is None and table.relative is None:
        raise ConfigError("policy.trigger: a threshold needs absolute or relative", "for example relative = '10%'")
    return Threshold(table.absolute, table.relative)


def _schedule(table: TimeTable | HybridTable) -> Schedule:
    return _times(table.every, table.cron, table.timezone)


def _times(every_s: int | None, cron: str | None, timezone: str | None, prefix: str = "") -> Schedule:
    if (every_s is None) == (cron is None):
        raise ConfigError(f"policy.trigger: give exactly one of {prefix}every and {prefix}cron", f"for example {prefix}every = '1d'")
    if every_s is not None:
        return Every(every_s)
    if timezone is None:
        raise ConfigError("policy.trigger.timezone: a cron trigger names its time zone", "for example timezone = 'UTC'")
    return Cron(cron or "", timezone)
