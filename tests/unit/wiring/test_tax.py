"""What is mined or on its way and not final yet has used up its part of the year, and a loss of it makes no room."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.app.start.setup import NewConfig, write_new_config
from agent.config.load import load_config
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.model import IntentState, StepInput, TaxInputs, Transfer
from agent.store import Store
from agent.wiring.tax import TaxRunCache
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, at, finalise, moved
from tests.support.plans import sell_weth
from tests.support.stores import store_fixture
from tests.support.transactions import OTHER, WALLET, grant, record_sent, tx

RPC = [("RPC_A", "one"), ("RPC_B", "two")]


store = store_fixture()


@pytest.fixture
def keeper(tmp_path: Path) -> TaxRunCache:
    path = tmp_path / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate"))
    path.write_text(path.read_text().replace('year_limit = "off"', 'year_limit = "1000"'))
    return TaxRunCache(load_config(path), at().portfolio)


def looked(store: Store, step: StepInput) -> None:
    settlement.record_balance_changes(store.balances, step.snapshot, lambda: step)
    update_ledger(store, step)


def standing(keeper: TaxRunCache, store: Store, step: StepInput) -> TaxInputs:
    tax_inputs = keeper.tax_inputs(store, step, step.snapshot.head.timestamp_s)
    assert tax_inputs is not None
    return tax_inputs


def sell_coin(store: Store, block: int, nonce: int, usd: int) -> None:
    """One WETH, which had cost 2,000, went for that."""
    moved(
        store, nonce, block, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN), Transfer(LEDGER_USDC.address, OTHER, WALLET, usd * DOLLAR)
    )


def held_lots(tax_inputs: TaxInputs) -> int:
    return sum(lot.raw for lot in tax_inputs.lots if lot.token == LEDGER_WETH.address)


def test_mined_sale__has_realised_its_gain_before_final(store: Store, keeper: TaxRunCache) -> None:
    looked(store, at())
    before = standing(keeper, store, at())
    assert before.realised_gain == 0
    assert held_lots(before) == 11 * COIN, "the coin of the gas is one lot with its wrapped token"
    sell_coin(store, 1_001, 0, 2_800)
    after = at(1_001, weth="9", usdc=22_800, native=COIN - GAS_WEI)
    mined = standing(keeper, store, after)
    assert mined.realised_gain > Fraction(799 * DOLLAR)
    assert held_lots(mined) == 10 * COIN - GAS_WEI
    finalise(store)
    looked(store, replace(after, snapshot=replace(after.snapshot, head=replace(after.snapshot.head, number=1_002))))
    entered = standing(keeper, store, after)
    assert (entered.realised_gain, held_lots(entered)) == (mined.realised_gain, held_lots(mined)), "and the same once it is in the ledger"


def test_a_loss_that_is_mined_makes_no_room_until_it_is_final(store: Store, keeper: TaxRunCache) -> None:
    looked(store, at())
    sell_coin(store, 1_001, 0, 1_500)
    after = at(1_001, weth="9", usdc=21_500, native=COIN - GAS_WEI)
    assert standing(keeper, store, after).realised_gain == 0
    finalise(store)
    looked(store, replace(after, snapshot=replace(after.snapshot, head=replace(after.snapshot.head, number=1_002))))
    assert standing(keeper, store, after).realised_gain < Fraction(-499 * DOLLAR)


def test_a_loss_on_its_way_makes_no_room_for_a_gain_on_its_way(store: Store, keeper: TaxRunCache) -> None:
    looked(store, at())
    sell_coin(store, 1_001, 0, 2_800)
    alone = standing(keeper, store, at(1_001, weth="9", usdc=22_800, native=COIN - GAS_WEI)).realised_gain
    sell_coin(store, 1_002, 1, 1_500)
    after = at(1_002, weth="8", usdc=24_300, native=COIN - 2 * GAS_WEI)
    assert standing(keeper, store, after).realised_gain == alone > 0


def test_unmined_transaction__counts_as_planned_once(store: Store, keeper: TaxRunCache) -> None:
    start = at()
    looked(store, start)
    dear = replace(start, snapshot=replace(start.snapshot, owner=WALLET))
    store.steps.begin("s", 1, codec.dumps(dear))
    plan = sell_weth(dear)
    changed_grant = replace(grant(), plan=plan)
    first = store.journal.add_intent("s", tx(0), changed_grant, "swap", 1, None)
    record_sent(store.journal, first, "0xaa", 1)
    once = standing(keeper, store, start)
    sold_raw = sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == LEDGER_WETH.address)
    assert sold_raw > 0
    assert held_lots(once) == 11 * COIN - sold_raw
    store.journal.add_intent("s", tx(0, max_fee_wei=10**11), changed_grant, "swap again", 1, None, replaces=first.id)
    assert held_lots(standing(keeper, store, start)) == held_lots(once)


@pytest.mark.parametrize(("next_nonce", "counts"), [(0, False), (1, True)], ids=["waits", "executed, as its nonce is used"])
def test_proposed_sale__takes_its_lots_once_it_may_be_executed(store: Store, keeper: TaxRunCache, next_nonce: int, counts: bool) -> None:
    """The sale of a stop, which withdraws the proposal, takes the same lots."""
    start = at()
    looked(store, start)
    own_step = replace(start, snapshot=replace(start.snapshot, owner=WALLET))
    store.steps.begin("s", 1, codec.dumps(own_step))
    plan = sell_weth(own_step)
    store.journal.add_intent("s", tx(0), replace(grant(), plan=plan), "swap", 1, None)
    sold_raw = sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == LEDGER_WETH.address)
    now = replace(start, snapshot=replace(start.snapshot, nonce_latest=next_nonce))
    assert held_lots(standing(keeper, store, now)) == 11 * COIN - (sold_raw if counts else 0)


@pytest.mark.parametrize("is_safe", [False, True], ids=["own key", "Safe"])
def test_tax_inputs__know_whether_the_wallet_pays_the_gas(store: Store, keeper: TaxRunCache, tmp_path: Path, is_safe: bool) -> None:
    if is_safe:
        path = tmp_path / "trimtab.toml"
        path.write_text(re.sub("(?m)^keystore = .*$", 'mode = "propose"\nsafe = true', path.read_text()))
        keeper = TaxRunCache(load_config(path), at().portfolio)
    assert standing(keeper, store, at()).pays_gas is not is_safe


def test_a_reorganisation_gives_the_gain_back(store: Store, keeper: TaxRunCache) -> None:
    looked(store, at())
    sell_coin(store, 1_001, 0, 2_800)
    (mined,) = store.journal.open_intents()
    store.journal.advance(mined.id, IntentState.BROADCAST, 1)
    assert standing(keeper, store, at(1_002)).realised_gain == 0


def test_corrected_rates__count_for_booked_gains(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate"))
    path.write_text(path.read_text().replace('year_limit = "off"', 'year_limit = "1000"\ncurrency = "EUR"\nrates = "eur.csv"'))
    rates_file = tmp_path / "eur.csv"
    rates_file.write_text("time,rate\n2001-09-10,1\n")
    cache = TaxRunCache(load_config(path), at().portfolio)
    looked(store, at())
    sell_coin(store, 1_001, 0, 2_800)
    after = at(1_001, weth="9", usdc=22_800, native=COIN - GAS_WEI)
    finalise(store)
    looked(store, replace(after, snapshot=replace(after.snapshot, head=replace(after.snapshot.head, number=1_002))))
    gain = standing(cache, store, after).realised_gain

    rates_file.write_text("time,rate\n2001-09-10,0.5\n")

    assert standing(cache, store, after).realised_gain == gain / 2


@pytest.mark.parametrize("text", [None, "time,rate\n2001-09-10;1\n"], ids=["no file", "a typing error"])
@pytest.mark.parametrize("limit", ["1000", "off"], ids=["limit", "no limit"])
def test_rates_that_cannot_be_read__are_a_fault_of_the_inputs(store: Store, tmp_path: Path, limit: str, text: str | None) -> None:
    """Reading a step raises nothing: exits of the same step need no rate."""
    path = tmp_path / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate"))
    path.write_text(path.read_text().replace('year_limit = "off"', f'year_limit = "{limit}"\ncurrency = "EUR"\nrates = "eur.csv"'))
    if text is not None:
        (tmp_path / "eur.csv").write_text(text)
    inputs = standing(TaxRunCache(load_config(path), at().portfolio), store, at())
    assert "tax.rates" in inputs.fault
    assert (inputs.lots, inputs.year_limit is None) == ((), limit == "off")
