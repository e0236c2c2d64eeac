"""What each period of `trimtab pnl` realised, by hand, and that the ledger is gone through once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent.accounting.entries import OPENING, TRADING, WALLET, EntryPrices, SettledTransaction, payout_entry, trade_entry
from agent.accounting.export import TokenNames
from agent.app.documents.records import LotsDocument
from agent.app.records import digest, ledger
from agent.app.records import lots as lot_reports
from agent.cli import ledger as commands
from agent.cli.display.terminal import out
from agent.errors import ConfigError, PassingFault
from agent.model import AlertKind, Entry, EntryKind, Posting, Receipt, Valuation, ValuedHolding
from agent.store.accounts.day_counts import CountedEvent
from agent.units import NATIVE
from tests.cli.documents import misfits
from tests.support.tokens import USDC, WETH

COIN = 10**18
DOLLAR = 10**6


def test_month__realises_what_it_sold_from_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 WETH at 100. One is sold at 150 in January, one at 80 in March; nothing in February."""
    sold = [_sold("a", 2, _at(1, 10), 150), _sold("b", 4, _at(3, 10), 80)]
    months = [_worth(1, _at(1, 1), 2, 0, 100), _worth(3, _at(1, 31), 1, 150, 150), _worth(3, _at(2, 27), 1, 150, 90)]
    months.append(_worth(5, _at(3, 20), 0, 230, 80))
    ledger_data = _ledger((_opened(), *sold), tuple(months))
    runs = []
    monkeypatch.setattr(ledger, "open_ledger_data", lambda _: nullcontext(ledger_data))
    monkeypatch.setattr(ledger, "run_tax_lots", lambda *args: runs.append(1) or _run(*args))  # type: ignore[func-returns-value]  # None, then the run
    pnl_document = ledger.pnl("trimtab.toml", "month")
    assert [row["realised"] for row in pnl_document["periods"]] == ["50", "0", "-20"]
    assert [row["profit"] for row in pnl_document["periods"]] == ["100", "-60", "-10"]
    assert pnl_document["unrealised"] == "0"
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("period", "gains"),
    [
        pytest.param("day", {"2026-01-11": "0", "2026-01-12": "50", "2026-01-13": "0"}, id="days"),
        pytest.param("week", {"2026-01-11": "0", "2026-01-13": "50"}, id="weeks"),
        pytest.param("all", {"2026-01-13": "50"}, id="all"),
    ],
)
def test_a_gain_is_in_the_period_of_its_trade(period: str, gains: dict[str, str]) -> None:
    """1 WETH of 2 is sold by a step ten seconds before Monday 12 January, in a block after midnight."""
    monday_s = _at(1, 12)
    values = [_worth(1, _at(1, 9), 2, 0, 100), _worth(2, monday_s - 43_200, 2, 0, 150), _worth(3, monday_s + 20, 1, 150, 150)]
    values.append(_worth(4, _at(1, 13) + 20, 1, 150, 150))
    data = _ledger((_opened(), _sold("a", 3, monday_s - 10, 150)), tuple(values))
    rows = {row["to"][:10]: (row["realised"], row["trades"]) for row in ledger._profit_document(data, period, None, 12)["periods"]}
    assert {day: rows[day] for day in gains} == {day: (gain, int(gain != "0")) for day, gain in gains.items()}


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_trade_at_midnight_is_in_the_period_that_begins(period: str) -> None:
    """1 WETH of 2 is sold in the first second of 1 June, a Monday; from one valuation to that of this block it rises from 100 to 150."""
    midnight_s = _at(6, 1)
    values = [_worth(1, midnight_s - 7_200, 2, 0, 100), _worth(2, midnight_s - 3_600, 2, 0, 100), _worth(3, midnight_s, 1, 150, 150)]
    data = _ledger((_opened(), _sold("a", 3, midnight_s, 150)), (*values, _worth(4, midnight_s + 3_600, 1, 150, 150)))
    rows = ledger._profit_document(data, period, None, 12)["periods"]
    assert [(row["profit"], row["realised"], row["trades"]) for row in rows] == [("0", "0", 0), ("100", "50", 1)]


JANUARY_11_S = int(datetime(2026, 1, 11, tzinfo=UTC).timestamp()) // 86_400 * 86_400


def sale_of_a_day() -> ledger.LedgerData:
    """2 WETH at 100; one is sold at 150 on 10 January, at whose end the other one is worth as much."""
    day = (_worth(1, _at(1, 9) + 3_600, 2, 0, 100), _worth(3, _at(1, 10) + 3_600, 1, 150, 150))
    return _ledger((_opened(), _sold("a", 2, _at(1, 10), 150)), day)


