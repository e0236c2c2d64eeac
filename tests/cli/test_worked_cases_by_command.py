"""The worked cases of the requirements that are spot arithmetic, through `trimtab whatif`, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest

from tests.cli.tools import CommandResult

Bare = Callable[..., CommandResult]


def option_text(numbers: Mapping[str, object]) -> str:
    return ",".join(f"{symbol}={number}" for symbol, number in numbers.items())


def whatif_document(bare: Bare, target: Mapping[str, object], value: Mapping[str, object], *more: str) -> Any:
    result = bare("whatif", "--target", option_text(target), "--value", option_text(value), *more, "--json")
    assert result.code == 0, result.why
    assert Fraction(result.json["total"]) == sum(Fraction(str(number)) for number in value.values())
    assert sum(result.json["weights_bps"].values()) == 10_000
    return result.json


def test_w1__one_winner_is_sold_for_the_loser_and_the_others(bare: Bare) -> None:
    document = whatif_document(bare, dict.fromkeys("ABCD", 25), {"A": 325, "B": 200, "C": 250, "D": 250}, "--band", "5%abs")
    assert document["total"] == "1025"
    assert document["trades"] == {"A": "-68.75", "B": "56.25", "C": "6.25", "D": "6.25"}
    assert document["triggered"] == ["A", "B"]


W2 = {"BTC": 50, "ETH": 30, "USD": 20}
W2_NOW = {"BTC": 5_800, "ETH": 2_700, "USD": 1_500}


def test_w2__800_are_sold_for_300_and_500_and_an_edge_is_quiet(bare: Bare) -> None:
    document = whatif_document(bare, W2, W2_NOW, "--band", "10%rel")
    assert document["trades"] == {"BTC": "-800", "ETH": "300", "USD": "500"}
    assert document["triggered"] == ["BTC", "USD"]
    assert document["weights_bps"] == {"BTC": 5_800, "ETH": 2_700, "USD": 1_500}
    assert [asset["band_bps"] for asset in document["assets"]] == [[4_500, 5_500], [2_700, 3_300], [1_800, 2_200]]
    assert document["decision"]["kind"] == "rebalance"
    alone = whatif_document(bare, W2, {"BTC": 5_220, "ETH": 2_700, "USD": 2_080}, "--band", "10%rel")
    assert (alone["triggered"], alone["decision"]["kind"]) == ([], "hold")
    assert set(alone["trades"].values()) == {"0"}
    assert alone["to_target"] == {"BTC": "-220", "ETH": "300", "USD": "-80"}


def test_w3__doubled_alts_are_sold_by_2400_for_1200_of_each(bare: Bare) -> None:
    document = whatif_document(bare, {"BTC": 30, "ETH": 30, "ALTS": 40}, {"BTC": 3_000, "ETH": 3_000, "ALTS": 8_000}, "--band", "15%abs")
    assert document["total"] == "14000"
    assert document["weights_bps"]["ALTS"] == 5_714
    assert document["assets"][2]["drift_bps"] == 1_714
    assert document["triggered"] == ["ALTS"]
    assert document["trades"] == {"BTC": "1200", "ETH": "1200", "ALTS": "-2400"}


W3_FUTURES = ("--futures", "BTC=10500,ETH=10500,ALTS=14000,max-leverage=4x")


def test_w3__leverage_falls_to_two_and_a_half_untriggered(bare: Bare) -> None:
    before = whatif_document(bare, {"BTC": 30, "ETH": 30, "ALTS": 40}, {"BTC": 3_000, "ETH": 3_000, "ALTS": 4_000}, *W3_FUTURES)["futures"]
    after = whatif_document(bare, {"BTC": 30, "ETH": 30, "ALTS": 40}, {"BTC": 3_000, "ETH": 3_000, "ALTS": 8_000}, *W3_FUTURES)["futures"]
    assert (before["gross"], before["leverage"]) == ("35000", "3.5")
    assert (after["gross"], after["leverage"], after["triggers"], after["breaches"]) == ("35000", "2.5", [], [])
    over = whatif_document(bare, {"BTC": 30, "ETH": 30, "ALTS": 40}, {"BTC": 3_000, "ETH": 3_000, "ALTS": 2_000}, *W3_FUTURES)["futures"]
    assert (over["leverage"], over["triggers"], over["allowed_gross"]) == ("4.375", ["leverage"], "32000")


def test_w3_half_of_the_excess_is_shorted_instead_of_sold(bare: Bare) -> None:
    values = {"BTC": 3_000, "ETH": 3_000, "ALTS": 8_000}
    document = whatif_document(bare, {"BTC": 30, "ETH": 30, "ALTS": 40}, values, *W3_FUTURES, "--futures", "hedge=50%")
    futures = document["futures"]
    assert futures["hedges"] == [{"symbol": "ALTS", "excess": "2400", "sell": "1200", "short": "1200", "net_exposure": "5600"}]
    assert document["trades"] == {"BTC": "600", "ETH": "600", "ALTS": "-1200"}, "half of the sale pays for half of the purchases"
    assert {market["symbol"]: market["order_notional"] for market in futures["markets"]} == {"BTC": "0", "ETH": "0", "ALTS": "-1200"}
    assert futures["net_exposure"] == {"BTC": "14100", "ETH": "14100", "ALTS": "19600"}, "after the trades and the short"


def test_a_hedge_needs_a_market_for_its_short(bare: Bare) -> None:
    target = option_text({"ALTS": 40, "USD": 60})
    value = option_text({"ALTS": 8_000, "USD": 6_000})
    alone = bare("whatif", "--target", target, "--value", value, "--futures", "hedge=50%", "--json")
    assert alone.code == 2
    assert "--futures: no market is named" in alone.why
    [hedge] = whatif_document(bare, {"ALTS": 40, "USD": 60}, {"ALTS": 8_000, "USD": 6_000}, "--futures", "BTC=0,hedge=50%")["futures"][
        "hedges"
    ]
    assert (hedge["sell"], hedge["short"], hedge["reason"]) == ("2400", "0", "it is sold: it has no futures market")


@pytest.mark.parametrize(
    ("more", "triggers"),
    [((), ["leverage_drift"]), (("--futures", "leverage-band=off"), []), (("--futures", "leverage-band=150%"), [])],
)
def test_a_leverage_away_from_its_target_triggers(bare: Bare, more: tuple[str, ...], triggers: list[str]) -> None:
    """6x held against 3x wanted."""
    futures = whatif_document(bare, {"BTC": 50, "USD": 50}, {"BTC": 500, "USD": 500}, "--futures", "BTC=6000,leverage=3x", *more)["futures"]
    assert (futures["leverage"], futures["triggers"]) == ("6", triggers)
    assert futures["markets"][0]["order_notional"] == ("-3000" if triggers else "0")


def test_a_position_above_its_maximum_is_trimmed_to_it(bare: Bare) -> None:
    book = ("--futures", "BTC=6000,ETH=2000,target=BTC=50,ETH=50,leverage-band=off")
    futures = whatif_document(bare, {"BTC": 50, "USD": 50}, {"BTC": 4_000, "USD": 4_000}, *book, "--futures", "max-position=60%")["futures"]
    assert futures["triggers"] == ["max_position"]
    assert [breach["limit"] for breach in futures["breaches"]] == ["max_position"]
    assert {market["symbol"]: market["order_notional"] for market in futures["markets"]} == {"BTC": "-1200", "ETH": "0"}


def test_w7_sixty_thousand_of_futures_close_ten_thousand(bare: Bare) -> None:
    futures = ("--futures", "BTC=40000,ETH=-20000,spot-multiple=2.5x,margin=30000")
    futures_document = whatif_document(bare, {"BTC": 50, "USD": 50}, {"BTC": 10_000, "USD": 10_000}, *futures)["futures"]
    assert (futures_document["spot_multiple"], futures_document["triggers"], futures_document["allowed_gross"]) == (
        "3",
        ["spot_multiple"],
        "50000",
    )
    assert futures_document["breaches"] == [{"limit": "spot_multiple", "measured": "3.00x", "allowed": "2.5x"}]
    closed = {market["symbol"]: Fraction(market["order_notional"]) for market in futures_document["markets"]}
    assert closed["BTC"] < 0 < closed["ETH"]
    assert round(sum(abs(notional) for notional in closed.values()), 6) == 10_000


def test_w4_one_asset_doubles_alone(bare: Bare) -> None:
    document = whatif_document(bare, {"BTC": 50, "ETH": 30, "X": 20}, {"BTC": 5_000, "ETH": 3_000, "X": 4_000}, "--band", "10%rel")
    assert document["weights_bps"] == {"BTC": 4_167, "ETH": 2_500, "X": 3_333}
    assert document["triggered"] == ["BTC", "ETH", "X"]
    assert document["trades"] == {"BTC": "1000", "ETH": "600", "X": "-1600"}


def test_w5__margin_books_by_asset_and_by_strategy(bare: Bare) -> None:
    assets = whatif_document(bare, {"BTC": 50, "ETH": 30, "SOL": 20}, {"BTC": 6_500, "ETH": 2_000, "SOL": 1_500}, "--band", "10%rel")
    assert assets["triggered"] == ["BTC", "ETH", "SOL"]
    assert assets["trades"] == {"BTC": "-1500", "ETH": "1000", "SOL": "500"}
    strategies = whatif_document(bare, {"trend": 60, "reversion": 40}, {"trend": 7_500, "reversion": 2_500}, "--band", "10%rel")
    assert strategies["triggered"] == ["trend", "reversion"]
    assert strategies["trades"] == {"trend": "-1500", "reversion": "1500"}


def test_w5__margin_book_is_brought_to_whole_contracts(bare: Bare) -> None:
    book = ("--futures", "BTC=6500,ETH=2000,SOL=1500,target=BTC=50,ETH=30,SOL=20,band=5%")
    units = ("--futures", "margin=5000", "--price", "BTC=30000,USD=1", "--futures", "lot=BTC=0.001")
    futures = whatif_document(bare, {"BTC": 50, "USD": 50}, {"BTC": 5_000, "USD": 5_000}, *book, *units)["futures"]
    assert (futures["leverage"], futures["triggers"]) == ("2", ["drift"])
    assert [market["drift_bps"] for market in futures["markets"]] == [1_500, -1_000, -500]
    bitcoin, ether, solana = futures["markets"]
    assert bitcoin["size_after"] == "0.166"  # 5,000 of 30,000 each is 0.1666…: rounded down to lots
    assert [round(Fraction(market["order_notional"]), 6) for market in (ether, solana)] == [1_000, 500]


def test_options_of_futures_that_make_no_sense_name_themselves(bare: Bare) -> None:
    for more, field in (
        (("--futures", "margin=0"), "--futures margin"),
        (("--futures", "target=BTC=50"), "--futures target"),
        (("--futures", "lot=SOL=1"), "--futures lot"),
        (("--futures", "hedge=150%"), "--futures hedge"),
        (("--futures", "max-leverage=4"), "--futures max-leverage"),
    ):
        result = bare("whatif", "--target", "BTC=50,USD=50", "--value", "BTC=1,USD=1", "--futures", "BTC=5", *more, "--json")
        assert result.code == 2
        assert field in result.why


def test_w6__grown_crypto_fills_the_stable_reserve_again(bare: Bare) -> None:
    document = whatif_document(bare, {"CRYPTO": 20, "STABLE": 80}, {"CRYPTO": 3_500, "STABLE": 6_500}, "--band", "5%abs")
    assert document["triggered"] == ["CRYPTO", "STABLE"]
    assert document["trades"] == {"CRYPTO": "-1500", "STABLE": "1500"}


@pytest.mark.parametrize(("half", "acts"), [(4_499, True), (4_500, False), (5_000, False), (5_500, False), (5_501, True)])
def test_w8_a_half_acts_below_4500_and_above_5500_of_10000(bare: Bare, half: int, acts: bool) -> None:
    document = whatif_document(bare, {"A": 50, "B": 50}, {"A": half, "B": 10_000 - half}, "--band", "10%rel")
    assert (document["decision"]["kind"] == "rebalance", bool(document["triggered"])) == (acts, acts)


def test_w8__alert_prices_are_minus_18_2_and_plus_22_2_percent(bare: Bare) -> None:
    document = whatif_document(bare, {"A": 50, "B": 50}, {"A": 5_000, "B": 5_000}, "--band", "10%rel", "--price", "A=2000")
    alert = document["alert_prices"]["A"]
    assert (alert["low_change_percent"], alert["high_change_percent"]) == ("-18.18", "22.22")
    assert (alert["low"], alert["high"]) == ("1636.363636363636363636", "2444.444444444444444444")
    assert document["alert_prices"]["B"]["low"] == "0.818181818181818182"
    assert "only its asset's price moves" in document["alert_note"]


def test_asset_at_its_alert_price__is_on_the_edge_and_then_acts(bare: Bare) -> None:
    alert = whatif_document(bare, W2, {"BTC": 5_000, "ETH": 3_000, "USD": 2_000}, "--band", "10%rel")["alert_prices"]["ETH"]
    for edge, away in ((alert["low"], -1), (alert["high"], 1)):
        on = round(Fraction(edge) * 3_000, 12)
        for nudge, acts in ((-away, False), (away, True)):
            eth = on + Fraction(nudge, 10**9)
            moved = whatif_document(bare, W2, {"BTC": 5_000, "ETH": f"{float(eth):.10f}", "USD": 2_000}, "--band", "10%rel")
            assert ("ETH" in moved["triggered"]) is acts


def test_least_total_without_a_band__names_the_drift_it_assumes(bare: Bare) -> None:
    shares = {"A": 50, "B": 50}
    plain, banded = (whatif_document(bare, shares, shares, *band)["least_total"][0]["text"] for band in ((), ("--band", "5%rel")))
    assert "a correction of A at a drift of 10 % of its target" in plain
    assert "its band" not in plain
    assert "a correction of A at its band" in banded


@pytest.mark.parametrize(
    ("target", "value", "band", "symbol", "why"),
    [
        pytest.param({"A": 50, "B": 50}, {"A": 0, "B": 10}, "10%rel", "A", "the portfolio holds none of it", id="asset not held"),
        pytest.param({"A": 50, "B": 50}, {"A": 0, "B": 10}, "10%rel", "B", "no other asset has value", id="nothing else held"),
        pytest.param({"A": 5, "B": 95}, {"A": 5, "B": 95}, "5%abs", "A", "reaches down to 0 %", id="band to nothing"),
        pytest.param({"A": 5, "B": 95}, {"A": 5, "B": 95}, "5%abs", "B", "reaches up to 100 %", id="band to everything"),
        pytest.param({"A": 5, "B": 95}, {"A": 5, "B": 95}, None, "A", "no band was given", id="no band"),
    ],
)
def test_unreachable_alert_price__is_null_with_the_reason(
    bare: Bare, target: Mapping[str, int], value: Mapping[str, int], band: str | None, symbol: str, why: str
) -> None:
    alert = whatif_document(bare, target, value, *(() if band is None else ("--band", band)))["alert_prices"][symbol]
    missing = [side for side in ("low", "high") if alert[side] is None]
    assert missing
    assert all(why in alert[f"{side}_missing_reason"] for side in missing)
    assert all(alert[f"{side}_missing_reason"] == "" for side in ("low", "high") if side not in missing)


def test_values__are_exact_or_rounded_half_even_at_the_18th(bare: Bare) -> None:
    document = whatif_document(bare, {"A": "33.33", "B": "66.67"}, {"A": "0.000000000000000001", "B": "0.1"}, "--band", "1%abs")
    assert document["total"] == "0.100000000000000001"
    assert document["trades"]["A"] == "0.033329999999999999"
    assert Fraction(document["trades"]["A"]) == -Fraction(document["trades"]["B"])


def test_own_band__counts_for_one_asset_and_the_narrower_kind(bare: Bare) -> None:
    document = whatif_document(bare, W2, W2_NOW, "--band", "10%rel,BTC=10%abs")
    assert document["triggered"] == ["USD"]
    narrow = whatif_document(bare, W2, {"BTC": 5_000, "ETH": 3_250, "USD": 1_750}, "--band", "10%rel,2%abs")
    assert [asset["band_bps"] for asset in narrow["assets"]] == [[4_800, 5_200], [2_800, 3_200], [1_800, 2_200]]


def test_half_way_and_one_side_alone_are_told_too(bare: Bare) -> None:
    half = whatif_document(bare, W2, W2_NOW, "--band", "10%rel", "--destination", "halfway")
    assert half["trades"] == {"BTC": "-400", "ETH": "150", "USD": "250"}
    sides = {
        side: whatif_document(bare, W2, W2_NOW, "--band", "10%rel", "--only", side, "--numeraire", "USD")["trades"]
        for side in ("sell", "buy", "winners", "losers")
    }
    assert sides == {
        "sell": {"BTC": "-800", "ETH": "0", "USD": "800"},
        "buy": {"BTC": "0", "ETH": "0", "USD": "0"},
        "winners": {"BTC": "-800", "ETH": "300", "USD": "500"},
        "losers": {"BTC": "-500", "ETH": "0", "USD": "500"},
    }


def test_text__names_total_trades_and_alert_prices(bare: Bare) -> None:
    result = bare("whatif", "--target", option_text(W2), "--value", option_text(W2_NOW), "--band", "10%rel", "--price", "BTC=58000")
    assert result.code == 0
    for expected_text in ("Total 10,000.00", "-800.00", "+300.00", "+500.00", "45-55", "34,363.64", "-40.75 %", "only its asset"):
        assert expected_text in result.out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--target", "A=50,B=49", "--value", "A=1,B=1"), "--target: sums to 99 %"),
        (("--target", "A=0.5,B=0.5", "--value", "A=1,B=1"), "--target: sums to 1 %, not 100 %"),
        (("--target", "A=50,B=50", "--value", "A=1"), "--value: B is missing"),
        (("--target", "A=100", "--value", "A=1,B=1"), "--target: B is missing"),
        (("--target", "A=100", "--value", "A=1"), "--target needs at least two assets"),
        (("--target", "A=50,A=50", "--value", "A=1"), "--target: A is given twice"),
        (("--target", "A=50,B", "--value", "A=1,B=1"), "--target: 'B' is not SYMBOL=NUMBER"),
        (("--target", "A=50,B=50", "--value", ""), "--value: '' is not SYMBOL=NUMBER"),
        (("--target", "A=50,B=50", "--value", "A=1,B=-1"), "--value B: '-1' is not an amount"),
        (("--target", "A=50,B=50", "--value", "A=1e3,B=1"), "--value A: '1e3' is not an amount"),
        (("--target", "A=50,B=50", "--value", "A=0,B=0.0"), "--value sums to 0"),
        (("--target", "A=33.333,B=66.667", "--value", "A=1,B=1"), "finer than one basis point"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "5%"), "--band: '5%' is not a band"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "0%abs"), "--band.absolute: 0 bps"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "200%rel"), "--band.relative: 20000 bps"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "0%abs,10%rel"), "--band.absolute: 0 bps"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "5%abs,6%abs"), "--band: the same kind twice"),
        (
            ("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "A=10%rel,5%abs"),
            "--band: 5%abs after A=… would be the band of all assets",
        ),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "C=5%abs"), "--band: 'C' is not an asset"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--band", "A=5%abs"), "--band: only single assets have a band"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--price", "A=0"), "--price A: must be above 0"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--price", "C=1"), "--price: 'C' is not an asset"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--destination", "band"), "--destination: 'band'"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--only", "sell"), "--only sell: needs --numeraire"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--only", "winners"), "--only winners: needs --band"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--only", "some"), "--only: 'some'"),
        (("--target", "A=50,B=50", "--value", "A=1,B=1", "--numeraire", "C"), "--numeraire: 'C'"),
        (("--target", "A\x1b[2J=50,B=50", "--value", "A=1,B=1"), "is not SYMBOL=NUMBER"),
    ],
)
def test_a_mistake_is_named_by_its_option(bare: Bare, args: tuple[str, ...], named: str) -> None:
    result = bare("whatif", *args, "--json")
    assert result.code == 2
    assert named in result.error["message"]
