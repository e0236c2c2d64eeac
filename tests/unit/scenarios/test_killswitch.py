"""The kill switch, soft and hard: what may leave while it stands where, on every way that leads to a broadcast (T14)."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent import app as api
from agent import wiring
from agent.app.records.kill_switch import resume_by_control
from agent.app.start.setup import NewConfig, write_new_config
from agent.config.load import load_config
from agent.errors import OperatorNeeded, PassingFault, Refused, TrimtabError
from agent.execution.submission.checks import only_undoes
from agent.model import Control, ControlArguments, ControlKind, ControlOrigin, IntentKind, IntentState, TokenRefusal
from agent.store import Store
from agent.store.files.backup import backup
from agent.store.files.locks import LockHeld
from agent.store.files.pause import KillSwitch, PauseSwitch, PauseSwitchState, SharedPauseFault, pause_file
from tests.support import agents
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import START_S, Bench, bench, grant, killed_at, lost_in_broadcast, tx

AGENT = Path(__file__).parents[3] / "agent"
ZERO = replace(grant(IntentKind.APPROVE), approval_terms=("0xToken", "0xSpender", 0))
HARD = "the owner stopped everything"


store = store_fixture("file")


@pytest.fixture
def switch(tmp_path: Path, store: Store) -> KillSwitch:
    return KillSwitch(pause_file(tmp_path / "trimtab.db"), store.pause_switch)


# the switch itself
def test_hard_stays_hard_until_it_is_resumed(switch: KillSwitch) -> None:
    switch.pause("lunch", START_S)
    assert (switch.is_paused(), switch.is_hard()) == (True, False)
    switch.pause(HARD, START_S, hard=True)
    switch.pause("once more", START_S)
    assert (switch.is_paused(), switch.is_hard(), switch.read().reason) == (True, True, "once more")
    switch.resume("seen", START_S)
    assert (switch.is_paused(), switch.is_hard()) == (False, False)
    switch.pause("lunch", START_S)
    assert not switch.is_hard()


def test_copy_of_a_store__is_not_resumed_before_it_is_adopted(tmp_path: Path) -> None:
    config_path = agents.config(tmp_path)
    loaded = load_config(config_path)
    file = wiring.store_file(loaded)
    with wiring.open_store_offline(loaded) as (_, switch):
        switch.pause("lunch", START_S)
    backup(file, tmp_path / "copy.db")
    (tmp_path / "copy.db").replace(file)
    with pytest.raises(Refused, match=r"is a copy.*trimtab adopt"):
        api.resume(config_path, lambda _: True)
    with wiring.open_store_offline(loaded) as (store, switch):
        control = Control("a", ControlKind.RESUME, ControlArguments(), "", "ann", ControlOrigin.DASHBOARD, START_S + 9, START_S + 99)
        with pytest.raises(Refused, match=r"is a copy.*trimtab adopt"):
            resume_by_control(store, switch, 1, control, START_S + 10)
        assert switch.is_paused()


class FailingSwitch:
    """The store's part of the switch, which fails."""

    def __init__(self, error: TrimtabError) -> None:
        self.error = error

    def read(self) -> PauseSwitchState:
        raise self.error

    def pause(self, _reason: str, _now_s: int, _hard: bool) -> None:
        raise self.error

    def resume(self, _reason: str, _now_s: int) -> None:
        raise self.error


def failing(file: Path, error: TrimtabError) -> KillSwitch:
    return KillSwitch(file, cast(PauseSwitch, FailingSwitch(error)))


FULL_DISK = PassingFault("store: disk is full", "free space", code="store")


def test_a_pause_forgets_no_failure(switch: KillSwitch, store: Store) -> None:
    refusal = TokenRefusal("0xToken", START_S, 1, "late")
    store.budgets.mark_submission_refusals((refusal,))
    switch.pause("lunch", START_S)
    assert store.budgets.history(START_S).failures.submission_refusals == (refusal,)
    switch.resume("seen", START_S)
    assert store.budgets.history(START_S).failures.submission_refusals == ()


def test_a_switch_that_cannot_be_read_was_turned_on_meanwhile(tmp_path: Path) -> None:
    assert failing(tmp_path / "paused", FULL_DISK).paused_at_or_after(START_S)


