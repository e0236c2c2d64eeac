"""Swaps that were sent and not reported: a repeated command reports each, once, and sends none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from agent import codec, engine
from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable
from agent.execution import approvals, sending
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.resumption import MAX_AGE_OF_AMOUNT_S, MAX_RESTARTS, resume_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.requests import CloseHedge, Deleverage, MarginAccountRequest, OpenHedge
from agent.model import (
    AgentCycle,
    Cycle,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    MarginDeposit,
    PlanRequest,
    Swap,
    UnsignedTx,
    Unwrap,
)
from agent.ports import Approval, Grant
from agent.store.tables import CycleRow
from tests.support.builders import NOW_S
from tests.support.decisions.exits import LINK, USDC, WBTC
from tests.support.decisions.mortal_worlds import (
    LINK_SALE,
    NO_STOP,
    SWAP,
    MortalWorld,
    Worlds,
    kill_at,
    worlds,
)
from tests.support.text import mentions, raises_code
from tests.support.transactions import Killed, grant, receipt, record_sent

__all__ = ["worlds"]


def test_killed_swap_is_not_carried_out_twice(worlds: Worlds) -> None:
    living = worlds(NO_STOP, lacks=(LINK.address,))
    assert living.begin(SWAP).kind is OutcomeKind.DONE
    assert living.sold == LINK_SALE

    for moment in range(living.fate.moments):
        world = worlds(NO_STOP, lacks=(LINK.address,))
        kill_at(world, moment, SWAP)

        assert world.begin(SWAP).kind is OutcomeKind.DONE, moment
        assert world.sold == LINK_SALE, moment
        assert world.store.cycles.find_open_cycle() is None

    world.begin(SWAP)
    assert len(world.sold) == 2, "once it was reported, a further command is another swap"


NOT_MINED = Retryable("sent, and not mined", "run the command again", code=ErrorCode.NOT_MINED)
Runs = Callable[[str, IntentKind, UnsignedTx, Grant, str], Intent]


def pending_run(world: MortalWorld, error: BaseException = NOT_MINED) -> Runs:
    """Return a run that sends the transaction, and raises with it in no block."""

    def run(step_id: str, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        journal = world.store.journal
        nonce = journal.expected_nonce()
        intent = journal.add_intent(step_id, replace(unsigned, nonce=nonce), granted, note, NOW_S, None)
        record_sent(journal, intent, f"0x{nonce:064x}", NOW_S)
        raise error

    return run


def left_pending(worlds: Worlds, error: BaseException = NOT_MINED) -> tuple[MortalWorld, Intent]:
    """Return a world in which a swap was sent and is in no block, and that transaction."""
    world = worlds(NO_STOP)
    run = world.run
    world.run = pending_run(world, error)  # type: ignore[method-assign]
    with suppress(Retryable):
        world.begin(SWAP)
    world.run = run  # type: ignore[method-assign]
    (pending,) = world.store.journal.open_intents()
    return world, pending


def mine(world: MortalWorld, pending: Intent) -> None:
    mined = replace(receipt(str(pending.tx_hash), world.snapshot().head.number + 1, "0x01"), transfers=())
    world.store.journal.advance(pending.id, IntentState.MINED, NOW_S, receipt=mined)


def require_reported(world: MortalWorld, sold: Sequence[set[str]] = LINK_SALE) -> StepOutcome:
    """Repeat the command of a swap that was carried out: it reports that swap, once, and sends none."""
    outcome = world.begin(SWAP)
    assert "carried out before" in outcome.reason
    assert world.sold == [*sold]
    assert world.store.cycles.find_open_cycle() is None
    return outcome


def test_repeated_command_reports_a_swap_mined_late(worlds: Worlds) -> None:
    world, pending = left_pending(worlds)
    mine(world, pending)
    again = require_reported(world, ())
    assert [intent.id for intent in again.transactions] == [pending.id]


def test_swap_refused_after_it_was_sent__is_reported(worlds: Worlds) -> None:
    """No executor raises so; if one did, the next command would still not trade twice."""
    world, pending = left_pending(worlds, Refused("the pool is full"))
    mine(world, pending)
    require_reported(world, ())


@pytest.mark.parametrize("repeats", [1, 3])
def test_pending_swap__is_waited_for_by_each_repeated_command(worlds: Worlds, repeats: int) -> None:
    world, pending = left_pending(worlds)
    confirmation_count = len(world.asked)
    for _ in range(repeats):
        with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION, str(pending.tx_hash), "no second"):
            world.begin(SWAP)
    assert len(world.asked) == confirmation_count
    mine(world, pending)
    require_reported(world, ())


def test_pending_swap__is_waited_for_after_a_day_too(worlds: Worlds) -> None:
    world, _ = left_pending(worlds)
    rewritten(world, lambda values: values.update(began_s=NOW_S - MAX_AGE_OF_AMOUNT_S - 1))
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION):
        world.begin(SWAP)
    assert world.sold == []


PENDING_REQUESTS: tuple[PlanRequest, ...] = (SWAP, Unwrap(5), MarginAccountRequest(MarginDeposit(5)), OpenHedge(LINK.address, 5_000))


@pytest.mark.parametrize("request_", PENDING_REQUESTS, ids=lambda request: type(request).__name__)
@pytest.mark.parametrize("is_behind_a_cycle", [False, True], ids=["at once", "after a cycle"])
def test_request_of_an_amount_waits_for_its_transaction(worlds: Worlds, request_: PlanRequest, is_behind_a_cycle: bool) -> None:
    world, pending = left_pending(worlds)
    rewritten(world, lambda values: values.update(request=json.loads(codec.dumps(request_))))
    if is_behind_a_cycle:
        world.store.cycles.give_way("another request began")
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION, str(pending.tx_hash)):
        resume_cycle(world.ports(), request_)
    assert world.rows() == [("open", None)]


@pytest.mark.parametrize(
    "request_", [AgentCycle(), Deleverage(10_000), CloseHedge(LINK.address)], ids=lambda request: type(request).__name__
)
def test_request_of_targets_goes_on_beside_its_transaction(worlds: Worlds, request_: PlanRequest) -> None:
    """What is due is decided anew, so that no exit waits for an older one."""
    world, _ = left_pending(worlds)
    rewritten(world, lambda values: values.update(request=json.loads(codec.dumps(request_))))
    resumption = resume_cycle(world.ports(), request_)
    assert resumption is not None
    assert resumption.outcome is None


def test_swap_cancelled_while_it_waited__is_reported_as_failed(worlds: Worlds) -> None:
    world, pending = left_pending(worlds)
    journal = world.store.journal
    cancel = journal.add_intent(pending.step_id, pending.tx, grant(IntentKind.CANCEL), "cancel", NOW_S, None, replaces=pending.id)
    mined = receipt("0xc", world.snapshot().head.number + 1, "0x01")
    record_sent(journal, cancel, "0xc", NOW_S, receipt=mined)
    journal.advance(cancel.id, IntentState.FINAL, NOW_S)
    journal.advance(pending.id, IntentState.CANCELLED, NOW_S, event=IntentEvent.YIELD)
    outcome = require_reported(world, ())
    assert outcome.kind is OutcomeKind.FAILED
    assert "nothing was exchanged" in outcome.reason
    assert world.begin(SWAP).kind is OutcomeKind.DONE, "it was reported"


def test_swap_replaced_by_a_foreign_transaction__is_planned_again(worlds: Worlds) -> None:
    world, pending = left_pending(worlds)
    journal = world.store.journal
    journal.adopt_nonce(pending.tx.nonce + 1, NOW_S)
    journal.advance(pending.id, IntentState.REPLACED, NOW_S)
    confirmation_count = len(world.asked)
    world.store.cycles.give_way("the nonce was adopted")
    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert world.sold == LINK_SALE
    assert len(world.asked) == confirmation_count + 1, "what was confirmed for another wallet is confirmed again"


def propose_and_expire(world: MortalWorld, request: PlanRequest = SWAP) -> Intent:
    """Carry out a request whose proposal nobody signs in time; return that proposal."""
    run = world.run

    def propose(step_id: str, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        nonce = world.store.journal.expected_nonce()
        world.store.journal.add_intent(step_id, replace(unsigned, nonce=nonce), granted, note, NOW_S, None)
        raise Retryable("proposed", "sign it")

    world.run = propose  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="proposed"):
        world.begin(request)
    world.run = run  # type: ignore[method-assign]
    (proposed,) = world.store.journal.open_intents()
    return world.store.journal.advance(proposed.id, IntentState.CANCELLED, NOW_S, event=IntentEvent.DROP)


def test_proposed_swap_that_expired__is_planned_again(worlds: Worlds) -> None:
    world = worlds(NO_STOP)
    propose_and_expire(world)
    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert world.sold == LINK_SALE


@pytest.mark.parametrize("later", [0, 1, 2])
def test_expired_proposal_executed_after_all__is_reported(worlds: Worlds, later: int) -> None:
    """Its signers executed it although the repeated command had proposed another at its nonce."""
    world = worlds(NO_STOP)
    expired = propose_and_expire(world)
    for _ in range(later):
        propose_and_expire(world)
    record_sent(world.store.journal, expired, "0xe", NOW_S)
    mine(world, replace(expired, tx_hash="0xe"))
    require_reported(world, ())


def test_expired_proposal_of_another_request__is_no_trade_of_this_one(worlds: Worlds) -> None:
    world = worlds(NO_STOP)
    expired = propose_and_expire(world, Swap(LINK.address, USDC.address, 50 * 10**18))
    propose_and_expire(world)
    record_sent(world.store.journal, expired, "0xe", NOW_S)
    mine(world, replace(expired, tx_hash="0xe"))
    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert world.sold == LINK_SALE


@pytest.mark.parametrize(
    "error",
    [PassingFault("HTTP 403", "check the endpoints"), Retryable("store: locked"), KeyboardInterrupt(), Killed()],
    ids=["endpoint", "store", "ctrl-c", "kill"],
)
@pytest.mark.parametrize("place", ["snapshot", "settle_mined"])
def test_error_after_a_final_swap__leaves_it_to_be_reported(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, error: BaseException, place: str
) -> None:
    world = worlds(NO_STOP)

    def fail(*_: object, **__: object) -> Any:
        raise error

    def fail_after_the_trade(*_: object) -> Any:
        is_final = any(intent.state is IntentState.FINAL for intent in world.store.journal.intents())
        return fail() if is_final else MortalWorld.snapshot(world)

    with monkeypatch.context() as patch:
        if place == "snapshot":
            patch.setattr(world, "snapshot", fail_after_the_trade)
        else:
            patch.setattr(sending, "settle_mined", fail)
        try:
            outcome = world.begin(SWAP)
        except type(error):
            outcome = None
    assert world.sold == LINK_SALE
    if outcome is None:
        outcome = require_reported(world)
    assert outcome.kind is OutcomeKind.DONE
    world.begin(SWAP)
    assert len(world.sold) == 2, "once it was reported, a further command is another swap"


@pytest.mark.parametrize("seconds", [1, 3_600, 10 * MAX_AGE_OF_AMOUNT_S])
def test_clock_set_back__closes_no_unreported_swap(worlds: Worlds, seconds: int) -> None:
    world = after_its_swap(worlds)
    rewritten(world, lambda values: values.update(began_s=NOW_S + seconds))
    require_reported(world)


def test_swap_unreported_for_a_day__is_named_before_another_one(worlds: Worlds) -> None:
    world = after_its_swap(worlds)
    rewritten(world, lambda values: values.update(began_s=NOW_S - MAX_AGE_OF_AMOUNT_S - 1))
    with pytest.raises(OperatorNeeded) as refused:
        world.begin(SWAP)
    assert mentions(str(refused.value), world.asked[0].step_id, "trimtab history")
    assert world.begin(SWAP).kind is OutcomeKind.DONE, "it was named"


def pause_hard(world: MortalWorld, before_the_failure: Callable[[], object]) -> None:
    """Pause hard; cancelling fails after this."""

    def cancel_pending(_why: str) -> None:
        before_the_failure()
        raise Retryable("no answer")

    world.cancel_pending = cancel_pending  # type: ignore[attr-defined]
    with pytest.raises(Retryable, match="no answer"):
        approvals.cancel_and_revoke(world.readers(), world.store, world.transactor(), "an attack")


def test_swap_mined_under_a_hard_pause__is_reported(worlds: Worlds) -> None:
    world, pending = left_pending(worlds)
    pause_hard(world, lambda: mine(world, pending))
    require_reported(world, ())
    assert world.sold == []


def test_swap_pending_under_a_hard_pause__is_waited_for(worlds: Worlds) -> None:
    world, _ = left_pending(worlds)
    pause_hard(world, lambda: None)
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION):
        world.begin(SWAP)
    assert world.sold == []


@pytest.mark.parametrize("content", ["{}", None], ids=["unreadable", "readable"])
def test_hard_pause_ends_whatever_row_is_open(worlds: Worlds, content: str | None) -> None:
    world = after_its_swap(worlds)
    with world.store.db.write("damage") as db:
        if content is not None:
            db.execute(update(CycleRow).values(cycle_json=content))
    world.store.cycles.give_way("hard pause: an attack")
    assert world.rows() == [("unreported", "hard pause: an attack")]


@pytest.mark.parametrize("error", [Retryable("awaits a signature"), KeyboardInterrupt(), Killed()], ids=["proposal", "ctrl-c", "kill"])
@pytest.mark.parametrize("is_resumed", [False, True], ids=["own swap", "swap of an ended process"])
def test_revocation_that_does_not_end__leaves_its_swap_to_be_reported(worlds: Worlds, error: BaseException, is_resumed: bool) -> None:
    world = after_its_swap(worlds) if is_resumed else worlds(NO_STOP)
    world.reconcile = list  # type: ignore[attr-defined]
    world.left = [Approval(WBTC.address, "router", 0, "WBTC", "router")]

    def fail(_token: str, _raw: int) -> None:
        raise AwaitingExternalSignature(error.message, "sign", {}, "", reverts=False) if isinstance(error, Retryable) else error

    world.approved = fail
    with pytest.raises((Retryable, KeyboardInterrupt, Killed)):
        engine.run_cycle(world.readers(), SWAP, world.store, world.transactor())
    assert world.sold == LINK_SALE

    world.approved = lambda _token, _raw: world.left.clear()
    outcome = engine.run_cycle(world.readers(), SWAP, world.store, world.transactor())
    assert "carried out before" in outcome.reason
    assert world.sold == LINK_SALE
    assert world.store.cycles.find_open_cycle() is None


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(AgentCycle(), id="next cycle"),
        pytest.param(Swap(LINK.address, USDC.address, 50 * 10**18), id="another swap"),
    ],
)
def test_killed_swap_is_reported_after_another_request(worlds: Worlds, between: PlanRequest) -> None:
    living = worlds(NO_STOP, lacks=(LINK.address,))
    living.begin(SWAP)

    for moment in range(living.fate.moments):
        world = worlds(NO_STOP, lacks=(LINK.address,))
        kill_at(world, moment, SWAP)
        was_sold = len(world.sold)
        world.begin(between)
        sold_between = len(world.sold) - was_sold

        outcome = world.begin(SWAP)

        assert len(world.sold) == sold_between + 1, moment
        assert ("carried out before" in outcome.reason) == bool(was_sold), moment
        assert {state for state, _ in world.rows()} <= {"closed"}


def after_its_swap(worlds: Worlds) -> MortalWorld:
    """Return a world whose process ended right after its swap was mined."""
    world = worlds(NO_STOP)
    kill_at(world, 2, SWAP)
    assert world.sold == LINK_SALE
    return world


def rewritten(world: MortalWorld, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the row of the cycle, as another version might have written it."""
    with world.store.db.write("another version's row") as db:
        ((cycle_id, cycle_json),) = db.execute(select(CycleRow.id, CycleRow.cycle_json)).all()
        cycle_values = json.loads(cycle_json)
        change(cycle_values)
        db.execute(update(CycleRow).where(CycleRow.id == cycle_id).values(cycle_json=json.dumps(cycle_values)))


