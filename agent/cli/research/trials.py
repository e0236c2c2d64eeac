"""`trimtab stress`: a policy on simulated paths, the live step on stress scenarios, and a futures
book under margin calls. `trimtab tune`: search for the trigger that loses least, or grows
most, with significance tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import app as api
from agent.cli.display.futures_tables import show_futures_stress
from agent.cli.display.tables import percent_text
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
from agent.cli.options import AsJson, GroupedOption, Heading, Yes, command, config_option
from agent.cli.research.backtest import (
    FUTURES_BOOK,
    MARKET,
    Html,
    KeepReport,
    NativeAsset,
    Numeraire,
    RebalanceDestination,
    RebalanceInterval,
    Sample,
    SimulatedConfig,
    StartValue,
    SymbolMapping,
    Target,
    progress_display,
    report_paths,
    require_weights,
    show_provenance,
    write_reports,
)
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.backtest.tune.jobs import WorkEstimate


CONFIRM_ABOVE_S = 120.0
"""Estimated duration, seconds, above which a confirmation is needed."""
STRESS_QUANTILES = ("50%", "5%")
CORES = range(10_000)
STRESS_MARKET = MARKET.with_names("fee", "depth", "pool", "gas", "seed")
PATHS = GroupedOption(
    "--paths",
    (
        "paths",
        "step-paths",
        "bars",
        "block",
        "drift",
        "seeds",
        "cores",
    ),
    unnamed="paths",
    numbers={
        "paths": None,
        "step-paths": None,
        "bars": None,
        "seeds": range(1, 10_001),
        "cores": CORES,
    },
)
SCENARIOS = GroupedOption(
    "--scenarios",
    (
        "scenarios",
        "crash",
        "crash-bars",
        "depeg",
        "gas-spike",
        "thin",
        "shock",
    ),
    unnamed="scenarios",
    numbers={"crash-bars": None},
    lists=frozenset({"shock"}),
)
STRESS_FUTURES = FUTURES_BOOK.with_names(
    *(name for name in FUTURES_BOOK.names if name not in ("band", "spot-multiple"))
)
TUNE_MARKET = MARKET.with_names("fee", "depth", "pool", "gas", "gas-prices", "latency", "seed")
GRID = GroupedOption(
    "--grid",
    (
        "destination",
        "tracking",
        "zone",
        "allocator",
        "window",
        "rechoose",
        "trigger",
        "stop",
    ),
)
OBJECTIVE = GroupedOption(
    "--objective",
    (
        "objective",
        "calendar",
        "tax",
        "lots",
    ),
    unnamed="objective",
)
WALK = GroupedOption(
    "--walk",
    (
        "walk",
        "folds",
    ),
    unnamed="walk",
    numbers={"folds": None},
)
RUN = GroupedOption(
    "--run",
    (
        "engine",
        "cores",
        "scheduler",
    ),
    unnamed="engine",
    numbers={"cores": CORES},
)


@command(Heading.TEST, 30, STRESS_MARKET, PATHS, SCENARIOS, STRESS_FUTURES)
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
    destination: RebalanceDestination = "",
    limits: Annotated[
        str,
        typer.Option(
            "--limits", help="Limits without a config: usual (default, as init writes) or off."
        ),
    ] = "",
    paths: Annotated[
        list[str] | None,
        typer.Option(
            "--paths",
            help=(
                "Paths per method (2000), then NAME=VALUE: 500,bars=240. Names: step-paths (3 per"
                " scenario, with the live step; the first is the recorded path), bars (720, or all of"
                " the file), block (mean length of resampled blocks in bars; default automatic), drift"
                " (recorded, or none for zero), seeds (50, of the crash of futures with a rally), cores"
                " (all; results do not depend on it); repeatable."
            ),
        ),
    ] = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(
            "--scenarios",
            help=(
                "crash,depeg,gas-spike,illiquid-pool,oracle-outage or all (default), then NAME=VALUE:"
                " all,crash=60%,shock=ALT=-50%. Names: crash (fall, except of dollars: 50%), crash-bars"
                " (24), depeg (fall of a dollar: 10%), gas-spike (500 gwei), thin (remaining depth:"
                " 0.001), shock (a further scenario: moves of single prices); repeatable."
            ),
        ),
    ] = None,
    market: Annotated[
        list[str] | None,
        typer.Option(
            "--market",
            help=(
                "The simulated market, NAME=VALUE: fee=10bps,depth=1000000000. Names: fee (of each pool),"
                " depth (of a pool's side), pool (v2, or v3 over the full range), gas (normal price,"
                " such as 20 gwei), seed (the same gives the same paths); repeatable."
            ),
        ),
    ] = None,
    value: StartValue = "10000",
    native: NativeAsset = "",
    numeraire: Numeraire = "",
    symbol_mapping: SymbolMapping = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained HTML report to this file.")
    ] = None,
    keep: KeepReport = False,
    futures: Annotated[
        list[str] | None,
        typer.Option(
            "--futures",
            help=(
                "Also a futures book, as in backtest, without band and spot-multiple:"
                " BTC=60,ETH=-40,leverage=3x."
            ),
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stress-tests losses, turnover and time outside the bands over thousands of paths and
    stress scenarios.

    With --futures also stresses a futures book with margin calls; without --target only the book.
    Sends nothing.
    """
    from agent.cli.research.portfolio_texts import (
        futures_book_options,
        market_options,
        portfolio_options,
    )
    from agent.cli.research.trial_texts import stress_options
    from agent.cli.research.value_texts import parse_shocks

    path_values = PATHS.parse(paths)
    cores = path_values.pop("cores", 0)
    scenario_values = SCENARIOS.parse(scenarios)
    shocks = parse_shocks(scenario_values.pop("shock", ()), "--scenarios shock")
    futures_texts = STRESS_FUTURES.parse(futures)
    require_weights(futures_texts)
    has_futures = bool(futures_texts)
    if "seeds" in path_values and not has_futures:
        raise ConfigError(
            "--paths seeds: only a futures book has them", "omit it, or add --futures"
        )
    seed_count = path_values.pop("seeds", 50)
    has_portfolio = bool(target) or config is not None or not has_futures
    if (html is not None or keep) and not has_portfolio:
        raise ConfigError(
            f"{'--keep' if html is None else '--html'}: a futures book without a portfolio has no page",
            "use --json, or add --target",
        )
    page_paths = report_paths("stress", html, config, keep)
    price_path = api.prices_file(prices, sample)
    simulated_market = market_options(STRESS_MARKET.parse(market), value=value)
    simulated_portfolio = portfolio_options(
        config,
        target=target,
        band=band,
        every=every,
        destination=destination,
        numeraire=numeraire,
        native=native,
        symbol_mapping=symbol_mapping,
    )
    if not has_portfolio:
        api.refuse_spot_options(simulated_market, simulated_portfolio)
        _require_no_spot_values(limits, scenario_values, path_values)
    prepared_stress = futures_book = None
    if has_portfolio:
        prepared_stress = api.prepare_stress(
            price_path,
            simulated_market.settings,
            stress_options(path_values, scenario_values),
            simulated_portfolio,
            limits_choice=limits,
        )
    if has_futures:
        futures_book = api.prepare_futures_stress(
            price_path,
            futures_book_options(futures_texts),
            simulated_market.settings,
            simulated_portfolio,
            bar_count=path_values.get("bars", 0),
            path_count=path_values.get("step_paths", 3),
            seed_count=seed_count,
        )
    if shocks:
        prepared_stress, futures_book = api.with_shocks(shocks, prepared_stress, futures_book)
    estimate_s = 0.0 if prepared_stress is None else prepared_stress.estimated_s
    if futures_book is not None:
        estimate_s += futures_book.estimated_s
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
    write_reports(
        document, page_paths, lambda page_path: api.write_stress_report(stress_result, page_path)
    )
    emit(document, as_json, lambda: _show_stress_test(document))


