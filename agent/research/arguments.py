"""Kinds of the arguments of research, checked before anything runs, and what to write instead."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, TypeGuard, TypeVar

from agent.calls import ArgumentKind, CallChecks, described, has_items, is_path, unknown_name
from agent.config.tables.fields import parse_choice, parse_duration_s
from agent.errors import ConfigError
from agent.units import exact_duration, written_number

Choice = TypeVar("Choice", bound=Enum)
Number = int | float | Decimal | Fraction | str
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
    "gas-spike: the native coin has no price": "scenarios: gas-spike needs the price of the native coin",
    "--numeraire": "numeraire",
    "--value": "value",
    "--flow": "flows",
    "--destination": "destination",
    "policy.destination": "destination",
    "policy.trigger.strictness": "tracking",
    "policy.trigger": "trigger",
    "trigger.every": "every",
    "trigger.cron": "cron",
    "trigger.timezone": "timezone",
    ", or check --market decimals": "",
    "such as 30bps": "such as 0.003",
    "but the file has": "but the prices have",
    "prices: no column time": "prices: no column time, and no index of times as pandas has it",
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


def is_number(argument: object) -> bool:
    """Return whether an argument is a real number, and no boolean."""
    return isinstance(argument, numbers.Real | Decimal) and not isinstance(argument, bool)


def _unknown_argument(name: str, names: Sequence[str]) -> ConfigError:
    """Return the error about a name that is no argument, with the one meant by other libraries."""
    if name in ("flows", "deposits") and "flows" not in names:
        return ConfigError(
            f"{name}: deposits would count as gains, withdrawals as losses",
            "omit it; research.backtest and research.compare take flows",
        )
    meant = _NAME_BY_OTHER_WORD.get(name, "")
    if meant not in names:
        return unknown_name(name, names)
    example = f" write {COSTS_EXAMPLE}" if meant == "costs" else ""
    return ConfigError(f"{name}: no such argument", f"did you mean {meant}?{example}")


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


def _by_arguments(message: str, remedy: str, _names: Sequence[str]) -> tuple[str, str]:
    """Return words with arguments in place of the options of the command line."""
    remedy = re.sub(r"--native (\S+)", r'native="\1"', remedy)
    for option, argument in _ARGUMENT_BY_OPTION.items():
        message = message.replace(option, argument)
        remedy = remedy.replace(option, argument)
    return message, re.sub(r"\badd (\S+)=0\b", r'add "\1": 0', remedy)


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


def _is_list(argument: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Return whether it is a list of something: an empty one does not stand for the usual ones."""
    return isinstance(argument, list | tuple) and bool(argument)


def _are_choices(argument: object) -> bool:
    return _is_list(argument) and all(map(_is_choice, argument))


def _kind(noun: str, is_met: Callable[[Any], bool], example: str) -> ArgumentKind:
    return ArgumentKind(noun, is_met, f"write for example {example}")


OR_OMIT = ", or omit it for the usual ones"
COSTS_EXAMPLE = "costs=research.Costs(fee=0.003)"
research_call = CallChecks(
    {
        "targets": _kind(
            "mapping of symbols to shares", has_items, 'targets={"BTC": 0.6, "USD": 0.4}'
        ),
        "value": _kind("number", _is_amount, "value=10000"),
        "fee": _kind("number", _is_amount, "fee=0.003"),
        "depth": _kind("number", _is_amount, "depth=1000000"),
        "latency": _kind("whole number", _is_whole, "latency=1"),
        "paths": _kind("whole number", _is_whole, "paths=200"),
        "step_paths": _kind("whole number", _is_whole, "step_paths=3"),
        "bars": _kind("whole number", _is_whole, "bars=720"),
        "network": _kind("text", _is_text, 'network="base"'),
        "numeraire": _kind("text", _is_text, 'numeraire="USD"'),
        "native": _kind("text", _is_text, 'native="ETH"'),
        "destination": _kind(
            "Destination",
            lambda place: place is None or _is_choice(place),
            "destination=research.Destination.HALFWAY",
        ),
        "strictness": _kind("text", _is_choice, 'strictness="strict"'),
        "objective": _kind("Objective", _is_choice, "objective=research.Objective.GROWTH"),
        "flows": _kind(
            "mapping of times to amounts",
            lambda flows: flows is None or has_items(flows),
            'flows={"2021-04-01": 250, "2021-09-01": -100}',
        ),
        "Sequence[Trigger]": _kind(
            "list of triggers",
            _is_list,
            f'triggers=[research.band(0.1), research.every("7d")]{OR_OMIT}',
        ),
        "destinations": _kind(
            "list of destinations",
            _are_choices,
            f"destinations=[research.Destination.HALFWAY]{OR_OMIT}",
        ),
        "allocators": _kind(
            "list of methods",
            _are_choices,
            f"allocators=[research.AllocationMethod.EQUAL]{OR_OMIT}",
        ),
        "scenarios": _kind(
            "list of scenarios", _are_choices, "scenarios=[research.Scenario.CRASH], or omit it"
        ),
        "combined": _kind("choice", lambda choice: isinstance(choice, bool), "combined=True"),
        "folder": _kind(
            "folder", lambda folder: folder is None or is_path(folder), 'folder="runs"'
        ),
        "path": ArgumentKind("path", is_path, "give a text or a Path"),
        "progress": _kind(
            "function",
            lambda progress: (
                progress is None
                or isinstance(progress, bool)
                or (callable(progress) and not isinstance(progress, type))
            ),
            "progress=print",
        ),
    },
    _unknown_argument,
    _by_arguments,
)
"""Checks of the functions of research, by the names of their arguments."""
EXAMPLE_BY_AMOUNT = {
    "value": "10000",
    "fee": "0.003",
    "depth": "1000000",
    "targets": "0.4",
    "flows": "250",
}