def test_a_digest_has_the_figures_of_the_day_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Any = None
    monkeypatch.setattr(ledger, "open_ledger_data", lambda _: nullcontext(sale_of_a_day()))
    midnight = JANUARY_11_S
    (alert,) = digest.digest_alert(loaded, "day", midnight)
    assert (alert.kind, alert.key, alert.is_lasting) == (AlertKind.DIGEST, f"digest:day:{midnight}", False)
    (figures,) = ledger.pnl("trimtab.toml", "day", period_count=1)["periods"]
    assert (figures["profit"], figures["twr_bps"], figures["against_holding"], figures["costs"]["total"]) == ("100", 5_000.0, "0", "0")
    assert alert.text == (
        f"{figures['from']} to {figures['to']}: value 300.00 USDC, profit 100.00 (+50.00 %), against holding 0.00, costs 0.00;"
        " trades: 1, refusals: 0, alerts: 0. trimtab pnl --period day"
    )
    for no_digest_s in (midnight - 1, midnight + 86_400):  # the day has not ended, or is not the newest that has
        assert not [*digest.digest_alert(loaded, "day", no_digest_s)]
    assert digest.digest_key("day", midnight + 86_399) == alert.key != digest.digest_key("day", midnight - 1)


@pytest.fixture
def ledger_of_two_days(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [*sale_of_a_day().valuations, _worth(4, _at(1, 11) + 3_600, 1, 150, 150)]
    data = _ledger((_opened(), _sold("a", 2, _at(1, 10), 150)), tuple(values))
    monkeypatch.setattr(ledger, "open_ledger_data", lambda _: nullcontext(data))


@pytest.mark.usefixtures("ledger_of_two_days")
@pytest.mark.parametrize(("period_count", "days"), [(1, 1), (2, 2), (12, 2)])
def test_profit__is_of_the_last_periods(period_count: int, days: int) -> None:
    assert len(ledger.pnl("trimtab.toml", "day", period_count=period_count)["periods"]) == days


@pytest.mark.usefixtures("ledger_of_two_days")
@pytest.mark.parametrize("period_count", [0, -1])
def test_profit__is_of_at_least_one_period(period_count: int) -> None:
    with pytest.raises(ConfigError, match=f"period_count: {period_count} is below 1"):
        ledger.pnl("trimtab.toml", "day", period_count=period_count)


def test_a_digest_that_cannot_be_read_is_no_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(ledger, "open_ledger_data", fail)
    loaded: Any = None
    error: Exception = PassingFault("store: it is locked", "try again")
    with pytest.raises(PassingFault, match="locked"):
        [*digest.digest_alert(loaded, "day", JANUARY_11_S)]
    error = ConfigError("the ledger is empty", "run trimtab")
    assert not [*digest.digest_alert(loaded, "day", JANUARY_11_S)]


@pytest.mark.parametrize(("refusals", "alerts"), [(3, 0), (0, 7), (1, 2)])
def test_a_digest_counts_the_refusals_and_alerts_of_its_day(monkeypatch: pytest.MonkeyPatch, refusals: int, alerts: int) -> None:
    count_by_event = {CountedEvent.REFUSAL: refusals, CountedEvent.ALERT: alerts}

    def count(event: CountedEvent, from_s: int, until_s: int) -> int:
        return count_by_event[event] if from_s <= JANUARY_11_S - 43_200 < until_s else 100

    data = sale_of_a_day()
    store: Any = SimpleNamespace(ledger=data.store.ledger, day_counts=SimpleNamespace(count=count))
    monkeypatch.setattr(ledger, "open_ledger_data", lambda _: nullcontext(replace(data, store=store)))
    loaded: Any = None
    (alert,) = digest.digest_alert(loaded, "day", JANUARY_11_S)
    assert f"trades: 1, refusals: {refusals}, alerts: {alerts}. trimtab pnl --period day" in alert.text


def test_gas_money__is_its_own_row_and_in_no_total() -> None:
    """1,000 coins pay for gas and 2 WETH are held, all at 100; one more is bought at 80, and the price falls to 50."""
    bought = _exchanged("a", 2, _at(1, 10), COIN, -80 * DOLLAR)
    ledger_document = _ledger((_opened(1_000), bought), (_with_gas(1, _at(1, 1), 2, 200, 100), _with_gas(2, _at(1, 10), 3, 120, 50)))
    lots_document = lot_reports.lots_document(ledger_document)
    assert misfits(LotsDocument, lots_document) == []
    assert [asset["symbol"] for asset in lots_document["assets"]] == ["WETH", "USDC"], "in the order of the portfolio"
    weth = lots_document["assets"][0]
    assert (weth["amount"], weth["cost"], weth["value"], weth["unrealised"]) == ("3", "280", "150", "-130")
    assert [lot["amount"] for lot in weth["lots"]] == ["2", "1"]
    gas = lots_document["gas_money"]
    assert gas is not None
    assert (gas["symbol"], gas["amount"], gas["unrealised"], gas["realised"]) == ("native", "1000", "-50000", "0")
    profit = ledger.newest_pnl(ledger_document, ("all",))["all"]
    assert (profit["unrealised"], profit["gas_money"], profit["value"]) == ("-130", "50000", "270")


def test_unbooked_gas__is_no_lot_of_the_wrapped_coin() -> None:
    """1,000 coins pay for gas. Of a transaction before the valuation 3 are paid, so that 997 are left; another follows it."""
    data = _ledger((_opened(1_000),), (_with_spent_gas(_with_gas(5, _at(1, 1), 2, 200, 100), 3, 100),))
    paid = [SimpleNamespace(id=f"p{block}", receipt=Receipt("0x", 1, block, "0x", 1, 3 * COIN, ())) for block in (5, 6)]
    lots = lot_reports.lots_document(replace(data, store=_store(*paid, SimpleNamespace(receipt=None))))
    weth = next(asset for asset in lots["assets"] if asset["symbol"] == "WETH")
    assert (weth["amount"], weth["cost"]) == ("2", "200")
    assert lots["not_final"] == 2


def _payout(weth: int, usdc: int, block: int, gas: int = 3) -> Entry:
    """Payout of whole `weth` at 150 and `usdc`, whose gas is so many coins."""
    prices = EntryPrices({WETH.address: Fraction(150 * DOLLAR, COIN), USDC.address: Fraction(1)}, WETH.address)
    change = SettledTransaction("p", block, _at(1, 10), "", "", {WETH.address: -weth * COIN, USDC.address: -usdc * DOLLAR}, gas * COIN)
    return payout_entry(change, prices, {WETH.address, USDC.address, NATIVE})


def _with_unsettled(data: ledger.LedgerData, payout: Entry, monkeypatch: pytest.MonkeyPatch) -> ledger.LedgerData:
    intent = SimpleNamespace(id="p", receipt=Receipt("0x", 1, payout.block, "0x", 1, 3 * COIN, ()))
    monkeypatch.setattr(ledger, "unsettled_payout_entries", lambda *_: (payout,))
    monkeypatch.setattr(ledger, "margin_account", lambda _: None)
    step: Any = SimpleNamespace(snapshot=None)
    return replace(data, store=_store(intent), newest_step=step)


@pytest.mark.parametrize(
    ("weth", "usdc", "unrealised"),
    [
        pytest.param(0, 50, "100", id="cash"),
        pytest.param(1, 100, "50", id="a share of everything"),
        pytest.param(2, 200, "0", id="everything"),
    ],
)
def test_unrealised_gain__is_that_of_the_booked_payout_before_it_is_final(
    monkeypatch: pytest.MonkeyPatch, weth: int, usdc: int, unrealised: str
) -> None:
    """2 WETH at 100, 200 USDC and gas money; WETH is worth 150 at the valuation, in the block of the payout."""
    payout = _payout(weth, usdc, block=2)
    newest = _with_spent_gas(_with_gas(2, _at(1, 10), 2 - weth, 200 - usdc, 150), 3, 150)
    data = _ledger((_opened(1_000),), (_with_gas(1, _at(1, 1), 2, 200, 100), newest))
    unsettled = _with_unsettled(data, payout, monkeypatch)
    profit = ledger.newest_pnl(unsettled, ("all",))["all"]
    assert (profit["unrealised"], profit["not_final"], profit["mined_since"]) == (unrealised, 1, 0)
    booked = replace(data, entries=(*data.entries, payout), lot_runs={})
    assert ledger.newest_pnl(booked, ("all",))["all"]["unrealised"] == unrealised


def test_unrealised_gain__leaves_a_payout_after_the_valuation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _ledger((_opened(1_000),), (_with_gas(1, _at(1, 1), 2, 200, 100), _with_gas(2, _at(1, 10), 2, 200, 150)))
    unsettled = _with_unsettled(data, _payout(0, 50, block=3), monkeypatch)
    profit = ledger.newest_pnl(unsettled, ("all",))["all"]
    assert (profit["unrealised"], profit["not_final"], profit["mined_since"]) == ("100", 1, 1)


def test_a_coin_that_only_pays_for_gas_is_no_asset_of_the_lots() -> None:
    first = _with_gas(1, _at(1, 1), 2, 200, 100)
    ledger_document = _ledger((_opened(1_000),), (replace(first, holdings=first.holdings[1:]),))
    lots_document = lot_reports.lots_document(replace(ledger_document, wrapped_native="0x" + "11" * 20))
    assert [asset["symbol"] for asset in lots_document["assets"]] == ["USDC", "WETH"]
    assert lots_document["gas_money"] is not None
    assert lots_document["gas_money"]["amount"] == "1000"


@pytest.mark.parametrize(
    ("removed_token", "gas_coins", "unrealised"),
    [
        pytest.param(WETH.address, 0, "0", id="an asset"),
        pytest.param(USDC.address, 1_000, "100", id="cash"),
        pytest.param(WETH.address, 1_000, "0", id="the wrapped coin beside gas money"),
        pytest.param("", 1_000, "100", id="nothing"),
    ],
)
def test_lots_that_an_edit_leaves_in_the_wallet_are_no_unrealised_loss(removed_token: str, gas_coins: int, unrealised: str) -> None:
    """2 WETH and gas money at 100, and 200 USDC. At 150 an edit removes an asset, whose balance stays."""
    rows = [(WETH.address, 2 * COIN, 200), (USDC.address, 200 * DOLLAR, 200), (NATIVE, gas_coins * COIN, 100 * gas_coins)]
    first = _with_gas(1, _at(1, 1), 2, 200, 100)
    second = _with_gas(2, _at(1, 2), 2, 200, 150)
    left = tuple(holding for holding in second.holdings if holding.token != removed_token)
    if not gas_coins:
        left = left[:-1]
    value = sum((holding.total_raw * holding.price for holding in left), Fraction(0))
    data = _ledger((_opening(rows),), (first, replace(second, value=value, holdings=left)))
    assert ledger.newest_pnl(data, ("all",))["all"]["unrealised"] == unrealised


def test_native_coin_of_the_portfolio_has_the_lots_of_the_wrapped_coin() -> None:
    """1,000 native coins at 100, all of them managed, rise to 150; the wrapped coin is no asset."""
    first = _with_gas(1, _at(1, 1), 0, 200, 100)
    second = _with_gas(2, _at(1, 2), 0, 200, 150)
    managed = (second.holdings[1], replace(second.holdings[-1], reserved_raw=0))
    opening = _opening([(NATIVE, 1_000 * COIN, 100_000), (USDC.address, 200 * DOLLAR, 200)])
    assert ledger.newest_pnl(_ledger((opening,), (first, replace(second, holdings=managed))), ("all",))["all"]["unrealised"] == "50000"


@pytest.mark.parametrize("weth", [1, 2])
def test_wrapped_coin_that_an_edit_leaves_keeps_its_row_beside_gas_money(weth: int) -> None:
    """Of 2 WETH one is sold at 150, or none, before an edit removes the rest; 1,000 coins of gas money and the rest share lots."""
    sold = [_sold("a", 2, _at(1, 2), 150)] if weth == 1 else []
    newest = _with_gas(2, _at(1, 2), 0, 200, 100)
    data = _ledger((_opened(1_000), *sold), (replace(newest, holdings=newest.holdings[1:]),))
    lots = lot_reports.lots_document(data)
    assert {asset["symbol"]: asset["amount"] for asset in lots["assets"]}["WETH"] == str(weth)
    assert lots["gas_money"] is not None
    assert (lots["gas_money"]["amount"], lots["gas_money"]["realised"]) == ("1000", "0")


def test_sale_of_gas_money_s_lots__is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """2 WETH at 100 and 1,000 coins of gas money; 1 more at 80. All 3 are sold at 50: the lots sold cost 100 each, so 20 more are lost
    than the portfolio lost, and gas money keeps the lot at 80.
    """
    bought = _exchanged("a", 2, _at(1, 10), COIN, -80 * DOLLAR)
    sold = _exchanged("b", 3, _at(2, 1), -3 * COIN, 150 * DOLLAR)
    valued = (_with_gas(1, _at(1, 1), 2, 200, 100), _with_gas(2, _at(1, 10), 3, 120, 80), _with_gas(3, _at(2, 1), 0, 270, 50))
    ledger_document = _ledger((_opened(1_000), bought, sold), valued)
    profit = ledger.newest_pnl(ledger_document, ("all",))["all"]
    lots = lot_reports.lots_document(ledger_document)
    (whole,) = profit["periods"]
    assert (whole["profit"], whole["realised"], profit["unrealised"]) == ("-130", "-150", "0")
    assert lots["gas_money"] is not None
    assert lots["gas_money"]["cost"] == "99980"
    for show, document in ((commands.show_pnl, profit), (commands.show_lots, lots)):
        show(out, document)
        words = " ".join(capsys.readouterr().out.split())
        assert words.count("Realised gains, unlike profit, include gas money") == 1
    commands.show_lots(out, {**lots, "gas_money": None})
    assert "include gas money" not in capsys.readouterr().out


def _store(*unsettled_intents: SimpleNamespace) -> Any:
    """A store with these intents and no event of any day."""
    return SimpleNamespace(
        ledger=SimpleNamespace(unsettled_intents=lambda: unsettled_intents), day_counts=SimpleNamespace(count=lambda *_: 0)
    )


def _ledger(entries: tuple[Entry, ...], valuations: tuple[Valuation, ...]) -> ledger.LedgerData:
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=None))
    names = TokenNames({WETH.address: WETH, USDC.address: USDC}, USDC)
    return ledger.LedgerData(loaded, _store(), USDC, WETH.address, entries, valuations, names)


