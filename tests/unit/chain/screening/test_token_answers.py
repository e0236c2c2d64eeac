"""The token screen of a step: which calls it makes of a node, and which answers end in which finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.artifacts import own_artifact
from agent.chain.lens import PAGE_FORMAT, CallStatus, uint_word
from agent.chain.rpc import RpcCall, RpcFault
from agent.chain.screening import TokenScreen
from agent.chain.screening.answers import TransferOutcome, TrialRecord
from agent.chain.screening.calls import MAX_CALL_GAS
from agent.chain.screening.moves import TokenMove
from agent.chain.screening.traits import BLOCKS_BACK
from agent.model import Allowance, ScreenedToken, StepInput, TokenFinding
from tests.support.builders import ROUTER, step_input, v2_pool, v3_pool, with_snapshot
from tests.support.chain_reads.token_pages import FAIR, page
from tests.support.fakes.transport import ScriptedTransport
from tests.support.tokens import USDC, WETH

DEEP = v2_pool(WETH, USDC, 2_000, 50_000, name="deep")
SMALL = v2_pool(WETH, USDC, 2_000, 40_000, name="small")
SCREEN = own_artifact("TokenScreen").bytecode
APPROVE = "0x095ea7b3"
REVERT = RpcFault(3, "execution reverted")
VIEWS_OF_CONTROLS = 16
"""paused(), and five for wallet, router and pool."""
MOVES = (TokenMove(WETH.address, DEEP, 700), TokenMove(WETH.address, SMALL, 600), TokenMove(USDC.address, DEEP, 500))


class FakeNode(ScriptedTransport):
    """Runs trials with the record of their pool, refuses calls that begin with `refused`, and answers the traits and past balances of WETH
    and USDC.
    """

    def __init__(
        self,
        record_by_pool: Mapping[str, TrialRecord] | None = None,
        refused: str = "none",
        traits: Sequence[bool] = (False,) * 8,
        past_raw: Sequence[int] = (),
    ) -> None:
        super().__init__("a", lambda method, params: [] if method == "eth_getLogs" else self.answer(*params))
        self.record_by_pool = record_by_pool or {}
        self.refused = refused
        self.traits = traits
        self.past_raw = past_raw
        self.requests: list[list[RpcCall]] = []

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.requests.append(list(calls))
        return super().batch(calls)

    def answer(self, call: dict[str, str], block: object) -> object:
        if "from" in call:
            return REVERT if call["data"].startswith(self.refused) else f"0x{1:064x}"
        if call["data"].startswith(SCREEN):
            record = self.record_by_pool.get(loan_of(call["data"])[1], FAIR)
            return "0x" + page(record).hex()
        if isinstance(block, str):
            return views([uint_word(raw) for raw in self.past_raw]) if self.past_raw else REVERT
        if len(self.requests) > 1:
            return views([None] * VIEWS_OF_CONTROLS)
        return views([uint_word(1) if has_trait else None for has_trait in self.traits])

    @property
    def trials(self) -> list[tuple[str, str, int, int]]:
        data = [params[0].get("data", "") for _, params in self.requests[0]]
        return [loan_of(screen_data) for screen_data in data if screen_data.startswith(SCREEN)]


def views(words: Sequence[bytes | None]) -> str:
    failed = bytes([CallStatus.FAILED.value])
    answers = [failed if word is None else b"\0\0\x20" + word for word in words]
    return "0x" + (bytes([PAGE_FORMAT]) + b"".join(answers)).hex()


def loan_of(screen_data: str) -> tuple[str, str, int, int]:
    """Return token, pool, flags and base units of a trial."""
    request = bytes.fromhex(screen_data.removeprefix(SCREEN))[65:]
    return "0x" + request[:20].hex(), "0x" + request[20:40].hex(), request[40], int.from_bytes(request[41:57], "big")


def screened(
    node: FakeNode, moves: Sequence[TokenMove] = MOVES, wrapped_native: str = "", step: StepInput | None = None
) -> tuple[ScreenedToken, ...]:
    step = step or step_input({"WETH": 5_000, "USDC": 5_000}, pools=[DEEP, SMALL])
    return TokenScreen(node, wrapped_native).screen(step, tuple(moves))


def findings(node: FakeNode, **changes: Any) -> list[TokenFinding]:
    return [screened_token.finding for screened_token in screened(node, **changes)]


def past_balances(*change_raw: int) -> list[int]:
    """Return the balances of WETH and USDC that the step has, less these changes."""
    raw_by_token = {holding.token: holding.raw for holding in step_input({"WETH": 5_000, "USDC": 5_000}).snapshot.holdings}
    return [raw_by_token[traded_token.address] - change for traded_token, change in zip((WETH, USDC), change_raw, strict=True)]


def test_screen__sound_tokens__are_clean_after_one_request() -> None:
    node = FakeNode(past_raw=past_balances(0, 0))
    assert screened(node) == (ScreenedToken(WETH.address, TokenFinding.CLEAN), ScreenedToken(USDC.address, TokenFinding.CLEAN))
    assert len(node.requests) == 1


def test_screen__each_pool_of_a_token_lends_it_once() -> None:
    v3 = v3_pool(WETH, USDC, 2_000, name="v3")
    moves = [TokenMove(token.address, pool, 700) for token in (WETH, USDC) for pool in (DEEP, SMALL, v3)]
    node = FakeNode()
    screened(node, [*moves, replace(moves[0], raw=300)])
    flags = [(move.token == move.pool.token1) + (2 if move.pool is v3 else 0) for move in moves]
    assert node.trials == [(move.token.lower(), move.pool.contract.lower(), flag, 700) for move, flag in zip(moves, flags, strict=True)]


def test_screen__reads_all_but_the_past_balance_at_the_block() -> None:
    node = FakeNode()
    step = step_input({"WETH": 5_000, "USDC": 5_000})
    step = with_snapshot(step, head=replace(step.snapshot.head, number=1_000))
    screened(node, step=step)
    blocks = [params[1] for _, params in node.requests[0]]
    assert [block for block in blocks if isinstance(block, str)] == [hex(1_000 - BLOCKS_BACK)]
    assert all(block == {"blockHash": step.snapshot.head.hash, "requireCanonical": True} for block in blocks if not isinstance(block, str))


def test_screen__single_calls_have_a_bound_on_their_gas() -> None:
    node = FakeNode()
    screened(node, [replace(move, payee=ROUTER, spender=ROUTER) for move in MOVES])
    gas = {params[0]["gas"] for _, params in node.requests[0] if "from" in params[0]}
    assert gas == {hex(MAX_CALL_GAS)}


def test_screen__finding_is_that_of_the_largest_transfer() -> None:
    silent = replace(FAIR, transfer_outcome=TransferOutcome.SILENT)
    assert findings(FakeNode({DEEP.contract.lower(): silent}))[0] is TokenFinding.NO_RETURN_VALUE
    assert findings(FakeNode({SMALL.contract.lower(): silent}))[0] is TokenFinding.CLEAN


@pytest.mark.parametrize("trait", range(8))
def test_screen__trait_is_of_the_token_that_has_it(trait: int) -> None:
    node = FakeNode(traits=[number == trait for number in range(8)])
    named = TokenFinding.CALLBACK if trait % 4 == 3 else TokenFinding.REBASING
    assert findings(node) == [named if trait // 4 == number else TokenFinding.CLEAN for number in (0, 1)]


@pytest.mark.parametrize("allowed_raw", [0, 5])
def test_screen__token_that_refuses_the_router_is_a_trap(allowed_raw: int) -> None:
    """Only with an allowance left: without one, a token that is bought needs no approval yet."""
    step = step_input({"WETH": 5_000, "USDC": 5_000}, pools=[DEEP, SMALL])
    step = with_snapshot(step, allowances=(Allowance(WETH.address, ROUTER, allowed_raw),))
    expected = TokenFinding.HONEYPOT if allowed_raw else TokenFinding.CLEAN
    assert findings(FakeNode(refused=APPROVE), step=step) == [expected, TokenFinding.CLEAN]


@pytest.mark.parametrize("rebased", [0, 1])
def test_screen__balance_that_changed_by_itself_is_of_its_token(rebased: int) -> None:
    node = FakeNode(past_raw=past_balances(*(number == rebased for number in (0, 1))))
    assert findings(node) == [TokenFinding.REBASING if number == rebased else TokenFinding.CLEAN for number in (0, 1)]


def test_screen__wrapped_coin_changes_without_a_transfer() -> None:
    assert findings(FakeNode(past_raw=past_balances(1, 1)), wrapped_native=WETH.address) == [TokenFinding.CLEAN, TokenFinding.REBASING]


def test_screen__token_that_fails_its_trial_keeps_that_finding() -> None:
    node = FakeNode({DEEP.contract.lower(): replace(FAIR, arrived_raw=900)}, traits=(True,) * 4)
    sale = [TokenMove(WETH.address, DEEP, 700, spender=ROUTER)]
    step = with_snapshot(step_input({"WETH": 5_000, "USDC": 5_000}), pools=(DEEP,))
    assert findings(node, moves=sale, step=step) == [TokenFinding.FEE_ON_TRANSFER]
