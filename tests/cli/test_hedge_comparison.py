"""`trimtab whatif --futures hedge=…,horizon=…`: what a sale and a short cost, and which is taken."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.cli.tools import CommandResult

Bare = Callable[..., CommandResult]
OVERWEIGHT = ("whatif", "--target", "ETH=40,USD=60", "--value", "ETH=8000,USD=6000", "--futures", "ETH=0,hedge=50%")


@pytest.mark.parametrize(
    ("options", "sale", "short", "shorted"),
    [
        pytest.param(("--futures", "tax=ETH=60,funding=ETH=-0.03%"), "61.2", "13.2", "1200", id="large tax"),
        pytest.param(("--futures", "funding=ETH=0.01%"), "1.2", "-1.2", "1200", id="paid funding"),
        pytest.param(("--futures", "tax=ETH=1,funding=ETH=-0.03%"), "2.2", "13.2", "0", id="small tax"),
        pytest.param((), "1.2", "2.4", "0", id="no options"),
    ],
)
def test_the_cheaper_of_sale_and_short_is_taken(bare: Bare, options: tuple[str, ...], sale: str, short: str, shorted: str) -> None:
    """Of 2,400 overweight half may be shorted: 1,200 cost 1.20 to sell, 2.40 to short, and 30 days of funding."""
    result = bare(*OVERWEIGHT, "--futures", "horizon=30d", *options, "--json")
    assert result.code == 0, result.why
    (hedge,) = result.json["futures"]["hedges"]
    assert (hedge["cost_of_sale"], hedge["cost_of_hedge"], hedge["short"]) == (sale, short, shorted)
    sale_text, short_text = (f"{Decimal(cost):.2f}" for cost in (sale, short))
    for words in (f"a sale costs {sale_text} (fees 1.20, impact 0, tax ", f"a short {short_text} over 30 days (fees 2.40, funding "):
        assert words in hedge["reason"], hedge["reason"]
    assert hedge["reason"].endswith("it is sold" if shorted == "0" else "it is shorted")
    assert "a sale costs" in bare(*OVERWEIGHT, "--futures", "horizon=30d", *options).out


def test_without_a_horizon_the_share_is_shorted_uncompared(bare: Bare) -> None:
    (hedge,) = bare(*OVERWEIGHT, "--json").json["futures"]["hedges"]
    assert set(hedge) == {"symbol", "excess", "sell", "short", "net_exposure"}
    assert hedge["short"] == "1200"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--futures", "tax=ETH=60"), "--futures tax, funding: horizon is missing"),
        (("--futures", "horizon=30d,tax=BTC=60"), "--futures tax: 'BTC' has no value"),
        (("--futures", "horizon=soon"), "--futures horizon"),
    ],
)
def test_a_mistake_in_the_comparison_is_named(bare: Bare, options: tuple[str, ...], named: str) -> None:
    result = bare(*OVERWEIGHT, *options, "--json")
    assert result.code == 2
    assert result.json["error"]["message"].startswith(named)
