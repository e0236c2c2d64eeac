"""Documents of commands that compute without sending (whatif, backtest, stress, tune, replay,
prices), of the backtest of an edit, and of kept reports.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import Address, DecimalText, StartDate, StartTime, TotalReturn, one_of
from agent.app.documents.status import MinimumTotalDocument


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


class WhatIfDecisionDocument(TypedDict):
    kind: Annotated[str, one_of("hold", "rebalance")]
    reason: str


class WhatIfAssetDocument(TypedDict):
    symbol: str
    value: DecimalText
    weight_bps: int
    target_bps: int
    drift_bps: int
    band_bps: list[int] | None
    outside: bool


class AlertPricesDocument(TypedDict):
    """Prices at which an asset leaves its band if only its price moves, and their changes from `price`
    in percent. A missing price has a reason; other reasons are empty.
    """

    price: DecimalText
    low: DecimalText | None
    high: DecimalText | None
    low_change_percent: DecimalText | None
    high_change_percent: DecimalText | None
    low_missing_reason: str
    high_missing_reason: str


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


class WhatIfDocument(TypedDict):
    """Drift, trades and alert prices for values given on the command line; trades and prices by
    symbol. `trades` are those of the decision, `to_target` would restore the targets, `triggered`
    has the symbols outside their bands, `least_total` the minimum total at each gas price. `shock`
    has the change of each shocked price in basis points, with the total before; both are missing
    without a shock.
    """

    total: DecimalText
    triggered: list[str]
    decision: WhatIfDecisionDocument
    trades: dict[str, DecimalText]
    to_target: dict[str, DecimalText]
    weights_bps: dict[str, int]
    assets: list[WhatIfAssetDocument]
    alert_prices: dict[str, AlertPricesDocument]
    alert_note: str
    least_total: list[MinimumTotalDocument]
    warnings: list[str]
    shock: NotRequired[dict[str, int]]
    total_before: NotRequired[DecimalText]
    futures: NotRequired[FuturesWhatIfDocument]


class SimulatedCostsDocument(TypedDict):
    fees: DecimalText
    impact: DecimalText
    gas: DecimalText
    total: DecimalText


class PathFiguresDocument(TypedDict):
    cagr: DecimalText | None
    volatility: DecimalText | None
    sharpe: DecimalText | None
    max_drawdown: DecimalText | None


class ComparedFiguresDocument(TypedDict):
    rebalanced: PathFiguresDocument
    held: PathFiguresDocument


class FundingCarryDocument(StartTime, TypedDict):
    """Funding that a short of one holding would have received (`carry`); `yearly_rate` is a share of
    `notional`, `intervals` counts payments.
    """

    carry: DecimalText
    yearly_rate: DecimalText | None
    notional: DecimalText
    intervals: int
    until: int


class TotalCarryDocument(TypedDict):
    total: DecimalText
    yearly_rate: DecimalText | None
    intervals: int
    assets: dict[str, FundingCarryDocument]
    data_hash: str


class SimulatedTradeDocument(TypedDict):
    time: int
    turnover: DecimalText
    fees: DecimalText
    impact: DecimalText
    gas: DecimalText
    succeeded: bool


class SimulatedFlowDocument(TypedDict):
    """A deposit (negative: withdrawal) of the owner; `before` is the portfolio value before it."""

    time: int
    value: DecimalText
    before: DecimalText


class RealisedGainsDocument(TypedDict):
    """Gains less losses by calendar year; `futures` has those of the margin account."""

    lot_rule: str
    years: dict[str, DecimalText]
    futures: NotRequired[dict[str, DecimalText]]


class DelistedHoldingDocument(TypedDict):
    """A holding whose prices ended, at its last price and the time of that price. `share` is that of
    the final value.
    """

    symbol: str
    amount: DecimalText
    price: DecimalText
    time: int
    value: DecimalText
    share: DecimalText | None


class FuturesFiguresDocument(TypedDict):
    """Annual growth, volatility, Sharpe ratio and maximum drawdown of a futures book; null if
    unknown.
    """

    cagr: str | None
    volatility: str | None
    sharpe: str | None
    max_drawdown: str | None


class FuturesProfitDocument(TypedDict):
    """Components of a futures book's change in value: total = price - slippage - funding - fees -
    penalties + insured.
    """

    total: str
    price: str
    slippage: str
    funding: str
    fees: str
    penalties: str
    insured: str


class SimulatedFillDocument(TypedDict):
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
    """Simulated margin account with its positions. `max_leverage` is the highest leverage reached,
    null if the account value reached zero with open positions. `bars_above_limit` counts bars whose
    leverage after fills exceeds the limit, `longest_above_limit` the longest run of them.
    `unfilled` counts orders, `refused` plans, both by reason.
    """

    final_value: str
    profit: FuturesProfitDocument
    figures: FuturesFiguresDocument
    max_leverage: str | None
    bars_above_limit: int
    longest_above_limit: int
    deposited: str
    sizes: dict[str, str]
    fills: list[SimulatedFillDocument]
    liquidations: list[LiquidationDocument]
    unfilled: dict[str, int]
    refused: dict[str, int]


class SimulatedHedgeDocument(TypedDict):
    """A hedge: its initial size, and times and reasons of opening (`reason`) and closing (`end`).
    `closed` is null while it is open. `profit` is that of its fills without funding; null if a part
    was liquidated.
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
    sharpe: DecimalText | None
    reason: str


