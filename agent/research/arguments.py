"""Kinds of the arguments of research, checked before anything runs, and what to write instead."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from agent.config.tables.fields import parse_choice, parse_duration_s
from agent.errors import ConfigError, TrimtabError
from agent.units import exact_duration, written_number

Choice = TypeVar("Choice", bound=Enum)
NamedError = TypeVar("NamedError", bound=TrimtabError)
Number = int | float | Decimal | Fraction | str
MAX_QUOTED_LENGTH = 60
_ARGUMENT_BY_OPTION = {
    "--band or --every": "a band or a schedule",
    "--objective calendar": "calendar",
    "--objective": "objective",
    "--grid destination": "destinations",
    "--grid allocator": "allocators",
    "--paths bars": "bars",
    "--paths step-paths": "step_paths",
    "--paths": "paths",
    "--scenarios": "scenarios",
    "--run scheduler": "jobs",
    "--out": "folder",
    "--market fee": "fee",
    "--market depth": "depth",
    "--market gas": "network",
    "--market data-fee": "network",
    "--market latency": "latency",
    "--market pool": "pool_kind",
    "--target": "targets",
    "--prices": "prices",
    "--native": "native",
    "--numeraire": "numeraire",
    "--value": "value",
    "--flow": "flows",
    "--destination": "destination",
    "policy.destination": "destination",
    "policy.trigger.strictness": "tracking",
    "policy.trigger": "trigger",
    "trigger.every": "every",
    ", or check --market decimals": "",
    "such as 30bps": "such as 0.003",
    "but the file has": "but the prices have",
}
_NAME_BY_OTHER_WORD = {
    "slippage": "costs",
    "impact": "costs",
    "liquidity": "costs",
    "commission": "costs",
    "fee": "costs",
    "fees": "costs",
    "depth": "costs",
    "latency": "costs",
    "gas": "network",
    "cash": "value",
    "capital": "value",
    "deposits": "flows",
    "freq": "trigger",
    "rebalance": "trigger",
    "weights": "targets",
    "n_paths": "paths",
}
"""Words of other libraries, and keys of Costs, for the arguments."""


@dataclass(frozen=True, slots=True)
class ArgumentKind:
    """What an argument may be: its name in a sentence, the test, and an example of it."""

    noun: str
    is_met: Callable[[Any], bool]
    example: str


def described(argument: object) -> str:
    """Return a number, text or short list as it is written, and the type of anything else."""
    if isinstance(argument, type):
        return f"the class {argument.__name__}"
    if argument is None or isinstance(argument, str | numbers.Number | list | tuple | dict):
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


def has_items(argument: object) -> bool:
    """Return whether an argument is a mapping, or a Series of pandas, which is one by its index."""
    return isinstance(argument, Mapping) or (
        type(argument).__module__.partition(".")[0] == "pandas"
        and type(argument).__name__ == "Series"
    )


def is_number(argument: object) -> bool:
    """Return whether an argument is a real number, and no boolean."""
    return isinstance(argument, numbers.Real | Decimal) and not isinstance(argument, bool)


def check_names(names: Iterable[str], known_names: Sequence[str]) -> None:
    """Raise ConfigError for the first name that is no argument."""
    for name in names:
        if name not in known_names:
            if name in ("flows", "deposits") and "flows" not in known_names:
                raise ConfigError(
                    f"{name}: deposits would count as gains, withdrawals as losses",
                    "omit it; research.backtest and research.compare take flows",
                )
            meant = _NAME_BY_OTHER_WORD.get(name, "")
            if meant not in known_names:
                meant = next(iter(get_close_matches(name, known_names, n=1)), "")
            choices = f"choose from {', '.join(known_names)}"
            example = f" write {COSTS_EXAMPLE}" if meant == "costs" else ""
            raise ConfigError(
                f"{name}: no such argument", f"did you mean {meant}?{example}" if meant else choices
            )


def check_kinds(argument_by_name: Mapping[str, object]) -> None:
    """Raise ConfigError for the first argument of another kind than its name has."""
    for name, argument in argument_by_name.items():
        kind = _KIND_BY_NAME.get(name)
        if kind is not None and (is_too_large(argument) or not kind.is_met(argument)):
            raise ConfigError(
                f"{name}: {described(argument)} is no {kind.noun}",
                f"write for example {name}={kind.example}",
            )


Duration = str | timedelta
"""A text such as "7d", or a timedelta of Python or pandas."""


def duration_s(duration: Duration, field: str) -> int:
    """Return a duration in whole seconds. Raises ConfigError."""
    if not isinstance(duration, timedelta):
        return parse_duration_s(duration, field)
    seconds = duration / timedelta(seconds=1)
    if not (seconds > 0 and seconds.is_integer()):
        raise ConfigError(f"{field}: {duration} is no whole number of seconds", "write 90s or 7d")
    return int(seconds)


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class of another callable."""
    return getattr(function, "__name__", type(function).__name__)


