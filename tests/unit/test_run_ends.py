"""How `trimtab run` ends where nobody sent it a signal: by its owner's stop, whatever the look before came to."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from agent import app as api
from agent.cli.options import PrintStyle
from agent.cli.run import RunTerms, run_loop
from agent.errors import Retryable


@pytest.mark.parametrize(("once", "code"), [(False, 0), (True, 11)])
def test_a_run_whose_owner_stopped_the_bot_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], once: bool, code: int
) -> None:
    def looks(**_told: Any) -> Any:
        yield Retryable("the node does not answer", "wait")

    service = SimpleNamespace(
        on_cycle=lambda found: None, logs=False, unwritten="", config_changes=(), control_notes=(), report_controls=lambda: None
    )
    monkeypatch.setattr(api, "serve", lambda *_args, **_more: nullcontext(service))
    clock: Any = SimpleNamespace(listening=nullcontext, check=lambda: None)

    @contextmanager
    def opened() -> Any:
        yield SimpleNamespace(run=looks)

    def never(_agent: Any, _wait: Any) -> Any:
        return lambda _found: False

    ended = run_loop(opened(), clock, never, RunTerms(True, "10m", once), PrintStyle(True, lines=not once))
    assert ended == code
    assert ("(trimtab stop)" in capsys.readouterr().err) is not once
