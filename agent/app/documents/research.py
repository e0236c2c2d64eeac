"""Documents of commands that compute without sending: prices, futures in whatif, backtest and stress,
the backtest of an edit, and kept reports.
"""

from __future__ import annotations

from math import isnan
from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    Address,
    ConvertedBy,
    DecimalText,
    FromAttributes,
    StartDate,
    StartTime,
    TotalReturn,
)
from agent.units import decimal_text


class SettingsResultDocument(TotalReturn, TypedDict):
    """Backtest of one config: return and drawdown as decimal shares, costs in the numeraire."""

    max_drawdown: DecimalText
    rebalances: int
    costs: DecimalText


class ExcessGrowthDocument(TypedDict):
    """Mean excess log growth a year over a benchmark, with its 95 % interval (`low`, `high`) from
    `periods` returns. `beyond_chance` is True if the interval excludes zero.
    """

    mean: DecimalText
    low: DecimalText
    high: DecimalText
    periods: int
    beyond_chance: bool


class NeighbouringSettingsDocument(TypedDict):
    """Backtests of `settings` neighbours of the edited settings. `walk_forward` is the excess over
    holding of the setting that was best in the folds before, in each fold. `overfitting` is the
    probability of over-fitting: of `split_count` splits of the days into halves, the share in which the
    best setting of one half is below the median of the other.
    """

    settings: int
    folds: int
    walk_forward: ExcessGrowthDocument | None
    overfitting: DecimalText | None
    split_count: int


class EditBacktestDocument(StartDate, TypedDict):
    """Backtest of the edited settings against the present ones and buy and hold. `held_return` and
    `held_max_drawdown` are those of holding, `over_present` and `over_holding` the excess of the edited
    settings over each, `neighbours` the neighbouring settings. The hashes are those of the two configs and
    of the prices.
    """

    source: str
    until: str
    days: int
    numeraire: str
    start_value: DecimalText
    edited: SettingsResultDocument
    present: SettingsResultDocument
    held_return: DecimalText
    held_max_drawdown: DecimalText
    over_present: ExcessGrowthDocument | None
    over_holding: ExcessGrowthDocument | None
    neighbours: NeighbouringSettingsDocument | None
    notes: list[str]
    edited_hash: str
    present_hash: str
    data_hash: str


class ReportFigureDocument(TypedDict):
    """One of the main figures of a report, as text."""

    name: str
    value: str


class KeptReportDocument(TypedDict):
    """A kept report: file name, command (`kind`), time of creation in UTC (`created`), file size in
    bytes and main figures.
    """

    name: str
    kind: str
    title: str
    created: str
    bytes: int
    figures: list[ReportFigureDocument]


class KeptReportsDocument(TypedDict):
    """Reports of a folder, newest first; `skipped` has the reason for each report not listed."""

    folder: str
    reports: list[KeptReportDocument]
    skipped: list[str]


class WhatIfMarketDocument(TypedDict):
    """One futures market: signed notional, weight, drift and order. Amounts are in the unit of the
    values given on the command line, sizes in contracts at the given price, by default 1.
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


class WhatIfHedgeDocument(TypedDict):
    """Sale of an overweight spot asset, and its hedge. Of the `excess` above the target, `sell` is
    sold and `short` is shorted instead; `net_exposure` remains. With a horizon also the cost of both
    and the reason for the choice.
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
    """The futures part of `whatif`. `gross`, `long`, `short` and `net` are notionals, `margin` is
    the account value, `maintenance` the maintenance margin, `allowed_gross` the gross notional
    after the reductions that the limits demand, `gross_after` and `leverage_after` are those after
    all orders, hedges included, and `notes` say which orders are cut or left out.
    `spot_multiple` is gross notional per spot value.
    Multiples and shares are decimals, None if the account or the spot portfolio has no value.
    `breaches` has limit, measured and allowed value of each broken limit. `trades` are the spot
    trades beside the hedges, `net_exposure` is by symbol after these trades and all orders.
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
    gross_after: str
    leverage_after: str | None
    notes: list[str]
    markets: list[WhatIfMarketDocument]
    hedges: list[WhatIfHedgeDocument]
    trades: dict[str, str]
    net_exposure: dict[str, str]


QuoteCoins = Annotated[
    str, ConvertedBy(lambda amount_raw, quote: decimal_text(amount_raw, quote.decimals))
]
"""Whole coins of a venue's quote currency, from base units."""
Ratio = Annotated[str, ConvertedBy(lambda ratio, _: f"{ratio:.6f}")]
RatioOrNull = Annotated[
    str | None, ConvertedBy(lambda ratio, _: None if isnan(ratio) else f"{ratio:.6f}")
]
"""Null for NaN."""
CountByReason = Annotated[
    dict[str, int], ConvertedBy(lambda reasons_and_counts, _: dict(reasons_and_counts))
]
ChainTime = Annotated[int, FromAttributes("time_s")]


