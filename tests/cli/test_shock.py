"""`--shock ALT=-50%` of whatif and stress: what one coin's move alone does, and which words are no shock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.tools import CommandResult

pytest.importorskip("polars")
pytest.importorskip("numba")

Bare = Callable[..., CommandResult]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
THREE = ("whatif", "--target", "BTC=50,ETH=30,ALT=20", "--value", "BTC=5000,ETH=3000,ALT=2000", "--band", "10%rel")
STRESSED = (
    "stress",
    "--prices",
    str(WEEKLY),
    "--band",
    "10%abs",
    "--paths",
    "20,step-paths=1,bars=20",
    "--scenarios",
    "crash-bars=2",
)
POLICY = ("--target", "WBTC=50,LINK=20,USD=30", "--scenarios", "crash", "--limits", "off")


@pytest.mark.parametrize(
    ("shocks", "values", "outside"),
    [
        pytest.param(("ALT=-50%",), {"BTC": "5000", "ETH": "3000", "ALT": "1000"}, ["BTC", "ETH", "ALT"], id="one falls"),
        pytest.param(("ETH=+40%",), {"BTC": "5000", "ETH": "4200", "ALT": "2000"}, ["BTC", "ETH", "ALT"], id="one rises"),
        pytest.param(("ALT=-50%", "BTC=-2500bps"), {"BTC": "3750", "ETH": "3000", "ALT": "1000"}, ["ETH", "ALT"], id="two fall"),
        pytest.param(("ALT=-0.01%",), {"BTC": "5000", "ETH": "3000", "ALT": "1999.8"}, [], id="within the band"),
    ],
)
def test_values_drift_and_trades_are_those_after_the_shock(
    bare: Bare, shocks: tuple[str, ...], values: dict[str, str], outside: list[str]
) -> None:
    options = [word for shock in shocks for word in ("--shock", shock)]
    shocked = bare(*THREE, *options, "--json")
    assert shocked.code == 0, shocked.why
    assert {asset["symbol"]: asset["value"] for asset in shocked.json["assets"]} == values
    assert shocked.json["triggered"] == outside
    assert shocked.json["total_before"] == "10000"
    typed = bare(*THREE[:4], ",".join(f"{symbol}={value}" for symbol, value in values.items()), *THREE[5:], "--json").json
    assert {key: shocked.json[key] for key in typed} == typed, "as if the values after it were typed"


def test_prices__move_with_their_asset_and_words_name_the_shock(bare: Bare) -> None:
    printed = bare(*THREE, "--price", "BTC=60000,ALT=4", "--shock", "ALT=-50%")
    assert printed.code == 0, printed.why
    assert "After the shock ALT -50 %: total 9,000.00, before 10,000.00." in printed.out
    prices = bare(*THREE, "--price", "BTC=60000,ALT=4", "--shock", "ALT=-50%", "--json").json["alert_prices"]
    assert (prices["ALT"]["price"], prices["BTC"]["price"]) == ("2", "60000")


@pytest.mark.parametrize(
    ("futures", "shock", "margin", "after"),
    [
        ("BTC=10000,ETH=-4000", "BTC=-20%", "5000", ("3000", "8000", "-4000")),
        ("BTC=10000,ETH=-4000", "ETH=+25%", "5000", ("4000", "10000", "-5000")),
        ("BTC=10000,SOL=-4000", "SOL=-50%", "5000", ("7000", "10000", "-2000")),
        ("BTC=10000,ETH=-4000", "ALT=-50%", "", ("9000", "10000", "-4000")),
    ],
    ids=["long falls", "short rises", "market without spot", "margin of the spot values"],
)
def test_notionals_and_margin_of_futures_move_too(bare: Bare, futures: str, shock: str, margin: str, after: tuple[str, ...]) -> None:
    arguments = ("--futures", f"margin={margin}") if margin else ()
    printed = bare(*THREE, "--futures", futures, *arguments, "--shock", shock, "--json")
    assert printed.code == 0, printed.why
    futures_document = printed.json["futures"]
    assert (futures_document["margin"], *(market["notional"] for market in futures_document["markets"])) == after


def test_w3_alts_double_by_a_shock(bare: Bare) -> None:
    printed = bare(
        *("whatif", "--target", "BTC=30,ETH=30,ALT=40", "--value", "BTC=3000,ETH=3000,ALT=4000", "--band", "15%abs"),
        *("--shock", "ALT=+100%", "--futures", "BTC=17500,ETH=17500,max-leverage=4x", "--json"),
    )
    assert printed.json["trades"] == {"BTC": "1200", "ETH": "1200", "ALT": "-2400"}
    assert (printed.json["futures"]["leverage"], printed.json["futures"]["triggers"]) == ("2.5", [])


NO_SHOCKS = [
    ("ALTT=-50%", "--shock: 'ALTT' is not an asset", "choose from"),
    ("alt=-50%", "--shock: 'alt' is not an asset", "choose from"),
    ("ALT=50%", "--shock ALT: '50%' is not a change of the price", "-50% for a fall"),
    ("ALT=-0.5", "--shock ALT: '-0.5' is not a change of the price", "-50% for a fall"),
    ("ALT=-2x", "--shock ALT: '-2x' is not a change of the price", "-50% for a fall"),
    ("ALT=-100%", "--shock ALT: '-100%' leaves no price", "less than 100 %"),
    ("ALT=-0%", "--shock ALT: '-0%' changes nothing", "omit it"),
    ("ALT=+1000000%", "--shock ALT: '+1000000%' is more than", "at most +100000%"),
    ("ALT", "--shock: 'ALT' is not SYMBOL=NUMBER", ""),
    ("ALT=-50%,ALT=-10%", "--shock: ALT is given twice", "once"),
]


@pytest.mark.parametrize(("shock", "named", "remedy"), NO_SHOCKS, ids=[row[0] for row in NO_SHOCKS])
def test_unknown_asset_or_move__is_refused(bare: Bare, shock: str, named: str, remedy: str) -> None:
    printed = bare(*THREE, "--shock", shock, "--json")
    assert printed.code == 2
    assert named in printed.json["error"]["message"]
    assert remedy in printed.json["error"]["remedy"]
    stressed = bare(*STRESSED, *POLICY, "--scenarios", "shock=" + shock.replace("ALT", "LINK").replace("alt", "link"), "--json")
    assert stressed.code == 2
    named = named.replace("--shock", "--scenarios shock")
    assert named.replace("ALT", "LINK").replace("alt", "link") in stressed.json["error"]["message"]


def test_unit_of_values_and_lost_margin__are_refused(bare: Bare) -> None:
    printed = bare("whatif", "--target", "BTC=50,USD=50", "--value", "BTC=5,USD=5", "--numeraire", "USD", "--shock", "USD=-5%", "--json")
    assert (printed.code, "unit of all values" in printed.json["error"]["message"]) == (2, True)
    gone = bare(*THREE, "--futures", "BTC=30000,margin=5000", "--shock", "BTC=-20%", "--json")
    assert gone.code == 2
    assert "the positions lose 6000, all of the margin of 5000" in gone.json["error"]["message"].replace(",000", "000").replace(".00", "")


def test_stress__runs_a_shock_beside_the_scenarios(bare: Bare) -> None:
    result = bare(*STRESSED, *POLICY, "--scenarios", "shock=LINK=-50%", "--json")
    assert result.code == 0, result.why
    cases = {case["name"]: float(case["loss"]["worst"]) for case in result.json["cases"]}
    assert list(cases) == ["resampled blocks", "jump diffusion", "calm", "crash", "shock"]
    assert 0 < cases["shock"] < cases["crash"], "a fifth of the portfolio falls, not seven tenths"
    assert result.json["parameters"]["shock"] == "LINK -5000 bps"
    both = bare(*STRESSED, *POLICY, "--scenarios", "shock=LINK=-50%,shock=WBTC=-50%", "--json").json
    assert float(both["cases"][-1]["loss"]["worst"]) == pytest.approx(cases["crash"], abs=1e-6), "both together are the crash"
    rise = bare(*STRESSED, *POLICY, "--scenarios", "shock=WBTC=+30%", "--json").json
    assert float(rise["cases"][-1]["loss"]["worst"]) < 0
    assert (
        len({result.json["config_hash"], both["config_hash"], rise["config_hash"], bare(*STRESSED, *POLICY, "--json").json["config_hash"]})
        == 4
    )


@pytest.mark.slow
def test_stress_shocks_a_market_of_a_futures_book(bare: Bare) -> None:
    book = (
        *STRESSED[:3],
        "--paths",
        "bars=12,step-paths=1,seeds=1",
        "--futures",
        "WBTC=60,LINK=-40,leverage=1x",
    )
    falls = bare(*book, "--scenarios", "shock=WBTC=-30%", "--json")
    assert falls.code == 0, falls.why
    worst = {case["name"]: float(case["agent"]["worst_loss"]) for case in falls.json["futures"]["cases"]}
    assert list(worst)[-1] == "shock"
    assert worst["shock"] > worst["calm"], "a long loses by a fall"
    refused = bare(*book, "--scenarios", "shock=USD=-30%", "--json")
    assert (refused.code, "'USD' is not an asset" in refused.json["error"]["message"]) == (2, True)
