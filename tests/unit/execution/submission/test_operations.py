"""Single operations of a submission: what stays in the journal if one fails, and which answers of the nodes count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.chain.sender import OutcomeUnknown, TipRefused
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS, ReorgHandler
from agent.execution.submission.submitter import Submitter
from agent.model import Intent, IntentKind, IntentState, SignedTx, UnsignedTx
from agent.ports import Grant
from agent.signing.terms import TIP_CAP_WEI
from tests.support.signing import ESCAPE, futures_grant
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Bench, bench, grant, killed_at, lost_in_broadcast, patient, receipt, tx, when_sent

S = IntentState


def submitter(setup: Bench) -> Submitter:
    return setup.executor()._submitter


def only_state(setup: Bench) -> IntentState:
    """Return the state of the journal's one intent."""
    (intent,) = setup.store.journal.intents()
    return intent.state


@pytest.mark.parametrize(
    ("granted", "ceilings"), [(grant(), (7, 11)), (futures_grant(ESCAPE, is_emergency=True), (70, 110))], ids=["usual", "emergency"]
)
def test_gas_ceilings__are_per_gas_and_then_per_day(tmp_path: Path, granted: Grant, ceilings: tuple[int, int]) -> None:
    settings = replace(bench(tmp_path).settings, max_fee_wei=7, gas_per_day_wei=11, emergency_gas_ceilings=(70, 110))

    assert settings.gas_ceilings_of(granted) == ceilings


def test_launch__drops_what_an_unreachable_signer_did_not_sign(setup: Bench) -> None:
    setup.signer.refuse = Retryable("the remote signer does not answer")

    with pytest.raises(Retryable, match="the remote signer does not answer"):
        setup.run()
    assert (only_state(setup), setup.chain.sent) == (S.CANCELLED, [])


def test_launch__drops_what_it_signed_if_the_head_cannot_be_read(setup: Bench) -> None:
    def disconnect(event: object) -> None:
        if getattr(event, "name", "") == "after:signed":
            setup.chain.offline = 1

    setup.on_event = disconnect

    with pytest.raises(Retryable, match="endpoint is down"):
        setup.run()
    assert (only_state(setup), setup.chain.sent) == (S.CANCELLED, [])


def test_launch_sends_nothing_if_a_pause_is_stored_meanwhile(setup: Bench) -> None:
    def pause(event: object) -> None:
        if getattr(event, "name", "") == "before:broadcast":
            setup.store.pause_switch.pause("by another process", START_S)

    setup.on_event = pause

    with pytest.raises(Refused, match="kill switch"):
        setup.run()
    assert (only_state(setup), setup.chain.sent) == (S.CANCELLED, [])


def planned(setup: Bench, unsigned: UnsignedTx) -> Intent:
    """Return a new intent in the journal."""
    setup.store.steps.begin("step", START_S, "{}")
    return submitter(setup).record_intent("step", unsigned, grant(), "swap", None)


def test_send__refuses_what_ended_in_a_block(setup: Bench) -> None:
    intent = setup.run()

    with pytest.raises(ValueError, match="send"):
        submitter(setup).send(intent, setup.signer.signed[0], grant())
    assert setup.chain.sent == [intent.tx_hash]


