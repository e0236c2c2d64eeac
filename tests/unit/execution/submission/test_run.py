"""One transaction from intention to finality: the order of its acts, and every reason to stop before the bytes leave."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, PassingFault, Refused, Retryable
from agent.execution.submission.events import SubmissionEvent
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.model import IntentState, LiquidityAdded
from tests.support.signing import INCREASE, MINT, grant_of
from tests.support.text import raises_code
from tests.support.transactions import START_S, Bench, bench, grant, receipt, tx

S = IntentState


def refused_guard(caught: pytest.ExceptionInfo[Refused]) -> str:
    (verdict,) = caught.value.verdicts
    assert not verdict.passed
    return verdict.guard


def states(setup: Bench) -> list[str]:
    (intent,) = setup.store.journal.intents()
    return [move.new_state.value for move in setup.store.journal.transitions(intent.id)]


def test_run_writes_every_move_before_the_chain_sees_it(setup: Bench) -> None:
    """A signature leaves nothing: it is written after it is made, and before it is sent."""
    moments = []

    def watch(event) -> None:
        stored = [intent.state.value for intent in setup.store.journal.intents()]
        moments.append((event.name, stored[0] if stored else None, len(setup.signer.signed), len(setup.chain.sent)))

    setup.on_event = watch

    assert setup.run().state is S.FINAL
    assert moments == [
        ("before:planned", None, 0, 0),
        ("after:planned", "planned", 0, 0),
        ("before:signed", "planned", 1, 0),
        ("after:signed", "signed", 1, 0),
        ("before:broadcast", "signed", 1, 0),
        ("after:broadcast", "broadcast", 1, 0),
        ("before:send", "broadcast", 1, 0),
        ("after:send", "broadcast", 1, 1),
        ("before:mined", "broadcast", 1, 1),
        ("after:mined", "mined", 1, 1),
        ("before:final", "mined", 1, 1),
        ("after:final", "final", 1, 1),
    ]


def test_run_is_final_only_after_its_confirmations(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)
    mined_at = []
    setup.clock.on_sleep = lambda: setup.chain.blocks.append({})

    intent = setup.run()

    assert intent.state is S.FINAL
    mined_at.append(intent.receipt.block_number)
    assert setup.chain.head().number - mined_at[0] + 1 == 3
    assert [event.name for event in setup.events].count("confirming") == 2


def test_run_stays_mined_without_new_blocks_and_next_follows(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=2)

    assert setup.run(0).state is S.MINED
    assert setup.run(1).state is S.MINED
    (first, second) = setup.executor().reconcile()
    assert (first.state, second.state) == (S.FINAL, S.MINED)


def test_run_adds_to_no_position_before_its_mint_is_final(setup: Bench) -> None:
    """The manager numbers positions in order and lets anybody add to any: taken back and mined anew, ours is a stranger's."""
    setup.store.steps.begin("s", START_S, "{}")
    intent = setup.store.journal.add_intent("s", tx(0), grant_of(MINT), "mint", START_S, None)
    setup.store.journal.advance(intent.id, S.SIGNED, START_S, tx_hash="0x01")
    setup.store.journal.advance(intent.id, S.BROADCAST, START_S)
    added = LiquidityAdded(MINT.contract, 42, 1, (1, 1), setup.store.db.wallet)
    setup.store.journal.advance(intent.id, S.MINED, START_S, receipt=replace(receipt("0x01", 5, "0xb"), liquidity_added=(added,)))

    def grow() -> None:
        setup.executor().run("s", tx(1), grant_of(INCREASE), "increase")

    with raises_code(Retryable, "mint_not_final"):
        grow()
    assert setup.chain.sent == []
    assert len(setup.store.journal.intents()) == 1
    setup.store.journal.advance(intent.id, S.FINAL, START_S)
    with raises_code(Refused, "nonce"):  # the next check, on a chain that knows of no mint
        grow()


def test_run_that_reverts_ends_reverted_and_is_left_to_be_booked(setup: Bench) -> None:
    setup.chain.status = 0

    intent = setup.run()

    assert intent.state is S.REVERTED
    assert setup.store.journal.unbooked_intents() == (intent,)
    setup.store.budgets.book_intent(intent, Fraction(0), Fraction(1), intent.receipt.gas_cost_wei, START_S)
    assert setup.store.budgets.history(START_S).failures.reverts_in_row == 1


@pytest.mark.parametrize("paused", [True, None])
def test_run_is_refused_while_paused_or_unreadable(setup: Bench, paused: bool | None) -> None:
    setup.paused = paused

    with raises_code(Refused, "kill_switch") as caught:
        setup.run()
    assert refused_guard(caught) == "kill_switch"
    assert setup.store.journal.intents() == ()
    assert setup.signer.signed == []


