"""weights and prices from the command line: their documents, their words, and how wrong input ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.localchain import LocalChain
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.on_chain.weights import SETTINGS, TARGETS, VOLATILE, WEIGHED, closes
from tests.support.text import mentions


def test_imported_prices__lead_to_explained_weights(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    agents.fund(anvil_chain, {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000})
    empty = run("weights", "--json").json
    assert empty["now"] is None
    assert mentions(empty["fault"], "prices")
    assert "trimtab prices import" in empty["fault"]
    assert mentions(run("prices").out, "No prices", "WETH, WBTC, LINK")

    file = str(closes(anvil_chain, tmp_path / "closes.csv"))
    checked = run("prices", "import", file, "--check", "--json").json
    assert checked["checked_only"] is True
    assert [item["new"] for item in checked["prices"]] == [0, 0, 0]
    prices_document = run("prices", "import", file, "--json").json
    assert {item["symbol"]: (item["rows"], item["new"], item["gaps"]) for item in prices_document["prices"]} == dict.fromkeys(
        VOLATILE, (61, 61, 0)
    )
    listed = run("prices", "--json").json
    assert {(item["symbol"], item["source"], item["hours"]) for item in listed["prices"]} == {(s, "import", 61) for s in VOLATILE}

    planned = run("plan")
    assert mentions(planned.out, "Targets", "inverse_volatility", "chosen")
    done = run("rebalance", "--json").json  # a dry run is a look too, and what it chooses stands
    assert done["outcome"] == "planned"
    assert mentions(done["target_reasons"][0], "inverse_volatility", "chosen")
    document = run("weights", "--json").json
    assert document["due"] is False
    assert sum(document["chosen"]["weights_bps"].values()) == 10_000
    assert run("status", "--json").json["target_reasons"] == done["target_reasons"]
    words = run("weights").out
    for part in (
        "Weights by inverse_volatility",
        "Correlations",
        "in inverse proportion to annual volatilities",
        "60 returns of each",
        "due",
    ):
        assert part in words
    assert run("prices", "forget", "import", "--json").json == {"source": "import", "removed": 183}


def test_a_wrong_price_moves_no_weight_before_the_owner_accepts(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    loaded = agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    agents.fund(anvil_chain, {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000})
    file = closes(anvil_chain, tmp_path / "closes.csv")
    rows = file.read_text().splitlines()
    for wrong, factor in ((30, 100.0), (80, 0.00001)):
        time_s, symbol, close = rows[wrong].split(",")
        rows[wrong] = f"{time_s},{symbol},{float(close) * factor!r}"
    file.write_text("\n".join(rows) + "\n")
    refused = run("prices", "import", str(file), "--json")
    assert refused.code == 2
    assert mentions(refused.error["message"], "row 30: WETH is", "after", "before", "the next bar takes it back")
    assert "--accept-jumps" in refused.error["remedy"]
    assert run("prices", "--json").json["prices"] == []
    accepted = run("prices", "import", str(file), "--accept-jumps", "--json").json
    assert [remark["text"].split(":")[0] for remark in accepted["remarks"]] == ["accepted", "accepted"]

    waiting = run("weights", "--json").json
    assert waiting["now"] is None
    assert mentions(waiting["fault"], "one return makes", "of the variance of", "trimtab weights --accept")
    assert mentions(run("rebalance", "--json").json["target_reasons"][0], "targets of the config", "one return makes")
    assert run("weights", "--json").json["chosen"] is None
    unanswered = run("weights", "--accept", "--json")
    assert unanswered.code == 2
    offered: list[Any] = []
    with agents.reopened_agent(anvil_chain, loaded) as agent:
        declined = api.weights(agent, accept=lambda choice: bool(offered.append(choice)))
    assert declined["accepted"] is False
    assert run("weights", "--json").json["chosen"] is None
    assert run("weights", "--accept", "--yes", "--json").json["accepted"] is True
    chosen = run("weights", "--json").json["chosen"]
    assert chosen["weights_bps"] == offered[0]["now"]["weights_bps"], "what was shown is what is recorded"
    assert mentions(run("rebalance", "--json").json["target_reasons"][0], "inverse_volatility", "chosen")


def test_paper__sees_prices_imported_after_its_start(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    settings = {**SETTINGS, "until_chosen": "wait", "max_change": "20%"}
    agents.trusted_config(anvil_chain, tmp_path, {**WEIGHED, "portfolio.weights": settings}, TARGETS)
    halted = run("paper", "--once", "--start", "USDC=5000", "--json")
    assert mentions(halted.json["reason"], "no target weights", "min_history requires 30")
    run("prices", "import", str(closes(anvil_chain, tmp_path / "closes.csv")), "--json")
    weights = run("weights", "--paper", "--json").json
    assert weights["book_kind"] == "paper"
    assert sum(weights["now"]["weights_bps"].values()) == 10_000
    assert run("plan", "--paper", "--json").json["target_reasons"][0].startswith("weights by inverse_volatility")
    accepted = run("weights", "--paper", "--accept", "--yes", "--json").json
    assert accepted["accepted"] is True
    assert run("weights", "--json").json["chosen"] is None, "what is accepted on paper is not accepted live"
    assert run("weights", "--paper", "--json").json["chosen"]["weights_bps"] == accepted["now"]["weights_bps"]


def test_choice_that_waits__is_shown_and_accepted_by_the_command_named(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    settings = {**SETTINGS, "max_change": "20%"}
    agents.trusted_config(anvil_chain, tmp_path, {**WEIGHED, "portfolio.weights": settings}, TARGETS)
    run("prices", "import", str(closes(anvil_chain, tmp_path / "closes.csv")), "--json")
    hint = "(trimtab weights --accept, on paper with --paper)"
    for ledger, command in (((), "weights --accept"), (("--paper",), "weights --accept --paper")):
        if ledger:
            run("paper", "--once", "--start", "USDC=5000", "--json")
            assert hint in run("plan", "--paper", "--json").json["target_reasons"][0]
        weights_document = run("weights", *ledger, "--json").json
        assert weights_document["now"] is None
        assert f"waits for the owner {hint}" in weights_document["fault"]
        waiting_bps = weights_document["waiting"]["weights_bps"]
        assert waiting_bps["WETH"] > 5_000, "more than 20 points above the target of 30 %"
        assert {asset["symbol"]: asset["waiting_bps"] for asset in weights_document["assets"]} == waiting_bps
        text = run("weights", *ledger).out
        assert mentions(text, "waiting", f"{waiting_bps['WETH'] / 100:.2f} %", "Waiting for the owner", "in inverse proportion")
        assert "or rebalance chooses" not in text
        assert run(*command.split(), "--yes", "--json").json["now"]["weights_bps"] == waiting_bps
        settled = run("weights", *ledger, "--json").json
        assert (settled["chosen"]["weights_bps"], settled["waiting"]) == (waiting_bps, None)


def test_prices_older_than_the_window_are_said_to_decide_nothing(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    file = closes(anvil_chain, tmp_path / "closes.csv")
    header, *rows = file.read_text().splitlines()
    cells = [row.split(",", 1) for row in rows]
    file.write_text("\n".join([header, *(f"{int(time_s) - 200 * 86_400},{rest}" for time_s, rest in cells)]) + "\n")
    newest = datetime.fromtimestamp(max(int(time_s) for time_s, _ in cells) - 200 * 86_400, UTC)
    *_, remark = run("prices", "import", str(file), "--json").json["remarks"]
    assert mentions(remark["text"], "no choice of weights uses these prices", f"the newest is of {newest:%Y-%m-%d}", "the window starts")
    assert mentions(run("weights", "--json").json["fault"], "no prices of LINK, WBTC, WETH within 60 days, from")


def test_import__prices_beyond_retention__are_counted(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    file = str(closes(anvil_chain, tmp_path / "closes.csv", days=1_000))
    checked = run("prices", "import", file, "--check", "--json").json
    imported = run("prices", "import", file, "--json").json
    assert checked["remarks"] == imported["remarks"]
    assert [(item["hours"], item["new"]) for item in imported["prices"]] == [(1_001, 800)] * 3
    left_out = [remark for remark in imported["remarks"] if "left out" in remark["text"]]
    first_day, last_day = (datetime.fromtimestamp(anvil_chain.now_s() - days * 86_400, UTC) for days in (1_000, 800))
    for remark, symbol in zip(left_out, VOLATILE, strict=True):
        assert remark["count"] == 201
        assert mentions(remark["text"], f"201 prices of {symbol} left out, {first_day:%Y-%m-%d}", f"to {last_day:%Y-%m-%d}", "800 days")


def test_import__closes_far_from_recorded_ones__are_refused(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    file = closes(anvil_chain, tmp_path / "closes.csv")
    header, *rows = file.read_text().splitlines()
    run("prices", "import", str(file), "--json")
    cells = [row.rsplit(",", 1) for row in rows]
    file.write_text(
        "\n".join([header, *(f"{at},{float(close) * (2 if index < 9 else 1)!r}" for index, (at, close) in enumerate(cells))]) + "\n"
    )
    refused = run("prices", "import", str(file), "--json")
    assert refused.code == 2
    assert mentions(
        refused.error["message"], "WETH differs from recorded prices in 9 hours, the most at", "in the file", "recorded, which stays"
    )
    run("prices", "forget", "import", "--json")
    assert run("prices", "import", str(file), "--json").code == 0


def test_a_last_close_far_from_todays_price_is_refused(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    file = closes(anvil_chain, tmp_path / "closes.csv")
    cents = [f"{row.rsplit(',', 1)[0]},{float(row.rsplit(',', 1)[1]) * 100!r}" for row in file.read_text().splitlines()[1:]]
    file.write_text("\n".join(["time,symbol,close", *cents]) + "\n")
    refused = run("prices", "import", str(file), "--json")
    assert refused.code == 2
    assert mentions(refused.error["message"], "the last close of WETH is", "today's reference price")


def test_published_prices_are_imported_by_their_name(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    closes(anvil_chain, tmp_path / "closes.csv")
    (tmp_path / "caps.csv").write_text("symbol,market_cap,price\nWETH,360000000000,3000\n")
    data = {"daily": {"source": "closes.csv"}, "caps": {"source": "caps.csv", "kind": "supplies"}}
    agents.trusted_config(anvil_chain, tmp_path, {**WEIGHED, "data": data}, TARGETS)
    document = run("prices", "import", "daily", "--json").json
    assert {item["symbol"] for item in document["prices"]} == set(VOLATILE)
    assert len(document["sha256"]) == 64
    assert mentions(run("prices", "import", "caps").out, "caps.csv", "SHA-256", "supplies of WETH")


def test_prices_are_fetched_from_the_chain(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    for _ in range(3):
        anvil_chain.warp(3_600)
    document = run("prices", "fetch", "--back", "2h", "--json").json
    assert {item["symbol"]: item["source"] for item in document["prices"]} == dict.fromkeys(VOLATILE, "feed")
    assert all(item["new"] >= 1 for item in document["prices"])
    result = run("prices", "fetch", "--back", "2h")
    assert "Prices from" in result.out


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("prices", "import", "nowhere.csv"), "no such file"),
        (("prices", "import", "closes.csv", "--as", "BTC"), "--as: 'BTC' is not a pair of symbols"),
        (("prices", "import", "closes.csv", "--as", "BTC=WBTC,ETH"), "--as: 'ETH' is not a pair of symbols"),
        (("prices", "import", "closes.csv", "--bar", "soon"), "--bar"),
        (("prices", "fetch", "--source", "rumour"), "--source: 'rumour' is unknown"),
        (("prices", "fetch", "--back", "3000d"), "--back: '3000d' is not between"),
        (("prices", "forget", "look"), "prices of the agent's cycles are kept"),
        (("prices", "forget", "rumour"), "source: 'rumour' is unknown"),
    ],
)
def test_wrong_input_ends_with_two_and_names_the_remedy(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult], args: tuple[str, ...], reason: str
) -> None:
    agents.agent_config(anvil_chain, tmp_path, WEIGHED, TARGETS)
    result = run(*args, "--json")
    assert result.code == 2, result.why
    assert reason in result.error["message"]
    assert result.error["remedy"] or "write" in result.error["message"]


def test_a_config_without_an_allocator_is_told_so(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.agent_config(anvil_chain, tmp_path, None, TARGETS)
    result = run("weights", "--json")
    assert result.code == 2
    assert "allocator" in result.error["message"]
