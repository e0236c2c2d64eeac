"""Search grid: all valid combinations of bands, intervals, destinations, allocators and stops,
the tracking rule, and zones with a horizon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from agent.errors import ConfigError
from agent.model import (
    STRICTNESS_COST_BPS,
    AllocationMethod,
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    OrderKind,
    Threshold,
    TrackingRisk,
    action_interval_s,
    thresholds_of,
)
from agent.policy.risk import MAX_HORIZON_S, MIN_HORIZON_S
from agent.policy.triggers.bands import validate_band
from agent.policy.triggers.no_trade_zone import DEFAULT_STRICTNESS, build_tracking
from agent.policy.triggers.schedule_triggers import MAX_INTERVAL_S, MIN_INTERVAL_S
from agent.units import format_bps, format_duration

MAX_SETTINGS = 1_000_000
DESTINATIONS = (Destination.TARGET, Destination.HALFWAY, Destination.BAND)


class TriggerKind(Enum):
    """Trigger of a setting: band, interval, or band at interval."""

    BAND = "band"
    EVERY = "every"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class StopLevel:
    """A stop of every asset except the numeraire: a stop loss at this distance below the price at
    arming, or a trailing stop below the highest price; without a kind, none.
    """

    kind: OrderKind | None = None
    share_bps: int = 0

    @property
    def label(self) -> str:
        """Display text: "stop loss 20 %"."""
        if self.kind is None:
            return "no stop"
        return f"{self.kind.value.replace('_', ' ')} {format_bps(self.share_bps)}"


NO_STOP = StopLevel()


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """A setting: trigger, destination of a rebalance, allocator, and stop. Without a stop (None)
    the portfolio keeps its own.
    """

    trigger: Threshold | Every | HybridTrigger | NoTradeZone
    destination: Destination = Destination.TARGET
    allocator: AllocationMethod = AllocationMethod.FIXED
    stop: StopLevel | None = None

    @property
    def band(self) -> Threshold | None:
        """The band, if any."""
        return next(iter(thresholds_of(self.trigger)), None)

    @property
    def every_s(self) -> int | None:
        """The interval, if any."""
        return action_interval_s(self.trigger)

    @property
    def horizon_s(self) -> int | None:
        """The horizon of a zone, if that is the trigger."""
        return self.trigger.risk.horizon_s if isinstance(self.trigger, NoTradeZone) else None

    @property
    def strictness(self) -> str | None:
        """The strictness of the tracking rule, if it is the trigger and has one."""
        return self.trigger.risk.strictness if isinstance(self.trigger, NoTradeZone) else None

    @property
    def rule_label(self) -> str:
        """Display text of the tracking rule, with its cost if this is of no strictness; else empty."""
        if not isinstance(self.trigger, NoTradeZone) or self.horizon_s is not None:
            return ""
        return f"tracking {self.strictness or f'{float(self.trigger.risk.cost_bps):g} bps'}"

    @property
    def is_after_tax(self) -> bool:
        """Whether the tracking rule's ranges count the tax on a sale."""
        return isinstance(self.trigger, NoTradeZone) and self.trigger.risk.after_tax

    @property
    def label(self) -> str:
        """Display text: "band 10 % rel, every 7 days, to halfway"."""
        label_parts = [self.rule_label] if self.rule_label else []
        if self.is_after_tax:
            label_parts.append("after tax")
        if self.horizon_s is not None:
            label_parts.append(f"zone {format_duration(self.horizon_s)}")
        if self.band is not None:
            label_parts.append(f"band {band_text(self.band)}")
        if self.every_s is not None:
            label_parts.append(f"every {format_duration(self.every_s)}")
        if self.destination not in (Destination.TARGET, Destination.ZONE):
            label_parts.append(f"to {self.destination.value}")
        if self.allocator is not AllocationMethod.FIXED:
            label_parts.append(f"weights {self.allocator.value}")
        if self.stop is not None:
            label_parts.append(self.stop.label)
        return ", ".join(label_parts)

    @property
    def backtest_options(self) -> str:
        """Options of `trimtab backtest` that simulate this setting; empty if there are none: only a
        config has zones, tracking rules after tax or of another cost, allocators and stops.
        """
        has_own_rule = self.trigger not in RULE_BY_STRICTNESS.values()
        if (isinstance(self.trigger, NoTradeZone) and has_own_rule) or (
            self.allocator is not AllocationMethod.FIXED or self.stop is not None
        ):
            return ""
        option_texts = []
        if self.strictness is not None:
            option_texts.append(f"--tracking {self.strictness}")
        if self.band is not None:
            option_texts.append(f"--band {band_option(self.band)}")
        if self.every_s is not None:
            option_texts.append(f"--every {self.every_s}s")
        if self.destination not in (Destination.TARGET, Destination.ZONE):
            option_texts.append(f"--destination {self.destination.value}")
        return " ".join(option_texts)

    @property
    def config_text(self) -> str:
        """Keys of [policy] in a config for this trigger and destination. Raises ConfigError for a
        tracking rule of another cost than those of the strictnesses.
        """
        if self.rule_label and self.strictness is None:
            raise ConfigError(
                f"policy.trigger: a config has no {self.rule_label}",
                f"write {', '.join(STRICTNESSES)}",
            )
        band = self.band or Threshold(None, None)
        kinds = {
            "tracking": self.strictness,
            "zone": self.horizon_s,
            "hybrid": self.band and self.every_s,
            "threshold": self.band,
            "time": self.every_s,
        }
        values = {
            "kind": next(kind for kind, value in kinds.items() if value is not None),
            "strictness": self.strictness,
            "tracking_error_cost": f"{float(self.trigger.risk.cost_bps):g}bps"
            if isinstance(self.trigger, NoTradeZone) and self.horizon_s
            else None,
            "horizon": self.horizon_s and f"{self.horizon_s}s",
            "absolute": band.absolute_bps and f"{band.absolute_bps / 100:g}%",
            "relative": band.relative_bps and f"{band.relative_bps / 100:g}%",
            "every": self.every_s and f"{self.every_s}s",
        }
        keys = [f'{key} = "{value}"' for key, value in values.items() if value is not None]
        if self.is_after_tax:
            keys.append("after_tax = true")
        text = f"trigger = {{ {', '.join(keys)} }}"
        if self.destination not in (Destination.TARGET, Destination.ZONE):
            text += f'\ndestination = "{self.destination.value}"'
        return text