class FuturesFiguresDocument(TypedDict):
    """Annual growth, volatility, Sharpe ratio and maximum drawdown of a futures book; null if
    unknown.
    """

    cagr: RatioOrNull
    volatility: RatioOrNull
    sharpe: RatioOrNull
    max_drawdown: RatioOrNull


class FuturesProfitDocument(TypedDict):
    """Components of a futures book's change in value: total = price - slippage - funding - fees -
    penalties + insured.
    """

    total: Annotated[QuoteCoins, FromAttributes("total_raw")]
    price: Annotated[QuoteCoins, FromAttributes("price_gain_raw")]
    slippage: Annotated[QuoteCoins, FromAttributes("slippage_raw")]
    funding: Annotated[QuoteCoins, FromAttributes("funding_raw")]
    fees: Annotated[QuoteCoins, FromAttributes("fees_raw")]
    penalties: Annotated[QuoteCoins, FromAttributes("penalties_raw")]
    insured: Annotated[QuoteCoins, FromAttributes("insured_raw")]


class SimulatedFillDocument(TypedDict):
    """A filled order; a negative size is a sale."""

    time: ChainTime
    symbol: str
    size: Annotated[QuoteCoins, FromAttributes("size_raw")]
    notional: Annotated[QuoteCoins, FromAttributes("notional_raw")]
    fee: Annotated[QuoteCoins, FromAttributes("fee_raw")]
    trigger: str


class LiquidationDocument(TypedDict):
    """A liquidation by the venue: size closed and penalty."""

    time: ChainTime
    symbol: str
    size: Annotated[QuoteCoins, FromAttributes("size_raw")]
    penalty: Annotated[QuoteCoins, FromAttributes("penalty_raw")]


class FuturesBookDocument(TypedDict):
    """Simulated margin account with its positions. `max_leverage` is the highest leverage reached,
    null if the account value reached zero with open positions. `bars_above_limit` counts bars whose
    leverage after fills exceeds the limit, `longest_above_limit` the longest run of them.
    `unfilled` counts the orders that the venue would not fill, `refused` those that were cut or left
    out before, both by reason.
    """

    final_value: Annotated[QuoteCoins, FromAttributes("final_value_raw")]
    profit: FuturesProfitDocument
    figures: FuturesFiguresDocument
    max_leverage: Annotated[Ratio | None, FromAttributes("highest_leverage")]
    bars_above_limit: int
    longest_above_limit: int
    deposited: Annotated[QuoteCoins, FromAttributes("deposited_raw")]
    sizes: dict[str, str]
    fills: list[SimulatedFillDocument]
    liquidations: list[LiquidationDocument]
    unfilled: Annotated[CountByReason, FromAttributes("unfilled_counts")]
    refused: Annotated[CountByReason, FromAttributes("refusal_counts")]


