"""A bench where nothing is mined by itself and what waits is hurried; and what must hold of every replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from agent.model import Intent
from agent.signing.base import BUMP_DENOMINATOR, BUMP_NUMERATOR
from tests.support.scripted import Bench, bench


def patient(folder: Path, **settings: object) -> Bench:
    """Nothing is mined by itself; what waits is hurried every two seconds, for a minute."""
    made = bench(folder, automine=False)
    made.settings = replace(made.settings, **{"bump_after_s": 2, "mined_timeout_s": 60, **settings})
    return made


def states(made: Bench) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(made.store.intents())]


def when_sent(made: Bench, count: int, act: Callable[[], object]) -> None:
    """Something happens once so many were sent."""

    def each() -> None:
        if len(made.chain.sent) >= count:
            act()

    made.clock.each = each


def require_dearer(intents: Sequence[Intent]) -> None:
    """Each pays at least an eighth more than the one before, in both fields, and replaces it."""
    for before, after in pairwise(intents):
        for field in ("max_fee_wei", "max_priority_fee_wei"):
            assert getattr(after.tx, field) * BUMP_DENOMINATOR >= getattr(before.tx, field) * BUMP_NUMERATOR
        assert after.replaces == before.id
        assert after.tx.nonce == before.tx.nonce
