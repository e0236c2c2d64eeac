"""`trimtab stress`: a policy on simulated paths, the live step on stress scenarios, and a futures
book under margin calls. `trimtab tune`: search for the trigger that loses least, or grows
most, with significance tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.backtest import (
    ContractSize,
    GasPrices,
    Html,
    KeepReport,
    Latency,
    NativeAsset,
    Numeraire,
    PerpVenue,
    PoolCurveName,
    PoolDepth,
    PoolFee,
    RebalanceDestination,
    RebalanceInterval,
    Reserve,
    Sample,
    SimulatedConfig,
    StartMargin,
    StartValue,
    SymbolMapping,
    Target,
    TargetLeverage,
    progress_display,
    report_paths,
    show_provenance,
)
from agent.cli.display.futures_tables import show_futures_stress
from agent.cli.display.terminal import (
    Document,
    ask,
    emit,
    interruptible,
    is_interactive,
    out,
    safe_text,
    say,
)
from agent.cli.options import AsJson, Heading, Yes, command
from agent.cli.whatif import (
    FUTURES_PANEL,
    FuturesTarget,
    MaxLeverage,
    MaxUtilisation,
    Shock,
    StressMove,
)
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.backtest.tune.jobs import WorkEstimate


CONFIRM_ABOVE_S = 120.0
"""Estimated duration, seconds, above which a confirmation is needed."""
STRESS_QUANTILES = ("50%", "5%")


@command(Heading.TEST, 30)
@interruptible
def stress(
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices", help="CSV or Parquet as for backtest; paths start at its newest prices."
        ),
    ] = None,
    sample: Sample = False,
    config: SimulatedConfig = None,
    target: Target = "",
    band: Annotated[
        str, typer.Option("--band", help="10%rel of the target or 5%abs in points.")
    ] = "",
    every: RebalanceInterval = "",
    destination: RebalanceDestination = "target",
    limits: Annotated[
        str,
        typer.Option("--limits", help="Limits without a config: usual (as init writes) or off."),
    ] = "usual",
    paths: Annotated[
        int, typer.Option("--paths", help="Paths per method, with the fast kernel.")
    ] = 2_000,
    step_paths: Annotated[
        int,
        typer.Option(
            "--step-paths",
            help="Paths per scenario, with the live step; the first is the recorded path.",
        ),
    ] = 3,
    bars: Annotated[
        int, typer.Option("--bars", help="Length of a path in bars; 0: 720, or all of the file.")
    ] = 0,
    scenarios: Annotated[
        str,
        typer.Option(
            "--scenarios", help="crash,depeg,gas-spike,illiquid-pool,oracle-outage; or all."
        ),
    ] = "all",
    block: Annotated[
        str,
        typer.Option(
            "--block", help="Average length of resampled blocks in bars; default: automatic."
        ),
    ] = "",
    drift: Annotated[
        str, typer.Option("--drift", help="recorded, or none for zero average drift.")
    ] = "recorded",
    crash: Annotated[
        str, typer.Option("--crash", help="Price drop in a crash, except of dollars.")
    ] = "50%",
    crash_bars: Annotated[
        int, typer.Option("--crash-bars", help="Duration of the crash in bars.")
    ] = 24,
    depeg: Annotated[
        str, typer.Option("--depeg", help="Price drop of a dollar in a depeg.")
    ] = "10%",
    gas_spike: Annotated[
        str, typer.Option("--gas-spike", help="Gas price during a spike.")
    ] = "500 gwei",
    thin: Annotated[str, typer.Option("--thin", help="Remaining pool depth.")] = "0.001",
    shock: Shock = None,
    pool_fee: PoolFee = "10bps",
    depth: PoolDepth = "1000000000",
    pool: PoolCurveName = "v2",
    value: StartValue = "10000",
    gas: Annotated[str, typer.Option("--gas", help="Normal gas price, such as 20 gwei.")] = "0 wei",
    native: NativeAsset = "",
    numeraire: Numeraire = "",
    symbol_mapping: SymbolMapping = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Random seed; the same seed gives the same paths.")
    ] = 0,
    cores: Annotated[
        int,
        typer.Option(
            "--cores", min=0, help="Number of cores; 0 is all. Results do not depend on it."
        ),
    ] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained HTML report to this file.")
    ] = None,
    keep: KeepReport = False,
    futures_target: FuturesTarget = "",
    leverage: TargetLeverage = "2x",
    margin: StartMargin = "",
    reserve: Reserve = "",
    max_leverage: MaxLeverage = "4x",
    max_utilisation: MaxUtilisation = "80%",
    stress_move: StressMove = "10%",
    lot: ContractSize = "",
    venue: PerpVenue = "",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            max=10_000,
            help="Seeds of the crash with a rally.",
            rich_help_panel=FUTURES_PANEL,
        ),
    ] = 50,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stress-tests losses, turnover and time outside the bands over thousands of paths and
    stress scenarios.

    With --futures-target also stresses a futures book with margin calls; without --target only the
    book. Sends nothing.
    """
    from agent import app as api

    has_portfolio = bool(target) or config is not None or not futures_target
    if (html is not None or keep) and not has_portfolio:
        raise ConfigError(
            f"{'--keep' if html is None else '--html'}: a futures book without a portfolio has no page",
            "use --json, or add --target",
        )
    page_paths = report_paths("stress", html, config, keep)
    price_path = api.prices_file(prices, sample)
    market_options = api.MarketOptions(
        pool_fee=pool_fee,
        depth=depth,
        start_value=value,
        pool_kind=pool,
        gas_price_text=gas,
        seed=seed,
    )
    portfolio_options = api.PortfolioOptions(
        config, target, band, every, destination, numeraire, native, symbol_mapping or ()
    )
    prepared_stress = futures_book = None
    if has_portfolio:
        prepared_stress = api.prepare_stress(
            price_path,
            market_options,
            api.StressOptions(
                paths,
                step_paths,
                bars,
                scenarios,
                block,
                drift,
                crash,
                crash_bars,
                depeg,
                gas_spike,
                thin,
            ),
            portfolio_options,
            limits_choice=limits,
        )
    if futures_target:
        futures_book = api.prepare_futures_stress(
            price_path,
            api.FuturesBookOptions(
                target=futures_target,
                leverage=leverage,
                margin=margin,
                reserve=reserve,
                max_leverage=max_leverage,
                max_utilisation=max_utilisation,
                stress_move=stress_move,
                lot=lot,
                venue=venue,
            ),
            market_options,
            portfolio_options,
            bar_count=bars,
            path_count=step_paths,
            seed_count=seeds,
        )
    if shock:
        prepared_stress, futures_book = api.with_shocks(shock, prepared_stress, futures_book)
    estimate_s = 0.0 if prepared_stress is None else prepared_stress.estimated_s
    if futures_book is not None:
        estimate_s += api.futures_stress_seconds(futures_book)
    _confirm_duration(estimate_s, yes)
    document: dict[str, Any] = {}
    with progress_display("making paths", as_json) as status:

        def progress(case_name: str, finished_paths: int, path_count: int) -> None:
            if status is not None:
                status.update(f"{case_name}: path {finished_paths} of {path_count}")

        if prepared_stress is not None:
            stress_result = api.run_stress(prepared_stress, progress, cores)
            document = api.stress_document(stress_result)
        if futures_book is not None:
            document["futures"] = api.stress_futures(futures_book, progress)
    for page_path in page_paths:
        written_paths = [str(path) for path in api.write_stress_report(stress_result, page_path)]
        document["report"] = document.get("report", []) + written_paths
    emit(document, as_json, lambda: _show_stress_test(document))