def _with_gas(block: int, at_s: int, weth: int, usdc: int, price: int) -> Valuation:
    whole = _worth(block, at_s, weth, usdc, price)
    gas = ValuedHolding(NATIVE, 1_000 * COIN, 0, Fraction(price * DOLLAR, COIN), 0, 1_000 * COIN)
    return replace(whole, value=whole.value + 1_000 * price * DOLLAR, holdings=(*whole.holdings, gas))


def _with_spent_gas(valuation: Valuation, coins: int, price: int) -> Valuation:
    """The valuation less gas of so many coins at `price`."""
    gas = valuation.holdings[-1]
    left = replace(gas, wallet_raw=gas.wallet_raw - coins * COIN, reserved_raw=gas.reserved_raw - coins * COIN)
    return replace(valuation, value=valuation.value - coins * price * DOLLAR, holdings=(*valuation.holdings[:-1], left))


_run = ledger.run_tax_lots


def _at(month: int, day: int) -> int:
    return int(datetime(2026, month, day, tzinfo=UTC).timestamp())


def _opened(gas_coins: int = 0) -> Entry:
    """2 WETH at 100, 200 USDC if there is gas money, and the gas money."""
    rows = [(WETH.address, 2 * COIN, 200)]
    if gas_coins:
        rows += [(USDC.address, 200 * DOLLAR, 200), (NATIVE, gas_coins * COIN, 100 * gas_coins)]
    return _opening(rows)