class SimulatedHedgeDocument(TypedDict):
    """A hedge: its initial size, and times and reasons of opening (`reason`) and closing (`end`).
    `closed` is null while it is open. `profit` is that of its fills without funding; null if a part
    was liquidated.
    """

    symbol: str
    size: Annotated[QuoteCoins, FromAttributes("initial_size_raw")]
    opened: Annotated[int, FromAttributes("opened_s")]
    closed: Annotated[int | None, FromAttributes("closed_s")]
    profit: Annotated[QuoteCoins | None, FromAttributes("profit_raw")]
    reason: Annotated[str, FromAttributes("open_reason")]
    end: Annotated[str, FromAttributes("close_reason")]


class SimulationOrigin(TypedDict):
    """What repeats a simulation: hashes of its settings and data, the seed, and versions by package."""

    config_hash: str
    data_hash: str
    seed: int
    versions: dict[str, str]


class FuturesBacktestDocument(StartTime, SimulationOrigin, TypedDict):
    """The futures part of `backtest`: the book that the agent manages (`agent`), and a book that keeps
    the same initial positions (`held`). `max_leverage` is the limit. Values are decimals in the unit of
    the prices.
    """

    until: int
    bars: int
    start_value: str
    max_leverage: str
    agent: FuturesBookDocument
    held: FuturesBookDocument
    hedges: list[SimulatedHedgeDocument]
    notes: list[str]


class DistributionDocument(TypedDict):
    mean: DecimalText
    worst: DecimalText
    expected_shortfall: DecimalText
    quantiles: dict[str, DecimalText | None]


ReturnDistribution = TypedDict("ReturnDistribution", {"return": "DistributionDocument | None"})


class StressedFuturesDocument(TypedDict):
    """One book over the paths of a case. Losses are shares of the start value; a gain is
    negative.
    """

    mean_loss: Ratio
    worst_loss: Ratio
    liquidated_paths: Annotated[int, FromAttributes("liquidated_path_count")]
    longest_above_limit: Annotated[int, FromAttributes("longest_above_limit_bars")]


class FuturesStressCaseDocument(TypedDict):
    """A scenario over its paths, for the book that the agent manages and for one that keeps its
    initial positions (`held`).
    """

    name: Annotated[str, FromAttributes("scenario")]
    paths: Annotated[int, FromAttributes("path_count")]
    agent: Annotated[StressedFuturesDocument, FromAttributes("agent_book")]
    held: Annotated[StressedFuturesDocument, FromAttributes("held_book")]


class FuturesStressDocument(SimulationOrigin, TypedDict):
    """The futures part of `stress`: losses in each scenario, of the book with the agent and of a
    book that holds the same initial positions.
    """

    bars: int
    start_value: str
    max_leverage: str
    cases: list[FuturesStressCaseDocument]


class PriceSpanDocument(TypedDict):
    symbol: str
    address: Address
    source: str
    hours: int
    from_s: int
    until_s: int


class PricesDocument(TypedDict):
    numeraire: str
    retention_s: int
    prices: list[PriceSpanDocument]
    missing: list[str]


class ImportedSeriesDocument(TypedDict):
    symbol: str
    rows: int
    hours: int
    new: int
    from_s: int | None
    until_s: int | None
    interval_s: int
    gaps: int
    longest_gap_s: int


class FileRemarkDocument(TypedDict):
    count: int
    text: str


class ImportedPricesDocument(TypedDict):
    """Imported prices; `remarks` say what was left out or how the file was read, `sha256` is that of a
    file of [data], else empty.
    """

    file: str
    unit: str
    checked_only: bool
    skipped: list[str]
    remarks: list[FileRemarkDocument]
    prices: list[ImportedSeriesDocument]
    sha256: str


class FetchedSeriesDocument(TypedDict):
    symbol: str
    source: str
    hours: int
    new: int
    from_s: int | None
    until_s: int | None
    why: str


class FetchedPricesDocument(TypedDict):
    lookback_s: int
    prices: list[FetchedSeriesDocument]