ZONE_COST_BPS = STRICTNESS_COST_BPS[DEFAULT_STRICTNESS]
"""Annual cost of 1 % of tracking error of every zone: that by which settings are ranked."""
RULE = PolicyChoice(build_tracking(None), Destination.ZONE)
"""The tracking rule at its default strictness."""
RULE_BY_STRICTNESS = {strictness: build_tracking(strictness) for strictness in STRICTNESS_COST_BPS}
"""The tracking rule at each strictness, the laxest first."""
STRICTNESSES = tuple(RULE_BY_STRICTNESS)


def band_option(band: Threshold) -> str:
    """Return the option text of a band: "10%rel"."""
    widths_and_suffixes = ((band.relative_bps, "rel"), (band.absolute_bps, "abs"))
    return ",".join(
        f"{bps / 100:g}%{suffix}" for bps, suffix in widths_and_suffixes if bps is not None
    )


def band_text(band: Threshold) -> str:
    """Return the display text of a band: "10 % rel"."""
    return band_option(band).replace("%", " % ").replace(",", " and ")


@dataclass(frozen=True, slots=True)
class PolicyGrid:
    """Values to combine, in order. `intervals_s` are seconds. Without `destinations` or
    `trigger_kinds` the usual ones are meant (agent/app/research/trials.py).
    """

    bands: tuple[Threshold, ...]
    intervals_s: tuple[int, ...]
    destinations: tuple[Destination, ...] = (Destination.TARGET,)
    allocators: tuple[AllocationMethod, ...] = (AllocationMethod.FIXED,)
    trigger_kinds: tuple[TriggerKind, ...] = (
        TriggerKind.BAND,
        TriggerKind.EVERY,
        TriggerKind.HYBRID,
    )
    stops: tuple[StopLevel | None, ...] = (None,)
    strictnesses: tuple[str, ...] = ()
    """Those of the tracking rule."""
    horizons_s: tuple[int, ...] = ()
    """Those of zones."""

    @property
    def setting_count(self) -> int:
        """Return the number of settings without building them."""
        band_count = len(self.bands)
        interval_count = len(self.intervals_s)
        band_setting_count = band_count * (
            TriggerKind.BAND in self.trigger_kinds
        ) + band_count * interval_count * (TriggerKind.HYBRID in self.trigger_kinds)
        interval_setting_count = interval_count * (TriggerKind.EVERY in self.trigger_kinds)
        interval_destination_count = len(self.destinations) - (
            Destination.BAND in self.destinations
        )
        return (
            len(self.allocators)
            * len(self.stops)
            * (
                band_setting_count * len(self.destinations)
                + interval_setting_count * interval_destination_count
                + len(self.strictnesses)
                + len(self.horizons_s)
            )
        )

    def choices(self) -> tuple[PolicyChoice, ...]:
        """Return all settings, grouped by allocator; pure intervals have no destination "band"."""
        return tuple(self._iterate_choices())

    def _iterate_choices(self) -> Iterator[PolicyChoice]:
        for allocator in self.allocators:
            for trigger in self._triggers():
                for destination in self.destinations:
                    if not (isinstance(trigger, Every) and destination is Destination.BAND):
                        for stop in self.stops:
                            yield PolicyChoice(trigger, destination, allocator, stop)
            for zone in self._zones():
                for stop in self.stops:
                    yield PolicyChoice(zone, Destination.ZONE, allocator, stop)

    def _zones(self) -> Iterator[NoTradeZone]:
        yield from (RULE_BY_STRICTNESS[strictness] for strictness in self.strictnesses)
        for horizon_s in self.horizons_s:
            yield NoTradeZone(TrackingRisk(ZONE_COST_BPS, horizon_s, (), ()))

    def _triggers(self) -> Iterator[Threshold | Every | HybridTrigger]:
        for band in self.bands:
            if TriggerKind.BAND in self.trigger_kinds:
                yield band
            if TriggerKind.HYBRID in self.trigger_kinds:
                yield from (HybridTrigger(band, Every(every_s)) for every_s in self.intervals_s)
        if TriggerKind.EVERY in self.trigger_kinds:
            yield from (Every(every_s) for every_s in self.intervals_s)


