"""One run of an agent: the faults that it outlives, what ends a wait, and what a hard pause or a stop leaves to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from agent.app import cycles
from agent.app.cycles import PRICE_RETRY_S, AgentRun, ignore_progress
from agent.errors import PassingFault, Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import RequestKind
from agent.store import Store, open_store
from agent.store.files.locks import LockHeld
from agent.store.files.pause import KillSwitch
from agent.store.store import ConfigChanged
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET

DIGEST = "ab" * 32
OTHER = "cd" * 32
FULL_DISK = PassingFault("store: database or disk is full", "free space", code="store")


def outcome(**fields: Any) -> StepOutcome:
    step: Any = SimpleNamespace(is_due=False)
    result: Any = SimpleNamespace()
    return StepOutcome("s", OutcomeKind.HOLD, "in band", step, result, None, **fields)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that raises this."""

    def fail(*_: object) -> NoReturn:
        raise error

    return fail


class FakeWallet:
    """A session whose lock is taken once `before_lock` has run."""

    def __init__(self, before_lock: Callable[[], object]) -> None:
        self.before_lock = before_lock
        self.report_progress = ignore_progress

    @contextmanager
    def open_transactor(self) -> Iterator[str]:
        self.before_lock()
        yield "transactor"


class FakeControls:
    """A queue of controls that notes how it is used."""

    def __init__(self, stopped_by: str = "") -> None:
        self.stopped_by = stopped_by
        self.is_queued = False
        self.service_locks: list[bool] = []
        self.ended_cycles = 0

    def has_queued(self) -> bool:
        return self.is_queued

    def carry_out(self, _session: object, *, holds_service_lock: bool) -> None:
        self.service_locks.append(holds_service_lock)

    def end_cycle(self) -> None:
        self.ended_cycles += 1


