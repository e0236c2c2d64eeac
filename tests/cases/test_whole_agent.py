"""Anything in any order, and the agent beside a model of it: hypothesis looks for an order that breaks what must hold."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agent.app.agent import Agent
from agent.chain.providers.endpoint import EndpointProvider
from agent.errors import OperatorNeeded, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.chain import TWAP_MARGIN_S, TWAP_WINDOW_S
from agent.localchain.nodes import AnvilNode
from agent.store import open_store
from agent.store.files.pause import KillSwitch, pause_file
from agent.wiring import store_file
from tests.support.agents import ROOMY, agent_config, allowances, off_target, reopened_agent, trusted_config, weights, yes
from tests.support.endpoints import MOODS, EndpointFaults, remembering
from tests.support.fakes.clock import FakeClock
from tests.support.ledgers import LedgerOfChain, outside_band
from tests.support.samples import slow
from tests.support.stores import dying
from tests.support.transactions import Killed

CONFIRMATIONS = 3
NEAR_BPS = 20
"""Distance from the target within which a rebalance must end."""
POOLS = ("v3 WETH/USDC 500", "v2 WETH/USDC")
CHANGES = {
    **ROOMY,
    "limits.daily_loss": "off",
    "limits.balance_jump": "off",
    "portfolio.max_live_value": "off",
    "chain.confirmations": CONFIRMATIONS,
}
MOMENTS = 40
"""More than the moments of one step at which a process may end: before each commit that changes the store, around each send, while
waiting.
"""
PATIENCE = 60
TRIES = 8
"""Moments after which the owner ends an endless step; number of healthy steps within which the agent must come to rest."""
_TURNS = count()


class WholeAgent(RuleBasedStateMachine):
    """A model with two tokens, two pools, and two endpoints of which one may fail or lie."""

    def __init__(self, chain: LocalChain, folder: Path) -> None:
        super().__init__()
        assert isinstance(chain.node, AnvilNode)
        self.chain = chain
        self.node = chain.node
        self.mark = chain.snapshot()
        turn = next(_TURNS)
        self.node.mine_at(chain.now_s() + 1 + turn % 45)  # anvil forgets the states of identical blocks together
        self.folder = folder / f"run{turn}"
        self.targets = {"WETH": "50%", "USDC": "50%"}
        self.sent: list[str] = []
        self.are_blocks_held = False
        self.clock = FakeClock(0, source=chain.now_s, wait=lambda s: None if self.are_blocks_held else chain.clock.sleep(s))
        self.bad = EndpointFaults(EndpointProvider(chain.url or "", "beta", 30), "beta")
        self.changes = CHANGES | {
            f"venues.uniswap_{kind}.pools": [chain.address_by_pool[name]] for kind, name in (("v3", POOLS[0]), ("v2", POOLS[1]))
        }
        chain.set_balance("WETH", 15 * 10**18)
        chain.set_balance("USDC", 45_000 * 10**6)
        for symbol in set(chain.tokens) - set(self.targets):
            chain.set_balance(symbol, 0)
        self.loaded = trusted_config(chain, self.folder, self.changes, self.targets)
        self.process = ExitStack()
        self.agent: Agent | None = None
        self.store = open_store(self.loaded.store_url, chain.chain_id, chain.wallet.address)
        self.switch = KillSwitch(pause_file(store_file(self.loaded)), self.store.pause_switch)
        self.ledger = LedgerOfChain(chain, self.node)
        self.paused = self.foreign = self.adopted = False
        self.world_block = chain.w3.eth.block_number

    # --- The model's knowledge.

    def running(self) -> Agent:
        """Return the agent's process, started if necessary."""
        if self.agent is None:
            good = remembering(EndpointProvider(self.chain.url or "", "alpha", 30), "alpha", self.sent)
            self.agent = self.process.enter_context(reopened_agent(self.chain, self.loaded, [good, self.bad.transport], self.clock))
        return self.agent

    def ends(self) -> None:
        """End the process."""
        self.process.close()
        self.process = ExitStack()
        self.agent = None

    def healthy(self) -> bool:
        """Return whether nothing known to the model prevents a step."""
        return self.bad.mood == "honest" and not (self.paused or self.foreign or self.are_blocks_held)

    def act(self, send: bool = True, die_at: int | None = None) -> StepOutcome | TrimtabError | None:
        """Run one step; None if the process ended in it. Only TrimtabError may be raised by it."""
        mined = self.ledger.count()
        sent = len(self.sent)
        try:
            agent = self.running()
            with dying(agent, die_at) as progress:
                outcome: StepOutcome | TrimtabError = agent.rebalance(send=send, confirm=yes, progress=progress)
        except Killed:
            self.ends()
            return None
        except TrimtabError as error:
            outcome = error
        finally:
            self.ledger.read()
            self.was_misled()
        if self.paused or not send:
            assert len(self.sent) == sent, "something was sent while paused, or by a dry run"
        if self.foreign and self.adopted:
            assert self.ledger.count() == mined, "something was mined though a stranger uses the wallet"
        return outcome

    def was_misled(self) -> None:
        """Note that a false first nonce was accepted, on first use or by the owner: the agent then waits for another adoption, without a
        loss.
        """
        if self.bad.mood == "no nonce used" and self.store.journal.expected_nonce() == 0 != self.ledger.nonce():
            self.foreign = self.adopted = True

    # --- Events.

    @precondition(lambda self: not self.are_blocks_held)
    @rule(percent=st.sampled_from([-9, -4, -1, 2, 5, 10]))
    def the_price_moves(self, percent: int) -> None:
        chain = self.chain
        price = min(max(chain.deployed_world.prices_usd["WETH"] * (100 + percent) / 100, Fraction(1_500)), Fraction(6_000))
        chain.deployed_world = replace(chain.deployed_world, prices_usd={**chain.deployed_world.prices_usd, "WETH": price})
        for name in POOLS:
            chain.arbitrage(chain.deployed_world.pool_by_name[name])
        chain.warp(TWAP_WINDOW_S + TWAP_MARGIN_S, refresh_feeds=False)
        chain.refresh_feeds(("WETH", "USDC"))
        self.the_world_went_on()

    @precondition(lambda self: not self.are_blocks_held)
    @rule(symbol=st.sampled_from(["WETH", "USDC"]), percent=st.sampled_from([-30, -5, 1, 25, 60]))
    def somebody_deposits_or_withdraws(self, symbol: str, percent: int) -> None:
        """Change a balance other than by a transaction of the wallet, so that its nonce stays."""
        self.chain.set_balance(symbol, self.chain.balance(symbol) * (100 + percent) // 100)
        self.the_world_went_on()

    @precondition(lambda self: not self.are_blocks_held and not self.foreign)
    @rule()
    def the_owner_uses_the_wallet_by_hand(self) -> None:
        wallet = self.chain.wallet.address
        if int(self.node.rpc("eth_getTransactionCount", wallet, "pending"), 16) != self.ledger.nonce():
            return
        self.adopted = self.store.journal.expected_nonce() is not None
        self.ledger.by_hand(self.node.rpc("eth_sendTransaction", {"from": wallet, "to": wallet, "gas": hex(21_000)}))
        self.node.rpc("evm_mine")
        self.foreign = True
        self.the_world_went_on()

    @rule()
    def the_owner_adopts(self) -> None:
        try:
            self.running().resync_nonce()
            self.foreign = False
        except TrimtabError:
            assert not self.healthy() or self.store.journal.open_intents()
        self.was_misled()

    @rule(pause=st.booleans())
    def the_kill_switch_is_turned(self, pause: bool) -> None:
        (self.switch.pause if pause else self.switch.resume)("the model", self.chain.now_s())
        self.paused = pause

    @rule(weth=st.sampled_from([30, 45, 50, 70]))
    def targets_change(self, weth: int) -> None:
        self.ends()
        self.targets = {"WETH": f"{weth}%", "USDC": f"{100 - weth}%"}
        self.loaded = agent_config(self.chain, self.folder, self.changes, self.targets)

    @rule(mood=st.sampled_from(MOODS))
    def an_endpoint_turns(self, mood: str) -> None:
        self.bad.mood = mood

    @rule()
    def a_dry_run(self) -> None:
        outcome = self.act(send=False)
        if self.healthy() and isinstance(outcome, StepOutcome) and outside_band(self.chain, self.targets) is False:
            assert outcome.kind is OutcomeKind.HOLD, outcome.reason

    @precondition(lambda self: not self.are_blocks_held)
    @rule()
    def a_step(self) -> None:
        drifted = outside_band(self.chain, self.targets)
        open_before = len(self.store.journal.open_intents())
        outcome = self.act(die_at=None if self.healthy() else PATIENCE)
        if not self.healthy() or open_before:
            return
        assert isinstance(outcome, StepOutcome), outcome
        if outcome.kind is OutcomeKind.REFUSED:
            assert "reverts_in_row" in outcome.reason, outcome.reason
        elif drifted is not None:
            assert outcome.kind is (OutcomeKind.DONE if drifted else OutcomeKind.HOLD), outcome.reason
        if outcome.kind is OutcomeKind.DONE:
            self.require_done()

    @precondition(lambda self: not self.are_blocks_held)
    @rule(moment=st.integers(1, MOMENTS))
    def the_process_dies_in_a_step(self, moment: int) -> None:
        self.act(die_at=moment)

    @precondition(lambda self: not self.are_blocks_held)
    @rule()
    def blocks_are_held_back(self) -> None:
        self.node.rpc("evm_setAutomine", False)
        self.are_blocks_held = True

    @precondition(lambda self: self.are_blocks_held)
    @rule()
    def the_process_dies_waiting_for_a_block(self) -> None:
        """End a step that waits because no blocks are mined, as a user would."""
        self.act(die_at=MOMENTS)

    @precondition(lambda self: self.are_blocks_held)
    @rule(late=st.booleans(), forgotten=st.booleans())
    def blocks_go_on(self, late: bool, forgotten: bool) -> None:
        """Resume mining: pending transactions are mined, at once or after their deadline, or the mempool has forgotten them."""
        if forgotten:
            self.node.rpc("anvil_dropAllTransactions")
        self.node.rpc("evm_setAutomine", True)
        self.are_blocks_held = False
        self.node.mine_at(self.chain.now_s() + (200 if late else 1))
        self.ledger.read()

    @precondition(lambda self: not self.are_blocks_held and self.chain.w3.eth.block_number > self.world_block)
    @rule(depth=st.integers(1, CONFIRMATIONS - 1))
    def the_newest_blocks_are_reorganised_away(self, depth: int) -> None:
        depth = min(depth, self.chain.w3.eth.block_number - self.world_block)
        now_s = self.chain.now_s()
        self.node.rpc("anvil_reorg", depth, [])
        self.node.mine_at(now_s + 1)  # time advances: other blocks replace the removed ones
        self.ledger.read()

    @precondition(lambda self: not self.are_blocks_held)
    @rule(hours=st.sampled_from([1, 5]))
    def time_passes(self, hours: int) -> None:
        self.chain.warp(hours * 3_600, refresh_feeds=False)
        self.chain.refresh_feeds(("WETH", "USDC"))
        self.the_world_went_on()

    def the_world_went_on(self) -> None:
        """Protect the blocks so far from reorganisation, since they contain transactions of others."""
        self.ledger.read()
        self.world_block = self.chain.w3.eth.block_number

    # --- Invariants.

    @invariant()
    def the_journal_knows_it_all(self) -> None:
        """Assert that every sent transaction is in the journal, and that no nonce has two that succeeded."""
        intents = self.store.journal.intents(limit=1_000)
        known = {intent.tx_hash for intent in intents}
        assert set(self.sent) <= known
        assert self.ledger.hashes() <= known
        succeeded = [intent.tx.nonce for intent in intents if intent.succeeded]
        assert len(succeeded) == len(set(succeeded))

    def require_done(self) -> None:
        """Assert after a completed step: at the target, no allowances, no open transaction, and a ledger that equals the chain."""
        store = self.store
        assert max(off_target(self.chain, self.targets).values()) <= NEAR_BPS, weights(self.chain, self.targets)
        assert set(allowances(self.chain).values()) == {0}
        assert [intent for intent in store.journal.open_intents() if intent.receipt is None] == []
        assert store.journal.unbooked_intents() == ()
        since_s = self.chain.now_s() - 86_400
        booked = store.budgets.history(self.chain.now_s()).budgets.gas_24h_wei
        ours = self.ledger.gas_wei(since_s)
        assert ours <= booked <= ours + self.ledger.gas_wei(since_s, by_hand=True), (
            "books of a new store may begin with the wallet's last day"
        )

    def teardown(self) -> None:
        """Restore all faults, and assert that the agent completes what it began."""
        try:
            if self.are_blocks_held:
                self.blocks_go_on(False, False)
            self.bad.mood = "honest"
            self.the_kill_switch_is_turned(False)
            self.the_world_went_on()
            for _ in range(TRIES):
                outcome = self.act()
                if isinstance(outcome, OperatorNeeded):
                    assert self.foreign, outcome
                    self.running().resync_nonce()
                    self.foreign = False
                elif isinstance(outcome, StepOutcome) and outcome.kind is OutcomeKind.DONE:
                    self.require_done()
                elif isinstance(outcome, StepOutcome) and outcome.kind is OutcomeKind.HOLD and not self.store.journal.open_intents():
                    assert outside_band(self.chain, self.targets) is not True
                    break
                self.node.mine(CONFIRMATIONS)
            else:
                raise AssertionError(f"after {TRIES} healthy steps it does not rest: {outcome}")
            self.the_journal_knows_it_all()
        finally:
            self.node.rpc("evm_setAutomine", True)
            self.ends()
            self.store.close()
            self.chain.revert(self.mark)


RUNS = int(os.environ.get("TRIMTAB_STATEFUL_RUNS", "3"))
STEPS = int(os.environ.get("TRIMTAB_STATEFUL_STEPS", "25"))


@pytest.mark.parametrize("runs", [RUNS, *slow([7])])
def test_events_in_any_order__keep_the_agent_s_promises(anvil_chain: LocalChain, tmp_path: Path, runs: int) -> None:
    """`make fuzz` does the same for longer."""
    run_state_machine_as_test(
        lambda: WholeAgent(anvil_chain, tmp_path),
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