def _confirm_duration(estimate_s: float, yes: bool) -> None:
    """Raise ConfigError if the test takes long and is not confirmed."""
    if estimate_s <= CONFIRM_ABOVE_S or yes:
        return
    duration_text = f"this may take {estimate_s / 60:,.0f} minutes on one core"
    if not is_interactive():
        raise ConfigError(
            duration_text,
            "add --yes, or use fewer paths (--paths, --step-paths) or shorter paths (--bars)",
        )
    if not ask(f"{duration_text}. Continue?"):
        raise ConfigError(
            "declined: no path was run",
            "use fewer paths (--paths, --step-paths) or shorter paths (--bars)",
        )


def _show_stress_test(document: Document) -> None:
    if "cases" in document:
        _show_stress_cases(document)
    if "futures" in document:
        show_futures_stress(document["futures"])


def _show_stress_cases(document: Document) -> None:
    from agent.cli.display.tables import table

    return_columns = tuple(f"return {quantile}" for quantile in STRESS_QUANTILES)
    figure_names = (*return_columns, "shortfall", "end value 50%", "turnover", "outside")
    case_table = table(
        f"{document['bars']} bars each; shortfall is the mean return of the worst 5 %",
        ("case",),
        ("paths", *figure_names),
    )
    for case in document["cases"]:
        returns = case["return"]
        turnover = case["turnover"]
        outside_bands = case["outside_bands"]
        case_table.add_row(
            case["name"],
            str(case["paths"]),
            *(
                _percent_text(returns["quantiles"][quantile], sign="+")
                for quantile in STRESS_QUANTILES
            ),
            _percent_text(returns["expected_shortfall"], sign="+"),
            f"{float(case['end_value']['quantiles']['50%']):,.2f}",
            f"{float(turnover['quantiles']['50%']):.2f}",
            "–" if outside_bands is None else _percent_text(outside_bands["quantiles"]["50%"]),
        )
    out.print(case_table)
    say(
        f"End values of {document['parameters']['start_value']} at the start. Turnover, in portfolios,"
        " and the share of bars outside a band are medians."
    )
    for case in document["cases"]:
        notes = [f"{count} times refused by {reason}" for reason, count in case["refused"].items()]
        if case["halted_bars"]:
            notes.insert(0, f"{case['halted_bars']} bars halted")
        if notes:
            say(f"{case['name']}: {', '.join(notes)}")
    for case_name, reason in document["skipped"].items():
        say(f"skipped: {case_name}: {reason}")
    for note in document["notes"]:
        say(note)
    show_provenance(document)


