"""Backtest of an edit before it is confirmed. Compares the edited settings with the present ones
and with holding, over the best available price history, and estimates the probability that a choice
among similar settings is over-fitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from agent import wiring
from agent.app.documents.research import (
    EditBacktestDocument,
    ExcessGrowthDocument,
    NeighbouringSettingsDocument,
    SettingsResultDocument,
)
from agent.app.records.published import published_file
from agent.app.research.backtests import rename_symbols, spec_from_config
from agent.app.research.past_results import ASSUMED_MARKET, UNTESTABLE_METHODS, packaged_closes
from agent.backtest.data import (
    PriceTable,
    has_gas_price,
    make_price_table,
    numeraire_prices,
    read_table,
)
from agent.backtest.report.series import drawdown_series, growth_series
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, SimulationSettings
from agent.backtest.simulate import simulate
from agent.backtest.sweep import KernelSetting, prepare_prices, simulated_costs, sweep
from agent.backtest.tune.grid import DESTINATIONS
from agent.backtest.tune.jobs import DAY_S, buy_and_hold_values, is_kernel_supported
from agent.backtest.tune.search import log_returns
from agent.backtest.tune.statistics import (
    Objective,
    WalkForwardMode,
    bootstrap_interval,
    make_folds,
    overfitting_probability,
    walk_forward,
)
from agent.config.load import load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.tables.fields import parse_duration_s
from agent.config.writing.edits import apply_changes, parse_changes
from agent.errors import ConfigError, TrimtabError, needs_analysis
from agent.model import Every, HybridTrigger, Threshold, Trigger
from agent.policy.triggers.schedule_triggers import MAX_INTERVAL_S, MIN_INTERVAL_S
from agent.units import BPS, YEAR_S, format_time, value_text

Floats = NDArray[np.float64]
MIN_DAYS, MAX_DAYS = 60, 730
"""Minimum length of a history, in days, and the number of its newest days that are used."""
FOLD_COUNT = 4
WIDTH_FACTORS = (Fraction(1, 2), Fraction(3, 4), Fraction(1), Fraction(3, 2), Fraction(2))
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
    values_by_name = {
        name: [value for key, value in arguments if key == name] for name, _ in arguments
    }
    present_config = load_config(config)
    config_text = present_config.path.read_text(encoding="utf-8")
    changes = parse_changes(
        values_by_name.get("set", ()),
        values_by_name.get("target", ()),
        (),
        values_by_name.get("remove", ()),
    )
    edited_config = load_config_text(
        apply_changes(config_text, changes), present_config.path, "the edited config"
    )
    with needs_analysis():
        return _compare_configs(present_config, edited_config)


def _compare_configs(
    present_config: LoadedConfig, edited_config: LoadedConfig
) -> EditBacktestDocument:
    source, table, notes = _price_history(present_config, edited_config)
    (present_spec, present_notes), (edited_spec, edited_notes) = (
        _simulation_spec(present_config),
        _simulation_spec(edited_config),
    )
    edited_figures, edited_growth, hold_growth, periods_per_year = _simulate(
        edited_config, edited_spec, table
    )
    present_figures, present_growth, _, _ = _simulate(present_config, present_spec, table)
    edited_returns = np.diff(np.log(edited_growth))
    neighbours, neighbour_notes = _neighbour_figures(present_spec, edited_spec, table)
    return {
        "source": source,
        "from": format_time(int(table.times_s[0]))[:10],
        "until": format_time(int(table.times_s[-1]))[:10],
        "days": table.bar_count,
        "numeraire": edited_config.config.portfolio.numeraire,
        "start_value": ASSUMED_MARKET.value,
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
        "neighbours": neighbours,
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
        for loaded in (present_config, edited_config)
        for asset in loaded.config.portfolio.assets
    )
    notes: list[str] = []
    sources: tuple[tuple[str, Callable[[LoadedConfig], PriceTable | None]], ...] = (
        ("prices of [data]", lambda loaded: _published_closes(loaded, notes)),
        ("recorded prices", _recorded_closes),
        ("the packaged prices of 2021", packaged_closes),
    )
    for name, read_closes in sources:
        try:
            if (full_table := read_closes(edited_config)) is None:
                continue
            available_symbols = [symbol for symbol in symbols if symbol in full_table.symbols]
            numeraire = edited_config.config.portfolio.numeraire
            missing_symbols = [symbol for symbol in symbols if symbol not in full_table.symbols]
            if missing_symbols and (
                read_closes is packaged_closes or missing_symbols != [numeraire]
            ):
                notes.append(f"{name}: no prices of {', '.join(missing_symbols)}")
                continue
            table = _newest_bars(full_table.select(available_symbols))
        except TrimtabError as error:
            notes.append(f"{name}: {error.message}")
            continue
        if table.bar_count < MIN_DAYS:
            notes.append(f"{name}: {table.bar_count} days, fewer than {MIN_DAYS}")
            continue
        return name, table, [*notes, *table.notes]
    raise ConfigError(
        f"no history has prices of {', '.join(symbols)}: {'; '.join(notes)}",
        "record prices, or import them: trimtab prices import",
    )


def _newest_bars(table: PriceTable) -> PriceTable:
    """Return the newest MAX_DAYS bars."""
    if table.bar_count <= MAX_DAYS:
        return table
    times, closes = table.times_s[-MAX_DAYS:], table.closes[-MAX_DAYS:]
    return replace(table, times_s=times, closes=closes).select(table.symbols)


def _published_closes(loaded: LoadedConfig, notes: list[str]) -> PriceTable | None:
    """Return the daily closes of all files of [data] together; None without any. Nothing is
    downloaded.
    """
    closes: dict[str, dict[int, float]] = {}
    for name, data_table in loaded.config.data.items():
        if data_table.kind != "prices":
            continue
        if "://" in data_table.source and not any((loaded.path.parent / "data").glob(f"{name}.*")):
            notes.append(f"data.{name}: not downloaded yet: trimtab prices import {name}")
            continue
        price_table = read_table(published_file(loaded, name).path)
        new_symbols = {
            old: new for old, new in data_table.symbols.items() if old in price_table.symbols
        }
        price_table = rename_symbols(price_table, new_symbols)
        bar_s = parse_duration_s(data_table.bar, f"data.{name}.bar")
        for column, symbol in enumerate(price_table.symbols):
            symbol_closes = closes.setdefault(symbol, {})
            for time_s, close in zip(
                price_table.times_s, price_table.closes[:, column], strict=True
            ):
                if not np.isnan(close):
                    symbol_closes[(int(time_s) + bar_s) // DAY_S] = float(close)
    return _daily_table(closes)


def _recorded_closes(loaded: LoadedConfig) -> PriceTable | None:
    """Return the daily closes that the store has; None without any."""
    if not wiring.store_file(loaded).exists():
        return None
    symbols_by_address = {token.address: token.symbol for token in loaded.config.portfolio.listed}
    portfolio = loaded.config.portfolio
    numeraire = next(a.address for a in portfolio.assets if a.symbol == portfolio.numeraire)
    closes: dict[str, dict[int, float]] = {}
    with wiring.open_store_offline(loaded) as (store, _):
        newest_s = max((span.until_s for span in store.prices.spans(numeraire)), default=0)
        since_s = newest_s - MAX_DAYS * DAY_S
        for price_point in store.prices.between(numeraire, since_s, newest_s, DAY_S):
            if price_point.token in symbols_by_address:
                symbol_closes = closes.setdefault(symbols_by_address[price_point.token], {})
                symbol_closes[price_point.at_s // DAY_S] = float(price_point.price)
    return _daily_table(closes)


def _daily_table(closes: dict[str, dict[int, float]]) -> PriceTable | None:
    """Return a table of the closes by symbol and day; None without any. Raises ConfigError for
    fewer than MIN_DAYS days.
    """
    days = sorted({day for symbol_closes in closes.values() for day in symbol_closes})
    if not days:
        return None
    if len(days) < MIN_DAYS:
        count_text = f"{len(days)} {'day' if len(days) == 1 else 'days'}"
        raise ConfigError(f"{count_text}, fewer than {MIN_DAYS}", "import older prices")
    nan = float("nan")
    columns = {
        symbol: [symbol_closes.get(day, nan) for day in days]
        for symbol, symbol_closes in closes.items()
    }
    return make_price_table([day * DAY_S for day in days], columns)


SimulatedFigures = tuple[SettingsResultDocument, Floats, Floats, float]
"""Figures of a run, the growth of one unit invested in it and in holding by day, and the number of
periods in a year."""
_simulations: OrderedDict[tuple[str, str, str], SimulatedFigures] = OrderedDict()


def _simulation_spec(loaded: LoadedConfig) -> tuple[BacktestSpec, list[str]]:
    """Return the simulated portfolio, and notes on what is not simulated. Without hubs: each asset
    has a pool with the numeraire.
    """
    config, notes = loaded.config, []
    portfolio_table = config.portfolio.model_copy(update={"hubs": []})
    spec = spec_from_config(
        replace(loaded, config=config.model_copy(update={"portfolio": portfolio_table}))
    )
    if config.futures is not None:
        notes.append("futures are not part of this backtest")
    weights = spec.portfolio.weights
    if weights is not None and weights.method in UNTESTABLE_METHODS:
        spec = replace(spec, portfolio=replace(spec.portfolio, weights=None))
        notes.append(
            f"the allocator {weights.method.value} needs more than price data, so the targets are"
            " kept unchanged"
        )
    return replace(spec, limits=replace(spec.limits, max_live_value=None)), notes


def _simulation_settings(spec: BacktestSpec, table: PriceTable) -> SimulationSettings:
    market = ASSUMED_MARKET if has_gas_price(spec, table) else replace(ASSUMED_MARKET, gas="0 wei")
    return market.settings_for_table(market.settings(), spec, table)


def _simulate(loaded: LoadedConfig, spec: BacktestSpec, table: PriceTable) -> SimulatedFigures:
    cache_key = loaded.digest, repr(spec), table.digest
    if cache_key not in _simulations:
        result = simulate(spec, table, _simulation_settings(spec, table))
        growth = growth_series(result)
        index, hold_index = growth.index[growth.sample_bars], growth.hold_index[growth.sample_bars]
        figures: SettingsResultDocument = {
            "return": f"{result.twr:.6f}",
            "max_drawdown": f"{drawdown_series(index).min():.6f}",
            "rebalances": sum(rebalance.succeeded for rebalance in result.rebalances),
            "costs": value_text(result.fees + result.impact + result.gas, result.decimals, 18),
        }
        _simulations[cache_key] = figures, index, hold_index, growth.samples_per_year
        while len(_simulations) > CACHE_SIZE:
            _simulations.popitem(last=False)
    return _simulations[cache_key]


def _excess_document(
    excess_returns: Floats, periods_per_year: float
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
        "periods": yearly_interval.periods,
        "beyond_chance": bool(yearly_interval.low > 0 or yearly_interval.high < 0),
    }


@dataclass(frozen=True, slots=True)
class _Neighbour:
    targets_bps: tuple[int, ...]
    trigger: Trigger


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
    simulation_settings = replace(_simulation_settings(spec, table), gas_wei=0)
    neighbours = list(dict.fromkeys(_neighbours(present_spec, edited_spec)))
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
    prices = numeraire_prices(spec, table, table.closes, tokens)
    kernel_prices = prepare_prices([token.symbol for token in tokens], table.times_s, prices)
    costs, bar_indices = simulated_costs(spec, simulation_settings), tuple(range(table.bar_count))
    kernel_settings = [
        KernelSetting(
            neighbour.targets_bps,
            neighbour.trigger,
            spec.policy.destination,
            costs,
            spec.policy.cooldown_s,
        )
        for neighbour in neighbours
    ]
    results = sweep(
        kernel_prices,
        kernel_settings,
        float(simulation_settings.start_value),
        marks=bar_indices,
        cores=1,
    )
    returns = np.column_stack([log_returns(values) for values in results.values])
    periods_per_year = YEAR_S * len(returns) / float(table.times_s[-1] - table.times_s[0])
    folds = walk_forward(
        returns, Objective.GROWTH, make_folds(len(returns), FOLD_COUNT, WalkForwardMode.ANCHORED)
    )
    excesses = [
        fold.returns
        - log_returns(
            buy_and_hold_values(
                spec,
                simulation_settings,
                table,
                bar_indices[fold.fold.evaluation_start : fold.fold.evaluation_end + 1],
            )
        )
        for fold in folds
    ]
    probability, split_count = None, 0
    if (overfitting := overfitting_probability(returns, Objective.GROWTH)) is not None:
        probability, split_count = f"{overfitting.probability:.6f}", overfitting.split_count
    return {
        "settings": len(kernel_settings),
        "folds": len(folds),
        "walk_forward": _excess_document(np.concatenate(excesses), periods_per_year)
        if excesses
        else None,
        "overfitting": probability,
        "split_count": split_count,
    }, []


def _neighbours(present_spec: BacktestSpec, edited_spec: BacktestSpec) -> Iterator[_Neighbour]:
    """Yield the edited settings with wider and narrower triggers, with the present trigger, and with
    the targets of `_target_mixes`.
    """
    triggers = [
        scaled_trigger
        for factor in WIDTH_FACTORS
        for scaled_trigger in _scaled_triggers(edited_spec.policy.trigger, factor)
    ]
    triggers += _scaled_triggers(present_spec.policy.trigger, Fraction(1))
    for targets, trigger in product(_target_mixes(present_spec, edited_spec), triggers):
        yield _Neighbour(targets, trigger)


def _scaled_triggers(trigger: Trigger, factor: Fraction) -> list[Trigger]:
    """Return the trigger with its band, or its interval if it has no band, multiplied by the factor;
    empty if it has neither, or if the result is out of range.
    """
    match trigger:
        case Threshold(absolute_bps, relative_bps):
            widths = [
                None if width is None else round(width * factor)
                for width in (absolute_bps, relative_bps)
            ]
            if any(width is not None and not 0 < width < BPS for width in widths):
                return []
            return [Threshold(*widths)]
        case Every(interval_s):
            scaled_s = round(interval_s * factor)
            return [Every(scaled_s)] if MIN_INTERVAL_S <= scaled_s <= MAX_INTERVAL_S else []
        case HybridTrigger(Threshold() as band, Every() as schedule):
            return [
                HybridTrigger(threshold, schedule)
                for threshold in _scaled_triggers(band, factor)
                if isinstance(threshold, Threshold)
            ]
    return []


def _target_mixes(
    present_spec: BacktestSpec, edited_spec: BacktestSpec
) -> Iterator[tuple[int, ...]]:
    """Yield the edited targets. If the assets are the same, also yield mixtures of present and
    edited targets by TARGET_FRACTIONS.
    """
    old_targets = {asset.token.address: asset.target_bps for asset in present_spec.portfolio.assets}
    new_targets = {asset.token.address: asset.target_bps for asset in edited_spec.portfolio.assets}
    yield tuple(new_targets.values())
    if old_targets.keys() != new_targets.keys():
        return
    for fraction in TARGET_FRACTIONS:
        mixed_targets = [
            round(old_targets[address] + fraction * (new_targets[address] - old_targets[address]))
            for address in new_targets
        ]
        mixed_targets[mixed_targets.index(max(mixed_targets))] += BPS - sum(mixed_targets)
        if all(0 <= target <= BPS for target in mixed_targets):
            yield tuple(mixed_targets)
