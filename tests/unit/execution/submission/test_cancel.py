"""Taking a nonce back: when, at what price, and that only one of original and cancel ends final (T7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NotAccepted, PassingFault, Refused
from agent.execution.submission.replacement import cancel_transaction
from agent.model import IntentState
from agent.signing.terms import BUMP_DENOMINATOR, BUMP_NUMERATOR
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, WALLET, Bench, Killed, bench, killed_at, lost_in_broadcast, states, tx


def test_pending_transaction_past_its_deadline_is_cancelled(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    setup.chain.timestamp_s = START_S + 90
    swap_hash = setup.signer.signed[0].hash

    def mine_the_cancel() -> None:
        cancels = [h for h in setup.chain.pool if h != swap_hash]
        if cancels:
            setup.chain.mine(*cancels)

    setup.clock.on_sleep = mine_the_cancel

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    original, cancel = reversed(setup.store.journal.intents())
    assert cancel.replaced_intent_id == original.id
    assert (cancel.tx.to, cancel.tx.value_wei, cancel.tx.data, cancel.tx.nonce) == (WALLET, 0, "0x", 0)
    assert cancel.tx.gas == 25_200, "a fifth more than the 21,000 of the simulation"


def test_lost_transaction_past_its_deadline_is_cancelled(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.timestamp_s = START_S + 90

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    assert setup.chain.sent[1:] == [setup.store.journal.intents()[0].tx_hash]
    assert setup.run(1).state is IntentState.FINAL


def test_lost_transaction_that_would_fail_is_cancelled(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.simulation = "Too little received"

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    assert "Too little received" in setup.store.journal.intents()[0].note


def test_lost_transaction_with_another_signature_is_cancelled(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.signer.drifting = True

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]


def test_signed_transaction_that_never_left_is_dropped(setup: Bench) -> None:
    killed_at(setup, "after:signed")
    setup.chain.timestamp_s = START_S + 90

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled")]
    assert setup.chain.sent == []


def test_original_may_win_against_its_cancel(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    swap_hash = setup.signer.signed[0].hash
    setup.chain.timestamp_s = START_S + 90

    setup.executor().reconcile()

    assert states(setup) == [("swap", "broadcast"), ("cancel", "broadcast")]
    setup.chain.mine(swap_hash)
    setup.executor().reconcile()
    assert states(setup) == [("swap", "final"), ("cancel", "replaced")]


@pytest.mark.parametrize("at", ["after:planned", "after:signed", "after:broadcast", "after:send", "before:mined", "after:final"])
def test_cancel_killed_anywhere_ends_the_nonce_once(tmp_path: Path, at: str) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.simulation = "Too little received"

    def die(event) -> None:
        if event.name == at:
            raise Killed

    setup.on_event = die

    with pytest.raises(Killed):
        setup.executor().reconcile()
    setup.restart()
    setup.executor().reconcile()
    assert [state for kind, state in states(setup) if kind == "swap"] == ["cancelled"]
    assert [state for kind, state in states(setup) if kind == "cancel"][-1] == "final"
    assert setup.store.journal.open_intents() == ()
    assert sum(len(block) for block in setup.chain.blocks) == 1


def test_transaction_mined_while_simulated_is_not_cancelled(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    swap_hash = setup.signer.signed[0].hash
    simulate = setup.chain.simulate

    def mined_meanwhile(unsigned, sender):
        setup.chain.mine(swap_hash)
        return replace(simulate(unsigned, sender), ok=False, reason="STF")

    setup.chain.simulate = mined_meanwhile

    setup.executor().reconcile()

    assert states(setup) == [("swap", "final")]
    assert len(setup.chain.sent) == 1


def test_wallet_without_gas_money_needs_the_operator(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    simulate = setup.chain.simulate
    setup.chain.simulate = lambda unsigned, sender: replace(simulate(unsigned, sender), ok=False, reason="insufficient funds")

    with raises_code(PassingFault, "cannot_cancel"):
        setup.executor().reconcile()
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize(
    ("max_fee_wei", "tip_wei", "gas_price_wei"),
    [
        pytest.param(10 * GWEI, GWEI, None, id="usual fees"),
        pytest.param(3, 1, None, id="tiny fees"),
        pytest.param(2 * GWEI, 0, None, id="no tip"),
        pytest.param(None, None, 7, id="a gas price"),
    ],
)
def test_cancel_pays_an_eighth_more_in_every_field(
    tmp_path: Path, max_fee_wei: int | None, tip_wei: int | None, gas_price_wei: int | None
) -> None:
    pending = replace(tx(4), max_fee_wei=max_fee_wei, max_priority_fee_wei=tip_wei, gas_price_wei=gas_price_wei)
    head = bench(tmp_path).chain.head()

    cancel = cancel_transaction(pending, WALLET, head, None)

    for name in ("max_fee_wei", "max_priority_fee_wei", "gas_price_wei"):
        old_wei = getattr(pending, name)
        new_wei = getattr(cancel, name)
        assert (old_wei is None) == (new_wei is None)
        if old_wei is not None:
            assert new_wei * BUMP_DENOMINATOR >= old_wei * BUMP_NUMERATOR
            assert new_wei > old_wei
    assert cancel.max_fee_wei is None or cancel.max_fee_wei >= 2 * head.base_fee_wei + cancel.max_priority_fee_wei


def above_base_fee(setup: Bench) -> None:
    """Let the base fee be above the owner's limit."""
    setup.chain.base_fee_wei = (setup.settings.max_fee_wei or 0) + 1


