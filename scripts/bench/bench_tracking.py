"""The tracking rule against 35 fixed rules and what `init` wrote before, as JSON: loss is costs +
½·λ·TE², bps of the portfolio a year. The widths are the product's
(agent/policy/triggers/tracking_rule.py); prices and planner are the script's own. Against the
numerical optimum: scripts/tracking/tracking_optimum.py.

    .venv/bin/python scripts/bench/bench_tracking.py --part cells

Parts: `cells` (fees, gas, sizes, coins, strictness), `robust` (wrong figures, drift, regimes,
cooldown), `prices` (real ones, from --data: a fixed rule is chosen on one set and applied to the
other), `certificate` (gaps of plans of the product's planner; scripts/tracking/tracking_certificate.py),
`tax` (loss and tax of rules that know and do not know the gain of the next lot;
scripts/tracking/tracking_tax.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.backtest.loss.policies import with_pairs
from agent.policy.triggers.tracking_rule import (
    CORRELATION_SHARE,
    TokenRule,
    TradingCost,
    pair_rules,
    token_rules,
)
from agent.weights.asset_classes import class_correlation_bps, class_volatility_bps
from scripts.tracking.tracking_certificate import certificates
from scripts.tracking.tracking_loss import expected_loss
from scripts.tracking.tracking_market import (
    BAND,
    BPS,
    HALFWAY,
    MIN_TRADE,
    RULE,
    TARGET,
    Floats,
    Legs,
    Market,
    Outcome,
    Rule,
    cash_legs,
    fixed_rules,
    gaussian_market,
    market_of,
    run,
)
from scripts.tracking.tracking_tax import METHODS, TAX_STEPS, TaxedOutcome, TaxedRanges, run_taxed

DEPTH = 20_000_000
"""Depth of the simulated pools, dollars: a swap of x costs x² / DEPTH in impact."""
CELL_YEARS = 8
CELL_SEED = 9
INIT_RULE = "relative 10 % target"
"""What `init` wrote before the tracking rule."""


def rule_of(
    covariance: Floats, weights: Floats, legs: Legs, risk_aversion: float
) -> tuple[Floats, Floats, Floats]:
    """Return the risk that leads a planner to the edges, the triggers, and those of pairs."""
    count = len(weights) - 1
    rules, reduced = rules_and_covariance(covariance, weights, legs, risk_aversion)
    horizons = np.array([rules[token].horizon_years for token in range(count)])
    horizons = np.append(horizons, horizons.min())
    triggers = np.array([rules[token].trigger for token in range(count)] + [9.0])
    risk = risk_aversion * reduced * np.minimum.outer(horizons, horizons)
    pair_triggers = np.zeros_like(risk)
    unit_costs = route_costs(legs, count)
    costs = {
        token: TradingCost(float(unit_costs[token, count]), float(legs.gas[token]), 0.0)
        for token in range(count)
    }
    pair_costs = {pair: float(unit_costs[pair]) for pair in combinations(range(count), 2)}
    pairs = pair_rules(weights.tolist(), reduced.tolist(), rules, costs, pair_costs, risk_aversion)
    risk = with_pairs(risk, pairs)
    for (first, second), rule in pairs.items():
        pair_triggers[first, second] = pair_triggers[second, first] = rule.trigger
    return risk, triggers, pair_triggers


def rules_and_covariance(
    covariance: Floats, weights: Floats, legs: Legs, risk_aversion: float, sale_tax: float = 0.0
) -> tuple[dict[int, TokenRule], Floats]:
    """Return the rule of each token, and the covariance with reduced correlations. `sale_tax` is
    the tax on a unit sold of any token.
    """
    count = len(weights) - 1
    unit_costs = route_costs(legs, count)
    reduced = covariance * CORRELATION_SHARE
    np.fill_diagonal(reduced, np.diag(covariance))
    costs = {
        token: TradingCost(float(unit_costs[token, count]), float(legs.gas[token]), 0.0, sale_tax)
        for token in range(count)
    }
    return token_rules(weights.tolist(), reduced.tolist(), count, costs, risk_aversion), reduced


def route_costs(legs: Legs, count: int) -> Floats:
    """Return the least cost of exchanging each asset for each other over any legs; the cash has the
    index `count`.
    """
    costs = np.full((count + 1, count + 1), np.inf)
    costs[legs.source, legs.target] = costs[legs.target, legs.source] = legs.unit_cost
    for middle in range(count + 1):
        costs = np.minimum(costs, costs[:, [middle]] + costs[[middle], :])
    return costs


def run_rule(
    market: Market,
    weights: Floats,
    legs: Legs,
    risk_aversion: float,
    known: Floats | None = None,
    cooldown: int = 1,
) -> Outcome:
    """Return what the rule does; `known` is the covariance that it knows."""
    covariance = market.covariance if known is None else known
    risk, triggers, pair_triggers = rule_of(covariance, weights, legs, risk_aversion)
    rule = Rule(RULE, risk=risk, widths=triggers, pair_widths=pair_triggers, cooldown=cooldown)
    return run(market, weights, legs, rule)


def class_covariance(symbols: list[str]) -> Floats:
    """Return the covariance of the classes, with a cash that rests."""
    count = len(symbols)
    covariance = np.zeros((count + 1, count + 1))
    for i, symbol in enumerate(symbols):
        for j, column_symbol in enumerate(symbols):
            correlation = (
                1.0 if i == j else class_correlation_bps(symbol, column_symbol, "USD") / BPS
            )
            volatility = class_volatility_bps(symbol, "USD") / BPS
            column_volatility = class_volatility_bps(column_symbol, "USD") / BPS
            covariance[i, j] = volatility * column_volatility * correlation
    return covariance


def _summary(ratios: list[float]) -> dict[str, Any]:
    return {
        "count": len(ratios),
        "mean": round(statistics.mean(ratios), 3),
        "max": round(max(ratios), 3),
        "min": round(min(ratios), 3),
    }


# --- Cells: markets of two to ten coins.


@dataclass(frozen=True)
class World:
    """Coins with their symbols, annual volatilities, correlations, targets with that of the cash,
    and costs of their pools in bps.
    """

    symbols: list[str]
    volatilities: list[float]
    correlation: Floats
    weights: Floats
    costs_bps: list[float]

    def market(self, drift: list[float] | None = None) -> Market:
        """Return hourly prices."""
        return gaussian_market(self.volatilities, self.correlation, CELL_YEARS, CELL_SEED, drift)


@dataclass(frozen=True)
class Cell:
    """A portfolio: world, gas of a leg and size in dollars, λ."""

    world: World
    gas: float
    value: float
    risk_aversion: float

    def legs(self) -> Legs:
        """Return the pools, shares of the portfolio."""
        return cash_legs(self.world.costs_bps, self.gas / self.value, self.value / DEPTH)


def even_correlation(count: int, correlation: float) -> Floats:
    """Return a matrix of one correlation."""
    return np.full((count, count), correlation) + (1 - correlation) * np.eye(count)


def three_coins(fee_bps: float) -> World:
    """Return BTC, ETH and another coin."""
    correlation = np.array([[1, 0.8, 0.6], [0.8, 1, 0.7], [0.6, 0.7, 1]])
    weights = np.array([0.25, 0.25, 0.2, 0.3])
    return World(["BTC", "ETH", "LINK"], [0.5, 0.65, 0.9], correlation, weights, [fee_bps] * 3)


def cells() -> Iterator[Cell]:
    """Yield 52 cells: three coins at each network and size, then two to ten coins, other fees and
    strictness.
    """
    for fee_bps in (5.0, 30.0):
        world = three_coins(fee_bps)
        for gas in (0.03, 0.6, 6.0):
            for value in (500, 5_000, 50_000, 500_000, 5_000_000):
                if gas < 6 or value >= 50_000:
                    yield Cell(world, gas, value, 1.0)
        for risk_aversion in (0.3, 3.0):
            for gas, value in ((0.03, 5_000), (0.6, 50_000), (6.0, 500_000)):
                yield Cell(world, gas, value, risk_aversion)
    pair = World(
        ["BTC", "ETH"], [0.5, 0.65], even_correlation(2, 0.8), np.array([0.4, 0.3, 0.3]), [1.0, 1.0]
    )
    mixed = World(
        ["BTC", "ETH", "LINK", "UNI", "PEPE", "DAI"],
        [0.5, 0.65, 0.9, 0.9, 1.1, 0.01],
        np.block(
            [[even_correlation(5, 0.65), np.zeros((5, 1))], [np.zeros((1, 5)), np.ones((1, 1))]]
        ),
        np.array([0.25, 0.2, 0.1, 0.1, 0.1, 0.1, 0.15]),
        [5.0, 5.0, 30.0, 30.0, 100.0, 1.0],
    )
    ten = World(
        ["BTC", "ETH", "A", "B", "C", "D", "E", "F", "G", "H"],
        [0.5, 0.65] + [0.9] * 8,
        even_correlation(10, 0.6),
        np.array([0.2, 0.15] + [0.07] * 8 + [0.09]),
        [5.0, 5.0] + [30.0] * 8,
    )
    for world in (pair, mixed, ten):
        for gas, value in ((0.03, 5_000), (0.03, 50_000), (0.6, 50_000), (0.03, 5_000_000)):
            yield Cell(world, gas, value, 1.0)
    yield Cell(mixed, 0.03, 50_000, 3.0)
    yield Cell(ten, 0.03, 50_000, 0.3)


def cell_row(cell: Cell) -> dict[str, Any]:
    """Return the losses of the rule, with true and class figures, beside those of fixed rules."""
    world = cell.world
    market = world.market()
    legs = cell.legs()
    risk_aversion = cell.risk_aversion
    outcomes = fixed_rules(
        market, world.weights, legs, risk_aversion, cell.value, market.covariance
    )
    fixed = {name: outcome.loss_bps(risk_aversion) for name, outcome in outcomes.items()}
    best = min(fixed, key=lambda name: fixed[name])
    rules, reduced = rules_and_covariance(market.covariance, world.weights, legs, risk_aversion)
    cash = len(world.weights) - 1
    expected_bps = expected_loss(rules, reduced.tolist(), cash, risk_aversion).total * BPS
    known = class_covariance(world.symbols)
    true_loss = run_rule(market, world.weights, legs, risk_aversion).loss_bps(risk_aversion)
    unlimited_band = Rule(BAND, widths=world.weights / 10, min_trade=MIN_TRADE / cell.value)
    unlimited = run(market, world.weights, legs, unlimited_band).loss_bps(risk_aversion)
    class_loss = run_rule(market, world.weights, legs, risk_aversion, known).loss_bps(risk_aversion)
    return {
        "coins": len(world.symbols),
        "costs_bps": world.costs_bps[0] if len(set(world.costs_bps)) == 1 else world.costs_bps,
        "gas": cell.gas,
        "value": cell.value,
        "risk_aversion": risk_aversion,
        "rule": round(true_loss, 2),
        "rule_by_class": round(class_loss, 2),
        "expected": round(expected_bps, 2),
        "best_fixed": round(fixed[best], 2),
        "best_fixed_rule": best,
        "init_before": round(fixed[INIT_RULE], 2),
        "init_before_trades": round(outcomes[INIT_RULE].trades, 2),
        "init_before_without_plan_cost": round(unlimited, 2),
        "zone_30_d": round(fixed["zone 30 d"], 2),
        "ratio": round(true_loss / fixed[best], 3),
        "ratio_by_class": round(class_loss / fixed[best], 3),
        "ratio_to_init": round(class_loss / fixed[INIT_RULE], 3),
    }


def cells_part() -> dict[str, Any]:
    """Return all cells with their summary."""
    rows = [cell_row(cell) for cell in cells()]
    costly = [
        row["ratio_to_init"]
        for row in rows
        if row["costs_bps"] == 30.0 or (row["gas"] == 6.0 and row["value"] >= 50_000)
    ]
    return {
        "years": CELL_YEARS,
        "seed": CELL_SEED,
        "cells": rows,
        "true_figures": _summary([row["ratio"] for row in rows]),
        "class_figures": _summary([row["ratio_by_class"] for row in rows]),
        "expected_to_simulated": _summary([row["expected"] / row["rule"] for row in rows]),
        "to_init_at_30_bps_or_on_ethereum": _summary(costly),
    }


# --- Wrong figures, drift, regimes, cooldown.


def scaled(covariance: Floats, token: int, factor: float) -> Floats:
    """Return the covariance with one volatility times `factor`."""
    changed = covariance.copy()
    changed[token] *= factor
    changed[:, token] *= factor
    return changed


def without_correlation(covariance: Floats) -> Floats:
    """Return the variances alone."""
    return np.diag(np.diag(covariance))


def regime_market(world: World) -> Market:
    """Return prices whose volatilities halve and double and whose correlations change, every sixty
    days on average, with the covariance that they have over all.
    """
    dice = np.random.default_rng(1)
    bar_years = 1 / 8_760
    bars = CELL_YEARS * 8_760
    state = np.cumsum(dice.random(bars) < 1 / (60 * 24)) % 2
    volatilities = np.array(world.volatilities)
    count = len(volatilities)
    noise = dice.standard_normal((bars, count))
    logs = np.zeros((bars, count))
    for number, (factor, correlation) in enumerate(((0.5, 0.5), (2.0, 0.9))):
        spread = volatilities * factor
        covariance = np.outer(spread, spread) * even_correlation(count, correlation)
        moves = noise @ np.linalg.cholesky(covariance).T * bar_years**0.5
        logs[state == number] = (moves - spread**2 * bar_years / 2)[state == number]
    covariance = np.cov(logs.T) / bar_years
    return market_of(np.expm1(logs), covariance, bar_years)


def robust_part() -> dict[str, Any]:
    """Return the loss under wrong figures as a ratio to that with the true ones; under drift and
    regimes beside the best fixed rule.
    """
    wrong: dict[str, Callable[[Floats], Floats]] = {
        "first volatility ×2": lambda covariance: scaled(covariance, 0, 2.0),
        "first volatility ÷2": lambda covariance: scaled(covariance, 0, 0.5),
        "last volatility ×2": lambda covariance: scaled(covariance, 2, 2.0),
        "last volatility ÷2": lambda covariance: scaled(covariance, 2, 0.5),
        "all volatilities ×2": lambda covariance: covariance * 4,
        "correlation 0": without_correlation,
    }
    ratios: dict[str, list[float]] = {name: [] for name in (*wrong, "cooldown 24 h")}
    moved: list[dict[str, Any]] = []
    for fee_bps, gas, value in ((5, 0.03, 5e4), (30, 0.03, 5e4), (30, 0.6, 5e3), (30, 0.03, 5e6)):
        world = three_coins(fee_bps)
        legs = Cell(world, gas, value, 1.0).legs()
        market = world.market()
        true_loss = run_rule(market, world.weights, legs, 1.0).loss_bps(1.0)
        for name, change in wrong.items():
            known = change(market.covariance)
            loss = run_rule(market, world.weights, legs, 1.0, known).loss_bps(1.0)
            ratios[name].append(loss / true_loss)
        slow = run_rule(market, world.weights, legs, 1.0, cooldown=24).loss_bps(1.0)
        ratios["cooldown 24 h"].append(slow / true_loss)
        known = class_covariance(world.symbols)
        for name, other in (
            ("drift", world.market([0.6, 0.0, -0.4])),
            ("regimes", regime_market(world)),
        ):
            fixed = {
                rule: outcome.loss_bps(1.0, is_realised=True)
                for rule, outcome in fixed_rules(
                    other, world.weights, legs, 1.0, value, other.covariance
                ).items()
            }
            loss = run_rule(other, world.weights, legs, 1.0, known).loss_bps(1.0, is_realised=True)
            moved.append(
                {
                    "market": name,
                    "cost_bps": fee_bps,
                    "gas": gas,
                    "value": value,
                    "rule_by_class": round(loss, 2),
                    "best_fixed": round(min(fixed.values()), 2),
                    "ratio": round(loss / min(fixed.values()), 3),
                }
            )
    return {
        "to_true_figures": {name: _summary(values) for name, values in ratios.items()},
        "to_best_fixed": moved,
    }


# --- Real prices.


def real_market(path: Path, symbols: list[str]) -> Market:
    """Return the simple returns of coins in a file of bars, at times at which all have a price."""
    frame = polars.read_parquet(path).filter(polars.col("symbol").is_in(symbols))
    wide = frame.pivot(on="symbol", index="time", values="close").sort("time").drop_nulls()
    closes = wide.select(symbols).to_numpy()
    times = wide["time"].to_list()
    bar_years = (times[1] - times[0]).total_seconds() / (365 * 86_400)
    returns = closes[1:] / closes[:-1] - 1
    covariance = np.cov(np.log(closes[1:] / closes[:-1]).T) / bar_years
    return market_of(returns, covariance, bar_years)


def prices_part(data: Path) -> dict[str, Any]:
    """Return the rule by class figures against a fixed rule chosen on the other data set."""
    files = {"daily": "daily_2017_2023.parquet", "hourly": "hourly_2021-04_2022-12.parquet"}
    if not all((data / name).exists() for name in files.values()):
        return {"skipped": f"no prices in {data}"}
    rows = []
    for symbols, weights in (
        (["BTC", "ETH"], np.array([0.5, 0.3, 0.2])),
        (["BTC", "ETH", "LINK"], np.array([0.4, 0.3, 0.1, 0.2])),
    ):
        markets = {name: real_market(data / file, symbols) for name, file in files.items()}
        known = class_covariance(symbols)
        for fee_bps, gas, value in (
            (5, 0.03, 5e3),
            (5, 0.03, 5e4),
            (30, 0.03, 5e3),
            (30, 0.03, 5e4),
            (30, 0.6, 5e4),
            (30, 6.0, 5e5),
        ):
            legs = cash_legs([fee_bps] * len(symbols), gas / value, value / DEPTH)
            fixed = {
                name: {
                    rule: outcome.loss_bps(1.0, is_realised=True)
                    for rule, outcome in fixed_rules(
                        market, weights, legs, 1.0, value, known
                    ).items()
                }
                for name, market in markets.items()
            }
            for chosen_on, applied_to in (("daily", "hourly"), ("hourly", "daily")):
                chosen = min(fixed[chosen_on], key=lambda rule: fixed[chosen_on][rule])
                loss = run_rule(markets[applied_to], weights, legs, 1.0, known).loss_bps(
                    1.0, is_realised=True
                )
                rows.append(
                    {
                        "symbols": symbols,
                        "cost_bps": fee_bps,
                        "gas": gas,
                        "value": value,
                        "applied_to": applied_to,
                        "rule_by_class": round(loss, 2),
                        "chosen_rule": chosen,
                        "chosen": round(fixed[applied_to][chosen], 2),
                        "best_in_hindsight": round(min(fixed[applied_to].values()), 2),
                        "init_before": round(fixed[applied_to][INIT_RULE], 2),
                        "ratio": round(loss / fixed[applied_to][chosen], 3),
                    }
                )
    return {"rows": rows, **_summary([row["ratio"] for row in rows])}


# --- Tax.


TAX_RATE = 0.25
TAX_SEEDS = range(9, 17)
TAX_VALUE = 50_000
"""Size of the portfolio, dollars."""


def taxed_ranges(
    covariance: Floats,
    weights: Floats,
    legs: Legs,
    tax_rate: float,
    *,
    counts_plan_tax: bool = False,
) -> TaxedRanges:
    """Return the rule at each share of gain; without a tax rate at none."""
    count = len(weights) - 1
    horizons = []
    triggers = []
    for gain_share in np.linspace(0.0, 1.0, TAX_STEPS + 1) if tax_rate else (0.0,):
        rules, reduced = rules_and_covariance(
            covariance, weights, legs, 1.0, tax_rate * float(gain_share)
        )
        horizons.append([rules[token].horizon_years or 0.0 for token in range(count)])
        triggers.append([*(rules[token].trigger for token in range(count)), 9.0])
    token_horizons = np.array(horizons)
    cash_horizons = token_horizons.min(axis=1, keepdims=True)
    return TaxedRanges(
        np.hstack([token_horizons, cash_horizons]), np.array(triggers), reduced, counts_plan_tax
    )


def taxed_outcomes(
    market: Market, world: World, legs: Legs, method: int
) -> dict[str, TaxedOutcome]:
    """Return the outcomes of the rule with and without tax, and of bands."""
    weights = world.weights
    known = class_covariance(world.symbols)
    ranges = {
        "rule": taxed_ranges(known, weights, legs, 0.0),
        "rule, plan pays its whole tax": taxed_ranges(
            known, weights, legs, 0.0, counts_plan_tax=True
        ),
        "rule after tax": taxed_ranges(known, weights, legs, TAX_RATE),
    }
    outcomes = {
        name: run_taxed(market, weights, legs, Rule(RULE), method, TAX_RATE, ranges=rule_ranges)
        for name, rule_ranges in ranges.items()
    }
    for percent, destination, name in (
        (10, TARGET, "relative 10 % target"),
        (20, HALFWAY, "relative 20 % halfway"),
    ):
        outcomes[name] = run_taxed(
            market,
            weights,
            legs,
            Rule(
                BAND,
                widths=weights * percent / 100,
                destination=destination,
                min_trade=10 / TAX_VALUE,
            ),
            method,
            TAX_RATE,
        )
    return outcomes


def tax_part() -> dict[str, Any]:
    """Return loss and tax a year of the rule with and without tax and of bands: mean of several
    markets, three coins and cash, class figures, gas of 0.03 dollars a leg.
    """
    rows = []
    for fee_bps in (5.0, 30.0):
        world = three_coins(fee_bps)
        legs = Cell(world, 0.03, TAX_VALUE, 1.0).legs()
        for drift in (0.15, 0.0):
            markets = [
                gaussian_market(
                    world.volatilities, world.correlation, CELL_YEARS, seed, [drift] * 3
                )
                for seed in TAX_SEEDS
            ]
            for method_name, method in METHODS.items():
                runs = [taxed_outcomes(market, world, legs, method) for market in markets]
                rows += [
                    {
                        "cost_bps": fee_bps,
                        "drift": drift,
                        "method": method_name,
                        "rule": name,
                        **TaxedOutcome.mean([run[name] for run in runs]).row(1.0),
                    }
                    for name in runs[0]
                ]
    return {"years": CELL_YEARS, "seeds": list(TAX_SEEDS), "tax_rate": TAX_RATE, "rows": rows}


CERTIFICATE_STEPS = 1_400
"""Steps of which some 1,000 have a plan."""


def certificate_part() -> dict[str, Any]:
    """Return the gaps of plans of the rule in bps of their turnover, how many were too small, and how
    far gaps are beyond one base unit of each token of each swap.
    """
    rows = {}
    all_gaps = []
    all_excesses = []
    for name, first in (("a pool an asset", 0), ("up to 16 pools", 1)):
        plan_certificates = list(certificates(range(first, CERTIFICATE_STEPS, 2)))
        gaps = sorted(float(certificate.gap_bps) for certificate in plan_certificates)
        rows[name] = {
            "plans": len(gaps),
            "median_bps": statistics.median(gaps),
            "p90_bps": gaps[len(gaps) * 9 // 10],
            "p99_bps": gaps[len(gaps) * 99 // 100],
            "max_bps": gaps[-1],
            "too_small": sum(certificate.missing_bps > 0 for certificate in plan_certificates),
        }
        all_gaps += gaps
        all_excesses += [
            max(0.0, float(certificate.gap_bps - certificate.base_units_bps))
            for certificate in plan_certificates
        ]
    rows["all"] = {
        "plans": len(all_gaps),
        "median_bps": statistics.median(all_gaps),
        "median_beyond_base_units_bps": statistics.median(all_excesses),
        "plans_beyond_base_units": sum(excess > 0 for excess in all_excesses),
    }
    return rows


def main() -> None:
    """Print the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part",
        choices=("cells", "robust", "prices", "certificate", "tax", "all"),
        default="all",
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/prices"))
    options = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "cells": cells_part,
        "robust": robust_part,
        "prices": lambda: prices_part(options.data),
        "certificate": certificate_part,
        "tax": tax_part,
    }
    chosen = parts if options.part == "all" else {options.part: parts[options.part]}
    print(json.dumps({name: part() for name, part in chosen.items()}, indent=1))


if __name__ == "__main__":
    main()
