"""Tax on the next unit sold of each asset, for decisions that weigh a trade against its cost."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.accounting.tax_lots import Lots
from agent.layers.tax.state import TaxState
from agent.model import StepInput
from agent.units import BPS, Price


def marginal_sale_taxes(step: StepInput, prices: Mapping[str, Price]) -> dict[str, Fraction]:
    """Return, by token, the tax on the first unit that a sale takes from its lots, per unit of
    value; empty without tax.rate. `prices` are numeraire base units per base unit.

    A lot below its cost owes nothing and saves nothing. While losses exceed the gains of the year,
    no gain owes anything.
    """
    tax_inputs = step.layer(TaxState).inputs
    if tax_inputs is None or not tax_inputs.tax_rate_bps or tax_inputs.realised_gain < 0:
        return {}
    lots = Lots(tax_inputs.method, tax_inputs.lots)
    taxes: dict[str, Fraction] = {}
    for asset in step.portfolio.assets:
        token = asset.token.address
        next_lot = next(lots.pop_lots(token), None)
        is_cash = token == step.portfolio.numeraire.address and not tax_inputs.currency
        if next_lot is None or is_cash or token not in prices:
            continue
        unit_cost = next_lot.averaged_cost / next_lot.averaged_raw
        gain_share = 1 - unit_cost / (prices[token] * tax_inputs.rate)
        if gain_share > 0:
            taxes[token] = gain_share * tax_inputs.tax_rate_bps / BPS
    return taxes