CHANGES_OF_A_ROW = [
    pytest.param(lambda values: values.update(later_field=[]), id="field of a later version"),
    pytest.param(lambda values: values.update(layers=[{"type": "LaterLayer"}]), id="layer of a later version"),
    pytest.param(lambda values: values.update(restarts=MAX_RESTARTS), id="continued often"),
]


@pytest.mark.parametrize("change", CHANGES_OF_A_ROW)
@pytest.mark.parametrize("between", [None, AgentCycle()], ids=["at once", "after a cycle"])
def test_sent_swap_is_reported_whatever_its_row_has_besides(
    worlds: Worlds, change: Callable[[dict[str, Any]], object], between: PlanRequest | None
) -> None:
    world = after_its_swap(worlds)
    rewritten(world, change)
    if between is not None:
        world.begin(between)
    sold_before = [*world.sold]

    outcome = world.begin(SWAP)

    assert "carried out before" in outcome.reason
    assert world.sold == sold_before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda world: rewritten(world, lambda values: values["request"].update(later_field=1)), id="request"),
        pytest.param(lambda world: world.store.steps.begin(world.asked[0].step_id, NOW_S, "{}"), id="step"),
    ],
)
def test_sent_swap_that_cannot_be_read_is_named_before_another_one(worlds: Worlds, damage: Callable[[MortalWorld], object]) -> None:
    world = after_its_swap(worlds)
    damage(world)

    with pytest.raises(OperatorNeeded) as refused:
        world.begin(SWAP)

    assert mentions(str(refused.value), world.asked[0].step_id, "trimtab history")
    assert world.sold == LINK_SALE
    assert world.begin(SWAP).kind is OutcomeKind.DONE, "once it was reported, a further command is another swap"


