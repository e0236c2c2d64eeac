"""Kinds of the arguments of research, checked before anything runs, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from numbers import Integral, Number
from pathlib import Path
from typing import Any

from agent.errors import ConfigError

MAX_QUOTED_LENGTH = 60
_NAME_BY_OTHER_WORD = {
    "slippage": "depth",
    "impact": "depth",
    "liquidity": "depth",
    "cash": "value",
    "capital": "value",
    "commission": "fee",
    "costs": "fee",
    "deposits": "flows",
    "freq": "trigger",
    "rebalance": "trigger",
    "weights": "targets",
    "n_paths": "paths",
}
"""Words of other libraries for the arguments."""


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
    if argument is None or isinstance(argument, str | Number | list | tuple | dict):
        return "a number of too many digits" if is_too_large(argument) else _quoted(argument)
    return type(argument).__name__


def is_too_large(argument: object) -> bool:
    """Return whether an argument is an integer of more digits than any that makes sense."""
    return isinstance(argument, Integral) and abs(argument) >= 10**MAX_QUOTED_LENGTH


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
    """Return whether an argument is a number, and no boolean."""
    return isinstance(argument, Number) and not isinstance(argument, bool)


def check_names(names: Iterable[str], known_names: Sequence[str]) -> None:
    """Raise ConfigError for the first name that is no argument."""
    for name in names:
        if name not in known_names:
            meant = _NAME_BY_OTHER_WORD.get(name, "")
            if meant not in known_names:
                meant = next(iter(get_close_matches(name, known_names, n=1)), "")
            choices = f"choose from {', '.join(known_names)}"
            raise ConfigError(
                f"{name}: no such argument", f"did you mean {meant}?" if meant else choices
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


def _is_text(argument: object) -> bool:
    return argument is None or isinstance(argument, str)


def choice_text(choice: str | Enum) -> str:
    """Return a choice as a config writes it, which a member of an enum such as Destination is too."""
    return str(choice.value) if isinstance(choice, Enum) else choice


def _is_choice(argument: object) -> bool:
    return isinstance(argument, str | Enum)


def _is_amount(argument: object) -> bool:
    return isinstance(argument, str) or is_number(argument)


def _is_whole(argument: object) -> bool:
    return isinstance(argument, Integral) and not isinstance(argument, bool)


def _are_texts(argument: object) -> bool:
    return isinstance(argument, list | tuple) and all(map(_is_choice, argument))


_KIND_BY_NAME = {
    "targets": ArgumentKind("mapping of symbols to shares", has_items, '{"BTC": 0.6, "USD": 0.4}'),
    "value": ArgumentKind("number", _is_amount, "10000"),
    "fee": ArgumentKind("number", _is_amount, "0.003"),
    "depth": ArgumentKind("number", _is_amount, "1000000"),
    "latency": ArgumentKind("whole number", _is_whole, "1"),
    "paths": ArgumentKind("whole number", _is_whole, "200"),
    "bars": ArgumentKind("whole number", _is_whole, "720"),
    "network": ArgumentKind("text", _is_text, '"base"'),
    "numeraire": ArgumentKind("text", _is_text, '"USD"'),
    "native": ArgumentKind("text", _is_text, '"ETH"'),
    "destination": ArgumentKind("text", _is_choice, '"halfway"'),
    "objective": ArgumentKind("text", _is_choice, '"growth"'),
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
    "destinations": ArgumentKind("list of texts", _are_texts, '["target", "halfway"]'),
    "allocators": ArgumentKind("list of texts", _are_texts, '["fixed"]'),
    "scenarios": ArgumentKind("list of texts", _are_texts, '["crash"]'),
    "combined": ArgumentKind("choice", lambda choice: isinstance(choice, bool), "True"),
    "folder": ArgumentKind(
        "folder", lambda folder: folder is None or isinstance(folder, str | Path), '"runs"'
    ),
    "progress": ArgumentKind(
        "function",
        lambda progress: (
            progress is None or (callable(progress) and not isinstance(progress, type))
        ),
        "print",
    ),
}
EXAMPLE_BY_AMOUNT = {name: _KIND_BY_NAME[name].example for name in ("value", "fee", "depth")} | {
    "targets": "0.4",
    "flows": "250",
}
