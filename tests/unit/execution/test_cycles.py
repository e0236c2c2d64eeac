"""Cycles in the store: a killed process goes on where the living one would, and nothing else uses its confirmation or its skips."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import Refused, Retryable
from agent.execution import approvals
from agent.execution.resumption import MAX_AGE_S, MAX_RESTARTS, new_cycle, resume_cycle
from agent.execution.step_context import OutcomeKind
from agent.execution.step_result import StepResult
from agent.model import (
    AgentCycle,
    BlockedExit,
    Cycle,
    IntentKind,
    PlanRequest,
    SellEverything,
    StepInput,
)
from tests.support.builders import NOW_S, token
from tests.support.decisions.exits import LINK, step_with_stops
from tests.support.decisions.exits_of_a_step import HEAVIER, step_with_equal_stops
from tests.support.decisions.mortal_worlds import ALL, LINK_SALE, NO_STOP, SWAP, MortalWorld, Worlds, kill_at, worlds
from tests.support.samples import slow
from tests.support.transactions import Killed

LINK_STOP = step_with_stops("LINK", pools=ALL)


def with_raw(step: StepInput, raw: int, token: str = LINK.address) -> StepInput:
    """Return the step with this balance of a token."""
    holdings = tuple(replace(holding, raw=raw) if holding.token == token else holding for holding in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))


def link_raw(step: StepInput) -> int:
    (balance_raw,) = (holding.raw for holding in step.snapshot.holdings if holding.token == LINK.address)
    return balance_raw


__all__ = ["worlds"]


def refused_and_reverting(worlds: Worlds) -> MortalWorld:
    """T0 is refused at submission, T1 reverts, T2 needs an approval, T3 ignores every approval, T4 is sound."""
    step = step_with_equal_stops([f"T{number}" for number in range(5)])
    ignoring = token("T3").address
    world = worlds(step, lambda sold: token("T0").address in sold, lacks=(token("T2").address, ignoring))
    world.fails = {token("T1").address}
    world.approved = lambda to, raw: None if to == ignoring else world.lacks.discard(to)
    return world


def refusal_counts(world: MortalWorld) -> set[tuple[str, int]]:
    return {(refusal.token, refusal.refusal_count) for refusal in world.late}


@pytest.mark.parametrize("first", [0, *slow(range(1, 8))])
def test_killed_process_goes_on_where_the_living_one_would(worlds: Worlds, first: int) -> None:
    """Every eighth moment in every run, the others in the slow one."""
    living = refused_and_reverting(worlds)
    outcome = living.begin()
    intents = living.store.journal.intents()
    assert outcome.kind is OutcomeKind.FAILED
    assert living.rows() == [("closed", "nothing due")]
    assert len({intent.step_id for intent in intents}) == len(intents) == 6, "at most one transaction a step"

    for moment in range(first, living.fate.moments, 8):
        world = refused_and_reverting(worlds)
        kill_at(world, moment)
        resumed = world.begin()

        assert world.sold == living.sold, moment
        assert [intent.note for intent in world.store.journal.intents()] == [intent.note for intent in intents], moment
        assert refusal_counts(world) == refusal_counts(living), moment
        assert (resumed.kind, resumed.exits_tried) == (outcome.kind, outcome.exits_tried), moment
        assert world.rows()[-1] == ("closed", "nothing due")


@pytest.mark.parametrize(("reverts", "kind"), [(False, OutcomeKind.DONE), (True, OutcomeKind.FAILED)], ids=["sold", "reverted"])
@pytest.mark.parametrize("count", [1, 2], ids=["first exit", "last exit"])
def test_exit_of_an_ended_process_keeps_its_recorded_outcome(worlds: Worlds, count: int, reverts: bool, kind: OutcomeKind) -> None:
    """The process ends where the next step reads the chain, once the exit's step is recorded."""
    world = worlds(step_with_equal_stops(["T0", "T1"]))
    world.fails = {token("T0").address, token("T1").address} if reverts else set()
    snapshot = world.snapshot

    def die() -> Any:
        records = [world.store.steps.get(intent.step_id) for intent in world.store.journal.intents()]
        if sum(record is not None and record.summary.outcome is not None for record in records) == count:
            raise Killed
        return snapshot()

    world.snapshot = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.begin()
    world.snapshot = snapshot  # type: ignore[method-assign]
    outcome = world.begin()

    assert outcome.kind is kind
    assert len(outcome.exits_tried) == len(world.sold) == 2


