"""Tests of agent/app/positions/futures.py: the hedges of a what-if share one margin account."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.app.positions.futures import FuturesOptions, what_if_futures
from agent.units import BPS


def hedges_of(sales: dict[str, int], *, max_leverage: int = 2, **options: object) -> tuple[list[str], str]:
    """Return the shorts in place of these sales, and the leverage after them, with a margin of 1,000."""
    what_if = FuturesOptions(
        dict.fromkeys(sales, Fraction(0)),
        margin=Fraction(1_000),
        max_leverage_bps=max_leverage * BPS,
        hedge_bps=BPS,
        **options,  # type: ignore[arg-type]  # field names
    )
    spot_values = dict.fromkeys(sales, Fraction(5_000))
    document = what_if_futures(what_if, spot_values, {symbol: Fraction(-value) for symbol, value in sales.items()})
    assert document["leverage_after"] is not None
    return [hedge["short"] for hedge in document["hedges"]], document["leverage_after"]


@pytest.mark.parametrize(
    ("sales", "shorts", "leverage"),
    [
        pytest.param({"BTC": 1_500}, ["1500"], "1.5", id="one"),
        pytest.param({"BTC": 500, "ETH": 1_500}, ["500", "1500"], "2", id="two that fit"),
        pytest.param({"BTC": 1_500, "ETH": 1_500}, ["1500", "500"], "2", id="two"),
        pytest.param({"BTC": 1_500, "ETH": 400, "SOL": 400}, ["1500", "400", "100"], "2", id="three"),
        pytest.param({"BTC": 3_000, "ETH": 1_500}, ["2000", "0"], "2", id="the second has no room"),
    ],
)
def test_hedges_together_keep_the_limits(sales: dict[str, int], shorts: list[str], leverage: str) -> None:
    assert hedges_of(sales) == (shorts, leverage)


def test_hedge_that_costs_more_than_the_sale_takes_no_room() -> None:
    """At a funding that BTC's short pays, BTC is sold; ETH's short has the whole margin."""
    funding = {"BTC": Fraction(-1, 100), "ETH": Fraction(0)}
    tax = {"BTC": Fraction(0), "ETH": Fraction(300)}
    shorts, leverage = hedges_of({"BTC": 1_500, "ETH": 1_500}, horizon_s=30 * 86_400, funding_by_symbol=funding, tax_by_symbol=tax)

    assert (shorts, leverage) == (["0", "1500"], "1.5")