# "from" is a keyword, so the declaration is a call.
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


class BacktestDocument(StartTime, SimulationOrigin, TypedDict):
    """Values are in the numeraire, times in Unix seconds. `evaluated_bars` went through a whole step.
    `refused` counts refused plans by reason; `held_back` counts, by setting, bars at which a trade was
    due but the step held. `strategies` has the final health of each strategy, `health` the changes;
    both are missing without strategies.
    """

    final_value: DecimalText
    hold_value: DecimalText
    start_value: DecimalText
    twr: DecimalText
    hold_twr: DecimalText
    numeraire: str
    rebalances: int
    turnover: DecimalText
    costs: SimulatedCostsDocument
    gas_counted: bool
    figures: ComparedFiguresDocument
    rebalancing_premium: dict[str, DecimalText] | None
    funding: TotalCarryDocument | None
    until: int
    bars: int
    evaluated_bars: int
    halted_bars: int
    refused: dict[str, int]
    held_back: dict[str, int]
    weights_bps: dict[str, int]
    trades: list[SimulatedTradeDocument]
    flows: list[SimulatedFlowDocument]
    realised_gains: RealisedGainsDocument
    delisted: list[DelistedHoldingDocument]
    notes: list[str]
    strategies: NotRequired[list[StrategyHealthDocument]]
    health: NotRequired[list[StrategyHealthDocument]]
    report: NotRequired[list[str]]
    futures: NotRequired[FuturesBacktestDocument]


class FuturesOnlyBacktestDocument(TypedDict):
    futures: FuturesBacktestDocument
    report: NotRequired[list[str]]


class DistributionDocument(TypedDict):
    mean: DecimalText
    worst: DecimalText
    expected_shortfall: DecimalText
    quantiles: dict[str, DecimalText]


ReturnDistribution = TypedDict("ReturnDistribution", {"return": "DistributionDocument | None"})


class StressCaseDocument(ReturnDistribution, TypedDict):
    """A scenario over its paths, run by the `engine` kernel or step. Counts are over all paths."""

    name: str
    engine: str
    paths: int
    end_value: DistributionDocument | None
    loss: DistributionDocument | None
    drawdown: DistributionDocument | None
    hold_shortfall: DistributionDocument | None
    turnover: DistributionDocument | None
    outside_bands: DistributionDocument | None
    rebalances: int
    halted_bars: int
    refused: dict[str, int]


class StressedFuturesDocument(TypedDict):
    """One book over the paths of a case. Losses are shares of the start value; a gain is
    negative.
    """

    mean_loss: str
    worst_loss: str
    liquidated_paths: int
    longest_above_limit: int


class FuturesStressCaseDocument(TypedDict):
    """A scenario over its paths, for the book that the agent manages and for one that keeps its
    initial positions (`held`).
    """

    name: str
    paths: int
    agent: StressedFuturesDocument
    held: StressedFuturesDocument


class FuturesStressDocument(SimulationOrigin, TypedDict):
    """The futures part of `stress`: losses in each scenario, of the book with the agent and of a
    book that holds the same initial positions.
    """

    bars: int
    start_value: str
    max_leverage: str
    cases: list[FuturesStressCaseDocument]


class StressDocument(SimulationOrigin, TypedDict):
    """`skipped` has the reason of each scenario that did not apply. Paths are made from `return_count`
    recorded returns, in blocks of this mean length. `kernel_difference` is the largest relative
    difference between the final values of the kernel and of the live step.
    """

    cases: list[StressCaseDocument]
    skipped: dict[str, str]
    bars: int
    interval_s: int
    return_count: int
    bootstrap_block_length: DecimalText
    jumps_per_bar: DecimalText
    kernel_difference: str | None
    notes: list[str]
    parameters: dict[str, str]
    report: NotRequired[list[str]]
    futures: NotRequired[FuturesStressDocument]


class FuturesOnlyStressDocument(TypedDict):
    futures: FuturesStressDocument
    report: NotRequired[list[str]]


