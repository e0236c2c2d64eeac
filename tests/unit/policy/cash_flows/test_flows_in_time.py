"""What time makes of a rise that nobody explains: it holds purchases back for a while, and is then a deposit."""

from __future__ import annotations

from fractions import Fraction
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import ExternalTransfer, ExternalTransferKind, Halt, HaltCode, StepInput
from agent.policy.cash_flows import balance_changes
from agent.policy.decide import decide
from agent.store import Store, open_store
from tests.support import builders
from tests.support.ledgers import DAY_S, DOLLAR, LEDGER_USDC, LEDGER_WETH, at, looked, remembered
from tests.support.samples import examples, slow
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, WALLET

store = store_fixture("file", wrapped_native=LEDGER_WETH.address)


def test_unexplained_increase_becomes_a_deposit_after_its_wait(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_005, "11"))
    assert isinstance(decide(looked(store, at(1_006, "11", later_s=DAY_S - 1))).decision, Halt)
    dry = remembered(store, at(1_007, "11", later_s=DAY_S))
    wet = looked(store, at(1_007, "11", later_s=DAY_S))
    for step in (dry, wet):
        assert (step.history.cash_flows.unexplained_transfers, [flow.id for flow in step.history.cash_flows.accepted_deposits]) == ((), [1])
        decision = decide(step).decision
        assert not isinstance(decision, Halt)
        assert mentions(decision.reason, "accepted", "WETH", "1 (2000 USDC)")
    assert [flow.kind for flow in store.balances.transfers()] == [ExternalTransferKind.ACCEPTED]
    assert looked(store, at(1_008, "11", later_s=2 * DAY_S)).history.cash_flows.accepted_deposits == (), "said for a day"


@pytest.mark.parametrize(("wait_s", "is_halted"), [(None, False), (3_600, False), (3_601, True)])
def test_wait_is_that_of_the_config(store: Store, wait_s: int | None, is_halted: bool) -> None:
    def waiting(step: StepInput) -> StepInput:
        return builders.with_limits(step, balance_jump_wait_s=wait_s)

    looked(store, waiting(at()))
    looked(store, waiting(at(1_005, "11")))
    assert isinstance(decide(looked(store, waiting(at(1_006, "11", later_s=3_600)))).decision, Halt) is is_halted


def test_decrease_beyond_the_limit_is_never_accepted(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_005, "9"))
    step = looked(store, at(1_006, "9", later_s=100 * DAY_S))
    decision = decide(step).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.BALANCE_CHANGE,)
    assert mentions(decision.reason, "WETH", "trimtab flows confirm")


def test_unpriced_decrease_of_a_base_unit_is_no_deposit(store: Store) -> None:
    """Of a token without decimals that is a whole coin."""
    looked(store, at())
    for block, later_s in ((1_005, 0), (1_006, 100 * DAY_S)):
        step = looked(store, at(block, "9.999999999999999999", later_s=later_s, feeds=(), pools=()))
        assert [(flow.delta_raw, flow.value, flow.blocks_trading) for flow in step.history.cash_flows.unexplained_transfers] == [
            (-1, None, True)
        ]


def test_dust_hides_no_increase_from_acceptance(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "11"))
    snapshot = at(1_002, "11").snapshot
    dust = ExternalTransfer(0, LEDGER_USDC.address, 1, Fraction(1), 1, 2, builders.NOW_S, False, None)
    assert store.balances.record(snapshot, balance_changes.balances_of(snapshot), [dust] * 1_100, store.balances.expected().version)
    assert not isinstance(decide(looked(store, at(1_003, "11", later_s=DAY_S))).decision, Halt)


def test_increase_makes_no_small_decrease_a_large_one(store: Store) -> None:
    """Else a stranger's gift would hold everything back until the owner comes."""
    looked(store, at())
    step = looked(store, at(1_001, "11", 19_990))
    assert {flow.token: flow.exceeds_jump_limit for flow in step.history.cash_flows.unexplained_transfers} == {
        LEDGER_WETH.address: True,
        LEDGER_USDC.address: False,
    }
    assert not isinstance(decide(looked(store, at(1_002, "11", 19_990, later_s=DAY_S))).decision, Halt)


def test_header_from_the_future_makes_no_increase_wait_longer(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "11", later_s=400 * DAY_S))
    assert isinstance(decide(looked(store, at(1_002, "11"))).decision, Halt)
    assert not isinstance(decide(looked(store, at(1_003, "11", later_s=DAY_S))).decision, Halt)


def test_header_from_the_future_accepts_no_increase_early(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "11"))
    looked(store, at(1_002, "11", later_s=10 * DAY_S, now_s=builders.NOW_S))
    assert isinstance(decide(looked(store, at(1_003, "11", later_s=60))).decision, Halt)


@examples(8)
@given(st.lists(st.tuples(st.integers(0, 4_000), st.booleans(), st.integers(0, 2 * DAY_S)), min_size=1, max_size=8))
def test_increase_never_halts_longer_than_its_wait(arrivals: list[tuple[int, bool, int]]) -> None:
    """Each look: dollars that came since, whether there are prices, seconds since the look before."""
    with TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/books.db", CHAIN_ID, WALLET, LEDGER_WETH.address)
        looked(store, at())
        usdc = 20_000
        later_s = 0
        for number, (dollars, priced, passed_s) in enumerate(arrivals, 1):
            usdc = usdc + dollars
            later_s = later_s + passed_s
            blind = {} if priced else {"feeds": (), "pools": ()}
            step = looked(store, at(1_000 + number, usdc=usdc, later_s=later_s, **blind))
            now_s = step.snapshot.head.timestamp_s
            assert all(flow.chain_s + DAY_S > now_s for flow in step.history.cash_flows.unexplained_transfers if flow.blocks_trading)
        last = looked(store, at(2_000, usdc=usdc, later_s=later_s + DAY_S))
        assert not any(flow.blocks_trading or flow.value is None for flow in last.history.cash_flows.unexplained_transfers)
        assert last.history.budgets.loss_24h == 0
        assert sum(flow.delta_raw for flow in store.balances.transfers()) == (usdc - 20_000) * DOLLAR
        store.close()


@pytest.mark.parametrize("days", [8, *slow([30])])
@pytest.mark.parametrize("dollars", [1_500, *slow([3_900])])
def test_gifts_in_a_row_halt_for_a_single_wait(store: Store, dollars: int, days: int) -> None:
    """Every four hours for some time, each above or below the limit alone: purchases are held back for a day of it."""
    looked(store, at())
    held_s = 0
    usdc = 20_000
    last_s = 0
    for number in range(1, days * 6):
        usdc = usdc + dollars
        now_s = number * 4 * 3_600
        step = looked(store, at(1_000 + number, usdc=usdc, later_s=now_s))
        held_s = held_s + (now_s - last_s) * isinstance(decide(step).decision, Halt)
        last_s = now_s
    assert 0 < held_s <= DAY_S
    later = looked(store, at(9_000, usdc=usdc + 100_000, later_s=40 * DAY_S))
    assert isinstance(decide(later).decision, Halt), "a month later one waits anew"


def test_header_from_the_future_begins_no_wait(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "11", later_s=400 * DAY_S))
    step = looked(store, at(1_002, "12"))
    assert isinstance(decide(step).decision, Halt)
    assert not isinstance(decide(looked(store, at(1_003, "12", later_s=DAY_S))).decision, Halt)
