"""A rebalance that a reorganisation takes back, on a real node: done once in the end, and the books say what the chain says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.records.maintenance import reconcile
from agent.config.loaded import LoadedConfig
from agent.errors import OperatorNeeded
from agent.execution.step_context import OutcomeKind
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.support.agents import ROOMY, WalletBalances, allowances, fund, off_target, purse, reopened_agent, trusted_config, yes
from tests.support.movements import movements
from tests.support.text import raises_code

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}


@dataclass(frozen=True)
class FinalRebalance:
    """A rebalance that is final: approval and swap, each in a block of its own."""

    chain: LocalChain
    loaded: LoadedConfig
    before: WalletBalances
    gas_before_wei: int

    def bury(self, depth: int) -> int:
        """The swap lies so many blocks deep, its own counted; a block more for each look that came before it was mined."""
        with reopened_agent(self.chain, self.loaded) as agent:
            (swap,) = [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP]
        assert swap.receipt is not None
        lies = self.chain.w3.eth.block_number - swap.receipt.block_number + 1
        if lies < depth:
            self.chain.mine(depth - lies)
        return max(lies, depth)

    def reorganise(self, depth: int) -> None:
        """Other blocks, all empty, take the place of the newest."""
        late_s = self.chain.now_s()
        self.chain.transport.call("anvil_reorg", [depth, []])
        self.chain.transport.call("evm_setNextBlockTimestamp", [late_s + 5])  # else time, which tests bunch, would go back

    def require_once(self) -> None:
        """One swap is in the chain and final, the wallet has what its receipt says; limits and movements say the same."""
        chain = self.chain
        now = purse(self.chain)
        with reopened_agent(chain, self.loaded) as agent:
            store = agent.context.store
            assert store.journal.open_intents() == ()
            assert store.journal.unbooked_intents() == ()
            mined = [intent for intent in store.journal.intents() if intent.receipt is not None]
            for intent in mined:
                chain_receipt = agent.context.transport.call("eth_getTransactionReceipt", [intent.tx_hash])
                assert chain_receipt["blockHash"] == intent.receipt.block_hash  # type: ignore[union-attr]  # asked for above
            (swap,) = [intent for intent in mined if intent.kind is IntentKind.SWAP]
            history = store.budgets.history(chain.now_s())
            moved = {movement.tx_hash for movement in movements(store)}
            flows = store.balances.expected().transfers
        assert now.nonce - self.before.nonce == len(mined)
        assert swap.receipt is not None
        net = swap.receipt.net_transfers(chain.wallet.address)
        assert {chain.tokens[s].address: raw - self.before.raw[s] for s, raw in now.raw.items() if raw != self.before.raw[s]} == net
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
        assert self.before.native_wei - now.native_wei == gas_wei == history.budgets.gas_24h_wei - self.gas_before_wei
        assert history.budgets.turnover_24h > 0
        assert moved == {intent.tx_hash for intent in mined}
        assert flows == ()
        assert set(allowances(chain).values()) == {0}
        assert max(off_target(chain, TARGETS).values()) <= 10


@pytest.fixture
def done(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[FinalRebalance]:
    fund(anvil_chain, HELD)
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY | {"chain.confirmations": 1}, TARGETS)
    before = purse(anvil_chain)
    with reopened_agent(anvil_chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        spent_wei = sum(intent.receipt.gas_cost_wei for intent in agent.context.store.journal.intents() if intent.receipt is not None)
        earlier_wei = (
            agent.context.store.budgets.history(anvil_chain.now_s()).budgets.gas_24h_wei - spent_wei
        )  # of the wallet's day before this store
    yield FinalRebalance(anvil_chain, loaded, before, earlier_wei)


@pytest.mark.parametrize("depth", [1, *(pytest.param(blocks, marks=pytest.mark.slow) for blocks in (2, 30)), REORG_WATCH_BLOCKS])
def test_rebalance_taken_back__is_brought_back_and_done_once(done: FinalRebalance, depth: int) -> None:
    done.reorganise(done.bury(depth))
    assert purse(done.chain).raw == done.before.raw
    with reopened_agent(done.chain, done.loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        hashes = {intent.tx_hash for intent in agent.context.store.journal.intents() if intent.state is IntentState.FINAL}
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert len(hashes) == 2
    done.require_once()


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 30])
def test_one_that_is_late_by_then_is_cancelled_and_done_anew(done: FinalRebalance, depth: int) -> None:
    done.reorganise(done.bury(depth))
    done.chain.warp(200)
    with reopened_agent(done.chain, done.loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        kinds = [(intent.kind, intent.state) for intent in agent.context.store.journal.intents()]
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    assert (IntentKind.SWAP, IntentState.CANCELLED) in kinds
    assert (IntentKind.CANCEL, IntentState.FINAL) in kinds
    done.require_once()


def test_a_look_finds_it_corrects_the_books_and_sends_nothing(done: FinalRebalance) -> None:
    done.reorganise(done.bury(1))
    with reopened_agent(done.chain, done.loaded) as agent:
        nonce = purse(done.chain).nonce
        outcome = reconcile(agent)
        history = agent.context.store.budgets.history(done.chain.now_s())
        assert purse(done.chain).nonce == nonce
    assert [(item["kind"], item["status"]) for item in outcome["transactions"]] == [("swap", "broadcast")]
    assert (outcome["waiting"], outcome["booked"]) == (1, 0)
    assert (history.budgets.turnover_24h, history.reviews.last_rebalance_s) == (Fraction(0), None)
    assert history.budgets.gas_24h_wei > done.gas_before_wei  # of the approval, whose block is still there


def test_reorg_beyond_64_blocks__asks_a_person_and_sends_nothing(done: FinalRebalance) -> None:
    done.bury(REORG_WATCH_BLOCKS + 1)
    done.reorganise(REORG_WATCH_BLOCKS + 1)
    with reopened_agent(done.chain, done.loaded) as agent:
        swap = next(intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP)
        with raises_code(OperatorNeeded, "deep_reorg", str(swap.tx_hash), "64 blocks"):
            agent.rebalance(send=True, confirm=yes)
        assert agent.context.store.journal.intents(limit=1)[0].state is IntentState.FINAL
        assert purse(done.chain).nonce == done.before.nonce + 1
        agent.resync_nonce()
    with reopened_agent(done.chain, done.loaded) as agent:
        assert agent.rebalance().kind in (OutcomeKind.PLANNED, OutcomeKind.HALT, OutcomeKind.REFUSED)
