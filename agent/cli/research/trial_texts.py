"""Texts of `trimtab tune` and `trimtab stress` as the typed options of a search and a stress test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.app import StressOptions, TuneOptions
from agent.backtest.stress.paths import STRESS_SCENARIOS, SpotScenario, SpotSeverity
from agent.backtest.tune.grid import (
    DESTINATIONS,
    NO_STOP,
    STRICTNESSES,
    PolicyGrid,
    StopLevel,
    TriggerKind,
    calendar_rule,
)
from agent.backtest.tune.statistics import Objective, WalkForwardMode
from agent.cli.research.value_texts import (
    Choice,
    FieldParsers,
    parse_fields,
    parse_fraction,
    parse_member,
)
from agent.config.tables.fields import parse_choice, parse_duration_s, parse_gas_price_wei
from agent.config.tables.triggers import parse_band
from agent.errors import ConfigError
from agent.model import (
    PRICE_ONLY_METHODS,
    AllocationMethod,
    LotMethod,
    OrderKind,
    OrdersConfig,
    Threshold,
)
from agent.units import BPS, format_bps, parse_share_with_unit_bps, whole_number

MAX_RANGE_VALUES = 10_000
_TRAILING = "trailing:"


def tune_options(grid: PolicyGrid, texts: Mapping[str, Any]) -> TuneOptions:
    """Return the options of a search over `grid`, from texts by their names. Raises ConfigError
    naming the option.
    """
    values = parse_fields(texts, _PARSERS)
    return TuneOptions(grid, **values, written_fields=values.keys())


def stress_options(paths: Mapping[str, Any], scenarios: Mapping[str, Any]) -> StressOptions:
    """Return the options of a stress test, from the texts of --paths and --scenarios by their names.
    Raises ConfigError naming the option.
    """
    severity = parse_fields(scenarios, _PARSERS)
    named_scenarios = severity.pop("scenarios", ())
    return StressOptions(
        **parse_fields(paths, _PARSERS),
        scenarios=named_scenarios,
        severity=SpotSeverity(**severity),
    )


def parse_grid(
    band: str = "",
    every: str = "",
    *,
    destination: str = "",
    allocator: str = "",
    trigger: str = "",
    stop: str = "",
    tracking: str = "",
    zone: str = "",
) -> PolicyGrid:
    """Parse the values to combine: comma-separated lists, and inclusive ranges such as
    `1%rel..30%rel:12`. `trigger` selects among bands, intervals and both together, `stop` are stops
    of each asset, `tracking` strictnesses of the tracking rule, `zone` horizons of zones. What has
    no text is empty. Raises ConfigError naming the option.
    """
    strictness_by_name = {name: name for name in STRICTNESSES}
    return PolicyGrid(
        tuple(dict.fromkeys(band for text in _split_list(band) for band in _parse_bands(text))),
        tuple(
            dict.fromkeys(
                every_s for text in _split_list(every) for every_s in _parse_intervals(text)
            )
        ),
        _choices(destination, "--grid destination", DESTINATIONS),
        _choices(allocator, "--grid allocator", PRICE_ONLY_METHODS) or (AllocationMethod.FIXED,),
        _choices(trigger, "--grid trigger", TriggerKind),
        parse_stops(stop),
        tuple(
            dict.fromkeys(
                parse_choice(text, "--grid tracking", strictness_by_name)
                for text in _split_list(tracking)
            )
        ),
        tuple(dict.fromkeys(parse_duration_s(text, "--grid zone") for text in _split_list(zone))),
    )


def _choices(text: str, option: str, members: Iterable[Choice]) -> tuple[Choice, ...]:
    return tuple(dict.fromkeys(parse_member(name, option, members) for name in _split_list(text)))


def _parse_scenarios(text: str) -> tuple[SpotScenario, ...]:
    """Parse scenarios; none stands for all that apply."""
    if text == "all":
        return ()
    if scenarios := _choices(text, "--scenarios", STRESS_SCENARIOS):
        return scenarios
    names = ", ".join(scenario.value for scenario in STRESS_SCENARIOS)
    raise ConfigError(f"--scenarios: {text!r}", f"choose from {names}, or all")


def _parse_drift(text: str) -> bool:
    return parse_choice(text, "--paths drift", {"recorded": True, "none": False})


def _parse_tax_bps(text: str) -> int:
    if text == "off":
        return 0
    rate_bps = parse_share_with_unit_bps(text, "--objective tax")
    if not 0 < rate_bps <= BPS:
        raise ConfigError(
            f"--objective tax: {text!r} is not above 0 % and at most 100 %",
            "write for example 25%, or off",
        )
    return rate_bps


_PARSERS: FieldParsers = {
    "calendar": (
        "calendar",
        lambda text: calendar_rule(parse_duration_s(text, "--objective calendar")),
    ),
    "objective": ("objective", lambda text: parse_member(text, "--objective", Objective)),
    "walk": ("walk_mode", lambda text: parse_member(text, "--walk", WalkForwardMode)),
    "lots": ("lots", lambda text: parse_member(text, "--objective lots", LotMethod)),
    "tax": ("tax_bps", _parse_tax_bps),
    "window": ("price_window_s", lambda text: parse_duration_s(text, "--grid window")),
    "rechoose": ("rechoose_s", lambda text: parse_duration_s(text, "--grid rechoose")),
    "scenarios": ("scenarios", _parse_scenarios),
    "drift": ("keeps_drift", _parse_drift),
    "block": ("mean_block_bars", lambda text: float(parse_fraction(text, "--paths block"))),
    "crash": ("crash_bps", lambda text: parse_share_with_unit_bps(text, "--scenarios crash")),
    "depeg": ("depeg_bps", lambda text: parse_share_with_unit_bps(text, "--scenarios depeg")),
    "gas_spike": ("gas_price_wei", lambda text: parse_gas_price_wei(text, "--scenarios gas-spike")),
    "thin": ("depth_part", lambda text: parse_fraction(text, "--scenarios thin")),
}


def parse_stops(stop: str) -> tuple[StopLevel | None, ...]:
    """Parse stops: shares such as `20%` or `10%..40%:4` are stop losses, `trailing:20%` is a
    trailing stop. No stop comes first, for comparison; an empty text keeps the portfolio's own.
    Raises ConfigError.
    """
    entries = _split_list(stop)
    if not entries:
        return (None,)
    levels = [level for entry in entries if entry != "off" for level in _parse_stop_levels(entry)]
    return tuple(dict.fromkeys((NO_STOP, *levels)))


def _parse_stop_levels(entry: str) -> list[StopLevel]:
    kind = OrderKind.TRAILING_STOP if entry.startswith(_TRAILING) else OrderKind.STOP_LOSS
    low_text, high_text, count = _parse_range(entry.removeprefix(_TRAILING), "--grid stop")
    low_bps, high_bps = (
        parse_share_with_unit_bps(share_text, "--grid stop") for share_text in (low_text, high_text)
    )
    min_bps = OrdersConfig().hysteresis_bps
    for share_bps in (low_bps, high_bps):
        if not min_bps < share_bps < BPS:
            raise ConfigError(
                f"--grid stop: {entry!r} is not between {format_bps(min_bps)} and 100 %",
                "write for example off,10%..40%:4,trailing:20%",
            )
    shares_bps = _spaced_values(low_bps, high_bps, count, entry, "--grid stop")
    return [StopLevel(kind, share_bps) for share_bps in shares_bps]


def _split_list(comma_separated: str) -> list[str]:
    return [entry.strip() for entry in comma_separated.split(",") if entry.strip()]


def _parse_bands(range_text: str) -> list[Threshold]:
    low_text, high_text, count = _parse_range(range_text, "--band")
    first_band = parse_band(low_text, "--band")
    last_band = parse_band(high_text, "--band")
    if (first_band.absolute_bps is None) != (last_band.absolute_bps is None):
        raise ConfigError(
            f"--band: {range_text!r} mixes a relative and an absolute band",
            "write both ends as rel or both as abs",
        )
    bands = []
    for width in _spaced_values(_width(first_band), _width(last_band), count, range_text, "--band"):
        is_relative = first_band.absolute_bps is None
        bands.append(Threshold(None, width) if is_relative else Threshold(width, None))
    return bands


def _width(band: Threshold) -> int:
    return next(width for width in (band.absolute_bps, band.relative_bps) if width is not None)


def _parse_intervals(range_text: str) -> list[int]:
    low_text, high_text, count = _parse_range(range_text, "--every")
    return _spaced_values(
        parse_duration_s(low_text, "--every"),
        parse_duration_s(high_text, "--every"),
        count,
        range_text,
        "--every",
    )


def _parse_range(range_text: str, option: str) -> tuple[str, str, int]:
    """Parse a range as (first, last, count); a single value has count one."""
    if ".." not in range_text:
        return range_text, range_text, 1
    low_text, _, high_and_count = range_text.partition("..")
    high_text, _, count_text = high_and_count.partition(":")
    count = whole_number(count_text)
    if count is None or not 2 <= count <= MAX_RANGE_VALUES:
        raise ConfigError(
            f"{option}: {range_text!r} has no number of values",
            f"write for example 1%rel..30%rel:12, 2 to {MAX_RANGE_VALUES:,}",
        )
    return low_text, high_text, count


def _spaced_values(low: int, high: int, count: int, range_text: str, option: str) -> list[int]:
    if count > 1 and high <= low:
        raise ConfigError(
            f"{option}: {range_text!r} is not ascending", "write the smaller end first"
        )
    return [
        low + round((high - low) * value_index / max(count - 1, 1)) for value_index in range(count)
    ]
