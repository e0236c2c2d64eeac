"""SIGKILL before every durable write and around every send of a whole step, approval and swap: restarted, it trades exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import codec
from agent.execution.settlement import realised_legs
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, Plan, StepInput
from tests.support.agents import ROOMY, allowances, fund, off_target, purse, reopened_agent, trusted_config
from tests.support.markets.step_kills import ENDS, StepWorld, every_run
from tests.support.worlds import one_case

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}
SENDS = ["before:send 1", "after:send 1", "before:send 2", "after:send 2"]
WRITES = [f"write {number}" for number in range(1, 33)]
"""Commits that change the store: nonce adopted; openings; books of the ledger and a valuation; prices of the hour; step, five states of
the approval, its end, its gas booked, openings, entries, a valuation; again for the swap. The cycle before each transaction and after
each step, and its end."""
OFTEN = {"after:send 1", "after:send 2", *(f"write {number}" for number in (7, 22, 26))}
"""Around the sends, and after the step, the swap signed and the swap booked; the others are slow."""


@pytest.fixture(scope="module")
def furnished(anvil_session: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepWorld]:
    """The wallet and its store, made once."""
    with one_case(anvil_session):
        fund(anvil_session, HELD)
        loaded = trusted_config(anvil_session, tmp_path_factory.mktemp("made"), ROOMY, TARGETS)
        yield StepWorld(anvil_session, loaded, purse(anvil_session))


@pytest.fixture
def world(furnished: StepWorld, tmp_path: Path) -> Iterator[StepWorld]:
    """The same for each case: the chain goes back after it, the store is a copy."""
    with one_case(furnished.chain):
        yield furnished.copied(tmp_path / "case")


def require_exactly_once(world: StepWorld) -> None:
    """One swap, as its own plan says to the wei; every intent at an end, every transaction known and booked, nothing approved."""
    chain = world.chain
    before = world.before
    after = purse(world.chain)
    with reopened_agent(chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == ()
        assert store.journal.unbooked_intents() == ()
        intents = store.journal.intents()
        assert {intent.state for intent in intents} <= ENDS
        mined = [intent for intent in intents if intent.receipt is not None]
        (swap,) = [intent for intent in mined if intent.kind is IntentKind.SWAP]
        record = store.steps.get(swap.step_id)
        history = store.budgets.history(chain.now_s())
    assert record is not None
    assert record.plan_json is not None or record.summary.outcome is None
    assert after.nonce - before.nonce == len(mined)
    assert swap.receipt is not None
    net = swap.receipt.net_transfers(chain.wallet.address)
    assert {chain.tokens[s].address: raw - before.raw[s] for s, raw in after.raw.items() if raw != before.raw[s]} == net
    gas_wei = sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
    assert before.native_wei - after.native_wei == gas_wei
    assert history.budgets.gas_24h_wei == gas_wei
    assert history.budgets.turnover_24h > 0
    assert set(allowances(chain).values()) == {0}
    assert max(off_target(chain, TARGETS).values()) <= 10
    if record.plan_json is not None:
        for done in realised_legs(codec.loads(Plan, record.plan_json), swap.receipt):
            assert (done.in_raw, done.out_raw) == (done.leg.amount_in_raw, done.leg.amount_out_raw)
    assert codec.loads(StepInput, record.input_json).snapshot.owner == chain.wallet.address


@pytest.mark.parametrize("moment", every_run([*SENDS, *WRITES], OFTEN))
def test_step_killed_anywhere__trades_once_after_a_restart(world: StepWorld, moment: str) -> None:
    assert world.killed(moment), f"{moment} was never reached"
    world.restarted()
    assert world.restarted() is OutcomeKind.HOLD
    require_exactly_once(world)


def test_the_moments_cover_a_whole_step(world: StepWorld) -> None:
    """One write more than the last of them is never reached."""
    assert not world.killed(f"write {len(WRITES) + 1}")
    require_exactly_once(world)


def test_a_restart_that_is_killed_too_still_trades_once(world: StepWorld) -> None:
    for moment in ("after:send 1", "write 3", "before:send 1", "write 5", "after:send 1"):
        world.killed(moment)
    world.restarted()
    assert world.restarted() is OutcomeKind.HOLD
    require_exactly_once(world)