def _require_no_spot_values(
    limits: str, scenario_values: Mapping[str, Any], path_values: Mapping[str, Any]
) -> None:
    """Raise ConfigError for what a futures book without a portfolio is not stressed with."""
    values_by_option = {
        "--limits": limits,
        "--scenarios": scenario_values,
        "--paths": path_values.keys() - {"bars", "step_paths"},
    }
    for option in filter(values_by_option.get, values_by_option):
        raise ConfigError(
            f"{option}: a futures book alone has only --scenarios shock, and of --paths step-paths,"
            " bars and seeds",
            "omit the others, or add --target",
        )


def _confirm_duration(estimate_s: float, yes: bool) -> None:
    """Raise ConfigError if the test takes long and is not confirmed."""
    if estimate_s <= CONFIRM_ABOVE_S or yes:
        return
    duration_text = f"this may take {estimate_s / 60:,.0f} minutes on one core"
    if not is_interactive():
        raise ConfigError(
            duration_text,
            "add --yes, or use fewer paths or shorter paths (--paths 500,step-paths=1,bars=240)",
        )
    if not ask(f"{duration_text}. Continue?"):
        raise ConfigError(
            "declined: no path was run",
            "use fewer paths or shorter paths (--paths 500,step-paths=1,bars=240)",
        )


