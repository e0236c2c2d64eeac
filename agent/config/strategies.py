"""[[strategies]] and [split]: several strategies over one wallet, and the band of the capital
split.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.fields import ConfigTable, Duration, Share, Weight
from agent.config.futures import SignedShare
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
    health: Annotated[HealthTable | None, BeforeValidator(_off)]

    @model_validator(mode="after")
    def _whole(self) -> StrategyTable:
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
    strategies, split = config.strategies, config.split
    if not strategies:
        if split is not None:
            raise ValueError("split: there are no [[strategies]]; add them, or remove it")
        return
    if not 2 <= len(strategies) <= MAX_STRATEGIES:
        raise ValueError(
            f"strategies: {len(strategies)} given; write two to {MAX_STRATEGIES}, or none"
        )
    if split is None:
        raise ValueError(
            'split: missing; strategies need it, for example [split] with relative = "20%"'
        )
    names = [strategy.name for strategy in strategies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"strategies: the name {twice[0]} is given twice; write another name")
    if "all" in names:
        raise ValueError("strategies: 'all' is reserved; choose another name")
    if (total := sum(strategy.share for strategy in strategies)) != BPS:
        raise ValueError(f"strategies: shares sum to {total / 100:g}%, not 100%")
    symbols = [asset.symbol for asset in config.portfolio.assets]
    for strategy in strategies:
        if unknown := [symbol for symbol in strategy.weights or {} if symbol not in symbols]:
            raise ValueError(
                f"strategies.{strategy.name}.weights: {unknown[0]} is not an asset; choose from"
                f" {', '.join(symbols)}"
            )
        if isinstance(strategy.allocator, WeightsTable):
            try:
                require_weights(strategy_as_portfolio(config.portfolio, strategy))
            except ValueError as error:
                raise ValueError(
                    f"strategies.{strategy.name}: {str(error).replace('weights.', 'allocator.', 1)}"
                ) from None
    _require_markets(config)
    _require_no_wallet_settings(config)


def _require_markets(config: Config) -> None:
    """Raise ValueError if a strategy's futures weights have no market, or if their total has no
    band.
    """
    table = config.futures
    for strategy in config.strategies:
        field = f"strategies.{strategy.name}.futures"
        if not strategy.futures:
            continue
        if table is None:
            raise ValueError(f"{field}: the config has no [futures]; add it, or remove the weights")
        markets = [market.symbol for market in table.markets]
        if unknown := [symbol for symbol in strategy.futures if symbol not in markets]:
            raise ValueError(
                f"{field}: {unknown[0]} is not a futures market; choose from {', '.join(markets)}"
            )
        if "leverage_band" not in table.model_fields_set:
            raise ValueError(
                "futures.leverage_band: missing; strategies change the total notional: write for"
                ' example "20%", or "off"'
            )


def strategy_as_portfolio(table: PortfolioTable, strategy: StrategyTable) -> PortfolioTable:
    """Return the portfolio table with a strategy's weights as targets, and with its allocator."""
    weights = strategy.weights or {}
    assets = [
        asset.model_copy(update={"target": weights.get(asset.symbol, 0)}) for asset in table.assets
    ]
    allocator = strategy.allocator if isinstance(strategy.allocator, WeightsTable) else None
    return table.model_copy(update={"assets": assets, "weights": allocator})


def _require_no_wallet_settings(config: Config) -> None:
    """Raise ValueError naming field, value and remedy for settings of the whole wallet that cannot
    be combined with strategies.
    """
    policy, portfolio, lp = config.policy, config.portfolio, config.lp
    for strategy in config.strategies:
        if is_zone(strategy.trigger):
            raise ValueError(
                f"strategies.{strategy.name}.trigger: a zone needs the whole wallet; use another"
                " trigger, such as a threshold"
            )
    refused = (
        (
            "policy.trigger: a zone",
            is_zone(policy.trigger),
            "use another trigger, such as a threshold",
        ),
        ("policy.destination: zone", policy.destination == "zone", 'write destination = "target"'),
        ("policy.risk: the risk of a zone", policy.risk is not None, "remove [policy.risk]"),
        (
            (
                f"portfolio.weights: {portfolio.weights.kind if portfolio.weights else None}, the"
                " allocator of the whole portfolio,"
            ),
            portfolio.weights is not None,
            "make it the allocator of a strategy",
        ),
        (
            (
                f"portfolio.positions: {len(portfolio.positions)} of them, which strategies do not"
                " support,"
            ),
            bool(portfolio.positions),
            "remove [[portfolio.positions]]",
        ),
        (
            (
                f"lp.targets: {len(lp.targets) if lp else 0} of them, which strategies do not"
                " support,"
            ),
            lp is not None and bool(lp.targets),
            "remove [[lp.targets]]",
        ),
        (
            (
                f"execution.style: {config.execution.style}, whose slices ignore the strategies'"
                " targets,"
            ),
            config.execution.style != "market",
            'write style = "market" and remove the keys of other styles',
        ),
    )
    for setting, present, remedy in refused:
        if present:
            raise ValueError(
                f"{setting} cannot be combined with [[strategies]]; {remedy}, or"
                " remove [[strategies]]"
            )