def _percent_text(share: str, sign: str = "") -> str:
    return f"{100 * float(share):{sign}.2f} %"


SHADES = "·░▒▓█"
"""Shades from the worst objective to the best."""


MAX_RANKED_ROWS = 10
"""Number of settings that are printed, the best first."""


MAX_NUMBERED_COLUMNS = 8
"""Maximum number of columns of a map with numbers. Wider maps have only shades."""


@command(Heading.TEST, 20)
@interruptible
def tune(
    prices: Annotated[
        Path | None, typer.Option("--prices", help="CSV or Parquet as for backtest.")
    ] = None,
    sample: Sample = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The config whose setting is searched, in place of --target."
        ),
    ] = None,
    target: Target = "",
    band: Annotated[
        str,
        typer.Option(
            "--band",
            help="Bands to try: 1%rel..30%rel:12 are twelve; 5%abs,10%abs are two. Without any grid the"
            " objective tracking tries usual ones.",
        ),
    ] = "",
    every: Annotated[
        str,
        typer.Option(
            "--every", help="Intervals to try: 1d,7d,28d; with --band also both together."
        ),
    ] = "",
    destination: Annotated[
        str,
        typer.Option(
            "--destination", help="target, halfway, band; comma-separated. Default: target."
        ),
    ] = "",
    tracking: Annotated[
        str,
        typer.Option(
            "--tracking",
            help="Strictnesses of the tracking rule to try: relaxed, normal, strict; by default all"
            " with the objective tracking, else none.",
        ),
    ] = "",
    zone: Annotated[
        str,
        typer.Option("--zone", help="Horizons of zones to try: 7d,30d,90d; only with --config."),
    ] = "",
    allocator: Annotated[
        str,
        typer.Option(
            "--allocator",
            help="fixed, or kinds of portfolio.weights that only need prices; comma-separated.",
        ),
    ] = "fixed",
    trigger: Annotated[
        str, typer.Option("--trigger", help="Only these triggers: band, every, hybrid.")
    ] = "",
    stop: Annotated[
        str,
        typer.Option(
            "--stop",
            help="Stops of each asset to try, beside none: 10%..40%:4 below the first price,"
            " trailing:20% below the highest.",
        ),
    ] = "",
    tax: Annotated[
        str,
        typer.Option(
            "--tax",
            help="Rank net of this tax on realised gains, such as 25%; off ignores tax.rate of the"
            " config.",
        ),
    ] = "",
    lots: Annotated[
        str, typer.Option("--lots", help="Lots that a sale uses: fifo, lifo, hifo, average.")
    ] = "",
    calendar: Annotated[
        str,
        typer.Option(
            "--calendar",
            help="Benchmark of growth and sharpe: rebalancing to the targets at this interval.",
        ),
    ] = "28d",
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="tracking (least costs and tracking error together), growth, or sharpe.",
        ),
    ] = "tracking",
    walk: Annotated[
        str, typer.Option("--walk", help="anchored (windows from the first bar) or rolling.")
    ] = "anchored",
    folds: Annotated[int, typer.Option("--folds", help="Number of walk-forward folds.")] = 4,
    window: Annotated[str, typer.Option("--window", help="Lookback of allocators.")] = "60d",
    rechoose: Annotated[
        str, typer.Option("--rechoose", help="Interval between choices of allocators.")
    ] = "7d",
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Use the full step for every setting instead of the fast kernel."
        ),
    ] = False,
    pool_fee: PoolFee = "10bps",
    depth: PoolDepth = "1000000000",
    pool: PoolCurveName = "v2",
    value: StartValue = "10000",
    gas: Annotated[
        str, typer.Option("--gas", help="Gas price, such as 20 gwei; needs the full step.")
    ] = "0 wei",
    gas_prices: GasPrices = None,
    native: NativeAsset = "",
    latency: Latency = 0,
    numeraire: Numeraire = "",
    symbol_mapping: SymbolMapping = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 0,
    cores: Annotated[int, typer.Option("--cores", min=0, help="Number of cores; 0 is all.")] = 0,
    scheduler: Annotated[
        str, typer.Option("--scheduler", help="Dask scheduler for the full step: tcp://HOST:8786.")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for all results; an interrupted search continues there."
        ),
    ] = None,
    html: Html = None,
    keep: KeepReport = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Searches settings on three quarters of the data and tests the best on the rest. Keeps the
    tracking rule unless one loses less.
    """
    from agent import app as api

    page_paths = report_paths("tune", html, config, keep)
    price_path = api.prices_file(prices, sample)
    market_options = api.MarketOptions(
        pool_fee, depth, value, pool, gas, latency, seed, gas_prices_path=gas_prices
    )
    tune_options = api.TuneOptions(
        band,
        every,
        destination,
        allocator,
        trigger,
        stop,
        tracking,
        zone,
        calendar,
        objective,
        walk,
        folds,
        window,
        rechoose,
        full,
        tax,
        lots,
    )
    portfolio_options = api.PortfolioOptions(
        config, target, numeraire=numeraire, native=native, symbol_mapping=symbol_mapping or ()
    )
    prepared_search = api.prepare_tune(price_path, market_options, tune_options, portfolio_options)
    with progress_display("measuring", as_json) as status:

        def progress(finished_runs: int, run_count: int) -> None:
            if status is not None:
                status.update(f"{finished_runs:,} of {run_count:,} runs")

        def confirm(estimate: WorkEstimate) -> bool:
            if as_json or not is_interactive():
                return False
            if status is not None:
                status.stop()
            is_confirmed = ask(f"The search has {estimate.text}. Start?")
            if status is not None:
                status.start()
            return is_confirmed

        tune_result = api.run_tune(
            prepared_search,
            cores=cores,
            scheduler=scheduler,
            folder=folder,
            confirm=None if yes else confirm,
            progress=progress,
        )
    document = api.tune_document(tune_result)
    for page_path in page_paths:
        written_paths = [str(path) for path in api.write_tune_report(tune_result, page_path)]
        document["report"] = document.get("report", []) + written_paths
    emit(document, as_json, lambda: _show_tune(document))


_OBJECTIVE_NAMES = {"tracking": "Loss", "growth": "Growth", "sharpe": "Sharpe ratio"}
_LOSS_COLUMNS = {
    "loss": "loss_bps",
    "costs": "costs_bps",
    "drift": "drift_bps",
    "trades a year": "trades_yearly",
}
_FOLD_LOSS_COLUMNS = {"loss": "out_of_sample", "saved against the rule": "over_baseline"}


def _signed_percent_text(share: str) -> str:
    return f"{100 * float(share):+.2f} %"


def _score_text(score: str, objective: str) -> str:
    """Format an objective: a loss in bps, growth in percent, or a ratio."""
    if objective == "growth":
        return _signed_percent_text(score)
    return f"{float(score):.2f}" if objective == "tracking" else score[:-3]


def _decline_text(decline: str, objective: str) -> str:
    if objective == "growth":
        return f"{100 * float(decline):.2f} points"
    return f"{float(decline):.2f} bps" if objective == "tracking" else decline


def _loss_texts(figures: Document, columns: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_score_text(figures[key], "tracking") for key in columns.values())


def _show_tune(document: Document) -> None:
    from agent.cli.display.tables import amount, table

    objective = document["objective"]
    is_by_loss = objective == "tracking"
    objective_name = _OBJECTIVE_NAMES[objective]
    title = (
        f"{document['settings']:,} settings, ranked by {objective_name.lower()} per year"
        f"{' in bps of the portfolio' if is_by_loss else ''} in the first three quarters"
    )
    out.print(
        table(
            title,
            ("setting",),
            (*_LOSS_COLUMNS,) if is_by_loss else (objective, "over hold", "costs", "trades"),
            rows=(
                (setting["label"], *_loss_texts(setting, _LOSS_COLUMNS))
                if is_by_loss
                else (
                    setting["label"],
                    _score_text(setting["objective"], objective),
                    _signed_percent_text(setting["over_hold"]),
                    amount(setting["costs"], 2),
                    str(setting["rebalances"]),
                )
                for setting in document["ranked"][:MAX_RANKED_ROWS]
            ),
        )
    )
    _show_map(document["stability"], objective)
    folds_table = table(
        f"Walk-forward, {document['walk_forward']['window_mode']}",
        ("chosen setting",),
        (*_FOLD_LOSS_COLUMNS,) if is_by_loss else ("over hold", "over calendar"),
        rows=(
            (fold["chosen"], *_loss_texts(fold, _FOLD_LOSS_COLUMNS))
            if is_by_loss
            else (
                fold["chosen"],
                _signed_percent_text(fold["over_hold"]),
                _signed_percent_text(fold["over_baseline"]),
            )
            for fold in document["walk_forward"]["folds"]
        ),
    )
    if document["walk_forward"]["folds"]:
        out.print(folds_table)
    if (overfitting := document["overfitting"]) is not None:
        say(
            f"Probability of overfitting: {float(overfitting['probability']):.0%} ({overfitting['split_count']:,} ways"
            " to halve the data)"
        )
    if (deflated_sharpe := document["deflated_sharpe"]) is not None:
        say(
            f"Deflated Sharpe ratio of the excess over hold, {deflated_sharpe['trials']} trials:"
            f" {float(deflated_sharpe['probability']):.1%}"
        )
    if document["resumed"]:
        say(f"{document['resumed']:,} runs were loaded from an earlier search")
    for note in (*document["notes"], *document["verdict"]):
        say(note)
    if (setting := document["recommendation"]) is not None:
        config_text = "; ".join(setting["config"].splitlines())
        say(f"In the config, [policy]: {config_text}")
        if setting["backtest_options"]:
            say(f"To simulate it: trimtab backtest … {setting['backtest_options']}")
    say(
        f"grid {document['grid_hash'][:16]}, config {document['config_hash'][:16]}, data"
        f" {document['data_hash'][:16]}, seed {document['seed']}"
    )


def _show_map(stability: Document, objective: str) -> None:
    """Show the objective over two axes as shades, the best darkest; the best cell is in brackets."""
    from agent.cli.display.tables import table

    if len(stability["rows"]) * len(stability["columns"]) < 2:
        return
    scores = [
        float(score)
        for row_scores in stability["values"]
        for score in row_scores
        if score is not None
    ]
    worst_score = max(scores) if objective == "tracking" else min(scores)
    best_score = min(scores) if objective == "tracking" else max(scores)
    score_table = table(
        f"{_OBJECTIVE_NAMES[objective]} by {stability['row_name']} and {stability['column_name']}",
        (stability["row_name"], *stability["columns"]),
    )
    for row_index, (row_label, row_scores) in enumerate(
        zip(stability["rows"], stability["values"], strict=True)
    ):
        row_cells = []
        for column_index, score in enumerate(row_scores):
            if score is None:
                row_cells.append(safe_text(""))
                continue
            relative_score = (
                (float(score) - worst_score) / (best_score - worst_score)
                if best_score != worst_score
                else 1.0
            )
            cell_text = SHADES[min(len(SHADES) - 1, int(relative_score * len(SHADES)))] * 2
            if len(row_scores) <= MAX_NUMBERED_COLUMNS:
                cell_text += f" {_score_text(score, objective)}"
            row_cells.append(
                safe_text(
                    f"[{cell_text}]"
                    if [row_index, column_index] == stability["best"]
                    else cell_text
                )
            )
        score_table.add_row(row_label, *row_cells)
    out.print(score_table)
    neighbours = stability["neighbours"]
    if neighbours is not None:
        change = "loss rises" if objective == "tracking" else "objective falls"
        say(
            f"One grid step from the best, over {neighbours['count']} neighbours, the {change} by"
            f" {_decline_text(neighbours['mean_fall'], objective)} on average,"
            f" {_decline_text(neighbours['largest_fall'], objective)} at most"
        )
