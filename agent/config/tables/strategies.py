"""[[strategies]] and [split]: several strategies over one wallet, and the band of the capital split."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.tables.fields import ConfigTable, Duration, Share, Weight
from agent.config.tables.futures import SignedShare
from agent.config.tables.triggers import TriggerTable
from agent.config.tables.weights import WeightsTable
from agent.units import BPS

DAY_S = 86_400
SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 7 * DAY_S, 730 * DAY_S
_RATIO = re.compile(r"-?[0-9]{1,2}(\.[0-9]{1,3})?")


def _parse_milli(value: object) -> int:
    """Parse "0.5" to thousandths."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _RATIO.fullmatch(text.strip()):
        raise ValueError(
            f"{value!r} is not a Sharpe ratio; write it as a decimal with at most three places,"
            " such as 0.5"
        )
    return int(Decimal(text.strip()) * 1000)


def _none_if_off(value: object) -> object:
    return None if value == "off" else value


Ratio = Annotated[int, BeforeValidator(_parse_milli)]


class HealthTable(ConfigTable):
    """Health rule. A strategy is cut to its floor if its Sharpe ratio over `window` is below
    `sharpe` for `period`, and restored once it is at least `recover` for `recover_period`.
    """

    sharpe: Ratio
    recover: Ratio
    window: Duration
    period: Duration
    recover_period: Duration

    @model_validator(mode="after")
    def _sensible(self) -> HealthTable:
        if self.recover <= self.sharpe:
            raise ValueError(
                "recover is not above sharpe: a strategy would alternate between cut and"
                " restored; write"
                " for example recover = 0.8 with sharpe = 0.5"
            )
        if not SHORTEST_WINDOW_S <= self.window <= LONGEST_WINDOW_S:
            raise ValueError(
                "window is not between 7d and 730d, as needed for a Sharpe ratio of daily returns"
            )
        if not (self.period <= LONGEST_WINDOW_S and self.recover_period <= LONGEST_WINDOW_S):
            raise ValueError("a period is longer than 730d")
        return self


class StrategyTable(ConfigTable):
    """One strategy. Its trigger, destination and cooldown default to those of [policy]."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    share: Share
    floor: Share
    weights: dict[str, Weight] | None = None
    futures: dict[str, SignedShare] = Field(default_factory=dict)
    allocator: Literal["equal"] | WeightsTable | None = None
    trigger: TriggerTable | None = None
    destination: Literal["target", "band", "halfway"] | None = None
    cooldown: Duration | None = None
    health: Annotated[HealthTable | None, BeforeValidator(_none_if_off)]

    @model_validator(mode="after")
    def _check_weights_and_shares(self) -> StrategyTable:
        if self.weights is None and self.allocator != "equal":
            raise ValueError(
                f'{self.name}: weights are missing; write for example weights = {{ WETH = "60%", USDC = "40%"'
                ' }, or allocator = "equal"'
            )
        if self.weights is not None and self.allocator == "equal":
            raise ValueError(
                f'{self.name}: allocator = "equal" needs no weights; remove one of them'
            )
        if self.weights is not None and (total := sum(self.weights.values())) != BPS:
            raise ValueError(f"{self.name}: weights sum to {total / 100:g}%, not 100%")
        if (total := sum(map(abs, self.futures.values()))) > BPS:
            raise ValueError(
                f"{self.name}: absolute futures weights sum to {total / 100:g}%; write at most 100%"
            )
        if not 0 < self.share <= BPS:
            raise ValueError(f"{self.name}: share must be above 0% and at most 100%")
        if self.floor > self.share:
            raise ValueError(
                f"{self.name}: floor {self.floor / 100:g}% is above its share of"
                f" {self.share / 100:g}%"
            )
        return self


class SplitTable(ConfigTable):
    """Band of the capital split. The split is restored beyond `absolute` points or `relative` of a
    share, whichever is narrower.
    """

    absolute: Share | None = None
    relative: Share | None = None

    @model_validator(mode="after")
    def _require_band(self) -> SplitTable:
        if self.absolute is None and self.relative is None:
            raise ValueError('a split needs absolute or relative, for example relative = "20%"')
        if 0 in (self.absolute, self.relative):
            raise ValueError(
                'a band of 0% would move capital in every cycle; write for example relative = "20%"'
            )
        return self
