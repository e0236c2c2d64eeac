"""Entries of refusals: whatever an error names as its code, or as the guard that refused, is explained."""

from __future__ import annotations

import re
from pathlib import Path

import agent
from agent.errors import ErrorCode
from agent.guards.table import REMEDIES
from agent.model import ControlCode
from agent.web.documentation import refusal_entries


def test_every_code_and_guard_that_an_error_names_has_an_entry() -> None:
    entries = refusal_entries()
    texts = [path.read_text() for path in Path(agent.__file__).parent.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'\b(?:Verdict|guard_refusal)\(\s*"(\w+)"', text)}
    named |= {ControlCode[name].value for text in texts for name in re.findall(r"\bcode=ControlCode\.(\w+)", text)}
    named |= {code.value for code in ErrorCode} | {*REMEDIES}
    assert {"signatures", "minimums", "simulation", "repeated_payment", "plan_used"} <= named
    assert sorted(name for name in named if not entries.get(name)) == []
    assert "the proposal … would fail now: …" in entries["simulation"], "of a refusal by a guard, whose remedy is computed"
