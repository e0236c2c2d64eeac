"""Documents of commands that work on recorded data (whatif, backtest, stress, tune, replay, prices),
of the backtest of an edit, and of kept reports.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import Address, Decimal, one_of
from agent.app.documents.status import LeastTotalDocument

TriedSettingsDocument = TypedDict("TriedSettingsDocument", {
    "return": Decimal, "max_drawdown": Decimal, "rebalances": int, "costs": Decimal,
})  # fmt: skip
"""Shares are decimals, costs in the numeraire."""


class ExcessDocument(TypedDict):
    """Excess log growth a year with its 95 % interval; `beyond_chance` is True if zero is outside
    of it.
    """

    mean: Decimal
    low: Decimal
    high: Decimal
    periods: int
    beyond_chance: bool


class NeighbouringSettingsDocument(TypedDict):
    """Settings around the edited ones. `walk_forward` is the excess over holding, in each following
    period, of the setting that was best until then. `overfitting` is the share of the `ways` to
    split the days into halves in which the best setting of one half was below the median in the
    other.
    """

    settings: int
    folds: int
    walk_forward: ExcessDocument | None
    overfitting: Decimal | None
    ways: int


EditBacktestDocument = TypedDict("EditBacktestDocument", {
    "source": str, "from": str, "until": str, "days": int, "numeraire": str, "start_value": Decimal,
    "edited": TriedSettingsDocument, "present": TriedSettingsDocument, "held_return": Decimal,
    "held_max_drawdown": Decimal, "over_present": ExcessDocument | None,
    "over_holding": ExcessDocument | None, "around": NeighbouringSettingsDocument | None,
    "notes": list[str], "edited_hash": str, "present_hash": str, "data_hash": str,
})  # fmt: skip
"""The settings of an edit over past prices, against the present settings and holding."""


class ReportFigureDocument(TypedDict):
    """One of the main figures of a report, as text."""

    name: str
    value: str


class KeptReportDocument(TypedDict):
    """A report by the name of its file; `made` is UTC."""

    name: str
    kind: str
    title: str
    made: str
    bytes: int
    figures: list[ReportFigureDocument]


class KeptReportsDocument(TypedDict):
    """Reports of a folder, newest first; `skipped` lists why others are not shown."""

    folder: str
    reports: list[KeptReportDocument]
    skipped: list[str]


ChosenActionDocument = TypedDict(
    "ChosenActionDocument", {"kind": Annotated[str, one_of("hold", "rebalance")], "reason": str}
)
ValuedAssetDocument = TypedDict("ValuedAssetDocument", {
    "symbol": str, "value": Decimal, "weight_bps": int, "target_bps": int, "drift_bps": int,
    "band_bps": list[int] | None, "outside": bool,
})  # fmt: skip
AlertPriceDocument = TypedDict("AlertPriceDocument", {
    "price": Decimal, "low": Decimal | None, "high": Decimal | None,
    "low_change_percent": Decimal | None, "high_change_percent": Decimal | None,
    "low_missing_reason": str, "high_missing_reason": str,
})  # fmt: skip
"""Prices at which an asset leaves its band if its price moves alone. A missing price has a reason;
other reasons are empty.
"""


class FuturesMarketDocument(TypedDict):
    """One market: notional, weight, order. Amounts are in the unit of the values given on the
    command line, sizes in contracts at the given price, by default 1.
    """

    symbol: str
    notional: str
    weight_bps: int
    target_bps: int
    drift_bps: int
    order_notional: str
    order_size: str
    size_after: str
    liquidation_price: str | None


class HedgeDocument(TypedDict):
    """An overweight spot asset: amounts sold, shorted instead, and left exposed. With --horizon,
    also whether to sell or short the share that may be shorted, and the cost of each.
    """

    symbol: str
    excess: str
    sell: str
    short: str
    net_exposure: str
    cost_of_sale: NotRequired[str]
    cost_of_hedge: NotRequired[str]
    reason: NotRequired[str]


class FuturesWhatIfDocument(TypedDict):
    """The futures part of `whatif`. Multiples and shares are decimals, None if the account or the
    spot portfolio has no value. `trades` are the spot trades beside the hedges, `net_exposure` is
    that after these trades and all orders.
    """

    gross: str
    long: str
    short: str
    net: str
    margin: str
    leverage: str | None
    utilisation: str | None
    maintenance: str
    spot_multiple: str | None
    triggers: list[str]
    breaches: list[dict[str, str]]
    allowed_gross: str
    markets: list[FuturesMarketDocument]
    hedges: list[HedgeDocument]
    trades: dict[str, str]
    net_exposure: dict[str, str]


class WhatIfDocument(TypedDict):
    """Drift, trades and alert prices for values given on the command line; trades and prices by
    symbol.
    """

    total: Decimal
    triggered: list[str]
    decision: ChosenActionDocument
    trades: dict[str, Decimal]
    to_target: dict[str, Decimal]
    weights_bps: dict[str, int]
    assets: list[ValuedAssetDocument]
    alert_prices: dict[str, AlertPriceDocument]
    alert_note: str
    least_total: list[LeastTotalDocument]
    warnings: list[str]
    futures: NotRequired[FuturesWhatIfDocument]


CostsDocument = TypedDict(
    "CostsDocument", {"fees": Decimal, "impact": Decimal, "gas": Decimal, "total": Decimal}
)
PathFiguresDocument = TypedDict("PathFiguresDocument", {
    "cagr": Decimal | None, "volatility": Decimal | None, "sharpe": Decimal | None,
    "max_drawdown": Decimal | None,
})  # fmt: skip
BothFiguresDocument = TypedDict(
    "BothFiguresDocument", {"rebalanced": PathFiguresDocument, "held": PathFiguresDocument}
)
CarryDocument = TypedDict("CarryDocument", {
    "carry": Decimal, "yearly_rate": Decimal | None, "notional": Decimal, "intervals": int,
    "from": int, "until": int,
})  # fmt: skip
"""Funding of one holding; `yearly_rate` is a share of `notional`, `intervals` counts payments."""
CarriesDocument = TypedDict("CarriesDocument", {
    "total": Decimal, "yearly_rate": Decimal | None, "intervals": int,
    "assets": dict[str, CarryDocument], "data_hash": str,
})  # fmt: skip
SimulatedTradeDocument = TypedDict("SimulatedTradeDocument", {
    "time": int, "turnover": Decimal, "fees": Decimal, "impact": Decimal, "gas": Decimal,
    "succeeded": bool,
})  # fmt: skip
SimulatedFlowDocument = TypedDict(
    "SimulatedFlowDocument", {"time": int, "value": Decimal, "before": Decimal}
)
RealisedGainsDocument = TypedDict("RealisedGainsDocument", {
    "lot_rule": str, "years": dict[str, Decimal], "futures": NotRequired[dict[str, Decimal]],
})  # fmt: skip
"""Gains less losses by calendar year; `futures` has those of the margin account."""
DelistedHoldingDocument = TypedDict("DelistedHoldingDocument", {
    "symbol": str, "amount": Decimal, "price": Decimal, "time": int, "value": Decimal,
    "share": Decimal | None,
})  # fmt: skip
"""A holding whose prices ended, at its last price and the time of that price. `share` is that of
the final value.
"""


class BookFiguresDocument(TypedDict):
    """Annual growth, volatility, Sharpe ratio and maximum drawdown; null if unknown."""

    cagr: str | None
    volatility: str | None
    sharpe: str | None
    max_drawdown: str | None


class BookProfitDocument(TypedDict):
    """Components of the change in value: total = price - slippage - funding - fees - penalties +
    insured.
    """

    total: str
    price: str
    slippage: str
    funding: str
    fees: str
    penalties: str
    insured: str


class FuturesFillDocument(TypedDict):
    """A filled order; a negative size is a sale."""

    time: int
    symbol: str
    size: str
    notional: str
    fee: str
    trigger: str


class LiquidationDocument(TypedDict):
    """A liquidation by the venue: size closed and penalty."""

    time: int
    symbol: str
    size: str
    penalty: str


class FuturesBookDocument(TypedDict):
    """One book. `max_leverage` is null if the account value reached zero with open positions. A bar
    counts as above the limit by its leverage after fills.
    """

    final_value: str
    profit: BookProfitDocument
    figures: BookFiguresDocument
    max_leverage: str | None
    bars_above_limit: int
    longest_above_limit: int
    deposited: str
    sizes: dict[str, str]
    fills: list[FuturesFillDocument]
    liquidations: list[LiquidationDocument]
    unfilled: dict[str, int]
    refused: dict[str, int]


class SimulatedHedgeDocument(TypedDict):
    """A hedge: its initial size, opening and closing times and reasons. `closed` is null while it
    is open. `profit` is the profit of its fills without funding; null if a part was liquidated.
    """

    symbol: str
    size: str
    opened: int
    closed: int | None
    profit: str | None
    reason: str
    end: str


class StrategyHealthDocument(TypedDict):
    """A strategy's health from a point in time. `sharpe` is null until its window is full."""

    time: int
    name: str
    health: str
    sharpe: Decimal | None
    reason: str


