"""About the tax that a policy pays a year on the gains of its sales, beside its loss, on simulated
prices that grow.

Each token is bought at its target at the start, and MAX_YEARS follow. A sale takes its lots by the
method; the gains of a year of 365 days are taxed net of its losses, and a year of losses owes
nothing. The tax on the gains that are left at the end is told apart. The tax is a figure, as the costs are: neither
is taken from the portfolio. All policies have bars of one length; what is bought in a bar is a lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.backtest.loss.simulation import (
    MAX_KEPT_RESULTS,
    MAX_YEARS,
    SEED,
    Indices,
    LossMarket,
    LossPolicy,
    PolicyBook,
    SimulatedLoss,
)
from agent.floats import FloatArray
from agent.model import LotMethod

TAXED_GROWTH = 0.15
"""Growth of a coin against a currency, a year, as in scripts/bench/bench_tracking.py, part `tax`."""
GAIN_STEPS = 50
"""Steps between no gain and all gain at which a rule after tax is known."""
TAXED_BARS = 800
TAXED_PATHS = 96
"""Paths: half of them, and as many with the opposite moves."""
SMALLEST_UNITS = 1e-12
NO_RANK = -np.inf


@dataclass(frozen=True, slots=True)
class LossTax:
    """Tax on gains: its rate, how sales take their lots, and the annual growth of each token."""

    rate: float
    method: LotMethod
    growths: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TaxedPolicy:
    """A policy where gains are taxed. `steps` are the policy with the tax on the next unit sold at
    GAIN_STEPS shares of gain, for a rule after tax. With `weighs_tax` a plan is made only if it saves
    more risk than its costs and its whole tax.
    """

    policy: LossPolicy
    steps: tuple[LossPolicy, ...] = ()
    weighs_tax: bool = False

    @property
    def heeds_tax(self) -> bool:
        """Return whether the tax changes what is traded."""
        return self.weighs_tax or bool(self.steps)


@lru_cache(maxsize=MAX_KEPT_RESULTS)
def simulate_taxes(
    market: LossMarket, tax: LossTax, policies: tuple[TaxedPolicy, ...]
) -> tuple[SimulatedLoss, ...]:
    """Return the loss and tax of each policy, on the same random numbers."""
    bar_years = MAX_YEARS / TAXED_BARS
    book = _TaxedBook(market, policies, bar_years)
    wallets = _Wallets(book, tax)
    generator = np.random.default_rng(SEED)
    covariance_root = book.covariance_root
    growth = (np.array(tax.growths) - np.diag(book.covariance) / 2) * bar_years
    waited_years = np.full(book.row_count, MAX_YEARS)
    variance = np.zeros(book.row_count)
    bars_per_year = round(1 / bar_years)
    for bar in range(1, TAXED_BARS + 1):
        half = generator.standard_normal((TAXED_PATHS // 2, len(growth))) @ covariance_root
        moves = np.concatenate([half, -half])
        drift_before = wallets.drift
        wallets.move(np.exp(moves * bar_years**0.5 + growth))
        if bar % bars_per_year == 1:
            wallets.year_gains[:] = 0
        book.widen(wallets.gain_shares())
        waited_years += bar_years
        is_due = waited_years >= book.intervals[:, 0] - bar_years / 2
        signals = np.einsum("ri,rij->rj", wallets.drift, book.signals)
        fires = is_due & (np.abs(signals) > book.triggers).any(axis=1)
        waited_years[np.where(book.has_schedule[:, 0], is_due, fires)] = 0
        for drift in (drift_before, wallets.drift):
            errors = drift @ covariance_root.T
            variance += (errors * errors).sum(axis=1)
        rows = np.nonzero(fires)[0]
        if len(rows):
            is_traded = wallets.trade(rows, bar)
            waited_years[rows[~is_traded & ~book.has_schedule[rows, 0]]] = MAX_YEARS
    drifts = market.risk_aversion / 2 * variance / 2 / TAXED_BARS
    sums = np.array(
        [
            wallets.costs,
            drifts * MAX_YEARS,
            wallets.trades,
            wallets.taxes,
            wallets.taxes_left(),
        ]
    )
    means = sums.reshape(len(sums), len(policies), TAXED_PATHS).mean(axis=2) / MAX_YEARS
    return tuple(SimulatedLoss(*figures) for figures in means.T.tolist())


class _TaxedBook(PolicyBook):
    """The policies, with a row for each path of each."""

    def __init__(
        self, market: LossMarket, policies: Sequence[TaxedPolicy], bar_years: float
    ) -> None:
        taxed_rows = [policy for policy in policies for _ in range(TAXED_PATHS)]
        super().__init__(market, [row.policy for row in taxed_rows], bar_years)
        self.row_count = len(taxed_rows)
        self.weighs_tax = np.array([row.weighs_tax for row in taxed_rows])
        variances, directions = np.linalg.eigh(self.covariance)
        self.covariance_root = np.sqrt(np.maximum(variances, 0))[:, None] * directions.T
        self.after_tax = np.array(
            [row for row, policy in enumerate(taxed_rows) if policy.steps], int
        )
        after_tax = [policy.steps for policy in policies if policy.steps]
        if not after_tax:
            return
        (steps,) = after_tax  # all rows of rules after tax have the ranges of one
        self._edges = np.array([step.edges for step in steps])
        self._triggers = np.array([step.triggers[:-1] for step in steps])
        risks = np.array([step.risk for step in steps])
        self._own_risks = np.diagonal(risks, axis1=1, axis2=2)
        scales = np.sqrt(self._own_risks)
        self._correlations = risks / (scales[:, :, None] * scales[:, None, :])

    def widen(self, gain_shares: FloatArray) -> None:
        """Set the ranges of rules after tax to those at these shares of gain of the next units, of
        the two of a pair at their mean.
        """
        rows = self.after_tax
        if not len(rows):
            return
        sides = np.abs(self.exchanges)
        places = gain_shares[rows] @ (sides / sides.sum(axis=1)[:, None]).T * GAIN_STEPS
        steps = np.minimum(places.astype(int), GAIN_STEPS - 1)
        parts = places - steps

        def between(figures: FloatArray) -> FloatArray:
            columns = np.arange(figures.shape[1])
            low: FloatArray = figures[steps[:, columns], columns]
            mixed: FloatArray = (
                low + (figures[steps[:, columns] + 1, columns] - low) * parts[:, columns]
            )
            return mixed

        scales = np.sqrt(between(self._own_risks))
        mean_steps = np.rint(places.mean(axis=1)).astype(int)
        correlations = self._correlations[mean_steps]
        self.set_risks(rows, correlations * scales[:, :, None] * scales[:, None, :])
        triggers = between(self._triggers)
        triggers = np.maximum(triggers - self.oversteps[rows, :-1], triggers / 4)
        self.triggers[rows, :-1] = triggers
        self.edges[rows] = np.minimum(between(self._edges), triggers)

    def saved_risk(self, drifts: FloatArray, amounts: FloatArray, rows: Indices) -> FloatArray:
        """Return the risk that plans save over their horizons."""
        remaining = drifts - amounts
        risks = self.risks[rows]
        before = np.einsum("ri,rij,rj->r", drifts, risks, drifts)
        saved: FloatArray = (before - np.einsum("ri,rij,rj->r", remaining, risks, remaining)) / 2
        return saved


class _Wallets:
    """What each row holds, with its lots: `units` and unit `costs` of each token (rows × tokens ×
    bars). The lot of the highest rank, at `heads`, is sold next; what is sold out has NO_RANK.
    """

    def __init__(self, book: _TaxedBook, tax: LossTax) -> None:
        self._book = book
        self._tax = tax
        rows = book.row_count
        token_count = len(book.targets)
        self.drift = np.zeros((rows, token_count))
        self.prices = np.ones((rows, token_count))
        self.values = np.ones(rows)
        self.year_gains = np.zeros(rows)
        self.costs = np.zeros(rows)
        self.trades = np.zeros(rows)
        self.taxes = np.zeros(rows)
        lot_count = 1 if tax.method is LotMethod.AVERAGE else TAXED_BARS + 1
        self._units = np.zeros((rows, token_count, lot_count))
        self._units[:, :, 0] = book.targets
        self._unit_costs = np.ones((rows, token_count, lot_count))
        self._ranks = np.full((rows, token_count, lot_count), NO_RANK)
        self._ranks[:, :, 0] = 1.0 if tax.method is LotMethod.HIFO else 0.0
        self._heads = np.zeros((rows, token_count), int)

    def move(self, factors: FloatArray) -> None:
        """Let prices move by the factors of each path."""
        row_factors = np.tile(factors, (len(self.prices) // len(factors), 1))
        shares = (self.drift + self._book.targets) * row_factors
        total = 1 + (shares - self.drift - self._book.targets).sum(axis=1)
        self.prices *= row_factors
        self.values *= total
        self.drift = shares / total[:, None] - self._book.targets

    def gain_shares(self) -> FloatArray:
        """Return the share of gain in the next unit sold of each token; zero where it owes nothing."""
        heads = self._heads[:, :, None]
        unit_costs = np.take_along_axis(self._unit_costs, heads, 2)[:, :, 0]
        is_sold_out = np.take_along_axis(self._ranks, heads, 2)[:, :, 0] == NO_RANK
        shares = np.maximum(1 - unit_costs / self.prices, 0)
        shares[is_sold_out | (self.year_gains < 0)[:, None]] = 0
        return shares

    def trade(self, rows: Indices, bar: int) -> NDArray[np.bool_]:
        """Trade what the rows plan; return whether each does."""
        book = self._book
        amounts, plan_costs = book.plans(self.drift[rows], rows)
        gains, sales = self._sell(rows, amounts)
        taxes = self._taxes(rows, gains)
        saved_risk = book.saved_risk(self.drift[rows], amounts, rows)
        is_vain = book.weighs_tax[rows] & (saved_risk <= plan_costs + taxes)
        self._undo(sales, is_vain)
        for figures in (amounts, gains, plan_costs, taxes):
            figures[is_vain] = 0
        self._buy(rows, amounts, bar)
        self.drift[rows] -= amounts
        self.year_gains[rows] += gains
        self.costs[rows] += plan_costs
        self.taxes[rows] += taxes
        is_traded: NDArray[np.bool_] = np.abs(amounts).max(axis=1) > 0
        self.trades[rows] += is_traded
        return is_traded

    def taxes_left(self) -> FloatArray:
        """Return the tax that each row owes if it sells all its lots in the present year."""
        gains = self._units * (self.prices[:, :, None] - self._unit_costs)
        return self._taxes(np.arange(len(self.values)), gains.sum(axis=(1, 2)))

    def _taxes(self, rows: Indices, gains: FloatArray) -> FloatArray:
        """Return the tax on gains, net of the losses of the year; below zero on a loss beside gains."""
        year_gains = self.year_gains[rows]
        taxed_gains = np.maximum(year_gains + gains, 0) - np.maximum(year_gains, 0)
        taxes: FloatArray = self._tax.rate * taxed_gains / self.values[rows]
        return taxes

    def _sell(self, rows: Indices, amounts: FloatArray) -> tuple[FloatArray, list[_Sale]]:
        """Take what is sold from the lots; return the gain of each row, and the lots taken."""
        places, tokens = np.nonzero(amounts > 0)
        remaining = (amounts * self.values[rows, None] / self.prices[rows])[places, tokens]
        gains = np.zeros(len(rows))
        sales = []
        while len(places):
            place_rows = rows[places]
            heads = self._heads[place_rows, tokens]
            lots = (place_rows, tokens, heads)
            units = self._units[lots]
            taken = np.minimum(remaining, units)
            gain = taken * (self.prices[place_rows, tokens] - self._unit_costs[lots])
            gains += np.bincount(places, gain, len(rows))
            sales.append(_Sale(places, lots, taken, self._ranks[lots]))
            self._units[lots] = units - taken
            remaining = remaining - taken
            is_empty = units - taken <= SMALLEST_UNITS
            empty = (place_rows[is_empty], tokens[is_empty])
            self._ranks[(*empty, heads[is_empty])] = NO_RANK
            self._heads[empty] = self._ranks[empty].argmax(axis=1)
            heads = self._heads[place_rows, tokens]
            has_lot = self._ranks[place_rows, tokens, heads] > NO_RANK
            goes_on = is_empty & has_lot & (remaining > SMALLEST_UNITS)
            places = places[goes_on]
            tokens = tokens[goes_on]
            remaining = remaining[goes_on]
        return gains, sales

    def _undo(self, sales: Sequence[_Sale], is_vain: NDArray[np.bool_]) -> None:
        """Give the lots back to the rows whose plan is not made."""
        for sale in reversed(sales):
            kept = is_vain[sale.places]
            rows, tokens, heads = (indices[kept] for indices in sale.lots)
            self._units[rows, tokens, heads] += sale.taken[kept]
            self._ranks[rows, tokens, heads] = sale.ranks[kept]
            self._heads[rows, tokens] = heads

    def _buy(self, rows: Indices, amounts: FloatArray, bar: int) -> None:
        """Add what is bought as lots, or to the one lot of an average."""
        places, tokens = np.nonzero(amounts < 0)
        bought_rows = rows[places]
        prices = self.prices[bought_rows, tokens]
        units = -amounts[places, tokens] * self.values[bought_rows] / prices
        lot = bar % self._units.shape[2]
        held_units = self._units[bought_rows, tokens, lot]
        all_units = held_units + units
        held_cost = held_units * self._unit_costs[bought_rows, tokens, lot]
        self._units[bought_rows, tokens, lot] = all_units
        self._unit_costs[bought_rows, tokens, lot] = (held_cost + units * prices) / all_units
        if self._tax.method is LotMethod.HIFO:
            ranks = prices
        else:
            rank = float(-bar if self._tax.method is LotMethod.FIFO else bar)
            ranks = np.full(len(places), rank)
        heads = self._heads[bought_rows, tokens]
        is_next = ranks > self._ranks[bought_rows, tokens, heads]
        self._ranks[bought_rows, tokens, lot] = ranks
        self._heads[bought_rows[is_next], tokens[is_next]] = lot


class _Sale(NamedTuple):
    """A round of a sale: the places of its rows, its lots (rows, tokens, bars), the units taken of
    each, and their ranks before.
    """

    places: Indices
    lots: tuple[Indices, Indices, Indices]
    taken: FloatArray
    ranks: FloatArray
