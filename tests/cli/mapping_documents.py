"""Documents of the commands whose functions return plain mappings: the keys and types that the tests hold them to."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import Address, DecimalText, StartTime, one_of
from agent.app.documents.owner import AddressOrNative, EditDocument, PastResultDocument, WithdrawalRequestDocument
from agent.app.documents.plans import VerdictDocument
from agent.app.documents.research import (
    DistributionDocument,
    FuturesBacktestDocument,
    FuturesStressDocument,
    FuturesWhatIfDocument,
    ReturnDistribution,
    SimulationOrigin,
)
from agent.app.documents.status import MinimumTotalDocument


class WithdrawalsDocument(TypedDict):
    withdrawals: list[WithdrawalRequestDocument]


class TypedDataDocument(TypedDict):
    """EIP-712 data for `eth_signTypedData_v4`."""

    types: dict[str, list[dict[str, str]]]
    primaryType: str
    domain: dict[str, Any]
    message: dict[str, Any]


class FailureDocument(TypedDict):
    """An error: kind, message, remedy, exit code, its place in the site of `trimtab docs`, and the code
    of its cause if it has one. A proposal that awaits its signer adds its file.
    """

    kind: str
    message: str
    remedy: str
    exit: int
    docs: str
    code: NotRequired[str]
    verdicts: NotRequired[list[VerdictDocument]]
    proposal: NotRequired[dict[str, Any]]


class ExportedProfileDocument(TypedDict):
    profile: str
    sha256: str
    chain_id: int
    skipped: list[str]


class ProfileAssetDocument(TypedDict):
    symbol: str
    address: AddressOrNative
    source: str
    profile_address: AddressOrNative | None
    differs: bool
    feed: Address | None
    before_bps: int | None
    after_bps: int | None


class DroppedAssetDocument(TypedDict):
    symbol: str
    address: AddressOrNative
    before_bps: int | None


class PolicyChangeDocument(TypedDict):
    key: str
    before: str
    after: str


class ProfileLimitDocument(TypedDict):
    key: str
    yours: str
    profile: str
    taken: bool
    why: str


class ImportedProfileDocument(EditDocument):
    """Changes of an imported profile, with the transition of `edit`, and the minimum capital of the
    new config on an ordinary day, empty if none works or the numeraire is no dollar. `other_years`
    are those of the file of prices.
    """

    profile: str
    sha256: str
    config: str
    chain_id: int
    assets: list[ProfileAssetDocument]
    excluded: list[DroppedAssetDocument]
    policy: list[PolicyChangeDocument]
    limits: list[ProfileLimitDocument]
    notes: list[str]
    past: PastResultDocument | None
    other_years: list[PastResultDocument]
    minimum_capital: str


class DashboardPortfolioDocument(TypedDict):
    name: str
    url: str
    error: str


class DashboardDocument(TypedDict):
    """Address at which the dashboard answers; with several portfolios also the address of each, and in
    `error` why it cannot be read (empty if it can).
    """

    url: str
    portfolios: NotRequired[list[DashboardPortfolioDocument]]


class ApiTokenDocument(TypedDict):
    id: str
    name: str
    scopes: list[str]
    networks: list[str]
    created: str
    expires: str
    state: Annotated[str, one_of("active", "expired", "revoked")]


class ApiTokensDocument(TypedDict):
    tokens: list[ApiTokenDocument]


class NewApiTokenDocument(ApiTokenDocument):
    """A new token of the API with its text, which is shown once."""

    token: str


class ErrorDocument(TypedDict):
    error: FailureDocument


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


class StrategyHealthDocument(TypedDict):
    """A strategy's health from a point in time. `sharpe` is null until its window is full."""

    time: int
    name: str
    health: str
    sharpe: DecimalText | None
    reason: str


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
    """A setting of the grid; `backtest_options` are the options of `trimtab backtest` that run it, empty
    if there are none, `config` the keys of [policy] in a config.
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
    recommendation: TuneSettingDocument
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