# "from" is a keyword, so the declaration is a call.
FuturesBacktestDocument = TypedDict(
    "FuturesBacktestDocument",
    {
        "from": int,
        "until": int,
        "bars": int,
        "start_value": str,
        "max_leverage": str,
        "agent": FuturesBookDocument,
        "held": FuturesBookDocument,
        "hedges": list[SimulatedHedgeDocument],
        "notes": list[str],
        "config_hash": str,
        "data_hash": str,
        "seed": int,
        "versions": dict[str, str],
    },
)
"""The futures part of `backtest`: the book with the agent, and a book that holds the same initial
positions. Values are decimals in the unit of the prices.
"""
BacktestDocument = TypedDict("BacktestDocument", {
    "final_value": Decimal, "hold_value": Decimal, "start_value": Decimal, "twr": Decimal,
    "hold_twr": Decimal, "numeraire": str, "rebalances": int, "turnover": Decimal,
    "costs": CostsDocument, "gas_counted": bool, "figures": BothFiguresDocument,
    "rebalancing_premium": dict[str, Decimal] | None, "funding": CarriesDocument | None,
    "from": int, "until": int, "bars": int, "evaluated_bars": int, "halted_bars": int,
    "refused": dict[str, int], "held_back": dict[str, int], "weights_bps": dict[str, int],
    "trades": list[SimulatedTradeDocument], "flows": list[SimulatedFlowDocument],
    "realised_gains": RealisedGainsDocument, "delisted": list[DelistedHoldingDocument],
    "notes": list[str],
    "strategies": NotRequired[list[StrategyHealthDocument]],
    "health": NotRequired[list[StrategyHealthDocument]],
    "config_hash": str, "data_hash": str, "seed": int, "versions": dict[str, str],
    "report": NotRequired[list[str]], "futures": NotRequired[FuturesBacktestDocument],
})  # fmt: skip
"""Values are in the numeraire, times in Unix seconds. `evaluated_bars` went through a whole step.
`refused` counts refused plans by reason; `held_back` counts, by setting, bars at which a trade was
due but the step held. `strategies` has the final health of each strategy, `health` the changes;
both are missing without strategies.
"""
OnlyFuturesBacktestDocument = TypedDict(
    "OnlyFuturesBacktestDocument",
    {"futures": FuturesBacktestDocument, "report": NotRequired[list[str]]},
)


