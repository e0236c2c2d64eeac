"""One endpoint lies to the sender while the snapshot is true: nothing is signed that lives longer or pays more (T2, T7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind
from agent.signing.calldata import Multicall, decode
from tests.support.agents import ROOMY, agent_on, fund, purse, reopened_agent, trusted_config, yes
from tests.support.endpoints import newest
from tests.support.fakes.transport import AlterAnswer, RecordingTransport, behind
from tests.support.text import raises_code


def every_header(**changes: Callable[[int], int]) -> AlterAnswer:
    """Return a change of quantities of every header."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method in ("eth_getBlockByNumber", "eth_getBlockByHash") and isinstance(answer, dict):
            return answer | {field: hex(change(int(answer[field], 16))) for field, change in changes.items()}
        return answer

    return alter


TWO = {"WETH": "50%", "USDC": "50%"}
YEAR_S = 365 * 86_400


def drifted(chain: LocalChain) -> None:
    fund(chain, {"WETH": 60_000, "USDC": 30_000})


def test_a_head_from_the_future_gives_no_transaction_a_long_life(chain: LocalChain, tmp_path: Path) -> None:
    """Signed bytes with a far deadline would be a free option for whoever keeps them back."""
    drifted(chain)
    liar = RecordingTransport(chain.transport, "liar", newest(timestamp=lambda s: s + YEAR_S))
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY, transports=[liar]) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swaps: list[Intent] = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
        true_s = chain.transport.call("eth_getBlockByNumber", ["latest", False])["timestamp"]
        for swap in swaps:
            call = decode(swap.tx.data)
            assert isinstance(call, Multicall)
            assert call.deadline_s <= int(true_s, 16) + 3 * 90
        assert outcome.kind is OutcomeKind.REFUSED
        assert purse(chain) == before


def test_fees_follow_the_header_that_the_quorum_agreed_on(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    liar = RecordingTransport(chain.transport, "liar", newest(baseFeePerGas=lambda wei: wei * 20 + 10**9))
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY | {"limits.gas_price": "off"}, transports=[liar]) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        for intent in agent.context.store.journal.intents():
            agreed = outcome.step_input.snapshot
            assert agreed.head.base_fee_wei is not None
            assert intent.tx.max_fee_wei is not None
            assert intent.tx.max_fee_wei <= 3 * agreed.head.base_fee_wei + agreed.priority_fee_wei


def test_future_header__leaves_no_review_that_halts_later_steps(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 45_000, "USDC": 45_000})
    daily: dict[str, object] = {"policy.trigger": {"kind": "time", "every": "1d"}}
    loaded = trusted_config(chain, tmp_path, ROOMY | daily, TWO)
    liar = RecordingTransport(chain.transport, "liar", every_header(timestamp=lambda s: s + YEAR_S))
    with reopened_agent(chain, loaded, [liar]) as fooled:
        fooled.rebalance(send=True, confirm=yes)
    chain.warp(60)
    with reopened_agent(chain, loaded) as agent:
        assert agent.plan().kind is not OutcomeKind.HALT, agent.plan().reason


def test_quorum_without_our_last_transaction__is_waited_for(chain: LocalChain, tmp_path: Path) -> None:
    """A snapshot from before our own approval would approve again, and again."""
    drifted(chain)
    slow = RecordingTransport(chain.transport, "slow", ask=behind(chain.transport, 1))
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY, transports=[chain.transport, slow]) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert [intent.kind for intent in agent.context.store.journal.intents()] == [IntentKind.SWAP, IntentKind.APPROVE]


def test_quorum_that_stays_behind__sends_nothing(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    slow = RecordingTransport(chain.transport, "slow")
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY, transports=[chain.transport, slow]) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        slow.ask = behind(chain.transport, 2)  # in blocks of this test, whose states anvil still has
        with raises_code(Retryable, "lag"):
            agent.rebalance(send=True, confirm=yes)
