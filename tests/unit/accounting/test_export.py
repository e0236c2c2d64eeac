"""What is exported, read back: rotki's documented columns, words and number formats, sums to the wei, and no formula in any cell."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.accounting import entries, export
from agent.accounting.entries import SettledTransaction
from agent.accounting.export import TokenNames, escape_formula, export_tables, parse_rates
from agent.accounting.tax_lots import Disposal, run_tax_lots
from agent.app.records.exports import csv_text
from agent.errors import ConfigError
from agent.model import EntryKind, ExternalTransferKind, LotMethod, Valuation, ValuedHolding
from agent.model.rollups import ARBITRUM_CHAINS, OP_STACK_CHAINS
from agent.units import NATIVE, Token
from tests.support.foreign_text import CORPUS
from tests.support.ledgers import COUNTED, USDC, WBTC, WETH, Wallet, histories
from tests.support.samples import examples
from tests.support.text import raises_field

TOKENS = {WETH: Token(WETH, "WETH", 18), WBTC: Token(WBTC, "WBTC", 8), USDC: Token(USDC, "USDC", 6)}
NAMES = TokenNames(TOKENS, TOKENS[USDC])
ASSETS = export.RotkiAssets(1, "ETH", NAMES.decimals)
PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")
# Facts of rotki's importers of 21 August 2026 (commit ef14aadd): the event types that generic events may have, and of its many
# locations those that are no exchange with names of assets of its own. An unknown location would become "external" without a word.
LOCATIONS = {"external", "uniswap", "blockchain"}
EVENT_TYPES = {"Deposit", "Withdrawal", "Income", "Loss", "Spend", "Staking"}
READ_OF_TRADES = {
    "Location",
    "Timestamp",
    "Spend Currency",
    "Spend Amount",
    "Receive Currency",
    "Receive Amount",
    "Fee",
    "Fee Currency",
    "Description",
}
READ_OF_EVENTS = {"Type", "Location", "Timestamp", "Currency", "Amount", "Fee", "Fee Currency", "Description"}
DOCUMENTED_TRADES = "Location,Spend Currency,Receive Currency,Receive Amount,Spend Amount,Fee,Fee Currency,Description,Timestamp"
DOCUMENTED_EVENTS = "Type,Location,Currency,Amount,Fee,Fee Currency,Description,Timestamp"


def read(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(columns, rows))))


def whole(token: str, raw: int) -> Fraction:
    return Fraction(raw, 10 ** NAMES.decimals(token))


def test_columns_are_those_that_rotki_documents_in_its_order() -> None:
    assert csv_text(export.TRADE_COLUMNS, ()).strip() == DOCUMENTED_TRADES
    assert csv_text(export.EVENT_COLUMNS, ()).strip() == DOCUMENTED_EVENTS


def test_every_column_that_rotkis_importers_ask_for_is_there() -> None:
    """A column that lacks stops the whole import."""
    assert set(export.TRADE_COLUMNS) == READ_OF_TRADES
    assert set(export.EVENT_COLUMNS) == READ_OF_EVENTS
    assert {export.TRADE_LOCATION, export.TRANSFER_LOCATION} <= LOCATIONS
    assert {word for words in export._EVENT_TYPES.values() for word in words} <= EVENT_TYPES


@examples(20)
@given(histories())
def test_cells__are_of_their_kind_and_rows_sum_to_the_wallet(wallet: Wallet) -> None:
    trades = read(export.TRADE_COLUMNS, list(export.rotki_trades(wallet.entries, ASSETS)))
    events = read(export.EVENT_COLUMNS, list(export.rotki_events(wallet.entries, ASSETS)))
    sums: dict[str, Fraction] = {}

    def add(name: str, amount: str, sign: int) -> None:
        assert PLAIN.fullmatch(amount)
        assert Fraction(amount) > 0
        assert name == "ETH" or re.fullmatch(r"eip155:1/erc20:0x[0-9a-fA-F]{40}", name)
        sums[name] = sums.get(name, Fraction(0)) + sign * Fraction(amount)

    for row in (*trades, *events):
        assert row["Location"] in LOCATIONS
        assert re.fullmatch(r"[0-9]{13}", row["Timestamp"]), "milliseconds of UTC"
        assert (row["Fee"] == "") == (row["Fee Currency"] == "")
        if row["Fee"]:
            add(row["Fee Currency"], row["Fee"], -1)
    for row in trades:
        add(row["Spend Currency"], row["Spend Amount"], -1)
        add(row["Receive Currency"], row["Receive Amount"], 1)
    for row in events:
        assert row["Type"] in EVENT_TYPES
        add(row["Currency"], row["Amount"], 1 if row["Type"] in ("Deposit", "Income") else -1)
    amount_by_token = {token: whole(token, raw + wallet.lp.get(token, 0)) for token, raw in wallet.held.items()}
    assert {ASSETS.name(token): amount for token, amount in amount_by_token.items()} == {
        ASSETS.name(token): sums[ASSETS.name(token)] for token in amount_by_token
    }


def test_several_for_several__are_cut_into_few_exact_pairs() -> None:
    wallet = Wallet()
    moved = {WETH: -(10**18), USDC: -1_000_000_007, WBTC: 3_333_333, NATIVE: 500_000_000_000_000_003}
    entry = entries.trade_entry(wallet.change(moved, 10**15), wallet.prices(), COUNTED, {})
    rows = read(export.TRADE_COLUMNS, list(export.rotki_trades([entry], ASSETS)))
    assert 2 <= len(rows) <= 3
    for token, raw in moved.items():
        side = ("Spend Currency", "Spend Amount") if raw < 0 else ("Receive Currency", "Receive Amount")
        assert sum(Fraction(row[side[1]]) for row in rows if row[side[0]] == ASSETS.name(token)) == abs(whole(token, raw))
    assert [row["Fee"] for row in rows] == ["0.001", *[""] * (len(rows) - 1)]
    assert list(export.rotki_events([entry], ASSETS)) == []


def test_piece_below_a_unit__goes_with_its_token_s_neighbour() -> None:
    """A millionth of a dollar beside half a WETH takes no base unit of what was got: it makes no row of nothing."""
    wallet = Wallet()
    moved = {USDC: -1, WETH: -(10**18) // 2, WBTC: 1_666_666}
    entry = entries.trade_entry(wallet.change(moved, 0), wallet.prices(), COUNTED, {})
    rows = read(export.TRADE_COLUMNS, list(export.rotki_trades([entry], ASSETS)))
    dust = list(export.rotki_events([entry], ASSETS))
    assert [(row["Spend Amount"], row["Receive Amount"]) for row in rows] == [("0.5", "0.01666666")]
    assert [(row[0], row[2], row[3]) for row in dust] == [("Loss", ASSETS.name(USDC), "0.000001")]


@given(st.lists(st.tuples(st.sampled_from((WETH, WBTC, USDC, NATIVE)), st.integers(-3, 3) | st.integers(-(10**6), 10**6)), max_size=4))
def test_exchanged_dust__leaves_no_row_of_zero(parts: list[tuple[str, int]]) -> None:
    wallet = Wallet()
    moved = {token: raw for token, raw in parts if raw}
    entry = entries.trade_entry(SettledTransaction("i", 1, wallet.now_s, "0x1", "", moved, 0), wallet.prices(), COUNTED, {})
    sums: dict[str, Fraction] = {}
    for spent, received, cells, gave in (row[1:5] for row in export.rotki_trades([entry], ASSETS)):
        assert Fraction(cells) > 0
        assert Fraction(gave) > 0
        sums[spent], sums[received] = sums.get(spent, Fraction(0)) - Fraction(gave), sums.get(received, Fraction(0)) + Fraction(cells)
    for word, _, name, amount, *_ in export.rotki_events([entry], ASSETS):
        assert Fraction(amount) > 0
        sums[name] = sums.get(name, Fraction(0)) + (1 if word == "Income" else -1) * Fraction(amount)
    assert sums == {ASSETS.name(token): whole(token, raw) for token, raw in moved.items()}


@pytest.mark.parametrize(
    ("moved", "rows"),
    [
        pytest.param({USDC: -5 * 10**6}, [("Loss", USDC, "5", "0.001")], id="only spent"),
        pytest.param({WETH: 10**18}, [("Income", WETH, "1", "0.001")], id="only received"),
        pytest.param({USDC: -1, WETH: -(10**18)}, [("Loss", USDC, "0.000001", "0.001"), ("Loss", WETH, "1", "")], id="two spent"),
    ],
)
def test_exchange_with_one_side__is_in_the_events_with_its_gas(moved: dict[str, int], rows: list[tuple[str, ...]]) -> None:
    wallet = Wallet()
    entry = entries.trade_entry(wallet.change(moved, 10**15), wallet.prices(), COUNTED, {})
    assert list(export.rotki_trades([entry], ASSETS)) == []
    assert [(row[0], row[2], row[3], row[4]) for row in export.rotki_events([entry], ASSETS)] == [
        (word, ASSETS.name(token), amount, fee) for word, token, amount, fee in rows
    ]


def test_trades_alike_in_the_same_second_are_a_millisecond_apart() -> None:
    """rotki passes over a trade of the same time, place, assets and amounts as a duplicate."""
    wallet = Wallet()
    entry = entries.trade_entry(wallet.change({WETH: -(10**18), USDC: 2_000_000_000}, 0), wallet.prices(), COUNTED, {})
    times = [int(row[-1]) for row in export.rotki_trades([entry, entry, entry], ASSETS)]
    assert times == [times[0], times[0] + 1, times[0] + 2]


@pytest.mark.parametrize(
    ("kind", "raw", "word"),
    [
        pytest.param(ExternalTransferKind.DEPOSIT, 5, "Deposit", id="deposit"),
        pytest.param(ExternalTransferKind.WITHDRAWAL, -5, "Withdrawal", id="withdrawal"),
        pytest.param(ExternalTransferKind.GIFT, 5, "Income", id="gift"),
        pytest.param(ExternalTransferKind.LOSS, -5, "Loss", id="loss"),
        pytest.param(ExternalTransferKind.REBASE, 5, "Income", id="rebase up"),
        pytest.param(ExternalTransferKind.REBASE, -5, "Loss", id="rebase down"),
        pytest.param(None, 5, "Deposit", id="unclassified deposit"),
        pytest.param(None, -5, "Withdrawal", id="unclassified withdrawal"),
    ],
)
def test_what_came_and_went_is_the_event_that_it_was(kind: ExternalTransferKind | None, raw: int, word: str) -> None:
    wallet = Wallet()
    wallet.flow(USDC, raw, kind)
    (row,) = export.rotki_events(wallet.entries[-1:], ASSETS)
    assert row[0] == word
    assert row[3] == "500"


def test_gas_of_no_exchange__is_spent_and_a_position_is_kept() -> None:
    wallet = Wallet()
    wallet.entries.append(entries.trade_entry(wallet.change({}, 10**15), wallet.prices(), COUNTED, {}))
    assert [(row[0], row[2], row[3]) for row in export.rotki_events(wallet.entries[-1:], ASSETS)] == [("Spend", "ETH", "0.001")]
    wallet.provide(10)
    assert [row[0] for row in export.rotki_events(wallet.entries[-1:], ASSETS)] == ["Spend"]
    assert wallet.entries[-1].kind is EntryKind.PROVIDE
    assert list(export.rotki_trades(wallet.entries[-1:], ASSETS)) == []


@examples(10)
@given(histories(10))
def test_plain_tables_read_back_as_the_ledger_and_its_lots(wallet: Wallet) -> None:
    tax_lot_run = run_tax_lots(wallet.entries, LotMethod.HIFO, USDC, WETH)
    valued_holdings = tuple(
        ValuedHolding(token, raw, 0, wallet.prices().of(token) or Fraction(0), 2_500) for token, raw in wallet.held.items()
    )
    tables = {
        sheet.name: sheet
        for sheet in export_tables(wallet.entries, tax_lot_run, [Valuation(9, 1_700_000_000, Fraction(0), valued_holdings)], NAMES, "EUR")
    }
    ledger = read(tables["ledger"].columns, list(tables["ledger"].rows))
    for token, raw in wallet.held.items():
        rows = [row for row in ledger if (row["account"], row["address"]) == (entries.WALLET, token)]
        assert sum(int(row["raw"]) for row in rows) == raw
        assert sum(Fraction(row["amount"]) for row in rows) == whole(token, raw)
    assert {row["currency"] for row in ledger} == {"USDC"}
    assert {row["currency"] for name in ("disposals", "lots") for row in read(tables[name].columns, list(tables[name].rows))} <= {"EUR"}
    disposals = read(tables["disposals"].columns, list(tables["disposals"].rows))
    assert len(disposals) == len(tax_lot_run.disposals)
    assert sum(Fraction(row["gain"]) for row in disposals) == pytest.approx(
        float(tax_lot_run.realised_gain() / 10**6), abs=1e-5 * (1 + len(disposals))
    )
    assert sum(int(row["weight_bps"]) for row in read(tables["values"].columns, list(tables["values"].rows))) in (0, 10_000)


@pytest.mark.parametrize(
    ("acquired_s", "acquired", "held_days"),
    [(None, "", ""), (1_700_000_000, "2023-11-14T22:13:20Z", "0"), (1_699_900_000, "2023-11-13T18:26:40Z", "1")],
    ids=["unknown lot", "same day", "day before"],
)
def test_disposal_without_a_known_lot__has_no_holding_period(acquired_s: int | None, acquired: str, held_days: str) -> None:
    tax_lot_run = run_tax_lots([], LotMethod.HIFO, USDC, WETH)
    tax_lot_run.disposals.append(Disposal("e", WETH, 10**18, 0, 0, acquired_s, 1_700_000_000, by_hand=False))
    table = next(table for table in export_tables([], tax_lot_run, [], NAMES, "EUR") if table.name == "disposals")
    (row,) = read(table.columns, list(table.rows))
    assert (row["acquired"], row["held_days"]) == (acquired, held_days)


@pytest.mark.parametrize("chain_id", [1, *OP_STACK_CHAINS, *ARBITRUM_CHAINS])
def test_native_coin_of_each_chain_with_ether__is_ether(chain_id: int) -> None:
    assert chain_id in export.ETHER_CHAINS


@pytest.mark.parametrize("chain_id", [56, 100, 137])
def test_native_coin_of_other_chains__is_not_guessed(chain_id: int) -> None:
    assert chain_id not in export.ETHER_CHAINS


@pytest.mark.parametrize("text", [*CORPUS.values(), "=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "|calc", "%x"])
def test_no_foreign_text_becomes_a_formula_or_steers_a_reader(text: str) -> None:
    escaped_text = escape_formula(text)
    assert not escaped_text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in escaped_text)
    ((back,),) = csv.reader(io.StringIO(csv_text(("x",), [(text,)]).split("\n", 1)[1]))
    assert back == escaped_text


@pytest.mark.parametrize("number", ["-1.5", "0", "-12", "3.000001"])
def test_numbers_stay_numbers(number: str) -> None:
    assert escape_formula(number) == number


def test_parquet_holds_the_same_rows_as_text(tmp_path: Path) -> None:
    from agent.app.records.exports import _encode_parquet

    wallet = Wallet()
    wallet.swap(WETH, USDC, 10, 30)
    (sheet, *_) = export_tables(wallet.entries, run_tax_lots(wallet.entries, LotMethod.FIFO, USDC, WETH), (), NAMES, "USDC")
    path = tmp_path / "ledger.parquet"
    path.write_bytes(_encode_parquet(sheet))
    back = polars.read_parquet(path)
    assert tuple(back.columns) == sheet.columns
    assert set(back.dtypes) == {polars.String}
    assert back.rows() == list(sheet.rows)


# --- exchange rates


RATES = ["time,rate", "2026-01-01,0.92", "2026-02-01T12:00:00+00:00,0.90", "1780000000,0.85"]
FIRST_S = 1_767_225_600
"""2026-01-01."""


@pytest.mark.parametrize(
    ("at_s", "rate", "age_s"),
    [
        pytest.param(FIRST_S, Fraction(92, 100), 0, id="at the first"),
        pytest.param(FIRST_S + 1, Fraction(92, 100), 1, id="a second later"),
        pytest.param(1_769_947_199, Fraction(92, 100), 1_769_947_199 - FIRST_S, id="a second before the next"),
        pytest.param(1_769_947_200, Fraction(9, 10), 0, id="at the next"),
        pytest.param(1_780_000_000 + 40 * 86_400, Fraction(85, 100), 40 * 86_400, id="long after the last"),
    ],
)
def test_rate_counts_from_its_time_on(at_s: int, rate: Fraction, age_s: int) -> None:
    table = parse_rates("tax.rates eur.csv", RATES)

    assert (table.at(at_s), table.age_s(at_s)) == (rate, age_s)


def test_rate_before_the_first_is_refused() -> None:
    table = parse_rates("tax.rates eur.csv", RATES)

    with raises_field("tax.rates", "2025-12-31"):
        table.at(FIRST_S - 1)
    with raises_field("tax.rates", "no rate"):
        table.age_s(FIRST_S - 1)


def test_rate_of_a_day_without_hyphens_is_of_that_day() -> None:
    table = parse_rates("tax.rates eur.csv", ["time,rate", "20260131,0.92", "1782000000,0.9"])

    assert table.times_s == (int(datetime(2026, 1, 31, tzinfo=UTC).timestamp()), 1_782_000_000)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([], "empty", id="no lines"),
        pytest.param(["time,rate"], "empty", id="no rates"),
        pytest.param(["2026-01-01,1"], "line 1 is not", id="no header"),
        pytest.param([*RATES, "2026-01-01,1"], "line 5 is not later", id="out of order"),
        pytest.param([RATES[0], "2026-01-01;1"], "line 2", id="semicolon"),
        pytest.param([RATES[0], "yesterday,1"], "is not a time", id="no time"),
        pytest.param([RATES[0], "1769817,0.92"], "line 2", id="a number that is no time"),
        pytest.param([RATES[0], "2026-01-01,0"], "not a rate", id="zero"),
        pytest.param([RATES[0], "2026-01-01,-1"], "not a rate", id="negative"),
        pytest.param([RATES[0], "2026-01-01,nan"], "not a rate", id="not a number"),
        pytest.param([RATES[0], "2026-01-01,1e99"], "not a rate", id="too large"),
        pytest.param([RATES[0], "2026-01-01,0_92"], "not a rate", id="an underscore for a point"),
        pytest.param([RATES[0], "2026-01-01,\u0661"], "not a rate", id="a rate in another script"),
        pytest.param([RATES[0], "\u0661769817600,0.92"], "is not a time", id="a time in another script"),
        pytest.param([RATES[0], "2026-01-01,=1+1"], "not a rate", id="a formula"),
        pytest.param([RATES[0], "x" * 140_000], "line 2 is not time,rate", id="a cell beyond what CSV has"),
        pytest.param([RATES[0], f"2026-01-01,{'1' * 140_000}"], "line 2 is not time,rate", id="a rate beyond what CSV has"),
    ],
)
def test_rate_table_with_a_mistake_is_refused_by_its_line(lines: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_rates("tax.rates eur.csv", lines)


def test_rate_table_of_too_many_lines_names_their_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_RATE_LINES", 4)

    assert len(parse_rates("tax.rates eur.csv", RATES).times_s) == 3
    with pytest.raises(ConfigError, match="more than 4 lines"):
        parse_rates("tax.rates eur.csv", [*RATES, "1790000000,0.9"])
