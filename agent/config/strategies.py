"""[[strategies]] and [split]: several strategies over one wallet, their assets, and the restoring
of the capital split.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.fields import ConfigTable, Duration, Share, Weight
from agent.config.triggers import TriggerTable, is_zone
from agent.config.weights import WeightsTable, require_weights
from agent.units import BPS

if TYPE_CHECKING:
    from agent.config.schema import Config, PortfolioTable


DAY_S = 86_400
SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 7 * DAY_S, 730 * DAY_S
MAX_STRATEGIES = 12
_RATIO = re.compile(r"-?[0-9]{1,2}(\.[0-9]{1,3})?")


def _milli(value: object) -> int:
    """Parse "0.5" to thousandths."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _RATIO.fullmatch(text.strip()):
        raise ValueError(
            f"{value!r} is not a Sharpe ratio; write it as a decimal with at most three places,"
            " such as 0.5"
        )
    return int(Decimal(text.strip()) * 1000)


def _off(value: object) -> object:
    return None if value == "off" else value


Ratio = Annotated[int, BeforeValidator(_milli)]


class HealthTable(ConfigTable):
    """Health rule: a Sharpe ratio over `window` below `sharpe` for `period` cuts a strategy to its
    floor.

    At `recover` for `recover_period` it is restored.
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
                "recover is not above sharpe: a strategy would be cut and let back by turns; write"
                " for example 0.8 for 0.5"
            )
        if not SHORTEST_WINDOW_S <= self.window <= LONGEST_WINDOW_S:
            raise ValueError("window is from 7d to 730d: a Sharpe ratio is made of daily returns")
        if not (self.period <= LONGEST_WINDOW_S and self.recover_period <= LONGEST_WINDOW_S):
            raise ValueError("a period is at most 730d")
        return self


class StrategyTable(ConfigTable):
    """One strategy. Its trigger, destination and cooldown default to those of [policy]."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    share: Share
    floor: Share
    weights: dict[str, Weight] | None = None
    allocator: Literal["equal"] | WeightsTable | None = None
    trigger: TriggerTable | None = None
    destination: Literal["target", "band", "halfway"] | None = None
    cooldown: Duration | None = None
    health: Annotated[HealthTable | None, BeforeValidator(_off)]

    @model_validator(mode="after")
    def _whole(self) -> StrategyTable:
        if self.weights is None and self.allocator != "equal":
            raise ValueError(
                f'{self.name}: weights lack, for example weights = {{ WETH = "60%", USDC = "40%"'
                ' }, or allocator = "equal"'
            )
        if self.weights is not None and self.allocator == "equal":
            raise ValueError(f'{self.name}: allocator = "equal" needs no weights; take either away')
        if self.weights is not None and (total := sum(self.weights.values())) != BPS:
            raise ValueError(f"{self.name}: weights sum to {total / 100:g}%, not 100%")
        if not 0 < self.share <= BPS:
            raise ValueError(f"{self.name}: share is above 0% and at most 100%")
        if self.floor > self.share:
            raise ValueError(
                f"{self.name}: floor {self.floor / 100:g}% is above its share of"
                f" {self.share / 100:g}%"
            )
        return self


class SplitTable(ConfigTable):
    """Band that restores the split of capital: beyond `absolute` points or `relative` of a share,
    whichever is narrower.
    """

    absolute: Share | None = None
    relative: Share | None = None

    @model_validator(mode="after")
    def _given(self) -> SplitTable:
        if self.absolute is None and self.relative is None:
            raise ValueError('a split needs absolute or relative, for example relative = "20%"')
        if 0 in (self.absolute, self.relative):
            raise ValueError(
                'a band of 0% would move capital in every cycle; write for example relative = "20%"'
            )
        return self


def require_strategies(config: Config) -> None:
    """Raise ValueError naming field and remedy if strategies cannot share the wallet."""
    found, split = config.strategies, config.split
    if not found:
        if split is not None:
            raise ValueError(
                "split: there are no [[strategies]] to split capital over; add them, or remove it"
            )
        return
    if not 2 <= len(found) <= MAX_STRATEGIES:
        raise ValueError(
            f"strategies: {len(found)} of them; between two and {MAX_STRATEGIES} share a wallet,"
            " and one alone needs no table"
        )
    if split is None:
        raise ValueError(
            'split: missing; strategies need it, for example [split] with relative = "20%"'
        )
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"strategies: the name {twice[0]} is given twice; each once")
    if "all" in names:
        raise ValueError("strategies: 'all' is reserved for every strategy; choose another name")
    if (total := sum(one.share for one in found)) != BPS:
        raise ValueError(f"strategies: shares sum to {total / 100:g}%, not 100%")
    symbols = [asset.symbol for asset in config.portfolio.assets]
    for one in found:
        if strange := [symbol for symbol in one.weights or {} if symbol not in symbols]:
            raise ValueError(
                f"strategies.{one.name}.weights: {strange[0]} is not an asset; choose from"
                f" {', '.join(symbols)}"
            )
        if isinstance(one.allocator, WeightsTable):
            try:
                require_weights(strategy_as_portfolio(config.portfolio, one))
            except ValueError as error:
                raise ValueError(
                    f"strategies.{one.name}: {str(error).replace('weights.', 'allocator.', 1)}"
                ) from None
    _require_alone(config)


def strategy_as_portfolio(table: PortfolioTable, one: StrategyTable) -> PortfolioTable:
    """The portfolio with one strategy's weights as targets and its allocator."""
    weights = one.weights or {}
    assets = [
        asset.model_copy(update={"target": weights.get(asset.symbol, 0)}) for asset in table.assets
    ]
    return table.model_copy(
        update={
            "assets": assets,
            "weights": one.allocator if isinstance(one.allocator, WeightsTable) else None,
        }
    )


def _require_alone(config: Config) -> None:
    """Reject settings that decide for the whole wallet together with strategies. Raises ValueError
    naming field, value and remedy.
    """
    policy, portfolio, lp = config.policy, config.portfolio, config.lp
    for one in config.strategies:
        if is_zone(one.trigger):
            raise ValueError(
                f"strategies.{one.name}.trigger: a zone weighs the risk of the whole wallet; write"
                " another trigger, such as a threshold"
            )
    refused = (
        (
            "policy.trigger: a zone",
            is_zone(policy.trigger),
            "write another trigger, such as a threshold",
        ),
        ("policy.destination: zone", policy.destination == "zone", 'write destination = "target"'),
        ("policy.risk: the risk of a zone", policy.risk is not None, "take [policy.risk] away"),
        (
            (
                f"portfolio.weights: {portfolio.weights.kind if portfolio.weights else None}, an"
                " allocator of the whole"
            ),
            portfolio.weights is not None,
            "give it to a strategy as its allocator",
        ),
        (
            (
                f"portfolio.positions: {len(portfolio.positions)} of them, which strategies do not"
                " account for"
            ),
            bool(portfolio.positions),
            "take [[portfolio.positions]] away",
        ),
        (
            (
                f"lp.targets: {len(lp.targets) if lp else 0} of them, which strategies do not"
                " account for"
            ),
            lp is not None and bool(lp.targets),
            "take [[lp.targets]] away",
        ),
        (
            (
                f"execution.style: {config.execution.style}, whose slices do not keep the"
                " strategies' targets"
            ),
            config.execution.style != "market",
            'write style = "market" and take its other keys away',
        ),
    )
    for what, there, remedy in refused:
        if there:
            raise ValueError(
                f"{what}, does not go with [[strategies]]; {remedy}, or leave [[strategies]] out"
            )