def _opening(rows: Sequence[tuple[str, int, int]]) -> Entry:
    """Base units and dollars by token."""
    postings = tuple(
        Posting(account, token, sign * raw, Fraction(sign * value * DOLLAR))
        for token, raw, value in rows
        for account, sign in ((WALLET, 1), (OPENING, -1))
    )
    return Entry("o", EntryKind.OPENING, 1, _at(1, 1), "", "", postings)


def _in_cash(usdc: int) -> Entry:
    return _opening([(USDC.address, usdc * DOLLAR, usdc)])


def _sold(name: str, block: int, at_s: int, price: int) -> Entry:
    return _exchanged(name, block, at_s, -COIN, price * DOLLAR)


def _exchanged(name: str, block: int, at_s: int, weth: int, usdc: int) -> Entry:
    prices = EntryPrices({WETH.address: Fraction(abs(usdc), COIN), USDC.address: Fraction(1)}, WETH.address)
    change = SettledTransaction(name, block, at_s, "", "", {WETH.address: weth, USDC.address: usdc}, 0)
    entry = trade_entry(change, prices, {WETH.address, USDC.address}, {})
    assert {posting.account for posting in entry.postings} == {WALLET, TRADING}
    return entry


WETH_AND_DOLLARS = [(WETH.address, COIN, 100), (USDC.address, 100 * DOLLAR, 100), (NATIVE, 1_000 * COIN, 100_000)]
"""1 WETH at 100 and 100 USDC, beside gas money."""