DistributionDocument = TypedDict("DistributionDocument", {
    "mean": Decimal, "worst": Decimal, "expected_shortfall": Decimal,
    "quantiles": dict[str, Decimal],
})  # fmt: skip
StressCaseDocument = TypedDict("StressCaseDocument", {
    "name": str, "engine": str, "paths": int,
    "return": DistributionDocument | None, "end_value": DistributionDocument | None,
    "loss": DistributionDocument | None, "drawdown": DistributionDocument | None,
    "behind_hold": DistributionDocument | None, "turnover": DistributionDocument | None,
    "outside_bands": DistributionDocument | None,
    "rebalances": int, "halted_bars": int, "refused": dict[str, int],
})  # fmt: skip
"""A scenario over its paths, run by the `engine` kernel or step. Counts are over all paths."""


class StressedBookDocument(TypedDict):
    """One book over the paths of a case. Losses are shares of the start value; a gain is
    negative.
    """

    mean_loss: str
    worst_loss: str
    liquidated_paths: int
    longest_above_limit: int


class FuturesCaseDocument(TypedDict):
    """A scenario over its paths."""

    name: str
    paths: int
    agent: StressedBookDocument
    held: StressedBookDocument


class FuturesStressDocument(TypedDict):
    """The futures part of `stress`: losses in each scenario, of the book with the agent and of a
    book that holds the same initial positions.
    """

    bars: int
    start_value: str
    max_leverage: str
    cases: list[FuturesCaseDocument]
    config_hash: str
    data_hash: str
    seed: int
    versions: dict[str, str]