@pytest.mark.parametrize("change", CHANGES_OF_A_ROW)
def test_unreadable_cycle_that_sent_nothing_hinders_none(worlds: Worlds, change: Callable[[dict[str, Any]], object]) -> None:
    world = worlds(NO_STOP)
    kill_at(world, 1, SWAP)
    rewritten(world, lambda values: (change(values), values.update(sending_step_id="")))

    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert world.sold == LINK_SALE


def test_swap_of_a_day_ago_is_another_swap(worlds: Worlds) -> None:
    world = worlds(NO_STOP)
    world.store.cycles.write(Cycle("1", SWAP, NOW_S - MAX_AGE_OF_AMOUNT_S - 1, sending_step_id="a step"))
    world.begin(AgentCycle())

    world.begin(SWAP)

    assert world.rows()[0] == ("closed", f"not continued within {MAX_AGE_OF_AMOUNT_S} s of its start")
    assert world.sold == LINK_SALE


def test_unreadable_unreported_cycle_is_closed(worlds: Worlds) -> None:
    world = worlds(NO_STOP)
    with world.store.db.write("another version's row") as db:
        db.execute(insert(CycleRow).values(id="1", state="unreported", cycle_json="{}"))

    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert [state for state, _ in world.rows()] == ["closed", "closed"]
    assert (world.rows()[0][1] or "").startswith("unreadable")