@pytest.mark.parametrize("is_shared", [False, True])
def test_pause_in_its_leave_file__is_of_this_machine_alone(tmp_path: Path, is_shared: bool) -> None:
    """A soft one is whole by its file, unless other machines share the database."""
    switch = failing(tmp_path / "paused", SharedPauseFault("store: no answer") if is_shared else FULL_DISK)
    with raises_code(PassingFault, "pause", "this machine alone") if is_shared else nullcontext():
        switch.pause("owner", START_S)
    assert switch.file.exists()


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        pytest.param(PassingFault("store: no answer", code="store"), "once the database answers", id="no answer"),
        pytest.param(LockHeld("taken over", code="lock"), "trimtab pause", id="another process has the wallet"),
    ],
)
def test_pause_that_the_shared_store_refuses__names_what_helps(tmp_path: Path, fault: TrimtabError, remedy: str) -> None:
    switch = failing(tmp_path / "paused", SharedPauseFault(fault.message, fault.remedy, code=fault.code))
    with pytest.raises(PassingFault) as pause_fault:
        switch.pause("owner", START_S)
    assert remedy in pause_fault.value.remedy


def test_a_resume_that_the_store_does_not_take_leaves_the_file(tmp_path: Path) -> None:
    switch = failing(tmp_path / "paused", FULL_DISK)
    switch.file.touch()
    with pytest.raises(PassingFault, match="disk is full"):
        switch.resume("seen", START_S)
    assert switch.file.exists()