StressDocument = TypedDict("StressDocument", {
    "cases": list[StressCaseDocument], "skipped": dict[str, str], "bars": int, "interval_s": int,
    "return_count": int, "bootstrap_block_length": Decimal, "jumps_per_bar": Decimal,
    "kernel_difference": str | None, "notes": list[str], "parameters": dict[str, str],
    "seed": int, "config_hash": str, "data_hash": str, "versions": dict[str, str],
    "report": NotRequired[list[str]], "futures": NotRequired[FuturesStressDocument],
})  # fmt: skip
"""`skipped` has the reason of each scenario that did not apply. Paths are made from `return_count`
recorded returns, in blocks of this mean length. `kernel_difference` is the largest relative
difference between the final values of the kernel and of the live step.
"""
OnlyFuturesStressDocument = TypedDict(
    "OnlyFuturesStressDocument",
    {"futures": FuturesStressDocument, "report": NotRequired[list[str]]},
)


ChoiceDocument = TypedDict("ChoiceDocument", {
    "label": str, "backtest_options": str, "band_relative_bps": int | None,
    "band_absolute_bps": int | None, "every_s": int | None, "destination": str, "allocator": str,
})  # fmt: skip
"""A setting; `backtest_options` are the options of `trimtab backtest` that run it."""


class RankedChoiceDocument(ChoiceDocument):
    """A setting with its results on the first three quarters."""

    objective: Decimal
    over_hold: Decimal
    final_value: Decimal
    turnover: Decimal
    costs: Decimal
    rebalances: int


ExcessIntervalDocument = TypedDict("ExcessIntervalDocument", {
    "over": str, "mean": Decimal | None, "low": Decimal | None, "high": Decimal | None,
    "level": Decimal, "periods": int | None, "bootstrap_block_length": Decimal | None,
})  # fmt: skip
"""Mean excess log growth a year over a benchmark, with its confidence interval at `level`."""
LastQuarterDocument = TypedDict("LastQuarterDocument", {
    "excess_intervals": list[ExcessIntervalDocument], "final_value": Decimal,
    "calendar_value": Decimal, "hold_value": Decimal, "settings_judged": int, "costs": Decimal,
    "rebalances": int,
})  # fmt: skip
FoldDocument = TypedDict("FoldDocument", {
    "chosen": str, "in_sample": Decimal, "out_of_sample": Decimal, "over_hold": Decimal,
    "over_calendar": Decimal, "periods": int,
})  # fmt: skip
"""One fold: the chosen setting's objective in the periods before it and in its own, and its excess
log growth a year.
"""
WalkForwardDocument = TypedDict("WalkForwardDocument", {
    "window_mode": str, "folds": list[FoldDocument],
    "excess_intervals": list[ExcessIntervalDocument],
})  # fmt: skip
"""The window of past data is anchored or rolling; the intervals are of all folds together."""
DeflatedSharpeDocument = TypedDict("DeflatedSharpeDocument", {
    "sharpe": Decimal, "threshold": Decimal, "trials": int, "probability": Decimal,
})  # fmt: skip
OverfittingDocument = TypedDict(
    "OverfittingDocument", {"probability": Decimal, "ways": int, "blocks": int}
)
NeighboursDocument = TypedDict("NeighboursDocument", {
    "count": int, "mean_fall": Decimal, "largest_fall": Decimal, "fall_to_median": Decimal,
})  # fmt: skip
"""Falls of the objective from the best setting to its neighbours, and to the median of all."""
StabilityDocument = TypedDict("StabilityDocument", {
    "row_name": str, "column_name": str, "rows": list[str], "columns": list[str],
    "values": list[list[Decimal | None]], "best": list[int],
    "neighbours": NeighboursDocument | None,
})  # fmt: skip
TuneDocument = TypedDict("TuneDocument", {
    "recommendation": ChoiceDocument | None, "verdict": list[str], "safe_default": str,
    "best": RankedChoiceDocument, "settings": int, "engines": dict[str, int], "resumed": int,
    "objective": str, "numeraire": str, "bars": int, "from": int, "last_quarter_from": int,
    "until": int, "period_s": int, "calendar": ChoiceDocument,
    "last_quarter": LastQuarterDocument, "walk_forward": WalkForwardDocument,
    "deflated_sharpe": DeflatedSharpeDocument | None, "overfitting": OverfittingDocument | None,
    "stability": StabilityDocument, "ranked": list[RankedChoiceDocument], "notes": list[str],
    "grid_hash": str, "config_hash": str, "data_hash": str, "seed": int, "version": str,
    "report": NotRequired[list[str]],
})  # fmt: skip