def call_text(maker: str, subject: object, **duration_s_by_name: int | None) -> str:
    """Return the call of research that makes a value, as one would type it: durations of zero or None
    are omitted, and a function stands by its name.
    """
    subject_text = getattr(subject, "__name__", None) or repr(subject)
    durations = [
        f'{name}="{exact_duration(seconds)}"'
        for name, seconds in duration_s_by_name.items()
        if seconds
    ]
    return f"{maker}({', '.join((subject_text, *durations))})"


def optional_duration_s(duration: Duration, field: str) -> int | None:
    """Return a duration in whole seconds, None for "". Raises ConfigError."""
    is_omitted = isinstance(duration, str) and not duration
    return None if is_omitted else duration_s(duration, field)


def exact_amount(number: Number, name: str, key: object = None) -> Fraction:
    """Return a number exactly as it is written. Raises ConfigError naming the argument, and its key in
    a mapping.
    """
    try:
        return number if isinstance(number, Fraction) else written_number(str(number))
    except ValueError:
        raise ConfigError(
            f"{name}: {described(number)}{'' if key is None else f' of {key}'} is no number",
            f"write for example {EXAMPLE_BY_AMOUNT[name]}",
        ) from None


def by_argument(error: NamedError) -> NamedError:
    """Return the error with arguments in place of the options of the command line."""
    message = error.message
    remedy = error.remedy
    for option, argument in _ARGUMENT_BY_OPTION.items():
        message = message.replace(option, argument)
        remedy = remedy.replace(option, argument)
    remedy = re.sub(r"\badd (\S+)=0\b", r'add "\1": 0', remedy)
    return type(error)(message, remedy, code=error.code)


def _is_text(argument: object) -> bool:
    return argument is None or isinstance(argument, str)


def member(choice: str | Choice, argument: str, members: Iterable[Choice]) -> Choice:
    """Return the member that a choice is or whose value it is. Raises ConfigError naming the argument."""
    text = str(choice.value) if isinstance(choice, Enum) else choice
    return parse_choice(
        text, argument, {str(known_member.value): known_member for known_member in members}
    )


def distinct_members(
    choices: Iterable[str | Choice], argument: str, members: Sequence[Choice]
) -> tuple[Choice, ...]:
    """Return the members that choices are, each once. Raises ConfigError naming the argument."""
    return tuple(dict.fromkeys(member(choice, argument, members) for choice in choices))


def _is_choice(argument: object) -> bool:
    return isinstance(argument, str | Enum)


def _is_amount(argument: object) -> bool:
    return isinstance(argument, str) or is_number(argument)


def _is_whole(argument: object) -> bool:
    return isinstance(argument, numbers.Integral) and not isinstance(argument, bool)


def _are_choices(argument: object) -> bool:
    return isinstance(argument, list | tuple) and all(map(_is_choice, argument))


COSTS_EXAMPLE = "costs=research.Costs(fee=0.003)"
_KIND_BY_NAME = {
    "targets": ArgumentKind("mapping of symbols to shares", has_items, '{"BTC": 0.6, "USD": 0.4}'),
    "value": ArgumentKind("number", _is_amount, "10000"),
    "fee": ArgumentKind("number", _is_amount, "0.003"),
    "depth": ArgumentKind("number", _is_amount, "1000000"),
    "latency": ArgumentKind("whole number", _is_whole, "1"),
    "paths": ArgumentKind("whole number", _is_whole, "200"),
    "step_paths": ArgumentKind("whole number", _is_whole, "3"),
    "bars": ArgumentKind("whole number", _is_whole, "720"),
    "network": ArgumentKind("text", _is_text, '"base"'),
    "numeraire": ArgumentKind("text", _is_text, '"USD"'),
    "native": ArgumentKind("text", _is_text, '"ETH"'),
    "destination": ArgumentKind(
        "Destination",
        lambda place: place is None or _is_choice(place),
        "research.Destination.HALFWAY",
    ),
    "objective": ArgumentKind("Objective", _is_choice, "research.Objective.GROWTH"),
    "flows": ArgumentKind(
        "mapping of times to amounts",
        lambda flows: flows is None or has_items(flows),
        '{"2021-04-01": 250, "2021-09-01": -100}',
    ),
    "triggers": ArgumentKind(
        "list of triggers",
        lambda triggers: isinstance(triggers, list | tuple),
        '[research.band(0.1), research.every("7d")]',
    ),
    "destinations": ArgumentKind(
        "list of destinations", _are_choices, "[research.Destination.HALFWAY]"
    ),
    "allocators": ArgumentKind(
        "list of methods", _are_choices, "[research.AllocationMethod.EQUAL]"
    ),
    "scenarios": ArgumentKind("list of scenarios", _are_choices, "[research.Scenario.CRASH]"),
    "combined": ArgumentKind("choice", lambda choice: isinstance(choice, bool), "True"),
    "folder": ArgumentKind(
        "folder", lambda folder: folder is None or isinstance(folder, str | Path), '"runs"'
    ),
    "progress": ArgumentKind(
        "function",
        lambda progress: (
            progress is None
            or isinstance(progress, bool)
            or (callable(progress) and not isinstance(progress, type))
        ),
        "print",
    ),
}
EXAMPLE_BY_AMOUNT = {name: _KIND_BY_NAME[name].example for name in ("value", "fee", "depth")} | {
    "targets": "0.4",
    "flows": "250",
}
