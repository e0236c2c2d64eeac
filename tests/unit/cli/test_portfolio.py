"""Waits of a command that trades, which a pipe or log shows without repetition."""

from __future__ import annotations

import pytest

from agent.cli.portfolio import noting_waits


@pytest.mark.parametrize(
    ("progress_texts", "noted"),
    [
        pytest.param(
            ["waiting 2 s for 2 confirmations", "slice 2 of about 2 is due in 9m"], ["slice 2 of about 2 is due in 9m"], id="of a slice"
        ),
        pytest.param(
            ["sent", "nonce 1: waiting 0 s to be mined", "nonce 1: waiting 1 s to be mined", "nonce 2: waiting 0 s to be mined"],
            ["nonce 1: waiting to be mined", "nonce 2: waiting to be mined"],
            id="of a nonce",
        ),
    ],
)
def test_wait__is_noted_once_outside_a_terminal(progress_texts: list[str], noted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    updates: list[str] = []
    progress = noting_waits(updates.append)
    for text in progress_texts:
        progress(text)
    assert capsys.readouterr().err.splitlines() == noted
    assert updates == progress_texts
