"""Checks of messages by their fields, numbers and names, never by their sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from agent.errors import ConfigError, TrimtabError

E = TypeVar("E", bound=TrimtabError)


def mentions(text: object, *terms: str) -> bool:
    """Return whether the text has each of the terms, in any order and case."""
    folded_text = str(text).casefold()
    return all(term.casefold() in folded_text for term in terms)


def causes(result: Any) -> tuple[str, ...]:
    """Return the codes of an outcome: guards that refused, causes of a halt, or the setting that held back a trigger."""
    verdicts = getattr(result, "refusal_verdicts", ()) or getattr(getattr(result, "plan", None), "verdicts", ())
    refused = tuple(verdict.guard for verdict in verdicts if not verdict.passed)
    limiting_rule = getattr(result.decision, "limiting_rule", "")
    return refused or getattr(result.decision, "codes", ()) or ((limiting_rule,) if limiting_rule else ())


def blocked(result: Any) -> list[str]:
    """Return the tokens whose exits an outcome or decision skips."""
    return [blocked_exit.token for blocked_exit in getattr(result, "decision_result", result).blocked_exits]


@contextmanager
def raises_code(kind: type[E], code: str, *figures: object) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of this kind and code that shows each of the figures: amounts, limits, names of tokens or places."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, (caught.value.code, caught.value)
    _require_figures(caught.value, figures)


@contextmanager
def raises_field(field: str, *figures: object, code: str = "") -> Iterator[pytest.ExceptionInfo[ConfigError]]:
    """Expect an error of the config key or option `field` that shows each of the figures."""
    with pytest.raises(ConfigError) as caught:
        yield caught
    assert (caught.value.field, caught.value.code) == (field, code), caught.value
    _require_figures(caught.value, figures)


def _require_figures(error: TrimtabError, figures: tuple[object, ...]) -> None:
    lacking = [figure for figure in figures if str(figure) not in str(error)]
    assert not lacking, (lacking, error)
