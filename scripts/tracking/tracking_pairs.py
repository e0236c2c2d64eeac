"""The tracking rule in markets whose tokens have cheap pools of their own, with and without the rules of
these pairs: loss and trades a year on the same simulated prices, as JSON. A ratio below 1 is what the
rules of pairs save.

    .venv/bin/python scripts/tracking/tracking_pairs.py

Some seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.bench_tracking import even_correlation, rule_of, rules_and_covariance
from scripts.tracking.tracking_market import (
    BPS,
    RULE,
    Floats,
    Legs,
    Outcome,
    Rule,
    gaussian_market,
    run,
)

YEARS = 20
SEEDS = (1, 2)
VOLATILITIES = (0.6, 0.7, 0.8, 0.9, 0.65)
CASH_SHARE = 0.3


@dataclass(frozen=True)
class PairMarket:
    """Tokens of equal targets and correlations; costs in bps of a swap for the cash and of each
    pair's own pool, and the gas of a swap in bps of the portfolio.
    """

    count: int
    correlation: float
    cash_bps: float
    pair_bps: dict[tuple[int, int], float]
    gas_bps: float = 0.0

    @property
    def weights(self) -> Floats:
        """Targets with that of the cash."""
        return np.array([(1 - CASH_SHARE) / self.count] * self.count + [CASH_SHARE])

    def legs(self) -> Legs:
        """Return the pools with the cash, then those of the pairs."""
        pairs = [(token, self.count, self.cash_bps) for token in range(self.count)]
        pairs += [(first, second, bps) for (first, second), bps in self.pair_bps.items()]
        source, target, costs_bps = zip(*pairs, strict=True)
        return Legs(
            np.array(source),
            np.array(target),
            np.array(costs_bps) / BPS,
            np.full(len(pairs), self.gas_bps / BPS),
            np.zeros(len(pairs)),
        )


ALL_OF_THREE = {(0, 1): 5, (0, 2): 5, (1, 2): 5}
MARKETS = {
    "three coins, uncorrelated": PairMarket(3, 0.0, 30, ALL_OF_THREE),
    "three coins": PairMarket(3, 0.7, 30, ALL_OF_THREE),
    "three coins, one pair": PairMarket(3, 0.7, 30, {(0, 1): 5}),
    "three coins in a row": PairMarket(3, 0.3, 30, {(0, 1): 5, (1, 2): 10}),
    "five coins around one": PairMarket(5, 0.6, 30, {(0, token): 5 for token in range(1, 5)}),
    "three coins, gas of 1.2 bps": PairMarket(3, 0.7, 30, ALL_OF_THREE, 1.2),
    "two coins, gas of 1.2 bps": PairMarket(2, 0.7, 30, {(0, 1): 5}, 1.2),
    "four coins, two pairs, pools of 1 %": PairMarket(4, 0.6, 100, {(0, 1): 5, (2, 3): 30}, 0.1),
}


def outcomes(market: PairMarket, seed: int) -> tuple[Outcome, Outcome]:
    """Return what the rule does with the rules of pairs and without them."""
    volatilities = list(VOLATILITIES[: market.count])
    correlation = even_correlation(market.count, market.correlation)
    prices = gaussian_market(volatilities, correlation, YEARS, seed)
    legs = market.legs()
    risk, triggers, pair_triggers = rule_of(prices.covariance, market.weights, legs, 1.0)
    rules, reduced = rules_and_covariance(prices.covariance, market.weights, legs, 1.0)
    horizons = np.array([rules[token].horizon_years for token in range(market.count)])
    horizons = np.append(horizons, horizons.min())
    usual_risk = reduced * np.minimum.outer(horizons, horizons)
    with_pairs = Rule(RULE, risk=risk, widths=triggers, pair_widths=pair_triggers)
    usual = Rule(RULE, risk=usual_risk, widths=triggers)
    return (
        run(prices, market.weights, legs, with_pairs),
        run(prices, market.weights, legs, usual),
    )


def main() -> None:
    """Print each market."""
    for name, market in MARKETS.items():
        pairs = [outcomes(market, seed) for seed in SEEDS]
        losses = [
            statistics.mean(outcome.loss_bps(1.0) for outcome in column)
            for column in zip(*pairs, strict=True)
        ]
        trades = [
            statistics.mean(outcome.trades for outcome in column)
            for column in zip(*pairs, strict=True)
        ]
        row = {
            "loss_with_pairs": round(losses[0], 2),
            "loss_without": round(losses[1], 2),
            "ratio": round(losses[0] / losses[1], 3),
            "trades": [round(count) for count in trades],
        }
        print(json.dumps({"market": name, **row}), flush=True)


if __name__ == "__main__":
    main()