def _shown_start(data: ledger.LedgerData, capsys: pytest.CaptureFixture[str], paid: int) -> str:
    """What is shown of the profit, which adds up."""
    profit = ledger.newest_pnl(data, ("all",))["all"]
    commands.show_pnl(out, profit)
    (whole,) = profit["periods"]
    start = Fraction(whole["start_value"]) - paid + Fraction(whole["from_gas_money"])
    assert start + Fraction(whole["profit"]) == Fraction(whole["end_value"])
    return " ".join(capsys.readouterr().out.split())


def test_value_at_the_start__makes_the_profit_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    values = (_with_gas(1, _at(1, 1), 1, 100, 100), _with_gas(2, _at(1, 10), 1, 100, 150))
    assert "Value at the start, 2026-01-01: 200.00 USDC." in _shown_start(_ledger((_opening(WETH_AND_DOLLARS),), values), capsys, paid=0)


@pytest.mark.parametrize(
    ("gas", "words"),
    [
        pytest.param(0, "Value at the start, 2026-01-01: 200.00 USDC.", id="no gas"),
        pytest.param(3, "Value at the start, 2026-01-01: 200.00 USDC; from gas money: 450.00 USDC.", id="gas money"),
    ],
)
def test_value_at_the_start__adds_up_once_all_is_paid_out(capsys: pytest.CaptureFixture[str], gas: int, words: str) -> None:
    """At 50 dollars more than at the start."""
    payout = _payout(1, 100, block=2, gas=gas)
    newest = _with_spent_gas(_with_gas(2, _at(1, 10), 0, 0, 150), gas, 150)
    data = _ledger((_opening(WETH_AND_DOLLARS), payout), (_with_gas(1, _at(1, 1), 1, 100, 100), newest))
    assert words in _shown_start(data, capsys, paid=250)


