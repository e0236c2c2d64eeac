"""A node that does not run the token screen says nothing of tokens: none is left alone, and others traded, for its sake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agent.artifacts import own_artifact
from agent.chain import lens
from agent.chain.rpc import RpcCall, RpcFault
from agent.chain.screening import TokenScreen
from agent.chain.screening.answers import RECORD_FORMAT
from agent.chain.screening.moves import TokenMove, screening_moves
from agent.errors import Retryable
from agent.model import FailedPool, ScreenedToken, ScreenSubject, StepInput, TokenFinding
from agent.policy.quarantine import quarantine_pools
from tests.support.builders import ROUTER, step_input, token, v2_pool, with_snapshot
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import raises_code

RAW = 10**18
GOOD = b"".join(w.to_bytes(32, "big") for w in (RAW, 10 * RAW, RAW, 9 * RAW, 2, RAW, 0, 2, 2, 10 * RAW, 0, 0))
BUSY = RpcFault(-32005, "limit exceeded")
BROKEN = RpcFault(-32000, "internal error")
TRUE = f"0x{1:064x}"
SCREEN = own_artifact("TokenScreen").bytecode


@dataclass
class FakeScreenNode(ScriptedTransport):
    """Finds every token clean, but for what `refuse` says of tries (by their number in one call) and of single calls (0); `empty_pool` has
    nothing to lend.
    """

    refuse: Callable[[int], RpcFault | None]
    empty_pool: str = ""
    operator: str = "a"

    def __post_init__(self) -> None:
        super().__init__(self.operator)

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.request_count += 1
        items = 8 if any(params[0]["data"].startswith(SCREEN) for _, params in calls) else 16  # of two tokens, and of one that failed
        return [self.answer(params, items) for _, params in calls]

    def answer(self, params: list[Any], items: int) -> object:
        if "from" in params[0]:
            return self.refuse(0) or TRUE
        data = params[0]["data"]
        if data.startswith(SCREEN):
            count = bytes.fromhex(data[len(SCREEN) :])[64]
            status = 2 if self.empty_pool and self.empty_pool[2:].lower() in data else 0
            return self.refuse(count) or "0x" + (bytes([RECORD_FORMAT]) + (bytes([status]) + GOOD) * count).hex()
        if not isinstance(params[1], dict):
            return RpcFault(-32000, "missing trie node")
        return "0x" + (bytes([lens.PAGE_FORMAT]) + bytes([lens.CallStatus.FAILED.value]) * items).hex()


def findings_of(refuse: Callable[[int], RpcFault | None]) -> list[TokenFinding]:
    step = step_input({"WETH": 5_000, "USDC": 5_000})
    return [screened_token.finding for screened_token in TokenScreen(FakeScreenNode(refuse), "").screen(step, screening_moves(step))]


def test_a_node_that_runs_everything_finds_them_clean() -> None:
    assert findings_of(lambda count: None) == [TokenFinding.CLEAN, TokenFinding.CLEAN]


@pytest.mark.parametrize("fault", [BUSY, BROKEN])
def test_a_node_that_refuses_every_try_says_nothing_of_tokens(fault: RpcFault) -> None:
    with pytest.raises(Retryable, match="token screen"):
        findings_of(lambda count: fault if count else None)


def test_refused_try__is_repeated_once_then_ends_the_step() -> None:
    answers = [BROKEN, None, None]
    assert findings_of(lambda count: answers.pop(0) if count else None) == [TokenFinding.CLEAN, TokenFinding.CLEAN]
    answers = [BROKEN, None, BROKEN]
    with raises_code(Retryable, "token_screen", "internal error"):
        findings_of(lambda count: answers.pop(0) if count else None)


@pytest.mark.parametrize("code", [-32005, 429])
def test_call_beyond_the_node_s_limits__says_nothing_of_its_token(code: int) -> None:
    with raises_code(Retryable, "rate_limit", "limit exceeded"):
        findings_of(lambda count: None if count else RpcFault(code, "limit exceeded"))


@pytest.mark.parametrize("answers", [[BUSY], [BROKEN, None, BUSY]], ids=["at first", "when repeated"])
def test_a_node_beyond_its_limits_is_not_asked_again(answers: list[RpcFault | None]) -> None:
    remaining = [*answers]
    with raises_code(Retryable, "rate_limit", "limit exceeded"):
        findings_of(lambda count: remaining.pop(0) if count and remaining else None)


def sale_into_an_empty_pool() -> tuple[StepInput, tuple[TokenMove, ...]]:
    """A step with two pools of WETH and USDC, one in quarantine for USDC, and the transfers of a sale of WETH in the other."""
    weth = token("WETH")
    usdc = token("USDC")
    buyer, lender = (v2_pool(weth, usdc, 2_000, name=name) for name in ("buyer", "lender"))
    step = step_input({"WETH": 5_000, "USDC": 5_000}, pools=[buyer, lender])
    failed = ScreenedToken(usdc.address, TokenFinding.CLEAN, "", ScreenSubject.POOL, (FailedPool(lender.contract, "no money"),))
    sale = (TokenMove(weth.address, buyer, RAW, spender=ROUTER), TokenMove(usdc.address, buyer, 2_000, payee=ROUTER))
    return quarantine_pools(step, [failed]), sale


def test_pool_in_quarantine_for_the_other__shows_this_one_moves() -> None:
    """The pool of the sale holds none of the token, so it alone cannot be tested by a loan."""
    step, sale = sale_into_an_empty_pool()
    screened_tokens = TokenScreen(FakeScreenNode(lambda count: None, sale[0].pool.contract), "").screen(step, sale)
    assert screened_tokens[0] == ScreenedToken(sale[0].token, TokenFinding.CLEAN)


def test_fault_of_the_search_for_a_cause__says_nothing_of_a_token() -> None:
    step, sale = sale_into_an_empty_pool()
    node = FakeScreenNode(lambda count: BROKEN if count == 0 and node.request_count > 1 else None, sale[0].pool.contract)
    with raises_code(Retryable, "token_screen", "internal error"):
        TokenScreen(node, "").screen(step, sale)


def test_a_pool_that_failed_is_not_asked_again_for_less() -> None:
    """It would lend a hundredth of its depth, and count as one that moves the token."""
    step, sale = sale_into_an_empty_pool()
    alone = with_snapshot(step, pools=step.snapshot.pools[:1])
    refusal = RpcFault(3, "execution reverted")
    screened_tokens = TokenScreen(FakeScreenNode(lambda count: None if count else refusal), "").screen(alone, sale)
    assert [screened_token.finding.is_tradable for screened_token in screened_tokens] == [False, False]
