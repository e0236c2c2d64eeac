"""Cycles in the store: a killed process goes on where the living one would, and nothing else uses its confirmation or its skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from agent import codec, engine
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused, Retryable
from agent.execution import approvals
from agent.execution.confirmation import confirmation_of, covering_confirmation, plan_hash
from agent.execution.resumption import MAX_AGE_OF_AMOUNT_S, MAX_AGE_S, MAX_RESTARTS, new_cycle, resume_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepResult
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesCycle
from agent.layers.liquidity.state import LiquidityCycle
from agent.model import (
    AgentCycle,
    BlockedExit,
    Cycle,
    CycleEnd,
    Intent,
    IntentKind,
    IntentState,
    InterruptedExit,
    MarginDeposit,
    PlanRequest,
    SellEverything,
    StepEnd,
    StepInput,
    SubmissionRefusal,
    Swap,
    UnsignedTx,
)
from agent.ports import Grant
from agent.store import Store, open_memory_store, open_store
from agent.store.tables import CycleRow
from tests.support.builders import NOW_S, OWNER, token
from tests.support.decisions.exits import LINK, MARKET, SOUND, USDC, WBTC, outcome_of, step_with_stops
from tests.support.decisions.exits_of_a_step import HEAVIER, step_with_equal_stops
from tests.support.refusal_worlds import World
from tests.support.samples import slow
from tests.support.stores import Killed
from tests.support.transactions import CHAIN_ID, receipt

ALL = (*MARKET, SOUND)


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_memory_store(CHAIN_ID, OWNER)
    yield store
    store.close()


@dataclass
class Fate:
    """Counts the moments at which a process can end: before each answer, before and after each transaction."""

    dies_at: int = -1
    moments: int = 0

    def pass_moment(self) -> None:
        """End the process if its moment has come."""
        self.moments += 1
        if self.moments - 1 == self.dies_at:
            raise Killed


class MortalWorld(World):
    """A world whose process can end."""

    fate = Fate()

    def run(self, step_id: str, kind: IntentKind, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        self.fate.pass_moment()
        intent = super().run(step_id, kind, unsigned, granted, note)
        self.fate.pass_moment()
        return intent

    def begin(self, request: PlanRequest | None = None, answer: Callable[[StepOutcome], bool] = lambda _: True) -> StepOutcome:
        """Run a cycle of a new process."""

        def confirm(outcome: StepOutcome) -> bool:
            self.fate.pass_moment()
            self.asked.append(outcome)
            return answer(outcome)

        transactor = replace(self.transactor(), confirm=confirm)
        return engine.repeat_steps(replace(self.ports(), transactor=transactor), request or AgentCycle())[1]

    def rows(self) -> list[tuple[str, str | None]]:
        """State and reason of each stored cycle."""
        with self.store.db.read("read") as db:
            return [(row.state, row.reason) for row in db.execute(select(CycleRow).order_by(CycleRow.seq))]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., MortalWorld]]:
    """Worlds, each with a store of its own."""
    with ExitStack() as stores:
        numbers = count()

        def opened(step: StepInput, *rest: Any, **more: Any) -> MortalWorld:
            store = open_store(f"sqlite:///{tmp_path / f'{next(numbers)}.db'}", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
            stores.callback(store.close)
            world = MortalWorld(store, step, *rest, **more)
            world.fate = Fate()
            return world

        yield opened


def refused_and_reverting(worlds: Callable[..., MortalWorld]) -> MortalWorld:
    """T0 is refused at submission, T1 reverts, T2 needs an approval, T3 ignores every approval, T4 is sound."""
    step = step_with_equal_stops([f"T{number}" for number in range(5)])
    ignoring = token("T3").address
    world = worlds(step, lambda sold: token("T0").address in sold, lacks=(token("T2").address, ignoring))
    world.fails = {token("T1").address}
    world.approved = lambda to, raw: None if to == ignoring else world.lacks.discard(to)
    return world


@pytest.mark.parametrize("first", [0, *slow(range(1, 8))])
def test_killed_process_goes_on_where_the_living_one_would(worlds: Callable[..., MortalWorld], first: int) -> None:
    """Every eighth moment in every run, the others in the slow one."""
    living = refused_and_reverting(worlds)
    whole = living.begin()
    assert whole.kind is OutcomeKind.FAILED
    assert living.rows() == [("closed", "nothing due")]
    intents = living.store.journal.intents()
    assert len({intent.step_id for intent in intents}) == len(intents) == 6, "at most one transaction a step"
    sent = [intent.note for intent in intents]
    for moment in range(first, living.fate.moments, 8):
        world = refused_and_reverting(worlds)
        world.fate = Fate(moment)
        with pytest.raises(Killed):
            world.begin()
        world.fate = Fate()
        resumed = world.begin()
        assert world.sold == living.sold, moment
        assert [intent.note for intent in world.store.journal.intents()] == sent, moment
        assert {(refusal.token, refusal.refusal_count) for refusal in world.late} == {
            (refusal.token, refusal.refusal_count) for refusal in living.late
        }, moment
        assert (resumed.kind, resumed.exits_tried) == (whole.kind, whole.exits_tried), moment
        assert world.rows()[-1] == ("closed", "nothing due")


def test_killed_process_without_its_row_tries_refusals_again(worlds: Callable[..., MortalWorld]) -> None:
    """What the row is for: an exit that reverted is tried a second time at once."""
    tries = []
    for is_forgotten in (False, True):
        world = refused_and_reverting(worlds)
        world.fate = Fate(10)
        with pytest.raises(Killed):
            world.begin()
        if is_forgotten:
            world.store.cycles.close("forgotten")
        world.fate = Fate()
        world.begin()
        tries.append(world.sold.count({token("T1").address}))
    assert tries == [1, 2]


def killed_before_sending(worlds: Callable[..., MortalWorld], step: StepInput) -> MortalWorld:
    """A world whose owner has confirmed a plan that was not sent."""
    world = worlds(step, lambda _: False)
    world.fate = Fate(1)
    with pytest.raises(Killed):
        world.begin()
    assert len(world.asked) == 1
    assert world.sold == []
    world.fate = Fate()
    return world


def test_confirmation_outlives_its_process_for_the_same_plan(worlds: Callable[..., MortalWorld]) -> None:
    step = step_with_stops("LINK", pools=ALL)
    world = killed_before_sending(worlds, step)
    assert world.begin(answer=lambda _: False).kind is OutcomeKind.DONE
    assert world.sold == [{LINK.address}]
    assert len(world.asked) == 1, "a later block alone changes no plan"
    world = killed_before_sending(worlds, step)
    holdings = tuple(
        replace(holding, raw=holding.raw + 1) if holding.token == LINK.address else holding for holding in step.snapshot.holdings
    )
    world.step = replace(step, snapshot=replace(step.snapshot, holdings=holdings))
    assert world.begin(answer=lambda _: False).kind is OutcomeKind.DECLINED
    assert world.sold == []
    assert len(world.asked) == 2, "one unit more is another plan"


def test_living_process_confirms_once_though_prices_move(worlds: Callable[..., MortalWorld]) -> None:
    step = step_with_stops("LINK", pools=ALL)
    world = worlds(step, lambda _: False, lacks=(LINK.address,))

    def moves(to: str, raw: int) -> None:
        world.lacks.discard(to)
        holdings = tuple(
            replace(holding, raw=holding.raw + 1) if holding.token == LINK.address else holding for holding in step.snapshot.holdings
        )
        world.step = replace(step, snapshot=replace(step.snapshot, holdings=holdings))

    world.approved = moves
    assert world.begin().kind is OutcomeKind.DONE
    assert len(world.asked) == 1


def test_asset_moved_while_the_process_was_dead_is_not_blamed(worlds: Callable[..., MortalWorld]) -> None:
    world = killed_before_sending(worlds, step_with_stops("LINK", "WBTC", values=HEAVIER, pools=ALL))
    (token_in,) = {outcome.decision_result.exit_token for outcome in world.asked}
    holdings = tuple(replace(holding, raw=0) if holding.token == token_in else holding for holding in world.step.snapshot.holdings)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, holdings=holdings))
    with suppress(Refused):
        world.begin()
    assert world.late == ()
    assert {token_in} not in world.sold


@pytest.mark.parametrize("case", ["another request", "too old", "before its start", "too many restarts", "unreadable"])
def test_cycle_that_may_not_go_on_is_closed_with_its_reason(worlds: Callable[..., MortalWorld], case: str) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False)
    blocked = (BlockedExit(LINK.address, "skipped", "wait"),)
    cycle = replace(new_cycle(AgentCycle(), NOW_S), skipped_exits=blocked)
    request: PlanRequest = AgentCycle()
    if case == "another request":
        request = SellEverything()
    elif case == "too old":
        cycle = replace(cycle, began_s=NOW_S - MAX_AGE_S - 1)
    elif case == "before its start":
        cycle = replace(cycle, began_s=NOW_S + 1)
    elif case == "too many restarts":
        cycle = replace(cycle, restarts=MAX_RESTARTS)
    world.store.cycles.write(cycle)
    if case == "unreadable":
        with world.store.db.write("damage") as db:
            db.exec_driver_sql("UPDATE cycles SET cycle_json = '{}'")
    assert resume_cycle(world.ports(), request) is None
    ((state, reason),) = world.rows()
    assert (state, bool(reason)) == ("closed", True)
    assert world.store.cycles.find_open_cycle() is None


def test_young_cycle_goes_on_without_what_it_skips(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False)
    cycle = replace(new_cycle(AgentCycle(), NOW_S - MAX_AGE_S), skipped_exits=(BlockedExit(LINK.address, "skipped", "wait"),))
    world.store.cycles.write(cycle)
    resumed = resume_cycle(world.ports(), AgentCycle())
    assert resumed == StepResult(replace(cycle, restarts=1), None)
    assert world.store.cycles.find_open_cycle() == resumed.cycle
    world.begin()
    assert world.sold == []
    world.begin()
    assert world.sold == [{LINK.address}], "the next cycle tries it"


def test_caps_of_an_ended_process_bound_no_later_plan(worlds: Callable[..., MortalWorld]) -> None:
    step = step_with_stops("LINK", pools=ALL)
    (balance_raw,) = [holding.raw for holding in step.snapshot.holdings if holding.token == LINK.address]
    world = worlds(step, lambda _: False)
    world.store.cycles.write(Cycle("1", AgentCycle(), NOW_S, spend_caps=((LINK.address, balance_raw // 2),)))
    world.begin()
    (plan,) = [outcome.plan for outcome in world.asked]
    assert plan is not None
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == LINK.address) == balance_raw


def test_error_that_a_process_survives_closes_its_cycle(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False, lacks=(LINK.address,))

    def fails(to: str, raw: int) -> None:
        raise Retryable("sent, and not mined")

    world.approved, world.may_send = fails, lambda: False  # type: ignore[method-assign]
    with pytest.raises(Retryable):
        world.begin()
    assert world.rows() == [("closed", "sent, and not mined")]


SWAP = Swap(LINK.address, USDC.address, 100 * 10**18)
"""A request that trades its amount whenever it is carried out."""


def test_killed_swap_is_not_carried_out_twice(worlds: Callable[..., MortalWorld]) -> None:
    step = step_with_stops(pools=ALL)
    living = worlds(step, lambda _: False, lacks=(LINK.address,))
    assert living.begin(SWAP).kind is OutcomeKind.DONE
    assert living.sold == [{LINK.address}]
    for moment in range(living.fate.moments):
        world = worlds(step, lambda _: False, lacks=(LINK.address,))
        world.fate = Fate(moment)
        with pytest.raises(Killed):
            world.begin(SWAP)
        world.fate = Fate()
        assert world.begin(SWAP).kind is OutcomeKind.DONE, moment
        assert world.sold == [{LINK.address}], moment
        assert world.store.cycles.find_open_cycle() is None
    world.begin(SWAP)
    assert len(world.sold) == 2, "once it was reported, a further command is another swap"


def test_repeated_command_reports_a_swap_mined_late(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops(pools=ALL), lambda _: False)
    run = world.run

    def pends(step_id: str, kind: IntentKind, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        nonce = world.store.journal.expected_nonce()
        intent = world.store.journal.add_intent(step_id, kind, replace(unsigned, nonce=nonce), granted, note, NOW_S, None)
        world.store.journal.advance(intent.id, IntentState.SIGNED, NOW_S, f"0x{nonce:064x}")
        world.store.journal.advance(intent.id, IntentState.BROADCAST, NOW_S)
        raise Retryable("sent, and not mined", "run the command again", code=ErrorCode.NOT_MINED)

    world.run = pends  # type: ignore[method-assign]
    with pytest.raises(Retryable):
        world.begin(SWAP)
    (pending,) = world.store.journal.open_intents()
    world.run = run  # type: ignore[method-assign]
    mined = replace(receipt(str(pending.tx_hash), world.snapshot().head.number + 1, "0x01"), transfers=())
    world.store.journal.advance(pending.id, IntentState.MINED, NOW_S, receipt=mined)
    again = world.begin(SWAP)
    assert "carried out before" in again.reason
    assert [intent.id for intent in again.transactions] == [pending.id]
    assert world.sold == []
    assert world.store.cycles.find_open_cycle() is None


@pytest.mark.parametrize("between", [AgentCycle(), Swap(LINK.address, USDC.address, 50 * 10**18)])
def test_killed_swap_is_reported_after_another_request(worlds: Callable[..., MortalWorld], between: PlanRequest) -> None:
    step = step_with_stops(pools=ALL)
    moments = worlds(step, lambda _: False, lacks=(LINK.address,))
    moments.begin(SWAP)
    for moment in range(moments.fate.moments):
        world = worlds(step, lambda _: False, lacks=(LINK.address,))
        world.fate = Fate(moment)
        with pytest.raises(Killed):
            world.begin(SWAP)
        world.fate = Fate()
        was_sold = len(world.sold)
        world.begin(between)
        of_between = len(world.sold) - was_sold
        again = world.begin(SWAP)
        assert len(world.sold) == of_between + 1, moment
        assert ("carried out before" in again.reason) == bool(was_sold), moment
        assert {state for state, _ in world.rows()} <= {"closed"}


def test_swap_of_a_day_ago_is_another_swap(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops(pools=ALL), lambda _: False)
    world.store.cycles.write(Cycle("1", SWAP, NOW_S - MAX_AGE_OF_AMOUNT_S - 1, sending_step_id="a step"))
    world.begin(AgentCycle())
    world.begin(SWAP)
    assert world.rows()[0] == ("closed", f"not continued within {MAX_AGE_OF_AMOUNT_S} s of its start")
    assert world.sold == [{LINK.address}]


def test_unreadable_unreported_cycle_is_closed(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops(pools=ALL), lambda _: False)
    with world.store.db.write("another version's row") as db:
        db.execute(insert(CycleRow).values(id="1", state="unreported", cycle_json="{}"))
    assert world.begin(SWAP).kind is OutcomeKind.DONE
    assert [state for state, _ in world.rows()] == ["closed", "closed"]
    assert (world.rows()[0][1] or "").startswith("unreadable")


def test_cycle_refused_at_its_first_step_leaves_nothing(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops(pools=ALL), lambda _: True)
    assert world.begin(SWAP).kind is OutcomeKind.REFUSED
    assert world.store.cycles.find_open_cycle() is None
    world.begin(SWAP)
    assert len(world.asked) == 2, "what was refused is confirmed again"


def test_interrupted_command_takes_back_its_confirmation(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False, lacks=(LINK.address,))

    def interrupts(to: str, raw: int) -> None:
        raise KeyboardInterrupt

    world.approved = interrupts
    with pytest.raises(KeyboardInterrupt):
        world.begin()
    assert world.rows() == [("closed", "interrupted")]
    world.approved = lambda to, raw: world.lacks.discard(to)
    world.begin()
    assert len(world.asked) == 2


def test_hard_pause_closes_the_open_cycle(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False)
    world.store.cycles.write(new_cycle(AgentCycle(), NOW_S))

    def unanswered(why: str) -> None:
        raise Retryable("no answer")

    world.cancel_pending = unanswered  # type: ignore[attr-defined]
    with pytest.raises(Retryable):
        approvals.cancel_and_revoke(world.readers(), world.store, world.transactor(), "an attack")
    assert world.rows() == [("closed", "hard pause: an attack")]


def test_cycle_that_only_looks_leaves_no_row(worlds: Callable[..., MortalWorld]) -> None:
    world = worlds(step_with_stops("LINK", pools=ALL), lambda _: False)
    world.begin()
    before = world.rows()
    assert world.begin().kind is OutcomeKind.HOLD
    assert world.rows() == before


def test_approvals_of_a_cycle_count_once_in_a_row(worlds: Callable[..., MortalWorld]) -> None:
    lacks = (token("T0").address, token("T1").address)
    world = worlds(step_with_equal_stops(["T0", "T1"]), lambda _: True, lacks=lacks)
    world.begin()
    approving = [intent for intent in world.store.journal.intents() if intent.kind is IntentKind.APPROVE]
    assert len({intent.step_id for intent in approving}) == 2, "each is a step of its own"
    with world.store.db.write("forget the refusals") as db:
        db.exec_driver_sql("DELETE FROM meta WHERE key LIKE '%late%' OR key LIKE '%refus%'")
    assert world.store.budgets.history(NOW_S).failures.approval_cycles_in_row <= 1


def test_plan_hash_ignores_block_and_verdicts() -> None:
    outcome = outcome_of(step_with_stops("LINK", pools=ALL))
    plan = outcome.plan
    assert plan is not None
    assert plan.verdicts
    later = replace(plan, block=plan.block + 9, expires_block=plan.expires_block + 9, verdicts=())
    assert plan_hash(later) == plan_hash(plan)
    leg = replace(plan.legs[0], amount_in_raw=plan.legs[0].amount_in_raw + 1)
    other = replace(plan, legs=(leg, *plan.legs[1:]))
    assert plan_hash(other) != plan_hash(plan)
    confirmed = confirmation_of(outcome, plan)
    living = replace(new_cycle(AgentCycle(), NOW_S), confirmation=confirmed)
    resumed = replace(living, confirmation=replace(confirmed, is_of_ended_process=True))
    assert [covering_confirmation(cycle, later_plan) is not None for cycle in (living, resumed) for later_plan in (plan, later, other)] == [
        True,
        True,
        True,
        True,
        True,
        False,
    ]
    assert covering_confirmation(replace(living, confirmation=replace(confirmed, acts_in_layer=True)), plan) is None


REQUESTS: tuple[PlanRequest, ...] = (AgentCycle(), Swap(LINK.address, USDC.address, 10**30), MarginAccountRequest(MarginDeposit(5)))


@pytest.mark.parametrize("request_", REQUESTS)
def test_store_keeps_everything_of_a_cycle(store: Store, request_: PlanRequest) -> None:
    outcome = outcome_of(step_with_stops("LINK", pools=ALL))
    assert outcome.plan is not None
    note = StepEnd("s1", "reverted", LINK.address, failed=True)
    cycle = Cycle(
        "c",
        request_,
        NOW_S,
        CycleEnd.OPEN,
        1,
        "s2",
        (IntentKind.APPROVE, IntentKind.SWAP),
        ((LINK.address, 10**40),),
        10**20,
        ((LINK.address, 2),),
        (FuturesCycle(action_count=2, refused_action_notes=(note,)), LiquidityCycle(failed_withdrawal_pools=("pool",))),
        confirmation_of(outcome, outcome.plan),
        "s3",
        (note,),
        (BlockedExit(WBTC.address, "why", "wait", 5),),
        ((LINK.address, None), (WBTC.address, SubmissionRefusal(WBTC.address, NOW_S, 2, "no"))),
        (InterruptedExit(LINK.address, "no quorum", "wait", "lag"),),
        (note,),
        (WBTC.address,),
    )
    store.cycles.write(cycle)
    assert store.cycles.find_open_cycle() == cycle == codec.loads(Cycle, codec.dumps(cycle))
    store.cycles.write(replace(cycle, sending_step_id=""))
    assert store.cycles.find_open_cycle() == replace(cycle, sending_step_id="")
    store.cycles.close("over")
    assert store.cycles.find_open_cycle() is None


def test_store_has_one_open_cycle(store: Store) -> None:
    store.cycles.write(new_cycle(AgentCycle(), NOW_S))
    with pytest.raises(OperatorNeeded):
        store.cycles.write(new_cycle(AgentCycle(), NOW_S))
    with pytest.raises(ConfigError):
        codec.loads(Cycle, "{}")
