"""Backtest of an edit before it is confirmed. Compares the edited settings with the present ones
and with holding, over the best available price history, and estimates the probability that a choice
among similar settings is over-fitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np

from agent import wiring
from agent.app.documents.research import (
    EditBacktestDocument,
    ExcessGrowthDocument,
    NeighbouringSettingsDocument,
    SettingsResultDocument,
)
from agent.app.records.published import fetch_published_file
from agent.app.research.backtests import rename_symbols, spec_from_config
from agent.app.research.past_results import ASSUMED_MARKET, UNTESTABLE_METHODS, packaged_closes
from agent.backtest.data import (
    PriceTable,
    daily_closes,
    has_gas_price,
    prices_in_numeraire,
    require_known_unit,
    validate_prices,
)
from agent.backtest.data import price_table as file_closes_table
from agent.backtest.jumps import with_suspect_note
from agent.backtest.report.series import drawdown_series, growth_series
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, SimulationSettings
from agent.backtest.simulate import simulate
from agent.backtest.sweep import KernelSetting, prepare_prices, simulated_costs, sweep
from agent.backtest.tune.grid import DESTINATIONS
from agent.backtest.tune.jobs import buy_and_hold_values, is_kernel_supported
from agent.backtest.tune.search import log_returns
from agent.backtest.tune.statistics import (
    Objective,
    WalkForwardMode,
    bootstrap_interval,
    make_folds,
    overfitting_probability,
    walk_forward,
)
from agent.config.load import UNSAVED_REMEDY, load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.tables.fields import parse_duration_s
from agent.config.tables.weights import DataTable
from agent.config.writing.edits import apply_changes, parse_changes
from agent.errors import ConfigError, TrimtabError, require_analysis_package
from agent.floats import FloatArray
from agent.model import Every, HybridTrigger, Threshold, Trigger
from agent.policy.triggers.schedule_triggers import MAX_INTERVAL_S, MIN_INTERVAL_S
from agent.price_files.read import ClosingPrices, read_closes
from agent.units import BPS, DAY_S, YEAR_S, format_time, pluralize, value_text

MIN_DAYS = 60
MAX_DAYS = 730
"""Minimum length of a history, in days, and the number of its newest days that are used."""
FOLD_COUNT = 4
TRIGGER_FACTORS = (Fraction(1, 2), Fraction(3, 4), Fraction(1), Fraction(3, 2), Fraction(2))
"""Factors of bands and intervals around the edited settings."""
TARGET_FRACTIONS = (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2))
"""Targets around the edited ones, as fractions of the step from the present to the edited targets.
"""
CACHE_SIZE = 32


def edit_backtest(config: str, arguments: Sequence[tuple[str, str]]) -> EditBacktestDocument:
    """Backtest an edit by its arguments. Reads config, store and files; writes nothing and
    downloads nothing. Raises ConfigError if no history has prices of all assets for MIN_DAYS, or if
    the settings cannot be simulated; Refused if the extra trimtab[analysis] is not installed.
    """
    argument_values_by_name = {
        name: [
            argument_value for argument_name, argument_value in arguments if argument_name == name
        ]
        for name, _ in arguments
    }
    present_config = load_config(config)
    config_text = present_config.path.read_text(encoding="utf-8")
    changes = parse_changes(
        argument_values_by_name.get("set", ()),
        argument_values_by_name.get("target", ()),
        (),
        argument_values_by_name.get("remove", ()),
    )
    edited_config = load_config_text(
        apply_changes(config_text, changes),
        present_config.path,
        "the edited config",
        remedy=UNSAVED_REMEDY,
    )
    with require_analysis_package():
        return _compare_configs(present_config, edited_config)


def _compare_configs(
    present_config: LoadedConfig, edited_config: LoadedConfig
) -> EditBacktestDocument:
    source_name, table, notes = _price_history(present_config, edited_config)
    present_spec, present_notes = _simulation_spec(present_config)
    edited_spec, edited_notes = _simulation_spec(edited_config)
    edited_figures, edited_growth, hold_growth, periods_per_year = _simulate(
        edited_config, edited_spec, table
    )
    present_figures, present_growth, _, _ = _simulate(present_config, present_spec, table)
    edited_returns = np.diff(np.log(edited_growth))
    neighbours_document, neighbour_notes = _neighbour_figures(present_spec, edited_spec, table)
    return {
        "source": source_name,
        "from": format_time(int(table.times_s[0]))[:10],
        "until": format_time(int(table.times_s[-1]))[:10],
        "days": table.bar_count,
        "numeraire": edited_config.config.portfolio.numeraire,
        "start_value": value_text(ASSUMED_MARKET.start_value, 0, 2),
        "edited": edited_figures,
        "present": present_figures,
        "held_return": f"{hold_growth[-1] - 1:.6f}",
        "held_max_drawdown": f"{drawdown_series(hold_growth).min():.6f}",
        "over_present": _excess_document(
            edited_returns - np.diff(np.log(present_growth)), periods_per_year
        ),
        "over_holding": _excess_document(
            edited_returns - np.diff(np.log(hold_growth)), periods_per_year
        ),
        "neighbours": neighbours_document,
        "notes": list(dict.fromkeys((*notes, *present_notes, *edited_notes, *neighbour_notes))),
        "edited_hash": edited_config.digest,
        "present_hash": present_config.digest,
        "data_hash": table.digest,
    }


def _price_history(
    present_config: LoadedConfig, edited_config: LoadedConfig
) -> tuple[str, PriceTable, list[str]]:
    """Return the first sufficient history: its name, its daily closes of all assets, and notes on
    why earlier sources are not used.
    """
    symbols = dict.fromkeys(
        asset.symbol
        for loaded_config in (present_config, edited_config)
        for asset in loaded_config.config.portfolio.assets
    )
    source_notes: list[str] = []
    sources: tuple[tuple[str, Callable[[LoadedConfig], PriceTable | None]], ...] = (
        ("prices of [data]", lambda loaded_config: _published_closes(loaded_config, source_notes)),
        ("recorded prices", _recorded_closes),
        ("the packaged prices of 2021", packaged_closes),
    )
    for source_name, read_source in sources:
        try:
            if (full_table := read_source(edited_config)) is None:
                continue
            available_symbols = [symbol for symbol in symbols if symbol in full_table.symbols]
            numeraire = edited_config.config.portfolio.numeraire
            missing_symbols = [symbol for symbol in symbols if symbol not in full_table.symbols]
            if missing_symbols and (
                read_source is packaged_closes or missing_symbols != [numeraire]
            ):
                source_notes.append(f"{source_name}: no prices of {', '.join(missing_symbols)}")
                continue
            newest_table = replace(
                full_table,
                times_s=full_table.times_s[-MAX_DAYS:],
                closes=full_table.closes[-MAX_DAYS:],
            )
            table = with_suspect_note(newest_table.select(available_symbols))
        except TrimtabError as error:
            source_notes.append(f"{source_name}: {error.message}")
            continue
        if table.bar_count < MIN_DAYS:
            source_notes.append(f"{source_name}: {table.bar_count} days, fewer than {MIN_DAYS}")
            continue
        return source_name, table, [*source_notes, *table.notes]
    raise ConfigError(
        f"no history has prices of {', '.join(symbols)}: {'; '.join(source_notes)}",
        "record prices, or import them: trimtab prices import",
    )


def _published_closes(loaded_config: LoadedConfig, notes: list[str]) -> PriceTable | None:
    """Return the daily closes of all files of [data] together; None without any. Nothing is
    downloaded.
    """
    closes_by_symbol: dict[str, dict[int, float]] = {}
    currencies = set[str]()
    for data_name, data_table in loaded_config.config.data.items():
        if data_table.kind != "prices":
            continue
        if "://" in data_table.source and not any(
            (loaded_config.path.parent / "data").glob(f"{data_name}.*")
        ):
            notes.append(f"data.{data_name}: not downloaded yet: trimtab prices import {data_name}")
            continue
        file_closes = read_closes(fetch_published_file(loaded_config, data_name).path, "data")
        price_table = validate_prices(file_closes_table(file_closes))
        currencies.add(price_table.currency)
        symbol_by_file_symbol = {
            file_symbol: config_symbol
            for file_symbol, config_symbol in data_table.symbols.items()
            if file_symbol in price_table.symbols
        }
        price_table = rename_symbols(price_table, symbol_by_file_symbol)
        for column_index, symbol in enumerate(price_table.symbols):
            bar_s = _bar_s(data_table, file_closes, column_index)
            symbol_closes = closes_by_symbol.setdefault(symbol, {})
            for time_s, close in zip(
                price_table.times_s, price_table.closes[:, column_index], strict=True
            ):
                if not np.isnan(close):
                    symbol_closes[int(time_s) + bar_s] = float(close)
    if (table := _daily_table(closes_by_symbol)) is None:
        return None
    known_currencies = sorted(currencies - {""})
    if len(known_currencies) > 1:
        raise ConfigError(
            f"the closes are in several currencies: {', '.join(known_currencies)}",
            "use files in one currency",
        )
    table = replace(table, currency="".join(known_currencies))
    numeraire = loaded_config.config.portfolio.numeraire
    require_known_unit(table, numeraire, f"use prices of {numeraire} too")
    return table


def _bar_s(data_table: DataTable, file_closes: ClosingPrices, column_index: int) -> int:
    """Return the time from a row of a published file to its close, as an import dates it."""
    if data_table.bar:
        return parse_duration_s(data_table.bar, "data.bar")
    return file_closes.series[column_index].interval_s if file_closes.has_bar_starts else 0


def _recorded_closes(loaded_config: LoadedConfig) -> PriceTable | None:
    """Return the daily closes that the store has; None without any."""
    if not wiring.has_store(loaded_config):
        return None
    symbols_by_address = {
        token.address: token.symbol for token in loaded_config.config.portfolio.listed_tokens
    }
    portfolio = loaded_config.config.portfolio
    numeraire_address = next(
        asset.address for asset in portfolio.assets if asset.symbol == portfolio.numeraire
    )
    closes_by_symbol: dict[str, dict[int, float]] = {}
    with wiring.open_store_offline(loaded_config) as (store, _):
        newest_s = max((span.until_s for span in store.prices.spans(numeraire_address)), default=0)
        since_s = newest_s - MAX_DAYS * DAY_S
        for price_point in store.prices.prices_between(numeraire_address, since_s, newest_s):
            if price_point.token in symbols_by_address:
                symbol_closes = closes_by_symbol.setdefault(
                    symbols_by_address[price_point.token], {}
                )
                symbol_closes[price_point.at_s] = float(price_point.price)
    return _daily_table(closes_by_symbol)


def _daily_table(closes_by_symbol: dict[str, dict[int, float]]) -> PriceTable | None:
    """Return the daily closes of closes by symbol and time; None without any. Raises ConfigError for
    fewer than MIN_DAYS days.
    """
    times_s = sorted({time_s for closes in closes_by_symbol.values() for time_s in closes})
    if not times_s:
        return None
    columns = [
        [symbol_closes.get(time_s, np.nan) for time_s in times_s]
        for symbol_closes in closes_by_symbol.values()
    ]
    table = daily_closes(
        PriceTable(tuple(closes_by_symbol), np.array(times_s), np.column_stack(columns))
    )
    if table.bar_count < MIN_DAYS:
        raise ConfigError(
            f"{pluralize(table.bar_count, 'day')}, fewer than {MIN_DAYS}", "import older prices"
        )
    return validate_prices(table)


SimulatedFigures = tuple[SettingsResultDocument, FloatArray, FloatArray, float]
"""Figures of a run, the growth of one unit invested in it and in holding by day, and the number of
periods in a year."""
_figures_cache: OrderedDict[tuple[str, str, str], SimulatedFigures] = OrderedDict()


def _simulation_spec(loaded_config: LoadedConfig) -> tuple[BacktestSpec, list[str]]:
    """Return the simulated portfolio, and notes on what is not simulated. Without hubs: each asset
    has a pool with the numeraire.
    """
    config = loaded_config.config
    notes = []
    portfolio_table = config.portfolio.model_copy(update={"hubs": []})
    spec = spec_from_config(
        replace(loaded_config, config=config.model_copy(update={"portfolio": portfolio_table}))
    )
    if config.futures is not None:
        notes.append("futures are not part of this backtest")
    weights = spec.portfolio.allocator
    if weights is not None and weights.method in UNTESTABLE_METHODS:
        spec = replace(spec, portfolio=replace(spec.portfolio, allocator=None))
        notes.append(
            f"the allocator {weights.method.value} needs more than price data, so the targets are"
            " kept unchanged"
        )
    return replace(spec, limits=replace(spec.limits, max_live_value=None)), notes


def _simulation_settings(spec: BacktestSpec, table: PriceTable) -> SimulationSettings:
    if has_gas_price(spec, table):
        return ASSUMED_MARKET
    return replace(ASSUMED_MARKET, gas_price_wei=0)


def _simulate(
    loaded_config: LoadedConfig, spec: BacktestSpec, table: PriceTable
) -> SimulatedFigures:
    cache_key = loaded_config.digest, repr(spec), table.digest
    if cache_key not in _figures_cache:
        simulation = simulate(spec, table, _simulation_settings(spec, table))
        growth = growth_series(simulation)
        value_index = growth.unit_growth[growth.sample_bars]
        hold_value_index = growth.hold_unit_growth[growth.sample_bars]
        figures: SettingsResultDocument = {
            "return": f"{simulation.twr:.6f}",
            "max_drawdown": f"{drawdown_series(value_index).min():.6f}",
            "rebalances": sum(rebalance.succeeded for rebalance in simulation.rebalances),
            "costs": value_text(
                simulation.fees + simulation.impact + simulation.gas, simulation.decimals, 18
            ),
        }
        _figures_cache[cache_key] = figures, value_index, hold_value_index, growth.samples_per_year
        while len(_figures_cache) > CACHE_SIZE:
            _figures_cache.popitem(last=False)
    return _figures_cache[cache_key]


def _excess_document(
    excess_returns: FloatArray, periods_per_year: float
) -> ExcessGrowthDocument | None:
    """Return the mean excess a year with its interval; None for too few periods."""
    interval = bootstrap_interval(excess_returns, seed=0)
    if interval is None:
        return None
    yearly_interval = interval.scaled(periods_per_year)
    return {
        "mean": f"{yearly_interval.mean:.6f}",
        "low": f"{yearly_interval.low:.6f}",
        "high": f"{yearly_interval.high:.6f}",
        "periods": yearly_interval.period_count,
        "beyond_chance": bool(yearly_interval.low > 0 or yearly_interval.high < 0),
    }


def _neighbour_figures(
    present_spec: BacktestSpec, edited_spec: BacktestSpec, table: PriceTable
) -> tuple[NeighbouringSettingsDocument | None, list[str]]:
    """Return the figures of the settings around the edited ones, or why there are none."""
    spec = replace(
        edited_spec,
        limits=PERMISSIVE_LIMITS,
        portfolio=replace(
            edited_spec.portfolio,
            assets=tuple(replace(asset, reserve_raw=0) for asset in edited_spec.portfolio.assets),
        ),
    )
    simulation_settings = replace(_simulation_settings(spec, table), gas_price_wei=0)
    neighbours = _neighbours(present_spec, edited_spec)
    if (
        not is_kernel_supported(spec, simulation_settings)
        or spec.policy.destination not in DESTINATIONS
        or len(neighbours) < 2
    ):
        return None, [
            "the probability of over-fitting is not estimated: neighbouring settings can be tried"
            " only for fixed weights with one common band or interval"
        ]
    tokens = [asset.token for asset in spec.portfolio.assets]
    closes_in_numeraire = prices_in_numeraire(spec, table, table.closes, tokens)
    kernel_prices = prepare_prices(
        [token.symbol for token in tokens], table.times_s, closes_in_numeraire
    )
    costs = simulated_costs(spec, simulation_settings)
    bar_indices = tuple(range(table.bar_count))
    kernel_settings = [
        KernelSetting(targets_bps, trigger, spec.policy.destination, costs, spec.policy.cooldown_s)
        for targets_bps, trigger in neighbours
    ]
    sweep_results = sweep(
        kernel_prices,
        kernel_settings,
        float(simulation_settings.start_value),
        marked_bars=bar_indices,
        cores=1,
    )
    returns = np.column_stack(
        [log_returns(setting_values) for setting_values in sweep_results.mark_values]
    )
    periods_per_year = YEAR_S * len(returns) / float(table.times_s[-1] - table.times_s[0])
    fold_results = walk_forward(
        returns, Objective.GROWTH, make_folds(len(returns), FOLD_COUNT, WalkForwardMode.ANCHORED)
    )
    fold_excess_returns = [
        fold_result.returns
        - log_returns(
            buy_and_hold_values(
                spec,
                simulation_settings,
                table,
                bar_indices[
                    fold_result.fold.evaluation_start : fold_result.fold.evaluation_end + 1
                ],
            )
        )
        for fold_result in fold_results
    ]
    probability_text = None
    split_count = 0
    if (overfitting := overfitting_probability(returns, Objective.GROWTH)) is not None:
        probability_text = f"{overfitting.probability:.6f}"
        split_count = overfitting.split_count
    return {
        "settings": len(kernel_settings),
        "folds": len(fold_results),
        "walk_forward": _excess_document(np.concatenate(fold_excess_returns), periods_per_year)
        if fold_excess_returns
        else None,
        "overfitting": probability_text,
        "split_count": split_count,
    }, []


def _neighbours(
    present_spec: BacktestSpec, edited_spec: BacktestSpec
) -> list[tuple[tuple[int, ...], Trigger]]:
    """Return targets and trigger of the edited settings with wider and narrower triggers, with the
    present trigger, and with the targets of `_target_mixes`.
    """
    triggers = [
        scaled_trigger
        for factor in TRIGGER_FACTORS
        for scaled_trigger in _scaled_triggers(edited_spec.policy.trigger, factor)
    ]
    triggers += _scaled_triggers(present_spec.policy.trigger, Fraction(1))
    return list(dict.fromkeys(product(_target_mixes(present_spec, edited_spec), triggers)))


def _scaled_triggers(trigger: Trigger, factor: Fraction) -> list[Trigger]:
    """Return the trigger with its band, or its interval if it has no band, multiplied by the
    factor; empty if it has neither, or if the result is out of range.
    """
    match trigger:
        case Threshold(absolute_bps, relative_bps):
            widths_bps = [
                None if width_bps is None else round(width_bps * factor)
                for width_bps in (absolute_bps, relative_bps)
            ]
            if any(width_bps is not None and not 0 < width_bps < BPS for width_bps in widths_bps):
                return []
            return [Threshold(*widths_bps)]
        case Every(interval_s):
            scaled_interval_s = round(interval_s * factor)
            return (
                [Every(scaled_interval_s)]
                if MIN_INTERVAL_S <= scaled_interval_s <= MAX_INTERVAL_S
                else []
            )
        case HybridTrigger(Threshold() as band, Every() as schedule):
            return [
                HybridTrigger(scaled_band, schedule)
                for scaled_band in _scaled_triggers(band, factor)
                if isinstance(scaled_band, Threshold)
            ]
    return []


def _target_mixes(
    present_spec: BacktestSpec, edited_spec: BacktestSpec
) -> Iterator[tuple[int, ...]]:
    """Yield the edited targets. If the assets are the same, also yield mixtures of present and
    edited targets by TARGET_FRACTIONS.
    """
    present_targets_bps = {
        asset.token.address: asset.target_bps for asset in present_spec.portfolio.assets
    }
    edited_targets_bps = {
        asset.token.address: asset.target_bps for asset in edited_spec.portfolio.assets
    }
    yield tuple(edited_targets_bps.values())
    if present_targets_bps.keys() != edited_targets_bps.keys():
        return
    for edited_fraction in TARGET_FRACTIONS:
        mixed_targets_bps = [
            round(
                present_targets_bps[address]
                + edited_fraction * (edited_targets_bps[address] - present_targets_bps[address])
            )
            for address in edited_targets_bps
        ]
        mixed_targets_bps[mixed_targets_bps.index(max(mixed_targets_bps))] += BPS - sum(
            mixed_targets_bps
        )
        if all(0 <= target_bps <= BPS for target_bps in mixed_targets_bps):
            yield tuple(mixed_targets_bps)