def would_fail(setup: Bench) -> None:
    """Let the transaction fail, and no higher fee be allowed."""
    setup.chain.simulation = "Too little received"
    setup.settings = replace(setup.settings, max_fee_wei=tx(0).max_fee_wei)


@pytest.mark.parametrize("change", [above_base_fee, would_fail])
def test_lost_transaction_that_may_not_be_cancelled__stays_open(tmp_path: Path, change: Callable[[Bench], None]) -> None:
    setup = lost_in_broadcast(tmp_path)
    change(setup)

    with raises_code(NotAccepted, "gas_price", setup.signer.signed[0].hash, "stays open"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]


def test_expired_transaction_that_may_not_be_cancelled__stays_open(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    setup.chain.timestamp_s = START_S + 90
    above_base_fee(setup)

    with raises_code(NotAccepted, "gas_price", setup.signer.signed[0].hash, "stays open"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]


def test_cancel_keeps_to_the_gas_price_limit(tmp_path: Path) -> None:
    """An eighth more than 10 gwei is 11.25 gwei."""
    head = bench(tmp_path).chain.head()
    least_wei = 45 * GWEI // 4

    assert cancel_transaction(tx(0), WALLET, head, least_wei).max_fee_wei == least_wei
    with pytest.raises(Refused) as caught:
        cancel_transaction(tx(0), WALLET, head, least_wei - 1)
    assert caught.value.verdicts[0].guard == "gas_price"


@pytest.mark.parametrize("limit_gwei", [None, 100, 25], ids=["no limit", "roomy limit", "tight limit"])
def test_cancel_pays_a_demanded_tip_and_twice_the_base_fee(tmp_path: Path, limit_gwei: int | None) -> None:
    """Twice: enough for five full blocks, if no limit is lower."""
    head = bench(tmp_path).chain.head()
    base_fee_wei = head.base_fee_wei or 0
    tip_wei = 7 * GWEI
    pending = replace(tx(4), max_fee_wei=base_fee_wei + 1, max_priority_fee_wei=1)
    limit_wei = None if limit_gwei is None else limit_gwei * GWEI

    cancel = cancel_transaction(pending, WALLET, head, limit_wei, tip_wei)

    assert cancel.max_priority_fee_wei == tip_wei
    assert cancel.max_fee_wei == min(2 * base_fee_wei + tip_wei, limit_wei or 2**256)


def test_cancel_without_a_ceiling_may_cost_a_demanded_tip(tmp_path: Path) -> None:
    """A cancel costs up to its own price, though the gas granted to what it cancels is a trifle."""
    setup = lost_in_broadcast(tmp_path)
    setup.chain.simulation = "Too little received"
    base_fee_wei = setup.chain.head().base_fee_wei or 0
    tip_wei = 10**6 * base_fee_wei
    setup.settings = replace(setup.settings, max_fee_wei=None)
    setup.store.budgets.mark_demanded_tip(tip_wei, setup.clock.now_s())

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    cancel = setup.store.journal.intents()[0]
    assert cancel.tx.max_fee_wei == 2 * base_fee_wei + tip_wei


@pytest.mark.parametrize("drifting", [False, True])
def test_forgotten_cancel_goes_out_again_at_a_hard_pause(tmp_path: Path, drifting: bool) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    setup.paused = setup.hard = True

    setup.executor().cancel_pending("hard pause")

    assert states(setup) == [("swap", "broadcast"), ("cancel", "broadcast")]
    setup.chain.pool.clear()
    setup.chain.automine = True
    setup.signer.drifting = drifting
    setup.hard = False
    setup.executor().cancel_pending("soft pause")
    assert len(setup.chain.sent) == 2
    setup.hard = True
    setup.executor().cancel_pending("hard pause")
    assert states(setup)[0] == ("swap", "cancelled")
    assert states(setup)[-1] == ("cancel", "final")
    assert setup.store.journal.open_intents() == ()


def test_drop_waits_for_no_block(setup: Bench) -> None:
    killed_at(setup, "after:signed")
    setup.chain.timestamp_s, began_s = START_S + 90, setup.clock.now_s()

    setup.executor().reconcile()

    assert (states(setup), setup.clock.now_s()) == ([("swap", "cancelled")], began_s)
