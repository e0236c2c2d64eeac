"""`trimtab backtest`, as it is typed: its document, its words, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import log
from pathlib import Path

import pytest

from agent.backtest import simulate
from agent.cli.research.backtest import format_premium
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from tests.cli.tools import CommandResult
from tests.support.bands import with_bands
from tests.support.text import mentions

pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
HALVES = ("--target", "WBTC=50,USD=50", "--band", "10%abs")


def test_its_document_adds_up(bare: Bare) -> None:
    result = bare("backtest", "--prices", str(WEEKLY), *HALVES, "--market", "fee=30bps", "--json")
    assert result.code == 0, result.why
    document = result.json
    costs = {kind: Fraction(text) for kind, text in document["costs"].items()}
    assert costs["total"] == pytest.approx(costs["fees"] + costs["impact"] + costs["gas"])
    assert document["rebalances"] == len(document["trades"]) >= 1
    assert sum(Fraction(trade["fees"]) for trade in document["trades"]) == pytest.approx(costs["fees"])
    assert Fraction(document["start_value"]) == 10_000
    assert abs(document["weights_bps"]["WBTC"] - 5_000) <= 1_000
    assert sum(document["weights_bps"].values()) == 10_000
    assert (document["bars"], document["halted_bars"], document["refused"]) == (53, 0, {})
    assert document["numeraire"] == "USD"
    hold_value = 5_000 + 5_000 * found_ratio()
    assert float(document["hold_value"]) == pytest.approx(hold_value)
    assert len(document["config_hash"]) == len(document["data_hash"]) == 64
    earned = {name: float(text) for name, text in document["rebalancing_premium"].items()}
    assert earned["advantage"] == pytest.approx(log(float(document["final_value"]) / float(document["hold_value"])), abs=2e-6)
    parts = earned["excess_growth"] + earned["off_target"] - earned["dispersion"] - earned["costs"]
    assert earned["advantage"] == pytest.approx(parts, abs=5e-6)


def found_ratio() -> float:
    """What the last price of the file is of the first."""
    rows = [line.split(",") for line in WEEKLY.read_text().split()]
    return float(rows[-1][1]) / float(rows[1][1])


def test_symbols_are_mapped_by_a_repeated_option_as_by_commas(bare: Bare) -> None:
    args = ("backtest", "--prices", str(WEEKLY), "--target", "BTC=30,Chainlink=20,USD=50", "--every", "4w", "--json")
    repeated = bare(*args, "--as", "WBTC=BTC", "--as", "LINK=Chainlink")
    together = bare(*args, "--as", "WBTC=BTC,LINK=Chainlink")
    assert repeated.code == 0, repeated.why
    assert repeated.json == together.json
    unmapped = bare("backtest", "--sample", "--target", "WBTC=30,WETH=20,USD=50", "--every", "4w", "--json")
    assert unmapped.error["remedy"].endswith("; add --as BTC=WBTC,ETH=WETH")


def test_its_words_name_what_came_of_it(bare: Bare) -> None:
    result = bare("backtest", "--prices", str(WEEKLY), *HALVES, "--every", "4w", "--as", "WBTC=BTC", "--target", "BTC=50,USD=50")
    assert result.code == 0, result.why
    assert mentions(result.out, "53 bars", "USD")
    for word in ("rebalanced", "held", "cost: fees", "turnover", "from rebalancing itself"):
        assert word in result.out


def test_the_config_of_a_live_agent_is_tried_out_with_its_limits(bare: Bare, tmp_path: Path) -> None:
    weth = ETHEREUM_PRESET.tokens[0]
    usdc = ETHEREUM_PRESET.tokens[2]
    assets = [TemplateAsset("WETH", weth.address, "50%", weth.feed), TemplateAsset("USDC", usdc.address, "50%", usdc.feed)]
    text = with_bands(render_config(ETHEREUM_PRESET, weth.address, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    config = tmp_path / "trimtab.toml"
    config.write_text(text)
    prices = tmp_path / "prices.csv"
    prices.write_text("time,WETH\n2021-01-01,100\n2021-01-02,101\n2021-01-03,125\n2021-01-04,125\n")
    arguments = ("backtest", "--prices", str(prices), "--config", str(config), "--json")
    result = bare(*arguments, "--value", "500")
    assert result.code == 0, result.why
    # 2.5 WETH at 125 beside 250 USDC is 55.6 %, beyond 55: v with 312.5 - v = 250 + 0.999 v changes hands, all of it fee but 0.999.
    assert (result.json["rebalances"], result.json["refused"], result.json["held_back"]) == (1, {}, {})
    assert result.json["trades"][0]["time"] == 1_609_632_000
    assert float(result.json["trades"][0]["fees"]) == pytest.approx(62.5 / 1.999 / 1000, rel=1e-4)
    rich = bare(*arguments, "--value", "5000")  # portfolio.max_live_value of the template is 1,000
    assert (rich.json["rebalances"], rich.json["refused"]) == (0, {"max_live_value": 2})
    assert [note for note in rich.json["notes"] if "--value" in note]
    assert not [note for note in result.json["notes"] if "--value" in note]
    assert bare(*arguments, "--native", "WETH", "--value", "500").code == 0
    assert bare(*arguments, "--native", "USDC").error["message"].startswith("--native: USDC is not the chain.wrapped_native")
    for option, setting in (("--tracking", "strict"), ("--destination", "halfway"), ("--every", "7d"), ("--band", "WETH=5%abs")):
        assert bare(*arguments, option, setting).error["message"] == f"{option}: the config sets it"
    config.write_text(text.replace('min_trade = "10" ', 'min_trade = "40" '))
    small = bare(*arguments, "--value", "500")  # 31.25 has to move: (312.5 - 250) / 2
    assert (small.json["rebalances"], small.json["held_back"]) == (0, {"limits.min_trade": 2})


SAME_DAY_FLOWS = {
    "in and out": ("+5000", "-5000"),
    "out and in": ("-5000", "+5000"),
    "in twice": ("+1000", "+2500"),
    "out twice": ("-1000", "-2500"),
    "five": ("+5000", "-1000", "-1000", "+20000", "-4000"),
}


@pytest.mark.parametrize("amounts", SAME_DAY_FLOWS.values(), ids=SAME_DAY_FLOWS.keys())
def test_transfers_of_one_day_are_no_profit(bare: Bare, tmp_path: Path, amounts: tuple[str, ...]) -> None:
    prices = tmp_path / "flat.csv"
    prices.write_text("time,BTC\n" + "".join(f"2024-{1 + day // 28:02}-{1 + day % 28:02},100\n" for day in range(60)))
    flows = [option for amount in amounts for option in ("--flow", f"2024-02-03={amount}")]
    result = bare("backtest", "--prices", str(prices), "--target", "BTC=50,USD=50", "--band", "40%abs", *flows, "--json")
    assert result.code == 0, result.why
    assert (result.json["twr"], result.json["hold_twr"]) == ("0.000000", "0.000000")
    for name in ("rebalanced", "held"):
        figures = result.json["figures"][name]
        assert [float(figures[figure]) for figure in ("cagr", "volatility", "max_drawdown")] == [0, 0, 0]


def test_report_with_contradicting_figures__refuses_itself(bare: Bare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulate, "time_weighted_returns", lambda *_: (0.25, 0.0))
    for options in (("--json",), ("--html", str(tmp_path / "report.html")), ()):
        result = bare("backtest", "--prices", str(WEEKLY), *HALVES, *options)
        assert result.code == 10
        assert "growth and time-weighted return" in result.why
        assert "0.25" in result.why
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_sample_needs_no_file_and_tells_what_came_and_went(bare: Bare) -> None:
    arguments = ("backtest", "--sample", "--target", "BTC=40,ETH=30,USD=30", "--flow", "2021-03-01=+1000")
    result = bare(*arguments, "--band", "15%rel", "--flow", "2021-09-01=-500", "--native", "ETH", "--json")
    assert result.code == 0, result.why
    document = result.json
    assert (document["bars"], [Fraction(flow["value"]) for flow in document["flows"]]) == (365, [1_000, -500])
    assert document["gas_counted"] is True
    assert float(document["costs"]["gas"]) > 1_000  # 2021 was dear: at ten thousand dollars gas took the most of it
    assert document["realised_gains"]["years"].keys() == {"2021"}
    command_result = bare(*arguments, "--band", "50%rel")
    assert "2021-03-01: deposit" in command_result.out
    assert "time-weighted return +" in command_result.out
    assert "cost: gas" in command_result.out
    assert "not counted" in command_result.out
    assert "not counted" in command_result.out


FUNDED = ("time,symbol,rate", "2021-01-01,BTCUSDT,0.001", "2021-01-02,BTCUSDT,0.003", "2021-01-03,BTCUSDT,-0.002")


def funded(folder: Path, *lines: str) -> tuple[str, ...]:
    """A backtest of four days at one price, and a file of funding rates."""
    (folder / "prices.csv").write_text("time,BTC\n2021-01-01,100\n2021-01-02,100\n2021-01-03,100\n2021-01-04,100\n")
    (folder / "funding.csv").write_text("\n".join(lines) + "\n")
    files = ("--prices", str(folder / "prices.csv"), "--funding", str(folder / "funding.csv"))
    return ("backtest", *files, "--target", "WBTC=50,USD=50", "--band", "10%abs", "--as", "BTC=WBTC,BTCUSDT=WBTC")


def test_funding__tells_what_a_full_hedge_would_have_carried(bare: Bare, tmp_path: Path) -> None:
    arguments = funded(tmp_path, *FUNDED)
    result = bare(*arguments, "--json")
    assert result.code == 0, result.why
    funding = result.json["funding"]
    # 5,000 are hedged: 5 and 15 come in, 10 go out, of 5,000 in three days
    carry_figures = {name: funding["assets"]["WBTC"][name] for name in ("carry", "notional", "intervals", "from", "until")}
    assert carry_figures == {"carry": "10", "notional": "5000", "intervals": 3, "from": 1_609_459_200, "until": 1_609_632_000}
    assert (Fraction(funding["total"]), funding["intervals"], len(funding["data_hash"])) == (10, 3, 64)
    assert funding["yearly_rate"] == funding["assets"]["WBTC"]["yearly_rate"] == f"{10 / 5_000 / 3 * 365:.6f}"
    assert Fraction(result.json["final_value"]) == 10_000
    command_result = bare(*arguments)
    for word in ("funding, in USD", "10.00", "+24.33 %", "3 funding payments to shorts as large as the holdings", "not simulated"):
        assert word in command_result.out
    without = bare(*arguments[:3], *arguments[5:-1], "BTC=WBTC", "--json")
    assert without.json["funding"] is None
    assert without.json["config_hash"] == result.json["config_hash"]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ((*FUNDED, "2021-01-01,DOGE,0.001"), "--funding: DOGE has rates but no prices"),
        ((*FUNDED, "2021-01-01,BTC,0.001"), "--as: two symbols of the funding file get the same name"),
        (
            ("time,symbol,rate", "2020-01-01,BTCUSDT,0.001"),
            "--funding: the rates of WBTC, from 2020-01-01 00:00 to 2020-01-01 00:00, are outside",
        ),
        (("time,symbol,rate", "2021-01-01,BTCUSDT,5"), "--funding: funding.csv, row 1: 'BTCUSDT' has a rate of 5.0"),
        (("time,symbol", "2021-01-01,BTC"), "--funding: funding.csv needs columns time, symbol and rate"),
    ],
)
def test_a_mistake_in_the_funding_rates_is_named(bare: Bare, tmp_path: Path, lines: tuple[str, ...], named: str) -> None:
    result = bare(*funded(tmp_path, *lines), "--json")
    assert result.code == 2
    assert named in result.json["error"]["message"]
    assert result.json["error"]["remedy"]


def test_a_narrow_terminal_cuts_no_word_off(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    result = bare("backtest", "--prices", str(WEEKLY), *HALVES, "--value", "123456789")
    assert {"start", "rebalanced", "impact", "123,456,789.00"} <= set(result.out.split())
    assert "…" not in result.out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ((), "--target or --config is needed"),
        ((*HALVES, "--tracking", "strict"), "--tracking: strict beside --band or --every"),
        (("--target", "WBTC=50,USD=50", "--tracking", "lax"), "--tracking: 'lax'"),
        (("--target", "WBTC=50,USD=50", "--every", "7d", "--band", "WBTC=5%abs"), "--band: only single assets have a band"),
        ((*HALVES, "--band", "DOGE=5%abs"), "--band: 'DOGE' is not an asset"),
        (("--target", "WBTC=50,USD=40", "--band", "5%abs"), "sums to 90 %"),
        (("--target", "WBTC=50,DOGE=30,USD=20", "--band", "5%abs"), "DOGE is not in the file"),
        ((*HALVES, "--market", "fee=much"), "--market fee"),
        ((*HALVES, "--market", "pool=v4"), "--market pool"),
        ((*HALVES, "--market", "gas=20 gwei"), "--market gas: the native coin has no price"),
        ((*HALVES, "--native", "DOGE"), "--native: 'DOGE'"),
        ((*HALVES, "--destination", "zone"), "--destination"),
        ((*HALVES, "--as", "DOGE=BTC"), "--as: 'DOGE' is not in the file"),
        ((*HALVES, "--as", "WBTC=LINK"), "--as: two symbols of the file get the name 'LINK'"),
        ((*HALVES, "--config", "trimtab.toml"), "--target: the config sets it"),
        (("--target", "WBTC=50,USD=50", "--destination", "halfway"), "--destination: halfway, but tracking trades to the edge"),
        ((*HALVES, "--futures", "leverage=3x"), "--futures: no weights are given"),
        *(
            (("--futures", "WBTC=60,WETH=-40", *options), f"{named}: a futures book alone does not have it")
            for options, named in (
                (("--destination", "halfway"), "--destination"),
                (("--band", "5%rel"), "--band"),
                (("--flow", "2021-03-01=+5"), "--flow"),
                (("--market", "fee=30bps"), "--market fee"),
                (("--market", "fee=10bps"), "--market fee"),
                (("--market", "depth=1000000000"), "--market depth"),
                (("--market", "gone=halt"), "--market gone"),
            )
        ),
        ((*HALVES, "--sample"), "--prices or --sample: exactly one is needed"),
        ((*HALVES, "--flow", "soon=+5"), "--flow: 'soon=+5'"),
        ((*HALVES, "--flow", "2021-03-01=0"), "has an amount of zero"),
        ((*HALVES, "--flow", "2020-03-01=5"), "2020-03-01 00:00:00+00:00 is not within the simulation"),
        ((*HALVES, "--flow", "2021-03-01=-50000"), "not below the portfolio's value"),
        ((*HALVES, "--funding", "none.csv"), "--funding: 'none.csv' is not a file"),
        ((*HALVES, "--flows-in", "gold"), "--flows-in: 'gold'"),
        ((*HALVES, "--market", "gone=sell"), "--market gone: 'sell'"),
        ((*HALVES, "--market", "gas=1 gwei,gas-prices=gas.csv"), "--market gas-prices: --market gas sets another price"),
        ((*HALVES, "--market", "pool-state=WBTC=pool.json"), "--market pool-state: 'WBTC=pool.json'"),
        ((*HALVES, "--market", "pool-state=WBTC/DOGE=pool.json"), "--market pool-state: 'DOGE' is not in the portfolio"),
        ((*HALVES, "--market", "decimals=WBTC=many"), "--market decimals WBTC: 'many'"),
        ((*HALVES, "--market", f"decimals=WBTC={'9' * 5_000}"), "--market decimals WBTC: '999"),
        (("--target", "WBTC=50,LINK=50", "--band", "5%abs", "--flow", "2021-03-01=5"), "USD is not an asset of the portfolio"),
    ],
)
def test_a_mistake_is_named_by_its_option(bare: Bare, more: tuple[str, ...], named: str) -> None:
    result = bare("backtest", "--prices", str(WEEKLY), *more, "--json")
    assert result.code == 2
    assert named in result.json["error"]["message"]


def test_return_against_holding__is_the_values_and_its_parts_add() -> None:
    earned = {
        "advantage": "-0.134586",
        "excess_growth": "0.117028",
        "off_target": "-0.009820",
        "dispersion": "0.220813",
        "costs": "0.020980",
    }
    premium_text = format_premium(earned, 1.155742, 1.459301)
    assert f"against holding {100 * log(2.155742 / 2.459301):+.3f} %" in premium_text
    assert mentions(premium_text, "2.098 %", "0.284 %")
    equal = format_premium({**earned, "advantage": "-0.131742"}, 1.155742, 1.459301)
    assert "against holding -13.174 %" in equal
    assert "gas money" not in equal
