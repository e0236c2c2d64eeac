"""Costs of a new config as rows with one figure each, for the pages of the set-up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from agent.app.documents.status import (
    DAY_NAMES,
    ORDINARY_DAY_INDEX,
    MinimumTotalDocument,
    coins_text,
    minimum_totals_of_config,
)
from agent.app.start.past_results import SMALL_MONEY_USD, template_result
from agent.app.start.tracking_losses import (
    DIRECT_POOL_TEXT,
    WILD_YEAR_FACTOR,
    FirstPurchase,
    YearEstimate,
    assumptions,
    config_loss_document,
    first_purchase,
    leg_gas_text,
    portfolio_of_config,
    shown_loss,
    year_estimates,
)
from agent.app.start.year_costs import unworthy_text
from agent.backtest.loss.policies import loss_market
from agent.config.build import build_policy
from agent.config.schema import Config
from agent.config.writing.portfolio_templates import SMALL_TEMPLATE
from agent.figures import format_figure
from agent.policy.minimum import smallest_total
from agent.units import Value, ceil_int

if TYPE_CHECKING:
    from agent.app.documents.owner import PolicyLossDocument, TrackingLossDocument

DOLLAR = Fraction(1)


class CostRow(TypedDict):
    """A figure with its name; `note` says what it is made of, or when it holds."""

    name: str
    figure: str
    note: str


class CostSummary(TypedDict):
    """Costs of a config with an amount. `alarms` say that it is not worth it on an ordinary day,
    `notes` what would change that; `triggers` has the loss of this and of other triggers,
    `assumptions` what the estimates count with.
    """

    alarms: list[str]
    notes: list[str]
    rows: list[CostRow]
    triggers: list[CostRow]
    assumptions: list[CostRow]


NO_COSTS: CostSummary = {
    "alarms": [],
    "notes": [],
    "rows": [],
    "triggers": [],
    "assumptions": [],
}


def cost_summary(config: Config, total: Value, template: str | None, network: str) -> CostSummary:
    """Return the costs of a config whose numeraire is a dollar, with `total` coins of it."""
    minimum_totals = minimum_totals_of_config(config, DOLLAR, total)
    loss = config_loss_document(config, DOLLAR, total)
    unit = config.portfolio.numeraire
    alarms = too_little_lines(config, total)
    purchase = None if alarms else first_purchase(config, DOLLAR, total)
    if purchase is not None and purchase.alarm:
        alarms.append(purchase.alarm)
    notes = [] if loss is None else list(loss["warnings"])
    for minimum_total in minimum_totals[ORDINARY_DAY_INDEX : ORDINARY_DAY_INDEX + 1]:
        if not minimum_total["enough"]:
            why = unworthy_text(minimum_total)
            alarms.append(f"With {coins_text(total)} {unit}: not worth it here {why}.")
        if minimum_total["changes"]:
            notes.append(f"To make it worth it: {'; or '.join(minimum_total['changes'])}.")
    return {
        "alarms": alarms,
        "notes": notes,
        "rows": [
            *_first_purchase_rows(config, purchase),
            *_year_rows(config, total, minimum_totals),
            *_loss_rows(loss),
            *_measured_rows(template, network),
        ],
        "triggers": _trigger_rows(loss),
        "assumptions": _assumption_rows(config, total),
    }


def too_little_lines(config: Config, total: Value) -> list[str]:
    """Return that nothing is traded with `total`, because the smallest target is worth less than a
    trade; with the least total, rounded up to cents, unless `unworthy_text` names a higher one. Empty
    if it is enough.
    """
    min_trade = Fraction(config.limits.min_trade or 0)
    least_total = smallest_total((table.target for table in config.portfolio.assets), min_trade)
    if total >= least_total:
        return []
    unit = config.portfolio.numeraire
    least_text = (
        f" {coins_text(Fraction(ceil_int(least_total * 100), 100))} {unit} or more are needed."
    )
    return [
        f"With {coins_text(total)} {unit} nothing is traded: each target must be worth {coins_text(min_trade)}"
        f" {unit} (limits.min_trade).{'' if config.limits.plan_cost else least_text} Enter more cash: a config"
        " written with this amount does not trade."
    ]


def _row(name: str, figure: str, note: str = "") -> CostRow:
    return {"name": name, "figure": figure, "note": note}


def _first_purchase_rows(config: Config, purchase: FirstPurchase | None) -> list[CostRow]:
    if purchase is None or purchase.alarm:
        return []
    parts_text = f"{purchase.in_pools} in pools, {purchase.gas} gas with an approval"
    note = f"once, in {purchase.swaps}: {parts_text}; {DIRECT_POOL_TEXT.format(config.portfolio.numeraire)}"
    return [_row("First purchase", f"about {purchase.costs} {config.portfolio.numeraire}", note)]


def _year_rows(
    config: Config, total: Value, minimum_totals: Sequence[MinimumTotalDocument]
) -> list[CostRow]:
    """Return a row for each gas price: the estimated cost of a year, or why no trade is worth it; none
    without an estimate.
    """
    rows = []
    estimates: Sequence[YearEstimate | None] = year_estimates(config, DOLLAR, total)
    estimates = estimates or [None] * len(minimum_totals)
    days = zip(DAY_NAMES, minimum_totals, estimates, strict=True) if minimum_totals else ()
    for day_name, minimum_total, estimate in days:
        name = f"A year at the gas price of {day_name} days"
        if not minimum_total["enough"]:
            rows.append(_row(name, "not worth it", unworthy_text(minimum_total)))
        elif estimate is not None:
            note = f"about {estimate.rebalances} rebalances, simulated; gas at {minimum_total['gas_gwei']} gwei"
            rows.append(_row(name, f"about {estimate.costs} {config.portfolio.numeraire}", note))
    return rows


def _loss_rows(loss: TrackingLossDocument | None) -> list[CostRow]:
    """Return the loss behind a portfolio that is always on target; empty without an estimate."""
    if loss is None or loss["own"] is None:
        return []
    rows = [
        _row(
            "A year of costs and drift",
            f"about {format_figure(loss['money'], 'amount')} {loss['unit']}",
            f"{_loss_text(loss['own'])} behind a portfolio that is always on target",
        )
    ]
    if loss["wild_year_bps"] is not None:
        wild_bps = float(loss["wild_year_bps"])
        wild_text = _bps_text(wild_bps, wild_bps, loss["own"]["trades_a_year"])
        note = f"prices move {WILD_YEAR_FACTOR:g} times as much"
        rows.append(_row("The same, in a year as wild as 2021", wild_text, note))
    return rows


def _measured_rows(template: str | None, network: str) -> list[CostRow]:
    """Return the measured year of the template for small money."""
    measured = template_result(network, SMALL_TEMPLATE) if template == SMALL_TEMPLATE else None
    if measured is None:
        return []
    note = f"{measured['rebalances']} rebalances with {SMALL_MONEY_USD} USDC; {measured['basis']}, unlike the estimates"
    return [_row("A year, measured", f"{measured['costs']} USDC", note)]


def _trigger_rows(loss: TrackingLossDocument | None) -> list[CostRow]:
    """Return the loss of this and of other triggers."""
    if loss is None:
        return []
    own_rows = (
        []
        if loss["own"] is None
        else [_row(loss["own"]["policy"], _loss_text(loss["own"]), "this one")]
    )
    return [*own_rows, *(_row(other["policy"], _loss_text(other)) for other in loss["others"])]


def _loss_text(loss: PolicyLossDocument) -> str:
    pretax_bps = float(loss["costs_bps"]) + float(loss["drift_bps"])
    return _bps_text(float(loss["loss_bps"]), pretax_bps, loss["trades_a_year"])


def _bps_text(loss_bps: float, pretax_bps: float, trades_a_year: str) -> str:
    loss = shown_loss(loss_bps, pretax_bps, float(trades_a_year))
    percent = Decimal(loss.bps_text.replace(",", "")) / 100
    return f"{'over' if loss.is_lower_bound else 'about'} {percent:f} % a year"


def _assumption_rows(config: Config, total: Value) -> list[CostRow]:
    """Return volatility and pool fee of each asset, and the gas of a swap."""
    portfolio = portfolio_of_config(config, DOLLAR, total)
    if portfolio is None:
        return []
    market = loss_market(portfolio, build_policy(config).trigger)
    rows = []
    for symbol, volatility, fee in assumptions(portfolio, market):
        rows += [_row(f"Volatility of {symbol}", volatility), _row(f"Pool fee of {symbol}", fee)]
    return [*rows, _row("Gas of a swap", leg_gas_text(portfolio), "on an ordinary day")]
