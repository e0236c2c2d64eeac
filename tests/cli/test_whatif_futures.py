"""`trimtab whatif --futures`: orders within the limits, as the planner cuts them, and sums that are those of all orders."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.cli.tools import CommandResult

Bare = Callable[..., CommandResult]
SPOT = ("--target", "BTC=50,USD=50", "--value", "BTC=5000,USD=5000")
CUT = {
    "leverage": (("--futures", "BTC=10000,leverage=15x,max-leverage=10x"), "leverage_after", 10),
    "leverage of two sides": (
        ("--futures", "BTC=10000,ETH=-3000,leverage=15x,max-leverage=4x"),
        "leverage_after",
        4,
    ),
    "what the margin allows": (("--futures", "BTC=10000,leverage=40x"), "leverage_after", 10),
    "utilisation": (("--futures", "BTC=10000,leverage=9x,max-utilisation=30%"), "leverage_after", 3),
    "spot multiple": (("--futures", "BTC=10000,leverage=9x,spot-multiple=2x"), "leverage_after", 2),
    "stress": (("--futures", "BTC=10000,leverage=9x,stress=30%"), "leverage_after", Decimal("2.91")),
}


def futures_of(bare: Bare, *options: str) -> dict[str, Any]:
    printed = bare("whatif", *SPOT, *options, "--json")
    assert printed.code == 0, printed.why
    futures: dict[str, Any] = printed.json["futures"]
    return futures


@pytest.mark.parametrize(("options", "name", "limit"), CUT.values(), ids=CUT.keys())
def test_orders_end_within_the_limit_and_say_that_they_are_cut(bare: Bare, options: tuple[str, ...], name: str, limit: Decimal) -> None:
    futures = futures_of(bare, *options)
    assert limit * Decimal("0.98") <= Decimal(futures[name]) <= limit
    assert "BTC is cut to what the limits allow" in futures["notes"]
    assert futures["triggers"] == ["leverage_drift"]


def test_without_a_limit_in_the_way_nothing_is_cut(bare: Bare) -> None:
    futures = futures_of(bare, "--futures", "BTC=10000,leverage=5x,max-leverage=10x")
    assert (futures["leverage_after"], futures["notes"], futures["markets"][0]["order_notional"]) == ("5", [], "40000")


SUMMED = {
    "opened": ("--futures", "BTC=10000,ETH=-3000,leverage=4x"),
    "cut": ("--futures", "BTC=10000,ETH=-3000,leverage=15x,max-leverage=10x"),
    "reduced": ("--futures", "BTC=30000,ETH=-20000,max-leverage=2x"),
    "hedged": ("--futures", "BTC=0,hedge=50%", "--target", "BTC=20,USD=80"),
    "turned round": (
        "--futures",
        "BTC=10000,ETH=-3000,target=BTC=-50,ETH=50,band=5%,leverage=2x",
    ),
}


@pytest.mark.parametrize("options", SUMMED.values(), ids=SUMMED.keys())
def test_sums_are_those_of_all_orders(bare: Bare, options: tuple[str, ...]) -> None:
    futures = futures_of(bare, *options)
    notionals_after = {market["symbol"]: Decimal(market["notional"]) + Decimal(market["order_notional"]) for market in futures["markets"]}
    assert Decimal(futures["gross_after"]) == pytest.approx(sum(map(abs, notionals_after.values())), abs=Decimal("1e-6"))
    assert Decimal(futures["leverage_after"]) == pytest.approx(
        Decimal(futures["gross_after"]) / Decimal(futures["margin"]), abs=Decimal("1e-6")
    )
    spot_values = {"BTC": Decimal(5_000), "USD": Decimal(5_000)}
    for symbol, exposure in futures["net_exposure"].items():
        spot_after = spot_values.get(symbol, Decimal(0)) + Decimal(futures["trades"].get(symbol, 0))
        assert Decimal(exposure) == pytest.approx(spot_after + notionals_after.get(symbol, Decimal(0)), abs=Decimal("1e-6"))
    printed = bare("whatif", *SPOT, *options)
    assert f"Notional after all orders {Decimal(futures['gross_after']):,.2f}" in " ".join(printed.out.split())


@pytest.mark.parametrize("market", ["ETH", "SOL", "kPEPE"])
def test_markets_without_a_spot_asset_have_a_price_and_lots(bare: Bare, market: str) -> None:
    futures = futures_of(
        bare,
        "--futures",
        f"{market}=1000",
        "--futures",
        "leverage=1x,margin=3000",
        "--price",
        f"{market}=300",
        "--futures",
        f"lot={market}=0.5",
    )
    assert (futures["markets"][0]["order_size"], futures["markets"][0]["order_notional"]) == ("6.5", "1950")  # 2,000 in whole lots


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        pytest.param(
            ("--futures", "BTC=1", "--price", "ETH=300"),
            "--price: 'ETH' is not an asset, nor in --futures",
            "choose from BTC, USD",
            id="price of no asset",
        ),
        pytest.param(("--futures", "ETH=1,lot=ETH=1"), "--futures lot: ETH has no price", "--price ETH=", id="lot without a price"),
        pytest.param(("--futures", "leverage=15x"), "--futures: no market is named", "--futures BTC=0", id="leverage without a market"),
        pytest.param(("--futures", "lot=BTC=1"), "--futures: no market is named", "--futures BTC=0", id="lot without a market"),
        pytest.param(("--futures", "stress=20%"), "--futures: no market is named", "--futures BTC=0", id="stress without a market"),
        pytest.param(("--network", "etherium"), "--network: 'etherium'", "did you mean ethereum?", id="mistyped network"),
    ],
)
def test_what_it_cannot_use_is_refused(bare: Bare, options: tuple[str, ...], message: str, remedy: str) -> None:
    printed = bare("whatif", *SPOT, *options, "--json")
    assert printed.code == 2
    assert message in printed.error["message"]
    assert remedy in printed.error["remedy"]


def test_gas_is_that_of_the_network(bare: Bare) -> None:
    totals = {
        network: bare("whatif", *SPOT, "--band", "10%rel", "--network", network, "--json").json["least_total"]
        for network in ("ethereum", "base", "polygon", "bnb")
    }
    assert totals["ethereum"] == bare("whatif", *SPOT, "--band", "10%rel", "--json").json["least_total"]
    texts = {network: [total["text"] for total in documents] for network, documents in totals.items()}
    assert len({tuple(network_texts) for network_texts in texts.values()}) == 4
    dear = bare("whatif", *SPOT, "--band", "10%rel", "--network", "base", "--native", "6000", "--json").json["least_total"]
    assert "native coin at 6,000" in dear[0]["text"]