@pytest.mark.parametrize(("is_forgotten", "tries"), [(False, 1), (True, 2)], ids=["with its row", "without its row"])
def test_killed_process_without_its_row_tries_refusals_again(worlds: Worlds, is_forgotten: bool, tries: int) -> None:
    """What the row is for: an exit that reverted is tried a second time at once."""
    world = refused_and_reverting(worlds)
    kill_at(world, 10)
    if is_forgotten:
        world.store.cycles.close("forgotten")

    world.begin()

    assert world.sold.count({token("T1").address}) == tries


def killed_before_sending(worlds: Worlds, step: StepInput) -> MortalWorld:
    """Return a world whose owner has confirmed a plan that was not sent."""
    world = worlds(step)
    kill_at(world, 1)
    assert len(world.asked) == 1
    assert world.sold == []
    return world


@pytest.mark.parametrize(
    ("more_raw", "kind", "sold", "confirmations"),
    [pytest.param(0, OutcomeKind.DONE, LINK_SALE, 1, id="same plan"), pytest.param(1, OutcomeKind.DECLINED, [], 2, id="one unit more")],
)
def test_confirmation_outlives_its_process_for_the_same_plan(
    worlds: Worlds, more_raw: int, kind: OutcomeKind, sold: list[set[str]], confirmations: int
) -> None:
    world = killed_before_sending(worlds, LINK_STOP)
    world.step = with_raw(LINK_STOP, link_raw(LINK_STOP) + more_raw)

    outcome = world.begin(answer=lambda _: False)

    assert outcome.kind is kind
    assert world.sold == sold
    assert len(world.asked) == confirmations


def test_living_process_confirms_once_though_prices_move(worlds: Worlds) -> None:
    world = worlds(LINK_STOP, lacks=(LINK.address,))

    def approve_and_move(token: str, _raw: int) -> None:
        world.lacks.discard(token)
        world.step = with_raw(LINK_STOP, link_raw(LINK_STOP) + 1)

    world.approved = approve_and_move

    assert world.begin().kind is OutcomeKind.DONE
    assert len(world.asked) == 1


def test_asset_moved_while_the_process_was_dead_is_not_blamed(worlds: Worlds) -> None:
    world = killed_before_sending(worlds, step_with_stops("LINK", "WBTC", values=HEAVIER, pools=ALL))
    (exit_token,) = {outcome.decision_result.exit_token for outcome in world.asked}
    world.step = with_raw(world.step, 0, exit_token)

    with suppress(Refused):
        world.begin()

    assert world.late == ()
    assert {exit_token} not in world.sold


CYCLE = replace(new_cycle(AgentCycle(), NOW_S), skipped_exits=(BlockedExit(LINK.address, "skipped", "wait"),))


@pytest.mark.parametrize(
    ("cycle", "request_", "reason"),
    [
        pytest.param(CYCLE, SellEverything(), "another request began", id="another request"),
        pytest.param(
            replace(CYCLE, began_s=NOW_S - MAX_AGE_S - 1), AgentCycle(), f"not continued within {MAX_AGE_S} s", id="one second too old"
        ),
        pytest.param(replace(CYCLE, began_s=NOW_S + 1), AgentCycle(), "not continued within", id="before its start"),
        pytest.param(replace(CYCLE, restarts=MAX_RESTARTS), AgentCycle(), f"continued {MAX_RESTARTS} times", id="too many restarts"),
    ],
)
def test_cycle_that_may_not_go_on_is_closed_with_its_reason(worlds: Worlds, cycle: Cycle, request_: PlanRequest, reason: str) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(cycle)

    assert resume_cycle(world.ports(), request_) is None

    ((state, stored_reason),) = world.rows()
    assert state == "closed"
    assert reason in str(stored_reason)
    assert world.store.cycles.find_open_cycle() is None


def test_unreadable_cycle_is_closed_with_its_reason(worlds: Worlds) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(CYCLE)
    with world.store.db.write("damage") as db:
        db.exec_driver_sql("UPDATE cycles SET cycle_json = '{}'")

    assert resume_cycle(world.ports(), AgentCycle()) is None

    ((state, reason),) = world.rows()
    assert state == "closed"
    assert str(reason).startswith("unreadable")


