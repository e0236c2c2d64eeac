"""Arguments of a live agent from Python: each of a wrong kind or name is named before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.app.agent import Agent
from agent.errors import ConfigError
from agent.library import LibraryAgent, open_agent
from tests.support.agent_names import METHODS_BY_COMMAND

AGENT = LibraryAgent(cast("Any", SimpleNamespace()))


def answer(error_of: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as error:
        error_of()
    return str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: AGENT.quote(1, "USDC", 1), "token_in: 1 is no text (write it in quotes)"),
        (lambda: AGENT.quote("WETH", "USDC", 1, pool=5), "pool: 5 is no text (write it in quotes)"),
        (lambda: AGENT.swap("WETH", "USDC", 1, send="no"), "send: 'no' is no True or False (write True or False)"),
        (lambda: AGENT.rebalance(send=1), "send: 1 is no True or False (write True or False)"),
        (lambda: AGENT.rebalance(confirm=True), "confirm: True is no function (give a function that returns True to send)"),
        (lambda: AGENT.resume(confirm="yes"), "confirm: 'yes' is no function (give a function that returns True or False)"),
        (lambda: AGENT.pause(5), "reason: 5 is no text (write it in quotes)"),
        (lambda: AGENT.history("5"), "limit: '5' is no whole number (write for example 5)"),
        (lambda: AGENT.history(limit=True), "limit: True is no whole number (write for example 5)"),
        (lambda: AGENT.run(every=600), "every: 600 is no text (write it in quotes)"),
        (lambda: next(AGENT.run(every="0s")), "every: '0s' is shorter than one second (for example 10m)"),
        (lambda: AGENT.pnl(period=7), "period: 7 is no text (write it in quotes)"),
        (lambda: AGENT.weights(accept=True), "accept: True is no function (give a function that returns True or False)"),
        (lambda: AGENT.explain(step_id=7), "step_id: 7 is no text (write it in quotes)"),
        (lambda: open_agent(paper="yes"), "paper: 'yes' is no True or False (write True or False)"),
        (lambda: open_agent("a\0b.toml").__enter__(), "a\\x00b.toml: cannot be read: embedded null byte (name a readable text file)"),
        (lambda: open_agent("none.toml", value=5).__enter__(), "value: the wallet of the config has its own (omit it, or add paper=True)"),
        (
            lambda: open_agent("none.toml", paper=True, value=0.1).__enter__(),
            'value: the digits of 0.1 as a float are not exact (write "0.1" in quotes)',
        ),
        (
            lambda: open_agent("none.toml", paper=True, value={}).__enter__(),
            'value: no amounts (write for example value={"USDC": 500})',
        ),
    ],
)
def test_argument_of_another_kind_is_named(call: Callable[[], object], words: str) -> None:
    assert answer(call) == words


@pytest.mark.parametrize("name", METHODS_BY_COMMAND.values())
def test_misspelt_argument_of_a_method_is_named(name: str) -> None:
    method = getattr(AGENT, name)
    for argument in signature(method).parameters:
        words = f"{argument}_: no such argument (did you mean {argument}?)"
        assert answer(partial(method, **{f"{argument}_": 1})) == words
    assert answer(lambda: method(*range(20))).startswith(f"{name}: too many positional arguments (its arguments are ")


def test_agent_of_the_commands_keeps_their_options() -> None:
    with pytest.raises(ConfigError, match=r"--every: '0s'"):
        next(Agent(cast("Any", SimpleNamespace())).run(every="0s"))
