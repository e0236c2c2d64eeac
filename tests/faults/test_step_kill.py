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
WRITES = {
    "nonce adopted": "INSERT meta 1",
    "first openings": "INSERT openings 1",
    "tokens of the ledger": "INSERT meta 2",
    "ledger opened": "INSERT books 1",
    "first valuation": "INSERT valuations 1",
    "prices of the hour": "INSERT prices 1",
    "first step": "INSERT steps 1",
    "cycle before the approval": "UPDATE cycles 1",
    "approval planned": "INSERT intents 1",
    "approval signed": "UPDATE intents 1",
    "approval broadcast": "UPDATE intents 2",
    "approval mined": "UPDATE intents 3",
    "approval final": "UPDATE intents 4",
    "end of the first step": "UPDATE steps 1",
    "cycle after the approval": "UPDATE cycles 2",
    "approval booked": "INSERT budgets 1",
    "openings after the approval": "INSERT openings 2",
    "entries of the approval": "INSERT entries 1",
    "valuation after the approval": "INSERT valuations 2",
    "second step": "INSERT steps 2",
    "cycle before the swap": "UPDATE cycles 3",
    "swap planned": "INSERT intents 2",
    "swap signed": "UPDATE intents 5",
    "swap broadcast": "UPDATE intents 6",
    "swap mined": "UPDATE intents 7",
    "swap final": "UPDATE intents 8",
    "swap booked": "INSERT budgets 2",
    "openings after the swap": "INSERT openings 3",
    "entries of the swap": "INSERT entries 2",
    "valuation after the swap": "INSERT valuations 3",
    "end of the second step": "UPDATE steps 2",
    "cycle closed": "UPDATE cycles 4",
}
"""Each commit that changes the store, by what it commits: its first statement, with its number among the equal ones. The process dies
just before it."""
OFTEN = {"after:send 1", "after:send 2", "cycle before the approval", "swap broadcast", "swap booked"}
"""Around the sends, and with the step stored, the swap signed, and the swap final; the others are slow."""


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
    assert world.killed(WRITES.get(moment, moment)), f"{moment} was never reached"
    world.restarted()
    assert world.restarted() is OutcomeKind.HOLD
    require_exactly_once(world)


def test_the_moments_cover_a_whole_step(world: StepWorld) -> None:
    """One write more than the last of them is never reached."""
    assert not world.killed(f"write {len(WRITES) + 1}")
    require_exactly_once(world)


def test_a_restart_that_is_killed_too_still_trades_once(world: StepWorld) -> None:
    for moment in ("after:send 1", "UPDATE steps 1", "before:send 1", "UPDATE cycles 1", "INSERT budgets 1"):
        assert world.killed(moment), f"{moment} was never reached"
    world.restarted()
    assert world.restarted() is OutcomeKind.HOLD
    require_exactly_once(world)
