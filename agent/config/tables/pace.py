"""Keys of the execution style: immediately, in slices, over a given time, or at a price."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from agent.config.tables.fields import ConfigTable, Duration, ShareOrOff, without_spaces
from agent.units import DAY_S, written_number

ZONE_KEYWORD = "zone"
MIN_DURATION_S = 12
MAX_DURATION_S = 28 * DAY_S
MAX_SIZE_JITTER_BPS = 5_000
MAX_TIME_JITTER_BPS = 9_000
MAX_LIMIT_BPS = 2_000
STYLE_KEYS = {
    "market": (),
    "rounds": (
        "max_rounds",
        "interval",
        "recovery",
        "waiting_cost",
        "size_jitter",
        "time_jitter",
        "budget",
    ),
    "twap": ("max_rounds", "over", "size_jitter", "time_jitter", "budget"),
    "limit": ("limit", "patience"),
}
EXAMPLE_BY_KEY = {
    "max_rounds": "6",
    "interval": '"10m"',
    "recovery": '"10m"',
    "waiting_cost": '"0.5bps"',
    "size_jitter": '"30%"',
    "time_jitter": '"50%"',
    "budget": '"0.5%"',
    "over": '"6h"',
    "limit": '"0.2%"',
    "patience": '"4h"',
}


def _parse_with_unit(number_text: str, unit: str) -> Fraction | None:
    if not number_text.endswith(unit):
        return None
    try:
        return written_number(number_text.removesuffix(unit))
    except ValueError:
        return None


def _parse_bps(bps_text: str) -> Fraction | None:
    """Parse "0.5bps" or "0.005%"; None if it is neither."""
    if (percent := _parse_with_unit(bps_text, "%")) is not None:
        return percent * 100
    return _parse_with_unit(bps_text, "bps")


def _parse_bps_per_hour(config_value: object) -> Fraction | str:
    """Parse bps per hour, "0.5bps" or "0.005%", or "zone"."""
    compact_text = without_spaces(config_value)
    if compact_text == ZONE_KEYWORD:
        return ZONE_KEYWORD
    bps = _parse_bps(compact_text)
    if bps is None or bps < 0:
        raise ValueError(
            f"{config_value!r} is not a cost per hour; write the cost of one hour as a share of the"
            ' amount not yet traded, such as 0.5bps, or "zone"'
        )
    return bps


def _signed_bps(config_value: object) -> int:
    """Parse a signed share such as "0.2%", "20bps" or "-0.5%" to bps."""
    compact_text = without_spaces(config_value)
    bps = _parse_bps(compact_text)
    if bps is None or bps.denominator != 1:
        raise ValueError(
            f"{config_value!r} is not a share; write the distance from arrival prices, such as"
            ' "0.2%" (worse) or "-0.5%" (better)'
        )
    return int(bps)


BpsPerHour = Annotated[Fraction | str, BeforeValidator(_parse_bps_per_hour)]
SignedBps = Annotated[int, BeforeValidator(_signed_bps)]


class PaceTable(ConfigTable):
    """Keys of an execution style (docs/gradual-execution.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    style: Literal["market", "rounds", "twap", "limit"] = "market"
    """All at once, in slices (`rounds`, `twap`), or at a price (`limit`)."""
    max_rounds: int | None = Field(default=None, ge=2, le=24)
    """Most slices (`twap`: their number); fewer if a slice would be below limits.min_trade. Needed by
    `rounds` and `twap`.
    """
    interval: Duration | None = None
    """Mean time between two slices; needed by `rounds`."""
    recovery: Duration | None = None
    """Assumed half-life of a pool's price recovery; needed by `rounds`."""
    waiting_cost: BpsPerHour | None = None
    """Hourly cost of the amount still to trade; "zone": by the zone's risk. Needed by `rounds`."""
    size_jitter: ShareOrOff = None
    """Largest random deviation of a slice, up to 50 %; needed by `rounds` and `twap`."""
    time_jitter: ShareOrOff = None
    """Largest random deviation of a wait, up to 90 %; needed by `rounds` and `twap`."""
    budget: ShareOrOff = None
    """Largest loss of all slices against arrival prices, with gas, as a share of the amount to trade;
    needed by `rounds` and `twap`.
    """
    over: Duration | None = None
    """Duration, such as "6h"; needed by `twap`."""
    limit: SignedBps | None = None
    """How much worse than at the start prices may be ("0.2%"), or better they must be ("-0.5%");
    needed by `limit`.
    """
    patience: Duration | None = None
    """How long a rebalance waits for such prices; needed by `limit`."""
