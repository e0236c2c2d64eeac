"""The process that reads for the dashboard: it ends whatever moment it is interrupted in."""

from __future__ import annotations

from concurrent.futures import process

import pytest

from agent.web.reading import AppProcess


def test_a_process_that_was_interrupted_while_it_began_is_stopped_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: process._ExecutorManagerThread) -> None:
        raise KeyboardInterrupt

    reading = AppProcess()
    with monkeypatch.context() as patched:
        patched.setattr(process._ExecutorManagerThread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reading.submit("warm_up", "")
    reading.stop()
    assert reading.submit("controls.queue.warm_up", "").result() is None, "it begins again"
    reading.stop()
