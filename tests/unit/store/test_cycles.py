"""Tests of agent/store/cycles.py: a cycle is read as it was written, and is the only open one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.execution.confirmation import confirmation_of
from agent.execution.resumption import new_cycle
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesCycle
from agent.layers.liquidity.state import LiquidityCycle
from agent.model import (
    AgentCycle,
    BlockedExit,
    Cycle,
    CycleEnd,
    IntentKind,
    InterruptedExit,
    MarginDeposit,
    PlanRequest,
    StepEnd,
    Swap,
    TokenRefusal,
)
from agent.store import Store
from tests.support.builders import NOW_S, OWNER
from tests.support.decisions.exits import LINK, MARKET, SOUND, USDC, WBTC, outcome_of, step_with_stops
from tests.support.stores import store_fixture
from tests.support.text import raises_code

CONFIRMED = outcome_of(step_with_stops("LINK", pools=(*MARKET, SOUND)))
assert CONFIRMED.plan is not None
REQUESTS: tuple[PlanRequest, ...] = (AgentCycle(), Swap(LINK.address, USDC.address, 10**30), MarginAccountRequest(MarginDeposit(5)))


store = store_fixture("memory", wallet=OWNER)


@pytest.mark.parametrize("request_", REQUESTS)
def test_store_keeps_everything_of_a_cycle(store: Store, request_: PlanRequest) -> None:
    note = StepEnd("s1", "reverted", LINK.address, failed=True)
    cycle = Cycle(
        "c",
        request_,
        NOW_S,
        CycleEnd.OPEN,
        1,
        "s2",
        (IntentKind.APPROVE, IntentKind.SWAP),
        ((LINK.address, 10**40),),
        10**20,
        ((LINK.address, 2),),
        (FuturesCycle(action_count=2, refused_action_notes=(note,)), LiquidityCycle(failed_withdrawal_pools=("pool",))),
        confirmation_of(CONFIRMED, CONFIRMED.plan),
        "s3",
        (note,),
        (BlockedExit(WBTC.address, "why", "wait", 5),),
        ((LINK.address, None), (WBTC.address, TokenRefusal(WBTC.address, NOW_S, 2, "no"))),
        (InterruptedExit(LINK.address, "no quorum", "wait", "lag"),),
        (note,),
        (WBTC.address,),
    )

    store.cycles.write(cycle)

    assert store.cycles.find_open_cycle() == cycle == codec.loads(Cycle, codec.dumps(cycle))
    store.cycles.write(replace(cycle, sending_step_id=""))
    assert store.cycles.find_open_cycle() == replace(cycle, sending_step_id="")
    store.cycles.close("over")
    assert store.cycles.find_open_cycle() is None


def test_store_has_one_open_cycle(store: Store) -> None:
    store.cycles.write(new_cycle(AgentCycle(), NOW_S))

    with raises_code(OperatorNeeded, "lock", "another process serves this wallet"):
        store.cycles.write(new_cycle(AgentCycle(), NOW_S))
    with pytest.raises(ConfigError, match="required field 'id' is missing"):
        codec.loads(Cycle, "{}")