DifferenceDocument = TypedDict("DifferenceDocument", {"what": str, "recorded": Any, "now": Any})
"""A value of the plan, or the decision or reason, as recorded and as computed now."""


class ReplayedStepDocument(TypedDict):
    """A recorded step and the result of its replay; an unreadable file has only a reason. A step of
    the policy has no `requested_by`. `more_differences` counts those that are not listed.
    """

    file: str
    result: Annotated[str, one_of("same", "reworded", "different", "by hand", "unreadable")]
    why: NotRequired[str]
    step: NotRequired[str]
    time: NotRequired[str]
    block: NotRequired[int]
    chain_id: NotRequired[int]
    version: NotRequired[str]
    book_kind: NotRequired[str]
    config: NotRequired[str]
    decision: NotRequired[str | None]
    reason: NotRequired[str | None]
    outcome: NotRequired[str]
    requested_by: NotRequired[str | None]
    differs: NotRequired[list[DifferenceDocument]]
    more_differences: NotRequired[int]


ReplayDocument = TypedDict("ReplayDocument", {
    "folder": str, "version": str, "steps": list[ReplayedStepDocument],
    "same": int, "reworded": int, "different": int, "by_hand": int, "unreadable": int,
    "exit": Literal[0, 2, 14],
})  # fmt: skip


PriceSpanDocument = TypedDict("PriceSpanDocument", {
    "symbol": str, "address": Address, "source": str, "hours": int, "from_s": int, "until_s": int,
})  # fmt: skip
PricesDocument = TypedDict("PricesDocument", {
    "numeraire": str, "retention_s": int, "prices": list[PriceSpanDocument], "missing": list[str],
})  # fmt: skip
ImportedSeriesDocument = TypedDict("ImportedSeriesDocument", {
    "symbol": str, "rows": int, "hours": int, "new": int, "from_s": int | None,
    "until_s": int | None, "interval_s": int, "gaps": int, "longest_gap_s": int,
})  # fmt: skip
ImportedPricesDocument = TypedDict("ImportedPricesDocument", {
    "file": str, "unit": str, "checked_only": bool, "skipped": list[str],
    "prices": list[ImportedSeriesDocument], "sha256": str,
})  # fmt: skip
"""Imported prices; `sha256` is that of a file of [data], else empty."""
FetchedSeriesDocument = TypedDict("FetchedSeriesDocument", {
    "symbol": str, "source": str, "hours": int, "new": int, "from_s": int | None,
    "until_s": int | None, "why": str,
})  # fmt: skip
FetchedPricesDocument = TypedDict(
    "FetchedPricesDocument", {"lookback_s": int, "prices": list[FetchedSeriesDocument]}
)
