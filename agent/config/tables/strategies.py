"""[[strategies]] and [split]: several strategies over one wallet, and the band of the capital split."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.tables.fields import ConfigTable, Duration, Share, Weight
from agent.config.tables.futures import SignedShare
from agent.config.tables.triggers import TriggerTable
from agent.config.tables.weights import AllocatorTable
from agent.units import BPS, DAY_S, format_bps

SHORTEST_WINDOW_S = 7 * DAY_S
LONGEST_WINDOW_S = 730 * DAY_S
_RATIO = re.compile(r"-?[0-9]{1,2}(\.[0-9]{1,3})?")


def _parse_milli(config_value: object) -> int:
    """Parse "0.5" to thousandths."""
    ratio_text = (
        str(config_value)
        if isinstance(config_value, int | float) and not isinstance(config_value, bool)
        else config_value
    )
    if not isinstance(ratio_text, str) or not _RATIO.fullmatch(ratio_text.strip()):
        raise ValueError(
            f"{config_value!r} is not a Sharpe ratio; write it as a decimal with at most three places,"
            " such as 0.5"
        )
    return int(Decimal(ratio_text.strip()) * 1000)


def _none_if_off(config_value: object) -> object:
    return None if config_value == "off" else config_value


Ratio = Annotated[int, BeforeValidator(_parse_milli)]


class HealthTable(ConfigTable):
    """When a strategy is paused (docs/strategies.md)."""

    sharpe: Ratio
    """Annual Sharpe ratio below which a strategy is paused."""
    recover: Ratio
    """Ratio from which it resumes."""
    window: Duration
    """Time over which the ratio is taken."""
    period: Duration
    """How long the ratio must be below `sharpe`."""
    recover_period: Duration
    """How long it must be at least `recover`."""

    @model_validator(mode="after")
    def _check_periods(self) -> HealthTable:
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
    """One strategy (docs/strategies.md)."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Its name in commands and books."""
    share: Share
    """Its share of the capital; all sum to 100 %."""
    floor: Share
    """Share of the capital that it keeps while paused."""
    weights: dict[str, Weight] | None = None
    """Weights of its own capital by symbol, sum 100 %; or `allocator`."""
    futures: dict[str, SignedShare] = Field(default_factory=dict)
    """Signed shares of its target notional by market; needs [futures]."""
    allocator: Literal["equal"] | AllocatorTable | None = None
    """"equal", or the keys of an allocator."""
    trigger: TriggerTable | None = None
    """Its trigger, no zone with a horizon; default: that of [policy]."""
    destination: Literal["target", "band", "halfway"] | None = None
    """Its destination; default: that of [policy]."""
    cooldown: Duration | None = None
    """Its cooldown; default: that of [policy]."""
    health: Annotated[HealthTable | None, BeforeValidator(_none_if_off)]
    """Rule by which it is paused, or "off"."""

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
        if self.weights is not None and (weight_sum_bps := sum(self.weights.values())) != BPS:
            raise ValueError(f"{self.name}: weights sum to {format_bps(weight_sum_bps)}, not 100 %")
        if (weight_sum_bps := sum(map(abs, self.futures.values()))) > BPS:
            raise ValueError(
                f"{self.name}: absolute futures weights sum to {format_bps(weight_sum_bps)}; write at most 100 %"
            )
        if not 0 < self.share <= BPS:
            raise ValueError(f"{self.name}: share must be above 0 % and at most 100 %")
        if self.floor > self.share:
            raise ValueError(
                f"{self.name}: floor {format_bps(self.floor)} is above its share of"
                f" {format_bps(self.share)}"
            )
        return self


class SplitTable(ConfigTable):
    """Band of the capital split; of two the narrower counts (docs/strategies.md)."""

    absolute: Share | None = None
    """Drift of a strategy's share in points of the capital at which the split is restored."""
    relative: Share | None = None
    """The same as a share of its share."""

    @model_validator(mode="after")
    def _require_band(self) -> SplitTable:
        if self.absolute is None and self.relative is None:
            raise ValueError('a split needs absolute or relative, for example relative = "20%"')
        if 0 in (self.absolute, self.relative):
            raise ValueError(
                'a band of 0% would move capital in every cycle; write for example relative = "20%"'
            )
        return self