def test_cash_start__makes_rebalancing_its_cost() -> None:
    """200 dollars at targets of 50/50. 1 WETH at 100 is bought for 101, and its price rises to 150."""
    bought = _exchanged("a", 2, _at(1, 10), COIN, -101 * DOLLAR)
    ledger_document = _ledger((_in_cash(200), bought), (_worth(1, _at(1, 1), 0, 200, 100), _worth(2, _at(1, 31), 1, 99, 150)))
    (whole,) = ledger.newest_pnl(ledger_document, ("all",))["all"]["periods"]
    assert (whole["profit"], whole["hold_profit"], whole["against_holding"]) == ("49", "50", "-1")
    assert ledger.value_series(ledger_document) == {
        "times_s": [_at(1, 1), _at(1, 31)], "values": ["200", "249"], "hold_values": ["200", "250"], "rebalances": [1],
        "inflows": [],
    }  # fmt: skip


def test_series__has_what_was_withdrawn_at_the_point_after_it() -> None:
    payout = _payout(1, 100, block=2, gas=0)
    valuations = (_worth(1, _at(1, 1), 1, 100, 100), _worth(2, _at(1, 10), 0, 0, 150), _worth(3, _at(1, 31), 0, 0, 150))
    series = ledger.value_series(_ledger((_opening(WETH_AND_DOLLARS), payout), valuations))
    assert series["inflows"] == [{"time": "2026-01-10T00:00:00Z", "value": "-250", "index": 1}]


def test_a_series_is_short_and_has_each_hour_of_the_last_day() -> None:
    hours = [_worth(number, number * 3_600, 1, 100, 100 + number % 7) for number in range(3_000)]
    series = ledger.value_series(_ledger((_in_cash(200),), tuple(hours)))
    assert len(series["times_s"]) == len(set(series["times_s"])) <= 400
    assert series["times_s"] == sorted(series["times_s"])
    assert (series["times_s"][0], series["times_s"][-25:]) == (0, [number * 3_600 for number in range(2_975, 3_000)])
    assert series["values"] == [str(200 + at_s // 3_600 % 7) for at_s in series["times_s"]]


def _worth(block: int, at_s: int, weth: int, usdc: int, price: int) -> Valuation:
    valued_holdings = (
        ValuedHolding(WETH.address, weth * COIN, 0, Fraction(price * DOLLAR, COIN), 5_000),
        ValuedHolding(USDC.address, usdc * DOLLAR, 0, Fraction(1), 5_000),
    )
    return Valuation(block, at_s, Fraction((weth * price + usdc) * DOLLAR), valued_holdings)