@pytest.mark.parametrize("paused", [True, None])
def test_run_is_dropped_by_a_pause_after_signing(setup: Bench, paused: bool | None) -> None:
    def pause(event) -> None:
        if event.name == "after:signed":
            setup.paused = paused

    setup.on_event = pause

    with raises_code(Refused, "kill_switch"):
        setup.run()
    assert setup.chain.sent == []
    assert states(setup) == ["planned", "signed", "cancelled"]


def test_run_is_dropped_by_a_deadline_while_signing(setup: Bench) -> None:
    def late(event) -> None:
        if event.name == "after:signed":
            setup.chain.timestamp_s = START_S + 90

    setup.on_event = late

    with raises_code(Refused, "deadline") as caught:
        setup.run()
    assert refused_guard(caught) == "deadline"
    assert setup.chain.sent == []
    assert states(setup) == ["planned", "signed", "cancelled"]


def test_run_whose_simulation_fails_writes_nothing(setup: Bench) -> None:
    setup.chain.simulation = "Too little received"

    with raises_code(Refused, "simulation", "Too little received") as caught:
        setup.run()
    assert refused_guard(caught) == "simulation"
    assert setup.store.journal.intents() == ()


def test_run_that_needs_more_gas_is_refused(setup: Bench) -> None:
    with raises_code(Refused, "gas") as caught:
        setup.run(gas=59_999)
    assert refused_guard(caught) == "gas"
    assert setup.run(gas=60_000).state is S.FINAL


def test_simulation__accepts_what_its_signer_gives_gas(setup: Bench) -> None:
    proposed = setup.executor()._submitter.simulate(replace(tx(0), gas=0), START_S + 60, grant())
    assert proposed.ok


def test_run_on_another_chain_needs_the_operator(setup: Bench) -> None:
    with raises_code(OperatorNeeded, "chain", "chain 31337"):
        setup.run(chain_id=1)
    assert setup.signer.signed == []


@pytest.mark.parametrize("nonce", [3, 5])
def test_run_for_another_nonce_is_refused(setup: Bench, nonce: int) -> None:
    setup.chain.base_nonce = 4

    with raises_code(Refused, "nonce") as caught:
        setup.run(nonce)
    assert refused_guard(caught) == "nonce"
    assert setup.run(4).state is S.FINAL


def test_run_that_the_signer_refuses_leaves_nothing_open(setup: Bench) -> None:
    setup.signer.refuse = Refused("recipient is not ours")

    with pytest.raises(Refused, match="recipient"):
        setup.run()
    assert states(setup) == ["planned", "cancelled"]
    assert setup.store.journal.open_intents() == ()


def test_run_beside_a_foreign_pending_one_needs_the_operator(setup: Bench) -> None:
    setup.chain.pool["0xforeign"] = 0

    with raises_code(PassingFault, "foreign_pending", "nonce 0"):
        setup.run()
    assert setup.signer.signed == []


def test_run_after_a_foreign_mined_one_needs_an_adoption(setup: Bench) -> None:
    setup.run(0)
    setup.chain.base_nonce = 2

    with raises_code(OperatorNeeded, "foreign_nonce", "nonce 1"):
        setup.run(2)
    assert setup.executor().resync_nonce() == 2
    assert setup.run(2).state is S.FINAL


def test_run_on_an_endpoint_behind_the_journal_is_retryable(setup: Bench) -> None:
    setup.run(0)
    setup.chain.blocks = [{}]

    with raises_code(Retryable, "lag"):
        setup.run(0)
    assert len(setup.chain.sent) == 1


def test_run_after_a_reorged_nonce_ends_its_wait_early(setup: Bench) -> None:
    first = setup.run(0).tx_hash
    setup.settings = replace(setup.settings, mined_timeout_s=500)

    def gone(event: SubmissionEvent) -> None:
        if event.name == "after:send":
            setup.chain.reorg(2)
            setup.chain.pool.clear()
            setup.clock.on_sleep = lambda: setup.chain.blocks.append({})

    setup.on_event = gone
    setup.chain.automine = False

    with raises_code(Retryable, "reorg", "nonce 1"):
        setup.run(1)
    assert len(setup.chain.blocks) < REORG_WATCH_BLOCKS
    setup.on_event = None
    setup.chain.automine = True
    setup.executor().reconcile()
    assert [(intent.tx.nonce, intent.state) for intent in setup.store.journal.intents()] == [(1, S.FINAL), (0, S.FINAL)]
    assert setup.chain.sent[0] == first == setup.chain.sent[2]
