"""Calls of the public functions: arguments that Python would refuse, or of another kind than they may be,
each named with what to write.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Parameter, Signature, getmembers, isfunction, isgeneratorfunction, signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_args, get_type_hints

from agent.errors import ConfigError, Retryable

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
Kind = TypeVar("Kind")
MAX_QUOTED_LENGTH = 60


@dataclass(frozen=True, slots=True)
class ArgumentKind:
    """What an argument may be: its name in a sentence, the test, and what to write."""

    noun: str
    is_met: Callable[[Any], bool]
    remedy: str


def described(argument: object) -> str:
    """Return a number, text or short list as it is written, and the type of anything else."""
    if isinstance(argument, type):
        return f"the class {argument.__name__}"
    if argument is None or isinstance(argument, str | numbers.Number | list | tuple | dict | Path):
        return "a number of too many digits" if is_too_large(argument) else _quoted(argument)
    return type(argument).__name__


def is_too_large(argument: object) -> bool:
    """Return whether an argument is an integer of more digits than any that makes sense."""
    return isinstance(argument, numbers.Integral) and abs(argument) >= 10**MAX_QUOTED_LENGTH


def _quoted(argument: object) -> str:
    try:
        text = repr(argument)
    except ValueError:  # an integer of thousands of digits in a list or mapping
        return type(argument).__name__
    return text if len(text) <= MAX_QUOTED_LENGTH else f"{text[: MAX_QUOTED_LENGTH - 1]}…"


def is_path(argument: object) -> bool:
    """Return whether an argument may be a path: a null character is in none."""
    return isinstance(argument, str | Path) and "\0" not in str(argument)


def has_items(argument: object) -> bool:
    """Return whether an argument is a mapping, or a Series of pandas, which is one by its index."""
    return isinstance(argument, Mapping) or (
        type(argument).__module__.partition(".")[0] == "pandas"
        and type(argument).__name__ == "Series"
    )


def remedy_of_choice(name: str, names: Collection[str]) -> str:
    """Return what to write for a name that is none of these: the nearest in any case of its letters,
    or one of all.
    """
    name_by_small_name = {known_name.lower(): known_name for known_name in names}
    if likely := get_close_matches(name.lower(), name_by_small_name, n=1):
        return f"did you mean {name_by_small_name[likely[0]]}?"
    return f"choose from {', '.join(names)}"


def unknown_name(name: str, names: Sequence[str], noun: str = "argument") -> ConfigError:
    """Return the error about a name that is none of these, with the nearest."""
    remedy = remedy_of_choice(name, names) if names else "omit it"
    return ConfigError(f"{name}: no such {noun}", remedy)


def _unchanged(message: str, remedy: str, names: Sequence[str]) -> tuple[str, str]:
    return message, remedy


@dataclass(frozen=True, slots=True)
class CallChecks:
    """A decorator of functions, which checks their calls before anything runs: `kinds` of arguments by
    name or annotation, the error about an `unknown` name, and `reworded`, the message and remedy of an
    error by the names of the arguments.
    """

    kinds: Mapping[str, ArgumentKind] = field(default_factory=dict)
    unknown: Callable[[str, Sequence[str]], ConfigError] = unknown_name
    reworded: Callable[[str, str, Sequence[str]], tuple[str, str]] = _unchanged

    def __call__(self, function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        """Let a function raise ConfigError for arguments that it does not take, or lacks, or of
        another kind.
        """

        @wraps(function)
        def with_checks(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
            names = self._checked_names(function, arguments, options)
            if isgeneratorfunction(function):
                steps: Any = function(*arguments, **options)
                return cast("Returned", _reworded_generator(steps, self._rewording(names)))
            with self._rewording(names):
                return function(*arguments, **options)

        return with_checks

    def methods(self, checked_class: type[Kind]) -> type[Kind]:
        """Return the class, whose initializer and public methods check their arguments."""
        for name, method in getmembers(checked_class, isfunction):
            if name == "__init__" or not name.startswith("_"):
                setattr(checked_class, name, self(method))
        return checked_class

    def _checked_names(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> list[str]:
        """Return the names of a function's arguments. Raises ConfigError for a call that it refuses."""
        call = _signature_with_keywords(function)
        names = [
            name
            for name, parameter in call.parameters.items()
            if name != "self" and parameter.kind is not Parameter.VAR_KEYWORD
        ]
        if len(names) == len(call.parameters.keys() - {"self"}):
            for name in options.keys() - names:
                raise self.unknown(name, names)
        try:
            bound = call.bind(*arguments, **options)
        except TypeError as error:
            maker = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
            raise ConfigError(
                f"{maker}: {error}", f"its arguments are {', '.join(names) or 'none'}"
            ) from None
        for name, argument in bound.arguments.items():
            kind = self.kinds.get(name) or self.kinds.get(call.parameters[name].annotation)
            if kind is not None and (is_too_large(argument) or not kind.is_met(argument)):
                raise ConfigError(f"{name}: {described(argument)} is no {kind.noun}", kind.remedy)
        return names

    @contextmanager
    def _rewording(self, names: Sequence[str]) -> Iterator[None]:
        """Let errors name arguments in place of the options of the command line."""
        try:
            yield
        except (ConfigError, Retryable) as error:
            error.message, error.remedy = self.reworded(error.message, error.remedy, names)
            raise


@cache
def _signature_with_keywords(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function, with the keys of its typed `**keywords` as arguments."""
    call = signature(function)
    parameters = [*call.parameters.values()]
    if parameters and parameters[-1].kind is Parameter.VAR_KEYWORD:
        for keywords in get_args(get_type_hints(function)[parameters.pop().name]):
            parameters += [
                Parameter(name, Parameter.KEYWORD_ONLY, default=None)
                for name in keywords.__annotations__
            ]
            return call.replace(parameters=parameters)
    return call


def _reworded_generator(generator: Any, rewording: AbstractContextManager[None]) -> Any:
    with rewording:
        return (yield from generator)


checked_call = CallChecks()
