"""An agent from Python has the names of the commands."""

from __future__ import annotations

from inspect import signature

import pytest

from agent.app.agent import Agent
from agent.cli.main import declared_commands
from agent.library import LibraryAgent
from tests.support.agent_names import METHODS_BY_COMMAND

PARTS = {
    "adjust_futures": "margin",
    "cancel_and_revoke": "pause",
    "pending_and_allowances": "pause",
    "resync_nonce": "adopt",
    "futures_policy": "margin",
    "open_run": "run",
    "require_not_stopped": "run",
    "step_input": "status",
    "token": "quote",
    "quote_with_input": "quote",
    "endpoints": "status",
    "weights_at": "status",
    "drifts": "status",
    "portfolio": "status",
    "on_paper": "paper",
    "realised_changes": "rebalance",
    "sandwich_risk": "plan",
    "plan_document": "plan",
    "shown_plan_fields": "plan",
    "confirmed_parameters": "run",
}
"""What is a part of a command has a name of its own."""


def test_each_method_has_the_name_of_a_command_or_is_a_part_of_one() -> None:
    commands = {command.name for command in declared_commands()}
    assert METHODS_BY_COMMAND.keys() | set(PARTS.values()) <= commands
    public = {name for name in (*vars(Agent), *vars(LibraryAgent)) if not name.startswith("_")}
    assert public == {*METHODS_BY_COMMAND.values(), *PARTS}


@pytest.mark.parametrize("method", METHODS_BY_COMMAND.values())
def test_each_of_them_is_typed_and_has_an_example(method: str) -> None:
    function = getattr(LibraryAgent, method)
    assert ">>> " in function.__doc__
    assert signature(function).return_annotation