class ScriptedAgent:
    """An agent whose cycles are scripted: each is an outcome, an error, or a call."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: Store = open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)
        self.store.configs.record(DIGEST, START_S)
        self.switch = KillSwitch(folder / "paused", self.store.pause_switch)
        self.now_s = START_S
        self.script: list[StepOutcome | BaseException | Callable[[], StepOutcome]] = []
        self.transactors: list[object] = []
        self.revoked_for: list[str] = []
        self.fills: list[int] = []
        self.lines: list[str] = []
        self.fill_error: BaseException | None = None
        self.before_lock: Callable[[], object] = lambda: None
        self.agent: Any = SimpleNamespace(
            context=SimpleNamespace(
                store=self.store,
                kill_switch=self.switch,
                clock=SimpleNamespace(now_s=lambda: self.now_s),
                loaded_config=SimpleNamespace(digest=DIGEST),
                config=SimpleNamespace(service=SimpleNamespace(keep_steps=1_000)),
                confirmed_hash=DIGEST,
                without_venue_waits=SimpleNamespace(readers="readers"),
            )
        )
        monkeypatch.setattr(cycles, "run_policy_cycle", self.run_policy_cycle)
        monkeypatch.setattr(cycles, "cancel_and_revoke", self.cancel_and_revoke)
        monkeypatch.setattr(cycles.withdrawal_run, "continue_withdrawal", lambda _context, _transactor, result: result)
        monkeypatch.setattr(cycles.sweeps, "sweep_profit", lambda _context, _transactor, result: result)
        monkeypatch.setattr(cycles, "needs_prompt_look", lambda step: step.is_due)

    def run_policy_cycle(self, _context: object, transactor: object) -> StepOutcome:
        self.transactors.append(transactor)
        item = self.script.pop(0) if self.script else outcome()
        if isinstance(item, BaseException):
            raise item
        return item if isinstance(item, StepOutcome) else item()

    def cancel_and_revoke(self, _readers: object, _store: object, _transactor: object, reason: str) -> StepOutcome:
        self.revoked_for.append(reason)
        return outcome()

    def fill_prices(self, _progress: object) -> Sequence[str]:
        self.fills.append(self.now_s)
        if self.fill_error is not None:
            raise self.fill_error
        return ()

    def run(self, *, sends: bool = True, once: bool = False, controls: FakeControls | None = None, interval_s: int = 600) -> AgentRun:
        wallet: Any = FakeWallet(self.before_lock) if sends else None
        return AgentRun(self.agent, wallet, interval_s, once, self.lines.append, controls, self.fill_prices)

    def stop(self) -> None:
        self.store.requests.record(RequestKind.STOP, (), None, sells_to_stable=False, asked_s=START_S)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAgent]:
    new_world = ScriptedAgent(tmp_path, monkeypatch)
    yield new_world
    new_world.store.close()


def test_fault__ends_the_run_but_after_a_good_cycle_is_returned(world: ScriptedAgent) -> None:
    world.script = [FULL_DISK, outcome(), FULL_DISK]
    run = world.run()
    with raises_code(PassingFault, "store"):
        run.cycle()
    run.cycle()
    error = run.cycle()
    assert isinstance(error, Retryable)
    assert (error.message, error.remedy, error.code) == (FULL_DISK.message, FULL_DISK.remedy, "store")


@pytest.mark.parametrize("error", [Refused("the plan", (), "see the log"), Retryable("no answer")])
def test_first_cycle__refused_or_unanswered__goes_on(world: ScriptedAgent, error: Refused | Retryable) -> None:
    world.script = [error]
    assert world.run().cycle() is error


def test_wallet_in_use__goes_on_unless_the_run_has_one_cycle(world: ScriptedAgent) -> None:
    world.before_lock = raising(LockHeld("another trimtab acts", "wait"))
    run = world.run()
    error = run.cycle()
    assert (type(error), error.message) == (Retryable, "another trimtab acts")  # type: ignore[union-attr]
    assert run.urgent_pause_s == 5
    with pytest.raises(LockHeld):
        world.run(once=True).cycle()


def test_cycle__begins_by_writing_what_the_last_one_left(world: ScriptedAgent) -> None:
    steps_on_disk: list[int] = []

    def begin_step() -> StepOutcome:
        world.store.steps.begin("first", START_S, "{}")
        return outcome()

    def count_steps() -> StepOutcome:
        with world.store.db.read("count") as db:
            steps_on_disk.append(db.exec_driver_sql("SELECT count(*) FROM steps").scalar_one())
        return outcome()

    world.script = [begin_step, count_steps]
    run = world.run()
    run.cycle()
    count_steps()
    run.cycle()
    assert steps_on_disk == [0, 1]


def test_flush__store_fails__ends_a_run_of_one_cycle(world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run(once=True)
    with monkeypatch.context() as full_disk, pytest.raises(PassingFault):
        full_disk.setattr(world.store.db, "flush", raising(FULL_DISK))
        run.flush_store()


def test_flush__store_fails__does_not_end_a_run_of_many(world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()
    with monkeypatch.context() as full_disk:
        full_disk.setattr(world.store.db, "flush", raising(FULL_DISK))
        run.flush_store()


@pytest.mark.parametrize(("once", "is_stopped"), [(False, False), (True, False), (False, True)], ids=["goes on", "one cycle", "stopped"])
def test_next_cycle__is_announced_only_if_there_is_one(world: ScriptedAgent, once: bool, is_stopped: bool) -> None:
    if is_stopped:
        world.stop()
    world.run(once=once).cycle()
    assert any(line.startswith("next cycle in") for line in world.lines) is not (once or is_stopped)


def test_pause_after_errors__doubles_until_a_good_cycle(world: ScriptedAgent) -> None:
    no_answer = Retryable("no answer")
    world.script = [
        no_answer,
        no_answer,
        outcome(),
        no_answer,
        AwaitingExternalSignature("proposed", "sign it", {}, "p.json", reverts=False),
    ]
    run = world.run()
    pauses_s = []
    while world.script:
        run.cycle()
        pauses_s.append(run.urgent_pause_s)
    assert pauses_s == [5, 10, None, 5, None]


def due_after(*, is_due_before: bool) -> StepOutcome:
    before: Any = SimpleNamespace(is_due=is_due_before)
    after: Any = SimpleNamespace(is_due=not is_due_before)
    return StepOutcome("s", OutcomeKind.DONE, "", before, before, None, input_after=after)


def test_protection__is_judged_after_the_trades(world: ScriptedAgent) -> None:
    run = world.run()
    world.script = [due_after(is_due_before=False), due_after(is_due_before=True)]
    run.cycle()
    assert run.urgent_pause_s == 5
    run.cycle()
    assert run.urgent_pause_s is None


def test_protection_due__stays_due_after_a_cycle_that_failed(world: ScriptedAgent) -> None:
    run = world.run()
    world.script = [
        outcome(),
        due_after(is_due_before=False),
        Retryable("no answer"),
        due_after(is_due_before=True),
        Retryable("no answer"),
    ]
    is_due = []
    while world.script:
        run.cycle()
        is_due.append(run.is_protection_due)
    assert is_due == [False, True, True, False, False]


def test_protection_due__is_looked_after_within_the_interval(world: ScriptedAgent) -> None:
    run = world.run(interval_s=12)
    pauses_s = []
    for _ in range(4):
        world.script = [due_after(is_due_before=False)]
        run.cycle()
        pauses_s.append(run.urgent_pause_s)
    assert pauses_s == [5, 10, 12, 12]


def _without_wallet(world: ScriptedAgent, _: pytest.MonkeyPatch) -> AgentRun:
    return world.run(sends=False)


def _paused(world: ScriptedAgent, _: pytest.MonkeyPatch) -> AgentRun:
    world.switch.pause("owner", START_S)
    return world.run()


def _with_unreadable_switch(world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> AgentRun:
    monkeypatch.setattr(KillSwitch, "is_paused", lambda _: None)
    return world.run()


@pytest.mark.parametrize("run_of", [_without_wallet, _paused, _with_unreadable_switch], ids=["no wallet", "paused", "unreadable switch"])
def test_protection_due__that_nothing_can_be_sent_for__no_hurry(
    world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch, run_of: Callable[[ScriptedAgent, pytest.MonkeyPatch], AgentRun]
) -> None:
    run = run_of(world, monkeypatch)
    world.script = [due_after(is_due_before=False)]
    run.cycle()
    assert run.urgent_pause_s is None


def test_wait__hard_pause_begins__ends_until_a_cycle_has_seen_it(world: ScriptedAgent) -> None:
    run = world.run()
    dry_run = world.run(sends=False)
    assert not run.ends_wait()
    world.switch.pause("owner", START_S)
    assert not run.ends_wait(), "a soft pause waits for the next cycle"
    world.switch.pause("stolen key", START_S, hard=True)
    assert run.ends_wait()
    assert not dry_run.ends_wait(), "it could undo nothing"
    run.cycle()
    assert not run.ends_wait()
    assert not world.run().ends_wait(), "a run that begins under a hard pause undoes at its first cycle"


def test_hard_pause__undoes_instead_of_trading_but_in_a_dry_run(world: ScriptedAgent) -> None:
    world.switch.pause("stolen key", START_S, hard=True)
    world.run().cycle()
    assert (world.revoked_for, world.transactors) == (["stolen key"], [])
    assert world.fills == [], "past prices delay no cancel"
    world.run(sends=False).cycle()
    assert (world.revoked_for, world.transactors) == (["stolen key"], [None])


def test_wait__ends_for_a_stop_of_a_run_that_sends(world: ScriptedAgent) -> None:
    run = world.run()
    dry_run = world.run(sends=False)
    world.stop()
    assert run.ends_wait()
    assert run.cycle() is None
    assert not dry_run.ends_wait()
    assert isinstance(dry_run.cycle(), StepOutcome)


def test_stop__while_a_cycle_waits_for_the_wallet__sends_no_more(world: ScriptedAgent) -> None:
    world.before_lock = world.stop
    assert world.run().cycle() is None
    assert world.transactors == []


def test_controls__end_the_wait_or_run_and_know_the_lock_holder(world: ScriptedAgent) -> None:
    controls = FakeControls()
    run = world.run(controls=controls)
    run.cycle()
    world.run(controls=controls, once=True).cycle()
    assert (controls.service_locks, controls.ended_cycles) == ([True, False], 2)
    assert not run.ends_wait()
    controls.is_queued = True
    assert run.ends_wait()
    controls.is_queued = False
    controls.stopped_by = "owner by telegram"
    assert run.ends_wait()
    assert run.cycle() is None


def test_controls__of_a_run_that_sends_nothing__are_not_taken(world: ScriptedAgent) -> None:
    controls = FakeControls(stopped_by="owner")
    controls.is_queued = True
    run = world.run(sends=False, controls=controls)
    assert not run.ends_wait()
    assert isinstance(run.cycle(), StepOutcome)
    assert controls.service_locks == []


def test_config__confirmed_meanwhile__is_adopted(world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()
    run.cycle()
    world.store.configs.record(OTHER, START_S)
    assert run.ends_wait()
    adoptions: list[str] = []
    answers = [PassingFault("endpoint contradicts", "check it"), None]

    def adopt(context: Any, wallet: object, error: ConfigChanged) -> tuple[object, object]:
        if (answer := answers.pop(0)) is not None:
            raise answer
        adoptions.append(error.verdicts[0].limit)
        context.confirmed_hash = OTHER
        return context, wallet

    monkeypatch.setattr(cycles.config_versions, "with_confirmed_config", adopt)
    assert isinstance(run.cycle(), Retryable)
    assert not run.ends_wait(), "the next cycle tries again, not each second of the wait"
    assert isinstance(run.cycle(), StepOutcome)
    assert (adoptions, run.ends_wait()) == ([OTHER[:16]], False)
    world.store.configs.record("ef" * 32, START_S)
    assert run.ends_wait(), "an adoption that went well blocks no later one"


def test_config__confirmed_meanwhile__ends_a_run_of_one_cycle(world: ScriptedAgent) -> None:
    run = world.run(once=True)
    world.store.configs.record(OTHER, START_S)
    with pytest.raises(ConfigChanged):
        run.cycle()


def test_wait__store_cannot_be_read__goes_on(world: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()
    monkeypatch.setattr(type(world.store.configs), "require_current", raising(FULL_DISK))
    assert not run.ends_wait()


def test_past_prices__are_read_before_the_first_cycle(world: ScriptedAgent) -> None:
    reads_before_cycles: list[int] = []

    def count_reads() -> StepOutcome:
        reads_before_cycles.append(len(world.fills))
        return outcome()

    world.script = [count_reads] * 4
    run = world.run()
    for passed_s in (0, PRICE_RETRY_S - 1, 1, 1):
        world.now_s += passed_s
        run.cycle()
    assert reads_before_cycles == [1, 1, 1, 2]
    assert world.fills == [START_S, START_S + PRICE_RETRY_S]


def test_past_prices__fail_after_a_cycle__its_outcome_stays(world: ScriptedAgent) -> None:
    run = world.run()
    run.cycle()
    world.now_s += PRICE_RETRY_S
    world.fill_error = Retryable("no answer")
    assert isinstance(run.cycle(), StepOutcome)
    assert len(world.fills) == 2


def test_cycle__prunes_steps_beyond_those_to_keep(world: ScriptedAgent) -> None:
    """Beside the newest two the first stays, from whose time schedules count."""
    world.agent.context.config.service.keep_steps = 2
    for number in range(6):
        world.store.steps.begin(f"{number}", START_S, "{}")
    world.run().cycle()
    assert [summary.id for summary in world.store.steps.newest(9)] == ["5", "4", "0"]