def test_a_store_that_cannot_be_opened_is_paused_by_its_file(tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    damaged = tmp_path / "trimtab.db"
    targets = [("WETH", "60%"), ("USDC", "40%")]
    endpoints = [("RPC_A", "alpha"), ("RPC_B", "beta")]
    write_new_config(config, NewConfig("ethereum", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", targets, "USDC", endpoints))
    damaged.write_bytes(b"no database " * 1_000)
    pause_document = api.pause(config, "3 a.m.")
    assert (pause_document["paused"], pause_document["hard"], pause_file(damaged).exists()) == (True, False, True)
    assert "store" in pause_document["store"]
    os.utime(pause_file(damaged), (1, 1))
    api.pause(config, "3:05 a.m.")
    assert pause_file(damaged).stat().st_mtime > 1, "a resume that was requested before it is refused"
    pause_file(damaged).unlink()
    lines: list[str] = []
    with raises_code(OperatorNeeded, "hard_pause"):
        api.pause_hard(config, "3 a.m.", send=True, is_confirmed=True, confirm=lambda _: True, progress=lines.append)
    assert lines == []
    assert pause_file(damaged).exists()
    pause_file(damaged).unlink()
    pause_file(damaged).mkdir()  # nothing can be written under that name
    with raises_code(TrimtabError, "store"):
        api.pause(config, "3 a.m.")


def test_the_pause_file_is_its_owners_alone(switch: KillSwitch) -> None:
    switch.pause("lunch", START_S)
    assert switch.file.stat().st_mode & 0o777 == 0o600


def test_the_leave_file_is_soft(switch: KillSwitch) -> None:
    switch.file.touch()
    assert (switch.is_paused(), switch.is_hard()) == (True, False)


def test_a_switch_that_cannot_be_read_is_paused_and_not_hard(switch: KillSwitch, store: Store) -> None:
    switch.pause(HARD, START_S, hard=True)
    with store.db.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE pauses")
    assert (switch.is_paused(), switch.is_hard()) == (None, False)


def test_hard_pause_without_its_store__is_reported_and_pauses(switch: KillSwitch, store: Store) -> None:
    with store.db.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE pauses")
    with raises_code(OperatorNeeded, "hard_pause"):
        switch.pause(HARD, START_S, hard=True)
    assert switch.file.exists()
    assert switch.is_paused() is None


# what may leave
@pytest.mark.parametrize("kind", list(IntentKind))
def test_only_cancels_and_allowances_of_zero_take_back(kind: IntentKind) -> None:
    assert only_undoes(grant(kind)) is (kind is IntentKind.CANCEL)
    assert only_undoes(replace(grant(kind), approval_terms=("0xToken", "0xSpender", 0))) is (
        kind in (IntentKind.CANCEL, IntentKind.APPROVE)
    )
    assert only_undoes(replace(grant(kind), approval_terms=("0xToken", "0xSpender", 1))) is (kind is IntentKind.CANCEL)


def test_hard_pause__refuses_a_trade_and_allows_a_revocation(tmp_path: Path) -> None:
    submitter_bench = bench(tmp_path)
    submitter_bench.paused = True
    submitter_bench.hard = True
    submitter_bench.store.steps.begin("s", START_S, "{}")
    with raises_code(Refused, "kill_switch"):
        submitter_bench.run()
    allowing = replace(ZERO, approval_terms=("0xToken", "0xSpender", 1))
    with raises_code(Refused, "kill_switch"):
        submitter_bench.executor().run("s", tx(0), allowing, "approve")
    assert submitter_bench.chain.sent == []
    done = submitter_bench.executor().run("s", tx(0), ZERO, "to zero")
    assert done.state is IntentState.FINAL
    submitter_bench.paused = None
    submitter_bench.hard = True
    with raises_code(Refused, "kill_switch") as caught:
        submitter_bench.executor().run("s", tx(1), replace(ZERO, approval_terms=("0xToken", "0xSpender", 1)), "approve")
    assert [verdict.measured_text for verdict in caught.value.verdicts] == ["cannot be read"]


# abandoning what waits
def waiting(folder: Path) -> Bench:
    submitter_bench = bench(folder, automine=False)
    killed_at(submitter_bench, "after:send")
    return submitter_bench


def mines_cancels(submitter_bench: Bench) -> None:
    """Blocks take what pays more, so never the swap of a nonce that a cancel wants too."""
    first = submitter_bench.signer.signed[0].hash
    submitter_bench.clock.on_sleep = lambda: (
        submitter_bench.chain.mine(*[h for h in submitter_bench.chain.pool if h != first])
        if set(submitter_bench.chain.pool) - {first}
        else None
    )


def states(submitter_bench: Bench) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(submitter_bench.store.journal.intents())]


@pytest.mark.parametrize("make", [waiting, lost_in_broadcast])
def test_hard_pause__cancels_what_waits_known_or_not(tmp_path: Path, make: Callable[[Path], Bench]) -> None:
    switch_bench = make(tmp_path)
    mines_cancels(switch_bench)
    switch_bench.paused = True
    switch_bench.hard = True
    switch_bench.executor().cancel_pending(HARD)
    assert states(switch_bench) == [("swap", "cancelled"), ("cancel", "final")]
    assert HARD in switch_bench.store.journal.intents()[0].note
    assert switch_bench.executor().may_send(for_revoking=True)
    assert not switch_bench.executor().may_send()


def test_what_never_left_is_dropped_and_nothing_is_sent(tmp_path: Path) -> None:
    submitter_bench = bench(tmp_path)
    killed_at(submitter_bench, "after:signed")
    submitter_bench.paused = True
    submitter_bench.hard = True
    submitter_bench.executor().cancel_pending(HARD)
    assert states(submitter_bench) == [("swap", "cancelled")]
    assert submitter_bench.chain.sent == []


def test_what_is_mined_stays_as_it_is(tmp_path: Path) -> None:
    submitter_bench = bench(tmp_path)
    killed_at(submitter_bench, "after:mined")
    submitter_bench.paused = True
    submitter_bench.hard = True
    submitter_bench.executor().cancel_pending(HARD)
    assert states(submitter_bench) == [("swap", "final")]
    assert len(submitter_bench.chain.sent) == 1


@pytest.mark.parametrize("paused", [True, None])
def test_abandoning__sends_nothing_while_soft_or_unreadable(tmp_path: Path, paused: bool | None) -> None:
    switch_bench = waiting(tmp_path)
    switch_bench.paused = paused
    with raises_code(Refused, "kill_switch"):
        switch_bench.executor().cancel_pending(HARD)
    assert len(switch_bench.chain.sent) == 1
    assert ("swap", "broadcast") in states(switch_bench)


# every way to a broadcast
@functools.cache
def functions() -> tuple[tuple[str, ast.FunctionDef], ...]:
    """Every function of the executor, and of the files that name the call which broadcasts, with its file."""
    texts = {str(path.relative_to(AGENT)): path.read_text() for path in sorted(AGENT.rglob("*.py"))}
    read = {file: text for file, text in texts.items() if file.startswith("execution/") or "eth_sendRawTransaction" in text}
    return tuple((file, node) for file, text in read.items() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


@functools.cache
def calls() -> tuple[tuple[str, str, ast.Attribute], ...]:
    """Every call of a method, with file and function."""
    return tuple(
        (file, function.name, node.func)
        for file, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )


def calls_of(name: str) -> set[tuple[str, str, str]]:
    """(file, function, whose) of every call of a method of that name in those functions."""
    return {(file, function, ast.unparse(method.value)) for file, function, method in calls() if method.attr == name}


def test_signed_bytes__leave_by_one_method_after_the_switch() -> None:
    """Who adds a way to broadcast adds it here, to the ways below, and reads the switch first."""
    sends = {tested_call for tested_call in calls_of("send") if tested_call[0].startswith("execution/")}
    assert {send for send in sends if send[2].endswith("sender")} == {("execution/submission/submitter.py", "send", "self.sender")}
    through = {(file, function) for file, function, whose in sends if not whose.endswith("sender")}
    for file, name in through:
        function = named(file, name)
        lines = {
            node.func.attr: node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert lines.get("require_running", 10**6) < lines["send"], f"{file}: {name} sends without reading the kill switch"
    raw = {(file, function) for file, function, _ in calls_of("call") | calls_of("batch") if names_raw(file, function)}
    assert {file for file, _ in raw} <= {"chain/sender.py", "localchain/chain.py", "localchain/nodes.py"}


def named(file: str, name: str) -> ast.FunctionDef:
    return next(function for where, function in functions() if (where, function.name) == (file, name))


def names_raw(file: str, name: str) -> bool:
    return any(isinstance(node, ast.Constant) and node.value == "eth_sendRawTransaction" for node in ast.walk(named(file, name)))


def swaps(folder: Path) -> tuple[Bench, Callable[[], object]]:
    submitter_bench = bench(folder)
    return submitter_bench, submitter_bench.run


def resends(folder: Path) -> tuple[Bench, Callable[[], object]]:
    submitter_bench = lost_in_broadcast(folder)
    return submitter_bench, lambda: submitter_bench.executor().reconcile()


def sends_what_was_signed(folder: Path) -> tuple[Bench, Callable[[], object]]:
    submitter_bench = bench(folder)
    killed_at(submitter_bench, "after:signed")
    return submitter_bench, lambda: submitter_bench.executor().reconcile()


def cancels_late(folder: Path) -> tuple[Bench, Callable[[], object]]:
    switch_bench = waiting(folder)
    switch_bench.chain.timestamp_s = START_S + 90
    mines_cancels(switch_bench)
    return switch_bench, lambda: switch_bench.executor().reconcile()


def cancels_lost(folder: Path) -> tuple[Bench, Callable[[], object]]:
    submitter_bench = lost_in_broadcast(folder)
    submitter_bench.chain.timestamp_s = START_S + 90
    return submitter_bench, lambda: submitter_bench.executor().reconcile()


def abandons(folder: Path) -> tuple[Bench, Callable[[], object]]:
    switch_bench = waiting(folder)
    switch_bench.paused = True
    switch_bench.hard = True
    mines_cancels(switch_bench)
    return switch_bench, lambda: switch_bench.executor().cancel_pending(HARD)


def hurries(folder: Path) -> tuple[Bench, Callable[[], object]]:
    switch_bench = waiting(folder)
    switch_bench.settings = replace(switch_bench.settings, bump_after_s=1)
    mines_cancels(switch_bench)
    return switch_bench, lambda: switch_bench.executor().reconcile()


@pytest.mark.parametrize("way", [swaps, resends, sends_what_was_signed, cancels_late, cancels_lost, hurries, abandons])
@pytest.mark.parametrize("paused", [True, None])
def test_pause_before_the_last_write__stops_every_broadcast(
    tmp_path: Path, way: Callable[[Path], tuple[Bench, Callable[[], object]]], paused: bool | None
) -> None:
    """The switch is turned at the first, second, third … moment; from then on nothing leaves that was not yet written as sent."""
    (tmp_path / "whole").mkdir()
    bench, act = way(tmp_path / "whole")
    sent_before = len(bench.chain.sent)
    told_before = len(bench.events)
    act()
    assert len(bench.chain.sent) > sent_before, "this way sends nothing"
    moments = [event.name for event in bench.events[told_before:]]
    for moment, _ in enumerate(moments[: moments.index("before:broadcast")]):
        folder = tmp_path / str(moment)
        folder.mkdir()
        bench, act = way(folder)
        sent_before = len(bench.chain.sent)
        pause_at(bench, moment, paused)
        try:
            act()
        except TrimtabError as error:
            assert "kill switch" in error.message or "not mined" in error.message, error
        assert len(bench.chain.sent) == sent_before, f"sent although paused at {moments[moment]}"


def pause_at(submitter_bench: Bench, moment: int, paused: bool | None) -> None:
    moments_left = [moment]

    def turn(_event: object) -> None:
        if moments_left[0] == 0:
            submitter_bench.paused = paused
            submitter_bench.hard = False
        moments_left[0] -= 1

    submitter_bench.on_event = turn


def leave_file(switch: KillSwitch, store: Store) -> None:
    store.pause_switch.resume("resumed", START_S)


def leave_store(switch: KillSwitch, store: Store) -> None:
    switch.file.unlink()


def leave_both(switch: KillSwitch, store: Store) -> None:
    """As `pause` leaves them."""


@pytest.mark.parametrize("leave", [leave_file, leave_store, leave_both])
def test_a_pause_of_the_same_second_is_not_older(switch: KillSwitch, store: Store, leave: Callable[[KillSwitch, Store], None]) -> None:
    """A resume asked for in that second must not undo it."""
    switch.pause("now", START_S)
    leave(switch, store)
    assert [switch.paused_at_or_after(START_S + late_s) for late_s in (-1, 0, 1)] == [True, True, False]


def test_a_switch_that_is_off_was_not_paused_after_anything(switch: KillSwitch) -> None:
    assert not switch.paused_at_or_after(0)
