"""Arguments of public functions that Python would refuse: each is named, with the one that was meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import agent
from agent.calls import checked_call
from agent.errors import ConfigError


@checked_call
def add(first: int, second: int = 2, *, third: int = 0) -> int:
    """Return a sum."""
    return first + second + third


@checked_call
def nothing() -> None:
    """Take nothing."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: add(1, thrd=3), "thrd: no such argument (did you mean third?)"),
        (lambda: add(1, zzz=3), "zzz: no such argument (choose from first, second, third)"),
        (lambda: nothing(zzz=3), "zzz: no such argument (omit it)"),
        (add, "add: missing a required argument: 'first' (its arguments are first, second, third)"),
        (lambda: add(1, 2, 3), "add: too many positional arguments (its arguments are first, second, third)"),
        (lambda: add(1, first=3), "add: multiple values for argument 'first' (its arguments are first, second, third)"),
        (lambda: nothing(1), "nothing: too many positional arguments (its arguments are none)"),
        (lambda: agent.quote("WETH", "USDC", amnt="1"), "amnt: no such argument (did you mean amount?)"),
        (lambda: agent.plan(cofig="a.toml"), "cofig: no such argument (did you mean config?)"),
        (lambda: agent.snapshot("a", "b"), "snapshot: too many positional arguments (its arguments are config)"),
    ],
)
def test_call_that_python_refuses_is_a_config_error(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == words


def test_call_is_passed_on() -> None:
    assert add(1) == 3
    assert add(1, second=5, third=4) == 10
    assert nothing() is None
    assert add.__name__ == "add"