class TuneSettingDocument(TypedDict):
    """A setting of the grid; `backtest_options` are the options of `trimtab backtest` that run it, `config`
    the keys of [policy] in a config.
    """

    label: str
    backtest_options: str
    config: str
    strictness: str | None
    horizon_s: int | None
    band_relative_bps: int | None
    band_absolute_bps: int | None
    every_s: int | None
    destination: str
    allocator: str


class RankedSettingDocument(TuneSettingDocument):
    """A setting of the grid with its results on the first three quarters of the prices. `objective`
    is that of the search, a loss in bps. The loss is trading costs and what the tracking error is
    worth (`drift_bps`), bps of the portfolio a year. `over_hold` is the excess log growth a year over
    buy and hold.
    """

    objective: DecimalText
    loss_bps: DecimalText
    costs_bps: DecimalText
    drift_bps: DecimalText
    trades_yearly: DecimalText
    over_hold: DecimalText
    final_value: DecimalText
    turnover: DecimalText
    costs: DecimalText
    rebalances: int


class ExcessIntervalDocument(TypedDict):
    """Mean excess log growth a year over the benchmark, or loss saved in bps a year by the objective
    tracking, with its confidence interval at `level`.
    """

    benchmark: str
    mean: DecimalText | None
    low: DecimalText | None
    high: DecimalText | None
    level: DecimalText
    periods: int | None
    bootstrap_block_length: DecimalText | None


class LastQuarterDocument(TypedDict):
    excess_intervals: list[ExcessIntervalDocument]
    final_value: DecimalText
    baseline_value: DecimalText
    hold_value: DecimalText
    settings_judged: int
    costs: DecimalText
    rebalances: int


class FoldDocument(TypedDict):
    """One fold: the chosen setting's objective in the periods before it and in its own, and its excess
    log growth a year; by the objective tracking losses, and the loss saved, bps a year.
    """

    chosen: str
    in_sample: DecimalText
    out_of_sample: DecimalText
    over_hold: DecimalText | None
    over_baseline: DecimalText
    periods: int


class WalkForwardDocument(TypedDict):
    """The window of past data is anchored or rolling; the intervals are of all folds together."""

    window_mode: str
    folds: list[FoldDocument]
    excess_intervals: list[ExcessIntervalDocument]


class DeflatedSharpeDocument(TypedDict):
    sharpe: DecimalText
    threshold: DecimalText
    trials: int
    probability: DecimalText


class OverfittingDocument(TypedDict):
    probability: DecimalText
    split_count: int
    blocks: int


class NeighboursDocument(TypedDict):
    """Decline of the objective from the best setting to its `count` neighbours, and to the median of
    all.
    """

    count: int
    mean_fall: DecimalText
    largest_fall: DecimalText
    fall_to_median: DecimalText


class StabilityDocument(TypedDict):
    """The objective over two parameters of the grid; `best` is the row and column of the best setting."""

    row_name: str
    column_name: str
    rows: list[str]
    columns: list[str]
    values: list[list[DecimalText | None]]
    best: list[int]
    neighbours: NeighboursDocument | None


class TuneDocument(StartTime, TypedDict):
    recommendation: TuneSettingDocument | None
    verdict: list[str]
    safe_default: str
    best: RankedSettingDocument
    settings: int
    engines: dict[str, int]
    resumed: int
    objective: str
    numeraire: str
    bars: int
    last_quarter_from: int
    until: int
    period_s: int
    baseline: TuneSettingDocument
    last_quarter: LastQuarterDocument
    walk_forward: WalkForwardDocument
    deflated_sharpe: DeflatedSharpeDocument | None
    overfitting: OverfittingDocument | None
    stability: StabilityDocument
    ranked: list[RankedSettingDocument]
    notes: list[str]
    grid_hash: str
    config_hash: str
    data_hash: str
    seed: int
    version: str
    report: NotRequired[list[str]]


class ReplayDifferenceDocument(TypedDict):
    """A difference of a replay: the path of a plan value, "decision" or "reason" (`path`), as recorded
    and as computed now.
    """

    path: str
    recorded: Any
    now: Any


class ReplayedStepDocument(TypedDict):
    """A recorded step and the result of its replay; an unreadable file has only a reason. A step of
    the policy has no `requested_by`. `more_differences` counts those that are not listed.
    """

    file: str
    result: Annotated[str, one_of("same", "reworded", "different", "manual", "unreadable")]
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
    differs: NotRequired[list[ReplayDifferenceDocument]]
    more_differences: NotRequired[int]


class ReplayDocument(TypedDict):
    folder: str
    version: str
    steps: list[ReplayedStepDocument]
    same: int
    reworded: int
    different: int
    manual: int
    unreadable: int
    exit: Literal[0, 2, 14]


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
