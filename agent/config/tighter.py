"""Which of two values of a limit is the tighter one: what an imported profile may set, and what it may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from agent.config.schema import LimitsTable

Limit = int | str | bool | None


class Tight(Enum):
    """What makes a limit tighter: less, more, either with "off" as the tightest, or being on at all. Else "off" is the loosest."""

    LESS = "less"
    MORE = "more"
    LESS_OR_OFF = "less, or off"
    MORE_OR_OFF = "more, or off"
    ON = "on"


OFF_IS_TIGHTEST = (Tight.LESS_OR_OFF, Tight.MORE_OR_OFF)


@dataclass(frozen=True, slots=True)
class Direction:
    """How a limit gets tighter; `coins` says that it is counted in the numeraire, so that only the same numeraire compares."""

    tight: Tight
    coins: bool = False


_LESS, _MORE = Direction(Tight.LESS), Direction(Tight.MORE)
DIRECTIONS: Mapping[str, Direction] = {
    "price_impact": _LESS,
    "slippage": _LESS,
    "plan_cost": _LESS,
    "turnover": _LESS,
    "daily_turnover": _LESS,
    "daily_loss": _LESS,
    "total_loss": _LESS,
    "oracle_deviation": _LESS,
    "second_quote_deviation": _LESS,
    "depeg": _LESS,
    "gas_price": _LESS,
    "gas_per_day": _LESS,
    "native_floor": _MORE,
    "native_top_up": Direction(Tight.LESS_OR_OFF),
    "head_age": _LESS,
    "min_trade": Direction(Tight.MORE, coins=True),
    "pool_min_value": Direction(Tight.MORE, coins=True),
    "impermanent_loss": _LESS,
    "lp_max_weight": _LESS,
    "balance_jump": _LESS,
    "balance_jump_wait": _MORE,
    "first_purchase": Direction(Tight.MORE_OR_OFF),
    "token_screen": Direction(Tight.ON),
    "payout_per_day": Direction(Tight.LESS, coins=True),
}
"""Every key of [limits] that a profile may have; a test compares. `i_accept` is none, since only the owner accepts
(T21), and `max_weight` is none, since it names his assets.
"""


def is_tighter(key: str, theirs: Limit, mine: Limit) -> bool:
    """Whether `theirs` binds strictly more than `mine`, both as LimitsTable reads them; None is "off"."""
    direction = DIRECTIONS.get(key)
    if direction is None or theirs == mine:
        return False
    if theirs is None or mine is None:
        return (theirs is None) is (direction.tight in OFF_IS_TIGHTEST)
    if direction.tight is Tight.ON:
        return False
    less = Decimal(theirs) < Decimal(mine)  # of two that differ
    return less is (direction.tight in (Tight.LESS, Tight.LESS_OR_OFF))


def read_limits(raw: Mapping[str, object], mine: LimitsTable) -> dict[str, Limit]:
    """The limits of a profile as LimitsTable reads them; `raw` is as its file has them. Raises pydantic's ValidationError."""
    known = {name: getattr(mine, name) for name in DIRECTIONS}
    written = {name: "off" if value is None else "on" if value is True else value for name, value in known.items()}
    texts = {name: _text(name, value) for name, value in written.items()}
    parsed = LimitsTable.model_validate({**texts, **raw})
    return {name: getattr(parsed, name) for name in raw}


def _text(name: str, value: object) -> object:
    """A parsed limit as a config would have it."""
    if not isinstance(value, int):
        return value
    return (
        f"{value} wei"
        if name == "gas_price"
        else f"{value}s"
        if name in ("head_age", "balance_jump_wait", "first_purchase")
        else f"{value}bps"
    )
