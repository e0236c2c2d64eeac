"""pnl, books, export, and the taxable gain of a plan, as commands on a chain of their own."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

import pytest

from agent.units import decimal_text, pluralize
from agent.wiring import transactor
from tests.cli.tools import Desk
from tests.support.text import mentions

TABLE = '\n[tax]\nmethod = "hifo"\nyear_limit = "{}"\n'


def test_plan__says_its_taxable_gain_once_there_are_lots(desk: Desk) -> None:
    desk.config.write_text(desk.config.read_text() + TABLE.format("off"))
    first = desk.ask("plan")["tax"]
    assert first["gain"] is None
    assert "no tax lots yet" in first["unknown"]
    assert {disposal["gain"] for disposal in first["disposals"]} == {None}
    assert "Taxable gain: unknown (no tax lots yet" in " ".join(desk.run("plan").out.split())
    desk.ask("pnl", "--now")
    plan = desk.ask("plan")
    assert plan["tax"]["unknown"] == ""
    assert float(plan["tax"]["gain"]) != 0
    assert {disposal["symbol"] for disposal in plan["tax"]["disposals"]} >= {"WETH"}
    assert plan["tax"]["method"] == "hifo"
    assert "Taxable gain" in desk.run("plan", "--verbose").out
    assert "Taxable gain: " in desk.run("plan").out


def test_books_of_a_day__agree_from_command_to_command(desk: Desk, tmp_path: Path) -> None:
    desk.config.write_text(desk.config.read_text() + TABLE.format("off"))
    desk.ask("pnl", "--now")
    desk.ask("rebalance", "--send", "--yes")
    desk.ask("swap", "--in", "USDC", "--out", "WETH", "--amount", "150", "--send", "--yes")
    pnl_document = desk.ask("pnl", "--now", "--benchmark", "WETH")
    (row,) = pnl_document["periods"]
    assert (row["rebalances"], row["manual_swaps"]["swaps"], pnl_document["benchmark"]) == (1, 1, "WETH")
    assert float(row["costs"]["gas"]) > 0
    assert sum(row["weights_bps"].values()) == 10_000
    assert "1 manual" in desk.run("pnl").out

    checked = desk.ask("books", "check")
    assert checked["sound"]
    assert checked["chain"]["disagreement"] == ""
    assert checked["entries"] > 2
    assert "the sum matches the chain" in " ".join(desk.run("books", "check").out.split())
    holdings = desk.holdings()
    lots = {asset["symbol"]: asset for asset in desk.ask("books", "lots")["assets"]}
    assert {symbol: lots[symbol]["amount"] for symbol in ("WBTC", "USDC")} == {
        "WBTC": decimal_text(int(holdings["WBTC"]), 8),
        "USDC": decimal_text(int(holdings["USDC"]), 6),
    }
    assert len(lots["WETH"]["lots"]) == 2
    assert float(lots["WETH"]["unrealised"]) != 0, "balance at first, and the swap by hand"
    assert "Realised in 20" in desk.run("books", "lots", "--method", "average").out
    assert "--method" in desk.run("books", "lots", "--method", "first").err
    entries = desk.ask("books", "journal")["entries"]
    assert [entry["manual"] for entry in entries if entry["kind"] == "trade"] == [True, False]
    assert "assets:wallet:USDC" in desk.run("books", "journal").out
    steps = desk.ask("history")
    swapped = next(row["step"] for row in steps["steps"] if any(item["kind"] == "swap" for item in row["transactions"]))
    assert any(mentions(line, "hifo") for line in desk.ask("explain", swapped)["sentences"])
    assert [row["cost"] is not None for row in steps["steps"] if any(item["kind"] == "swap" for item in row["transactions"])] == [
        True,
        True,
    ]
    assert steps["values"]
    assert "Weights" in desk.run("history").out

    out = tmp_path / "books"
    export_document = desk.ask("export", "--format", "rotki", "--out", str(out))
    assert [file["name"] for file in export_document["files"]] == ["rotki_generic_trades.csv", "rotki_generic_events.csv"]
    assert all((out / file["name"]).stat().st_mode & 0o077 == 0 for file in export_document["files"])
    assert len(list(csv.DictReader((out / "rotki_generic_trades.csv").open()))) == export_document["files"][0]["rows"] > 0
    again = desk.run("export", "--format", "rotki", "--out", str(out))
    assert again.code == 2
    assert "--force" in again.err
    assert desk.run("export", "--format", "rotki", "--out", str(out), "--force").code == 0


def test_mined_transactions_that_are_not_booked_are_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = transactor.submission_settings
    monkeypatch.setattr(transactor, "submission_settings", lambda *args: replace(settings(*args), final_timeout_s=0))
    desk.edit(("confirmations = 1\n", "confirmations = 60\n"))
    desk.ask("pnl", "--now")
    assert desk.ask("pnl")["not_final"] == 0
    assert "Not booked yet" not in desk.run("pnl").out
    sent = desk.ask("rebalance", "--send", "--yes")["transactions"]
    assert desk.ask("pnl")["not_final"] == len(sent) > 0
    assert f"Not booked yet: {pluralize(len(sent), 'mined transaction')}. Value" in desk.run("pnl").out
    assert desk.ask("books", "lots")["not_final"] == len(sent)
    assert f"Not booked yet: {pluralize(len(sent), 'mined transaction')}, not final" in desk.run("books", "lots").out


def test_year_limit__holds_back_sales_of_what_has_gained(desk: Desk) -> None:
    desk.config.write_text(desk.config.read_text() + TABLE.format("off"))
    desk.ask("pnl", "--now")
    desk.ask("localchain", "--port", desk.about["url"].rpartition(":")[2], "--move", "WETH=+5%")
    assert float(desk.ask("plan")["tax"]["gain"]) > 10
    desk.edit(('year_limit = "off"', 'year_limit = "0"'))
    tax = desk.ask("plan")["tax"]
    assert (tax["year_limit"], tax["left_this_year"]) == ("0", "0")
    assert float(tax["gain"]) <= 0


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("export", "--out", "{folder}", "--force"), id="csv"),
        pytest.param(("export", "--out", "{folder}", "--format", "rotki", "--force"), id="rotki"),
        pytest.param(("plan", "--save-input", "{file}"), id="save-input"),
    ],
)
def test_a_readable_file_that_is_overwritten_becomes_private(desk: Desk, tmp_path: Path, command: tuple[str, ...]) -> None:
    desk.ask("pnl", "--now")
    folder = tmp_path / "ledger"
    folder.mkdir()
    words = [word.format(folder=folder, file=folder / "input.json") for word in command]
    desk.ask(*words)
    files = list(folder.iterdir())
    assert files
    for file in files:
        file.chmod(0o644)
    desk.ask(*words)
    assert {S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("pnl", "--period", "fortnight"), "--period"),
        (("pnl", "--benchmark", "GOLD"), "--benchmark"),
        (("export", "--out", "x", "--format", "xls"), "--format"),
        (("export", "--out", "no/such/folder"), "--out"),
        (("export", "--out", "x", "--format", "rotki", "--native-asset", ""), "--native-asset"),
        (("export", "--out", ""), "--out"),
        (("export", "--out", "  "), "--out"),
    ],
)
def test_what_the_books_cannot_do_is_said(desk: Desk, words: tuple[str, ...], why: str) -> None:
    desk.ask("pnl", "--now")
    result = desk.run(*words)
    assert result.code == 2
    assert why in result.err


def test_single_value_books__say_why_there_is_no_profit_yet(desk: Desk) -> None:
    pnl_document = desk.ask("pnl", "--now")
    assert pnl_document["periods"] == []
    assert "one valuation" in pnl_document["why_empty"]
    text = " ".join(desk.run("pnl").out.split())
    assert "one valuation" in text
    assert f"trimtab pnl --config {desk.config} --now" in text


def test_empty_books_say_how_they_are_filled(desk: Desk) -> None:
    result = desk.run("pnl")
    assert result.code == 2
    assert f"trimtab pnl --config {desk.config} --now" in result.err


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('[tax]\nmethod = "first"\nyear_limit = "off"', "tax.method"),
        ('[tax]\nmethod = "fifo"', "tax.year_limit"),
        ('[tax]\nmethod = "fifo"\nyear_limit = "-1"', "tax.year_limit"),
        ('[tax]\nmethod = "fifo"\nyear_limit = "off"\ncurrency = "EUR"', "given together"),
    ],
)
def test_a_wrong_tax_table_is_named(desk: Desk, table: str, why: str) -> None:
    desk.config.write_text(f"{desk.config.read_text()}\n{table}\n")
    result = desk.run("status")
    assert result.code == 2
    assert why in result.err


def test_unreadable_rate_table__is_named_where_a_limit_needs_it(desk: Desk) -> None:
    more = '\n[tax]\nmethod = "fifo"\nyear_limit = "100"\ncurrency = "EUR"\nrates = "none.csv"\n'
    desk.config.write_text(desk.config.read_text() + more)
    result = desk.run("plan")
    assert result.code == 0
    assert mentions(result.out, "hold", "tax.year_limit", "its gain is unknown", "tax.rates")