def test_drop__refuses_what_was_sent_though_its_cancel_is_final(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def revert_or_mine() -> None:
        setup.chain.simulation = "execution reverted"
        if len(setup.chain.sent) > 1:
            setup.chain.mine(setup.chain.sent[-1])

    when_sent(setup, 1, revert_or_mine)
    killed_at(setup, "after:final")
    (swap,) = (intent for intent in setup.store.journal.open_intents() if intent.kind is IntentKind.SWAP)

    with pytest.raises(ValueError, match="drop"):
        submitter(setup).drop(swap, "its cancel is final")


def test_send_waits_though_a_node_demands_too_high_a_tip(setup: Bench) -> None:
    refusal = TipRefused("tip too low", min_tip_wei=TIP_CAP_WEI + 1)

    setup.chain.send_error = OutcomeUnknown("no answer", "", refusal)

    assert setup.run().state is S.FINAL


@pytest.mark.parametrize(("demanded_wei", "recorded_wei"), [(3 * GWEI, 3 * GWEI), (GWEI + 1, GWEI + 1), (GWEI, 0)])
def test_send__records_any_higher_gas_price_that_a_node_demands(setup: Bench, demanded_wei: int, recorded_wei: int) -> None:
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    intent = planned(setup, legacy_tx)
    setup.chain.send_error = TipRefused("gas price too low", min_tip_wei=demanded_wei)

    with pytest.raises(TipRefused):
        submitter(setup).launch(intent, grant(), None)
    assert submitter(setup).demanded_tip_wei == recorded_wei


@pytest.mark.parametrize(("demanded_wei", "recorded_wei"), [(4 * GWEI, 4 * GWEI), (4 * GWEI + 1, 0), (None, 2 * GWEI)])
def test_demanded_gas_price_without_a_limit_is_at_most_four_times(setup: Bench, demanded_wei: int | None, recorded_wei: int) -> None:
    setup.settings = replace(setup.settings, max_fee_wei=None)
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    intent = planned(setup, legacy_tx)
    setup.chain.send_error = TipRefused("gas price too low", min_tip_wei=demanded_wei)

    with pytest.raises(Refused) as refusal:
        submitter(setup).launch(intent, grant(), None)
    assert submitter(setup).demanded_tip_wei == recorded_wei
    assert isinstance(refusal.value, TipRefused) or refusal.value.remedy == "use another node, or set limits.gas_price"


def test_mined_hash_is_unknown_if_endpoints_contradict(setup: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_owner: str, _nonce: int) -> str:
        raise OperatorNeeded("the endpoints contradict each other")

    monkeypatch.setattr(setup.chain, "mined_tx_hash", refuse, raising=False)

    assert submitter(setup).mined_hash(0) is None


def test_sign_again__grants_the_present_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = lost_in_broadcast(tmp_path)
    (intent,) = setup.store.journal.open_intents()
    times_s: list[int] = []
    sign = setup.signer.sign

    def record_time(unsigned: UnsignedTx, granted: Grant) -> SignedTx:
        times_s.append(granted.now_s)
        return sign(unsigned, granted)

    monkeypatch.setattr(setup.signer, "sign", record_time)

    submitter(setup).sign_again(intent, START_S + 50)

    assert times_s == [START_S + 50]


def count_nonces(setup: Bench, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, int]]) -> list[int]:
    """Let the chain answer with these next nonces, latest and pending, at each poll; return the polls' numbers."""
    polls: list[int] = []

    def answer(_owner: str) -> tuple[int, int]:
        polls.append(len(polls))
        return answers[polls[-1]]

    monkeypatch.setattr(setup.chain, "nonces", answer)
    return polls


@pytest.mark.parametrize("low", [(0, 0), (0, 2)], ids=["not pending", "pending again"])
def test_await_mined__ends_at_the_fifth_low_nonce(setup: Bench, monkeypatch: pytest.MonkeyPatch, low: tuple[int, int]) -> None:
    polls = count_nonces(setup, monkeypatch, [low] * 6)

    with raises_code(Retryable, "reorg"):
        submitter(setup).await_mined(1)
    assert len(polls) == 5


