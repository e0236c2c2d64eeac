"""How `trimtab run` ends where nobody sent it a signal: by its owner's stop, whatever the look before came to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent import app as api
from agent.app.describe import pool_names
from agent.cli import run
from agent.cli.options import PrintStyle
from agent.cli.run import CyclePrinter, RunOptions, run_loop
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import StepInput
from agent.planning import proposals
from tests.support import builders


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons of the outcomes that are printed in full."""
    reasons: list[str] = []
    monkeypatch.setattr(run, "show_outcome", lambda outcome, *_args, **_more: reasons.append(outcome.reason))
    return reasons


def outcome_of(step: StepInput, kind: OutcomeKind, reason: str, *transactions: Any) -> StepOutcome:
    result = proposals.propose_rebalance(step).decision_result
    return StepOutcome("1", kind, reason, step, result, None, transactions=transactions)


def printer(now_s: Callable[[], int], *, may_send: bool) -> CyclePrinter:
    clock: Any = SimpleNamespace(now_s=now_s)
    agent: Any = None
    return CyclePrinter(agent, PrintStyle(False, one_line=True), clock, may_send=may_send)


@pytest.mark.parametrize(("once", "code"), [(False, 0), (True, 11)])
def test_a_run_whose_owner_stopped_the_bot_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], once: bool, code: int
) -> None:
    def looks(**_told: Any) -> Any:
        yield Retryable("the node does not answer", "wait")

    service = SimpleNamespace(on_cycle=lambda outcome: None, is_logging=False, report_controls=lambda: None, pop_screen_notes=tuple)
    monkeypatch.setattr(api, "report_run", lambda *_args, **_more: nullcontext(service))
    clock: Any = SimpleNamespace(listening=nullcontext, raise_if_stopping=lambda: None)

    opened: Any = nullcontext(SimpleNamespace(run=looks))
    options = RunOptions(True, "10m", once)
    assert run_loop(opened, clock, lambda _run: lambda _plan: False, options, PrintStyle(True, one_line=not once)) == code
    assert ("(trimtab stop)" in capsys.readouterr().err) is not once


def test_cycle__has_its_time_and_equal_ones_are_one_line(printed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    step = builders.step_input(values={"WETH": 7_000, "USDC": 3_000})
    pool = step.snapshot.pools[0].address
    refused = outcome_of(step, OutcomeKind.REFUSED, f"refused: pool {pool} is dear")
    times = iter(range(1_800_000_000, 1_800_006_000, 600))
    cycles = printer(lambda: next(times), may_send=False)
    down = Retryable("the node does not answer", "wait")
    for outcome in (refused, refused, replace(refused, reason="another"), down, down, refused):
        cycles.show(outcome, is_logged=False)
    captured = capsys.readouterr()
    assert len(printed) == 3, "in full: the first, another reason, and the first again after something else"
    assert captured.out.splitlines() == [
        "2027-01-15 08:00:00 UTC",
        f"2027-01-15 08:10:00 UTC, as before: refused: {pool_names(step.snapshot, step.portfolio)[pool]} is dear",
        "2027-01-15 08:20:00 UTC",
        "2027-01-15 08:50:00 UTC",
    ]
    assert captured.err.count("the node does not answer") == 2
    assert "08:40:00 UTC, as before: the node" in captured.err


def test_sent_transactions_are_printed_in_full_each_time(printed: list[str]) -> None:
    failed = outcome_of(builders.step_input(), OutcomeKind.FAILED, "reverted", object())
    cycles = printer(lambda: 0, may_send=True)
    for _ in range(2):
        cycles.show(failed, is_logged=False)
    assert printed == ["reverted"] * 2
