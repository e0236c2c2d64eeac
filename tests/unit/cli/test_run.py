"""How `trimtab run` ends where nobody sent it a signal: by its owner's stop, whatever the look before came to."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
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
from agent.planning import proposals
from tests.support import builders


@pytest.mark.parametrize(("once", "code"), [(False, 0), (True, 11)])
def test_a_run_whose_owner_stopped_the_bot_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], once: bool, code: int
) -> None:
    def looks(**_told: Any) -> Any:
        yield Retryable("the node does not answer", "wait")

    service = SimpleNamespace(on_cycle=lambda outcome: None, is_logging=False, report_controls=lambda: None, pop_screen_notes=tuple)
    monkeypatch.setattr(api, "report_run", lambda *_args, **_more: nullcontext(service))
    clock: Any = SimpleNamespace(listening=nullcontext, raise_if_stopping=lambda: None)

    @contextmanager
    def opened() -> Any:
        yield SimpleNamespace(run=looks)

    def never(_run: Any) -> Any:
        return lambda _found: False

    ended = run_loop(opened(), clock, never, RunOptions(True, "10m", once), PrintStyle(True, one_line=not once))
    assert ended == code
    assert ("(trimtab stop)" in capsys.readouterr().err) is not once


def test_cycle__has_its_time_and_equal_ones_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []
    monkeypatch.setattr(run, "show_outcome", lambda outcome, *_args, **_more: printed.append(outcome.reason))
    step = builders.step_input(values={"WETH": 7_000, "USDC": 3_000})
    pool = step.snapshot.pools[0].address
    refused = StepOutcome(
        "1", OutcomeKind.REFUSED, f"refused: pool {pool} is dear", step, proposals.propose_rebalance(step).decision_result, None
    )
    times = iter(range(1_800_000_000, 1_800_006_000, 600))
    clock: Any = SimpleNamespace(now_s=lambda: next(times))
    agent: Any = None
    cycles = CyclePrinter(agent, PrintStyle(False, one_line=True), clock, may_send=False)
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


def test_sent_transactions_are_printed_in_full_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(run, "show_outcome", lambda outcome, *_args, **_more: printed.append(outcome.reason))
    sent: Any = object()
    step = builders.step_input()
    failed = StepOutcome(
        "1", OutcomeKind.FAILED, "reverted", step, proposals.propose_rebalance(step).decision_result, None, transactions=(sent,)
    )
    clock: Any = SimpleNamespace(now_s=lambda: 0)
    agent: Any = None
    cycles = CyclePrinter(agent, PrintStyle(False, one_line=True), clock, may_send=True)
    for _ in range(2):
        cycles.show(failed, is_logged=False)
    assert printed == ["reverted"] * 2