@pytest.mark.parametrize(
    "cycle",
    [
        pytest.param(replace(CYCLE, began_s=NOW_S - MAX_AGE_S), id="at the largest age"),
        pytest.param(replace(CYCLE, began_s=NOW_S), id="of this second"),
        pytest.param(replace(CYCLE, restarts=MAX_RESTARTS - 1), id="one restart left"),
    ],
)
def test_young_cycle_goes_on_without_what_it_skips(worlds: Worlds, cycle: Cycle) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(cycle)

    resumed = resume_cycle(world.ports(), AgentCycle())

    assert resumed == StepResult(replace(cycle, restarts=cycle.restarts + 1), None)
    assert world.store.cycles.find_open_cycle() == resumed.cycle


def test_resumed_cycle_skips_what_it_skipped_before(worlds: Worlds) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(CYCLE)

    world.begin()
    assert world.sold == []

    world.begin()
    assert world.sold == LINK_SALE, "the next cycle tries it"


def test_caps_of_an_ended_process_bound_no_later_plan(worlds: Worlds) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(Cycle("1", AgentCycle(), NOW_S, spend_caps=((LINK.address, link_raw(LINK_STOP) // 2),)))

    world.begin()

    (plan,) = [outcome.plan for outcome in world.asked]
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == LINK.address) == link_raw(LINK_STOP)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Retryable("sent, and not mined"), "sent, and not mined"), (KeyboardInterrupt(), "interrupted")],
    ids=["error", "interrupt"],
)
def test_error_that_a_process_survives_closes_its_cycle(worlds: Worlds, error: BaseException, reason: str) -> None:
    world = worlds(LINK_STOP, lacks=(LINK.address,))

    def fail(_token: str, _raw: int) -> None:
        raise error

    world.approved = fail
    world.may_send = lambda: False  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        world.begin()

    assert world.rows() == [("closed", reason)]


def test_interrupted_command_takes_back_its_confirmation(worlds: Worlds) -> None:
    world = worlds(LINK_STOP, lacks=(LINK.address,))

    def interrupt(_token: str, _raw: int) -> None:
        raise KeyboardInterrupt

    world.approved = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.begin()
    world.approved = lambda token, _raw: world.lacks.discard(token)
    world.begin()

    assert len(world.asked) == 2


def test_cycle_refused_at_its_first_step_leaves_nothing(worlds: Worlds) -> None:
    world = worlds(NO_STOP, lambda _: True)

    assert world.begin(SWAP).kind is OutcomeKind.REFUSED
    assert world.store.cycles.find_open_cycle() is None
    world.begin(SWAP)
    assert len(world.asked) == 2, "what was refused is confirmed again"


def test_hard_pause_closes_the_open_cycle(worlds: Worlds) -> None:
    world = worlds(LINK_STOP)
    world.store.cycles.write(new_cycle(AgentCycle(), NOW_S))

    def unanswered(why: str) -> None:
        raise Retryable("no answer")

    world.cancel_pending = unanswered  # type: ignore[attr-defined]

    with pytest.raises(Retryable, match="no answer"):
        approvals.cancel_and_revoke(world.readers(), world.store, world.transactor(), "an attack")
    assert world.rows() == [("closed", "hard pause: an attack")]


def test_cycle_that_only_looks_leaves_no_row(worlds: Worlds) -> None:
    world = worlds(LINK_STOP)
    world.begin()

    before = world.rows()

    assert world.begin().kind is OutcomeKind.HOLD
    assert world.rows() == before


def test_approvals_of_a_cycle_count_once_in_a_row(worlds: Worlds) -> None:
    lacks = (token("T0").address, token("T1").address)
    world = worlds(step_with_equal_stops(["T0", "T1"]), lambda _: True, lacks=lacks)
    world.begin()

    approving = [intent for intent in world.store.journal.intents() if intent.kind is IntentKind.APPROVE]

    assert len({intent.step_id for intent in approving}) == 2, "each is a step of its own"
    with world.store.db.write("forget the refusals") as db:
        db.exec_driver_sql("DELETE FROM meta WHERE key LIKE '%late%' OR key LIKE '%refus%'")
    assert world.store.budgets.history(NOW_S).failures.approval_cycles_in_row <= 1
