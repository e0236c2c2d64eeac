"""Reads whose failure is not the answer: what goes on without them, whatever the endpoints raise."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from agent.errors import PassingFault, Refused, Retryable, TrimtabError
from agent.execution.evaluation import minimums_fault
from agent.execution.sending import Draft, execute
from agent.execution.step_context import OutcomeKind, StepReaders, TickExtender
from agent.store import Store
from tests.support.decisions.exits import LINK, MARKET, SOUND, outcome_of, step_with_stops
from tests.support.refusal_worlds import World
from tests.support.stores import store_fixture

store = store_fixture()

STEP = step_with_stops("LINK", pools=(*MARKET, SOUND))
OUTCOME = outcome_of(STEP)
ERRORS = [Retryable("no answer"), Refused("2 of 2 operators differ"), PassingFault("HTTP 403")]


def raising(error: TrimtabError) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("error", ERRORS, ids=["no answer", "disagreement", "no access"])
def test_minimums__of_unread_prices_are_unchecked(error: TrimtabError) -> None:
    assert OUTCOME.plan is not None
    fault = minimums_fault(
        cast(StepReaders, SimpleNamespace(step_input_at=str, reader=SimpleNamespace(snapshot=raising(error)))), OUTCOME.plan
    )
    assert fault is not None
    assert (fault.is_stale, fault.reason) == (False, f"the prices now cannot be read: {error.message}")


@pytest.mark.parametrize("error", ERRORS, ids=["no answer", "disagreement", "no access"])
def test_ticks__that_cannot_be_read_are_no_more(error: TrimtabError) -> None:
    reader: Any = SimpleNamespace(with_more_ticks=raising(error))
    assert TickExtender(reader)(STEP) is None


@pytest.mark.parametrize("error", ERRORS, ids=["no answer", "disagreement", "no access"])
def test_sent_transaction__is_done_though_the_chain_cannot_be_read_after(store: Store, error: TrimtabError) -> None:
    world = World(store, STEP, lambda _: False)
    assert OUTCOME.plan is not None
    store.steps.begin(OUTCOME.step_id, STEP.snapshot.now_s, "{}")
    draft = Draft(world.swap_transaction(STEP, OUTCOME.plan), "the swap", "")
    ports = world.ports()
    true_mined = world.mined

    def mined(*args: Any) -> Any:
        intent = true_mined(*args)
        world.snapshot = raising(error)  # type: ignore[method-assign]
        return intent

    world.mined = mined  # type: ignore[method-assign]
    outcome, intent = execute(ports, OUTCOME, draft)
    assert (outcome.kind, outcome.input_after, intent.succeeded) == (OutcomeKind.DONE, None, True)
    assert world.sold == [{LINK.address}]