def _show_stress_test(document: Document) -> None:
    if "cases" in document:
        _show_stress_cases(document)
    if "futures" in document:
        show_futures_stress(document["futures"])


def _show_stress_cases(document: Document) -> None:
    from agent.backtest.stress.distribution import FEW_PATHS_TEXT
    from agent.cli.display.tables import table

    return_columns = tuple(f"return {quantile.replace('%', ' %')}" for quantile in STRESS_QUANTILES)
    figure_names = (*return_columns, "shortfall", "end value 50 %", "turnover", "outside")
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
                "–" if text is None else percent_text(text, "+")
                for text in (returns["quantiles"][quantile] for quantile in STRESS_QUANTILES)
            ),
            percent_text(returns["expected_shortfall"], "+"),
            f"{float(case['end_value']['quantiles']['50%']):,.2f}",
            f"{float(turnover['quantiles']['50%']):.2f}",
            "–" if outside_bands is None else percent_text(outside_bands["quantiles"]["50%"]),
        )
    out.print(case_table)
    say(
        f"{FEW_PATHS_TEXT} End values of {document['parameters']['start_value']} at the start. Turnover, in portfolios,"
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


SHADES = "·░▒▓█"
"""Shades from the worst objective to the best."""


MAX_RANKED_ROWS = 10
"""Number of best settings that are printed, beside the recommended one and the baseline."""


MAX_NUMBERED_COLUMNS = 8
"""Maximum number of columns of a map with numbers. Wider maps have only shades."""


@command(Heading.TEST, 20, TUNE_MARKET, GRID, OBJECTIVE, WALK, RUN)
@interruptible
def tune(
    prices: Annotated[
        Path | None, typer.Option("--prices", help="CSV or Parquet as for backtest.")
    ] = None,
    sample: Sample = False,
    config: Annotated[
        Path | None,
        config_option("The config whose setting is searched, in place of --target."),
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
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            help=(
                "More to try, NAME=VALUES: destination=target,halfway,stop=trailing:20%. Names:"
                " destination (target, halfway, band), tracking (relaxed, normal, strict; by default all"
                " with the objective tracking, else none), zone (horizons 7d,30d; only with --config),"
                " allocator (fixed, or kinds of portfolio.weights that only need prices), window and"
                " rechoose (lookback of allocators, 60d, and interval between their choices, 7d), trigger"
                " (only band, every, hybrid), stop (10%..40%:4 below the first price, trailing:20% below"
                " the highest, beside none); repeatable."
            ),
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            help=(
                "tracking (default: least costs and tracking error together), growth or sharpe, then"
                " NAME=VALUE: growth,calendar=28d. Names: calendar (benchmark of growth and sharpe:"
                " rebalancing to the targets at this interval), tax (rank net of this tax on realised"
                " gains, such as 25%; off ignores tax.rate of the config), lots (that a sale uses: fifo,"
                " lifo, hifo, average); repeatable."
            ),
        ),
    ] = None,
    walk: Annotated[
        list[str] | None,
        typer.Option(
            "--walk",
            help=(
                "Walk-forward: anchored (windows from the first bar) or rolling, and the number of"
                " folds: rolling,folds=4."
            ),
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help=(
                "How it runs: full (the full step for every setting instead of the fast kernel), cores"
                " (default all), scheduler (Dask, for the full step): full,cores=4."
            ),
        ),
    ] = None,
    market: Annotated[
        list[str] | None,
        typer.Option(
            "--market",
            help=(
                "The simulated market, NAME=VALUE: fee=10bps,depth=1000000000. Names: fee (of each pool),"
                " depth (of a pool's side), pool (v2, or v3 over the full range), gas (20 gwei; needs the"
                " full step), gas-prices (a file), latency (bars), seed; repeatable."
            ),
        ),
    ] = None,
    value: StartValue = "10000",
    native: NativeAsset = "",
    numeraire: Numeraire = "",
    symbol_mapping: SymbolMapping = None,
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
    from agent.cli.research.portfolio_texts import market_options, portfolio_options
    from agent.cli.research.trial_texts import parse_grid, tune_options

    page_paths = report_paths("tune", html, config, keep)
    price_path = api.prices_file(prices, sample)
    run_values = RUN.parse(run)
    if scheduler := run_values.get("scheduler", ""):
        api.check_scheduler_address(scheduler)
    engine = run_values.get("engine", "")
    if engine not in ("", "full"):
        raise ConfigError(f"--run: {engine!r}", "write full, cores=N or scheduler=tcp://HOST:8786")
    grid_texts = GRID.parse(grid)
    schedule_texts = {
        name: grid_texts.pop(name) for name in ("window", "rechoose") if name in grid_texts
    }
    search_options = tune_options(
        parse_grid(band, every, **grid_texts),
        schedule_texts
        | OBJECTIVE.parse(objective)
        | WALK.parse(walk)
        | {"without_kernel": engine == "full"},
    )
    prepared_search = api.prepare_tune(
        price_path,
        market_options(TUNE_MARKET.parse(market), value=value),
        search_options,
        portfolio_options(
            config,
            target=target,
            numeraire=numeraire,
            native=native,
            symbol_mapping=symbol_mapping,
        ),
    )
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
            cores=run_values.get("cores", 0),
            scheduler=scheduler,
            folder=folder,
            confirm=None if yes else confirm,
            progress=progress,
        )
    document = api.tune_document(tune_result)
    write_reports(
        document, page_paths, lambda page_path: api.write_tune_report(tune_result, page_path)
    )
    emit(document, as_json, lambda: _show_tune(document))


