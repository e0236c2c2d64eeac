"""Calls of the public functions: what Python refuses of their arguments, with the name that was meant."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar

from agent.errors import ConfigError

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def check_call(function: Callable[..., Any], *arguments: object, **options: object) -> None:
    """Raise ConfigError for arguments that a function does not take, or that it lacks."""
    call = signature(function)
    names = [
        name
        for name, parameter in call.parameters.items()
        if name != "self" and parameter.kind is not Parameter.VAR_KEYWORD
    ]
    if len(names) == len(call.parameters.keys() - {"self"}):
        for name in options.keys() - names:
            likely = next(iter(get_close_matches(name, names, n=1)), "")
            remedy = f"did you mean {likely}?" if likely else f"choose from {', '.join(names)}"
            raise ConfigError(f"{name}: no such argument", remedy if names else "omit it")
    try:
        call.bind(*arguments, **options)
    except TypeError as error:
        maker = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
        raise ConfigError(
            f"{maker}: {error}", f"its arguments are {', '.join(names) or 'none'}"
        ) from None


def checked_call(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Let a function raise ConfigError for arguments that it does not take, or lacks."""

    @wraps(function)
    def with_checked_call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        check_call(function, *arguments, **options)
        return function(*arguments, **options)

    return with_checked_call