def test_await_mined__counts_low_nonces_in_a_row_only(setup: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    count_nonces(setup, monkeypatch, [(0, 0)] * 4 + [(1, 1)] + [(0, 0)])

    assert submitter(setup).await_mined(1) is None


def test_await_mined__forgets_an_error_before_the_last_poll(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)

    setup.chain.offline = 1

    assert submitter(setup).await_mined(0) is None


def test_await_mined__acts_on_no_poll_that_failed(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.offline = 10
    waits_s: list[float] = []

    with pytest.raises(Retryable, match="endpoint is down"):
        submitter(setup).await_mined(0, waits_s.append)
    assert waits_s == []


def test_record_mined__moves_the_loser_out_of_its_block_first(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=3)

    with raises_code(Retryable, "not_mined"):
        setup.run()
    original, bump = setup.chain.sent
    setup.chain.mine(original)
    submitter(setup).record_mined(0)
    setup.chain.reorg(1)
    setup.chain.mine(bump)
    setup.events.clear()
    submitter(setup).record_mined(0)
    assert [event.name for event in setup.events if event.name.startswith("after:")] == ["after:broadcast", "after:mined"]


def test_await_final__ends_at_its_timeout(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=2)

    assert setup.run().state is S.MINED
    assert setup.clock.now_s() == START_S + setup.settings.final_timeout_s


def advance(setup: Bench, intent: Intent, state: IntentState) -> Intent:
    """Move an intent on to a state, with a receipt of its own block."""
    states = (S.PLANNED, S.SIGNED, S.BROADCAST, S.MINED)
    signed = setup.signer.sign(intent.tx, grant())
    for next_state in states[states.index(intent.state) + 1 : states.index(state) + 1]:
        mined = receipt(signed.hash, 1, signed.hash) if next_state is S.MINED else None
        intent = setup.store.journal.advance(intent.id, next_state, START_S, tx_hash=signed.hash, receipt=mined)
    return intent


@pytest.mark.parametrize(
    ("state", "ended"),
    [(S.PLANNED, S.CANCELLED), (S.SIGNED, S.CANCELLED), (S.BROADCAST, S.REPLACED), (S.MINED, S.REPLACED)],
    ids=lambda state: state.value,
)
def test_settle_nonce__ends_all_that_share_the_nonce(setup: Bench, state: IntentState, ended: IntentState) -> None:
    winner = advance(setup, planned(setup, tx(0)), S.BROADCAST)
    loser = submitter(setup).record_intent("step", tx(0, "0x02"), grant(), "swap", None, winner.id)
    advance(setup, loser, state)

    submitter(setup).settle_nonce(advance(setup, winner, S.MINED))

    assert {intent.id: intent.state for intent in setup.store.journal.intents()} == {winner.id: S.FINAL, loser.id: ended}


def test_await_final__counts_confirmations_anew_in_another_block(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=2)
    intent = setup.run()
    setup.chain.reorg(1)

    setup.chain.mine(intent.tx_hash)

    assert submitter(setup).await_final(intent).state is S.MINED


def test_follow_reorg__refuses_what_lost_its_block_already(setup: Bench) -> None:
    intent = setup.run()
    submitter(setup).follow_reorg(intent, None)

    with pytest.raises(ValueError, match="unmine"):
        submitter(setup).follow_reorg(intent, None)


def swaps_in_blocks(folder: Path, count: int) -> Bench:
    """Return a setup whose swaps ended in the newest blocks, one in each."""
    setup = bench(folder)
    for nonce in range(count):
        setup.run(nonce)
    return setup


def test_follow_reorgs__moves_the_oldest_back_first(tmp_path: Path) -> None:
    setup = swaps_in_blocks(tmp_path, 3)
    setup.chain.reorg(2)
    setup.events.clear()

    ReorgHandler(submitter(setup)).follow_reorgs()

    assert [event.intent.tx.nonce for event in setup.events if event.name == "after:broadcast" and event.intent] == [1, 2]


def test_follow_reorgs_checks_the_block_after_the_newest_one(tmp_path: Path) -> None:
    setup = swaps_in_blocks(tmp_path, 1)
    handler = ReorgHandler(submitter(setup))
    handler.follow_reorgs()
    intent = setup.run(1)
    setup.chain.reorg(1)

    handler.follow_reorgs()

    assert [intent.id for intent in setup.store.journal.open_intents()] == [intent.id]


def test_follow_reorgs_checks_a_missing_height_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = swaps_in_blocks(tmp_path, 2)
    setup.chain.blocks += [{}, {}]
    setup.chain.reorg(3)
    handler = ReorgHandler(submitter(setup))
    block_hash = setup.chain.block_hash
    with monkeypatch.context() as patched:
        patched.setattr(setup.chain, "block_hash", lambda number: None if number == 2 else block_hash(number))
        handler.follow_reorgs()

    handler.follow_reorgs()

    assert [intent.tx.nonce for intent in setup.store.journal.open_intents()] == [1]


def test_follow_reorgs_checks_a_repeated_receipt_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = swaps_in_blocks(tmp_path, 1)
    setup.chain.blocks += [{}]
    receipts = setup.chain.status_of(setup.chain.sent[0])
    setup.chain.reorg(2)
    handler = ReorgHandler(submitter(setup))
    with monkeypatch.context() as patched:
        patched.setattr(setup.chain, "status_of", lambda _tx_hash: receipts)
        handler.follow_reorgs()

    assert setup.store.journal.open_intents() == ()
    handler.follow_reorgs()
    assert [intent.tx.nonce for intent in setup.store.journal.open_intents()] == [0]


def test_require_no_deep_reorg__asks_for_its_own_nonce_only(tmp_path: Path) -> None:
    setup = swaps_in_blocks(tmp_path, 1)
    setup.chain.blocks += [{}] * REORG_WATCH_BLOCKS
    setup.chain.reorg(REORG_WATCH_BLOCKS + 1)
    handler = ReorgHandler(submitter(setup))
    handler.require_no_deep_reorg(1)

    with raises_code(OperatorNeeded, "deep_reorg"):
        handler.require_no_deep_reorg(0)


def test_require_no_deep_reorg__takes_an_unknown_block_for_a_lag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = swaps_in_blocks(tmp_path, 1)
    setup.chain.blocks += [{}] * REORG_WATCH_BLOCKS
    monkeypatch.setattr(setup.chain, "block_hash", lambda _number: None)
    ReorgHandler(submitter(setup)).require_no_deep_reorg(0)


def test_require_no_deep_reorg_looks_behind_many_later_ones(tmp_path: Path) -> None:
    setup = swaps_in_blocks(tmp_path, 17)
    setup.chain.blocks += [{}] * REORG_WATCH_BLOCKS
    setup.chain.reorg(REORG_WATCH_BLOCKS + 17)

    with raises_code(OperatorNeeded, "deep_reorg"):
        ReorgHandler(submitter(setup)).require_no_deep_reorg(0)