def require_fit_grid(grid: PolicyGrid) -> None:
    """Raise ConfigError if a grid is empty or larger than MAX_SETTINGS, or no policy may have one of
    its values.
    """
    for band in grid.bands:
        validate_band(band, "--band")
    for every_s in grid.intervals_s:
        checked_interval_s(every_s, "--every")
    for horizon_s in grid.horizons_s:
        if not MIN_HORIZON_S <= horizon_s <= MAX_HORIZON_S:
            raise ConfigError(
                f"--grid zone: {format_duration(horizon_s)} is outside the valid horizons of a zone",
                "write times from 1h to 365d",
            )
    if grid.setting_count == 0:
        raise ConfigError(
            "the grid is empty: no combination is a valid setting",
            "write for example --band 1%rel..30%rel:12 --every 1d,7d,28d",
        )
    if grid.setting_count > MAX_SETTINGS:
        raise ConfigError(
            f"the grid has {grid.setting_count:,} settings, more than {MAX_SETTINGS:,}",
            "use wider steps, or fewer values",
        )


def calendar_rule(every_s: int) -> PolicyChoice:
    """Return the baseline rule of a search for growth. Raises ConfigError naming the option."""
    return PolicyChoice(Every(checked_interval_s(every_s, "--objective calendar")))


def checked_interval_s(interval_s: int, option: str) -> int:
    """Return the interval. Raises ConfigError naming the option if no policy may have it."""
    if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
        raise ConfigError(
            f"{option}: {format_duration(interval_s)} is outside the valid intervals of a policy",
            "write times from 30m to 28d",
        )
    return interval_s