_OBJECTIVE_NAMES = {"tracking": "Loss", "growth": "Growth", "sharpe": "Sharpe ratio"}
_LOSS_COLUMNS = {
    "loss": "loss_bps",
    "costs": "costs_bps",
    "drift": "drift_bps",
    "rebalances a year": "trades_yearly",
}
_FOLD_LOSS_COLUMNS = {"loss": "out_of_sample", "saved against the rule": "over_baseline"}


def _score_text(score: str, objective: str) -> str:
    """Format an objective: a loss in bps, growth in percent, or a ratio."""
    if objective == "growth":
        return percent_text(score, "+")
    return f"{float(score):.2f}" if objective == "tracking" else score[:-3]


def _decline_text(decline: str, objective: str) -> str:
    if objective == "growth":
        return f"{100 * float(decline):.2f} points"
    return f"{float(decline):.2f} bps a year" if objective == "tracking" else decline


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
    named_labels = {document["recommendation"]["label"], document["baseline"]["label"]}
    shown_settings = [
        setting
        for index, setting in enumerate(document["ranked"])
        if index < MAX_RANKED_ROWS or setting["label"] in named_labels
    ]
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
                    percent_text(setting["over_hold"], "+"),
                    amount(setting["costs"], 2),
                    str(setting["rebalances"]),
                )
                for setting in shown_settings
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
                percent_text(fold["over_hold"], "+"),
                percent_text(fold["over_baseline"], "+"),
            )
            for fold in document["walk_forward"]["folds"]
        ),
    )
    if document["walk_forward"]["folds"]:
        out.print(folds_table)
    if (overfitting := document["overfitting"]) is not None:
        say(
            f"Probability of overfitting: {float(overfitting['probability']) * 100:.0f} % ({overfitting['split_count']:,} ways"
            " to halve the data)"
        )
    if (deflated_sharpe := document["deflated_sharpe"]) is not None:
        say(
            f"Deflated Sharpe ratio of the excess over hold, {deflated_sharpe['trials']} trials:"
            f" {float(deflated_sharpe['probability']) * 100:.1f} %"
        )
    if document["resumed"]:
        say(f"{document['resumed']:,} runs were loaded from an earlier search")
    for note in (*document["notes"], *document["verdict"]):
        say(note)
    setting = document["recommendation"]
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
