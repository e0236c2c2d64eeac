"""The slices that a command goes on with after its first: how long it waits, when it leaves, what it reports, and what it asks for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from agent import engine
from agent.app.cycles import confirm_once, continue_execution
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError, Verdict
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import ExecutionStyle
from agent.store.files.locks import LockHeld
from agent.store.store import ConfigChanged

DUE_S = 1_060


def at(now_s: int) -> Any:
    return SimpleNamespace(snapshot=SimpleNamespace(head=SimpleNamespace(timestamp_s=now_s)))


def outcome(kind: OutcomeKind, reason: str, *transactions: str, now_s: int = DUE_S - 60, exits_tried: tuple[str, ...] = ()) -> StepOutcome:
    parts: Any = tuple(transactions)
    result: Any = SimpleNamespace()
    return StepOutcome(reason, kind, reason, at(now_s), result, None, transactions=parts, exits_tried=exits_tried)


class ScriptedCommand:
    """A command whose later cycles have these outcomes; the execution ends with the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: StepOutcome | TrimtabError, style: str = "rounds") -> None:
        self.outcomes = list(outcomes)
        self.slept_s = 0.0
        self.execution = SimpleNamespace(parts_done=1, next_s=DUE_S, terms=SimpleNamespace(part_count=3, style=style))
        monkeypatch.setattr(engine, "run_cycle", lambda *_: self.outcomes.pop(0))
        context = SimpleNamespace(
            store=SimpleNamespace(budgets=SimpleNamespace(execution=lambda _: self.execution if self.outcomes else None)),
            readers=None,
            clock=SimpleNamespace(sleep=self.sleep),
            kill_switch=SimpleNamespace(read=lambda: SimpleNamespace(paused=False)),
        )
        self.wallet: Any = SimpleNamespace(context=context, report_progress=lambda _: None, open_transactor=self.open_transactor)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def open_transactor(self) -> AbstractContextManager[None]:
        if isinstance(error := self.outcomes[0], TrimtabError):
            raise error
        return nullcontext()


FIRST = outcome(OutcomeKind.DONE, "first", "a")
SECOND = outcome(OutcomeKind.DONE, "second", "b")


@pytest.mark.parametrize(("now_s", "waits_s"), [(DUE_S - 60, 60), (DUE_S, 1), (DUE_S + 9, 1)])
def test_next_slice__is_awaited_for_a_second_at_least(monkeypatch: pytest.MonkeyPatch, now_s: int, waits_s: int) -> None:
    command = ScriptedCommand(monkeypatch, outcome(OutcomeKind.DONE, "second"))
    continue_execution(command.wallet, outcome(OutcomeKind.DONE, "first", now_s=now_s))
    assert command.slept_s == waits_s


@pytest.mark.parametrize(
    ("outcomes", "kind", "step_id", "reason"),
    [
        ((SECOND, outcome(OutcomeKind.HOLD, "in band")), OutcomeKind.DONE, "second", "in band"),
        ((outcome(OutcomeKind.FAILED, "second", "b"), outcome(OutcomeKind.DONE, "third", "c")), OutcomeKind.FAILED, "second", "second"),
    ],
    ids=["the last holds", "one fails, and nothing follows"],
)
def test_slices__trades_of_all_are_reported_with_their_kind(
    monkeypatch: pytest.MonkeyPatch, outcomes: tuple[StepOutcome, ...], kind: OutcomeKind, step_id: str, reason: str
) -> None:
    report = continue_execution(ScriptedCommand(monkeypatch, *outcomes).wallet, FIRST)
    assert (report.kind, report.step_id, report.reason, report.transactions) == (kind, step_id, reason, ("a", "b"))


VERDICTS = (Verdict("kill_switch", "paused", "not paused", passed=False),)


@pytest.mark.parametrize("refusal", [ConfigChanged("the config was changed", VERDICTS), Refused("sending is paused", VERDICTS)])
def test_slice_is_refused__what_was_sent_is_reported(monkeypatch: pytest.MonkeyPatch, refusal: Refused) -> None:
    report = continue_execution(ScriptedCommand(monkeypatch, SECOND, refusal).wallet, FIRST)
    assert (report.kind, report.transactions) == (OutcomeKind.REFUSED, ("a", "b"))
    assert (report.reason, report.refusal_verdicts) == (str(refusal), VERDICTS)


@pytest.mark.parametrize(
    "error", [Retryable("no answer", "try again"), LockHeld("in use", "wait"), OperatorNeeded("a foreign nonce", "trimtab doctor")]
)
def test_slice_fails_by_an_error__which_names_what_was_sent(monkeypatch: pytest.MonkeyPatch, error: TrimtabError) -> None:
    message = error.message
    with pytest.raises(type(error)) as raised:
        continue_execution(ScriptedCommand(monkeypatch, SECOND, error).wallet, FIRST)
    sent_text = "transactions sent before: 2; trimtab run continues the execution"
    assert (raised.value.message, raised.value.remedy) == (f"{message}; {sent_text}", error.remedy)


def test_limit_order__is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ScriptedCommand(monkeypatch, outcome(OutcomeKind.DONE, "filled"), style=ExecutionStyle.LIMIT.value)
    first = outcome(OutcomeKind.DONE, "placed")
    assert continue_execution(command.wallet, first) is first
    assert command.slept_s == 0


@pytest.mark.parametrize(
    ("answers", "exits_tried", "confirmation"),
    [
        pytest.param([True], [(), (), ()], 1, id="yes to all"),
        pytest.param([False, True], [(), (), ()], 2, id="no is asked again"),
        pytest.param([True, True], [(), ("WETH",)], 2, id="trades after an exit are asked for"),
        pytest.param([True, False], [(), ("WETH",)], 2, id="and may be declined"),
    ],
)
def test_confirmation__covers_all_slices_unless_declined(
    answers: list[bool], exits_tried: list[tuple[str, ...]], confirmation: int
) -> None:
    questions: list[StepOutcome] = []

    def confirm(plan: StepOutcome) -> bool:
        questions.append(plan)
        return answers[len(questions) - 1]

    ask_once = confirm_once(confirm)
    replies = [ask_once(outcome(OutcomeKind.PLANNED, "plan", exits_tried=exits)) for exits in exits_tried]
    assert len(questions) == confirmation
    assert replies[-1] is answers[-1]
