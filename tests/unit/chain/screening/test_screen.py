"""Tests of agent/chain/screening/screen.py: which calls the screen of a step makes of a node, and which answers end in which finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.artifacts import own_artifact
from agent.chain.lens import PAGE_FORMAT, CallStatus, uint_word
from agent.chain.rpc import RpcCall, RpcFault
from agent.chain.screening import TokenScreen
from agent.chain.screening.answers import TrialRecord
from agent.chain.screening.calls import MAX_CALL_GAS
from agent.chain.screening.moves import TokenMove, screening_moves
from agent.chain.screening.traits import BLOCKS_BACK
from agent.errors import Retryable
from agent.model import Allowance, FailedPool, ScreenedToken, ScreenSubject, StepInput, TokenFinding
from agent.policy.quarantine import quarantine_pools
from tests.support.builders import ROUTER, step_input, v2_pool, v3_pool, with_snapshot
from tests.support.chain_reads.token_pages import FAIR, F, T, page
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import raises_code
from tests.support.tokens import USDC, WETH

DEEP = v2_pool(WETH, USDC, 2_000, 50_000, name="deep")
SMALL = v2_pool(WETH, USDC, 2_000, 40_000, name="small")
SCREEN = own_artifact("TokenScreen").bytecode
APPROVE = "0x095ea7b3"
REVERT = RpcFault(3, "execution reverted")
OVERLOADED = RpcFault(-32005, "limit exceeded")
BROKEN = RpcFault(-32000, "internal error")
VIEWS_OF_CONTROLS = 16
"""paused(), and five for wallet, router and pool."""
MOVES = (TokenMove(WETH.address, DEEP, 700), TokenMove(WETH.address, SMALL, 600), TokenMove(USDC.address, DEEP, 500))


class FakeNode(ScriptedTransport):
    """Runs trials with the record of their pool, or answers the next of `trial_faults` that is one, refuses calls that begin with `refused`
    by `call_fault` from a request on, and answers the traits and past balances of WETH and USDC.
    """

    def __init__(
        self,
        record_by_pool: Mapping[str, TrialRecord] | None = None,
        refused: str = "none",
        traits: Sequence[bool] = (False,) * 8,
        past_raw: Sequence[int] = (),
        trial_faults: Sequence[RpcFault | None] = (),
        call_fault: RpcFault = REVERT,
        refuses_from_request: int = 1,
    ) -> None:
        super().__init__("a", lambda method, params: [] if method == "eth_getLogs" else self.answer(*params))
        self.record_by_pool = {contract.lower(): record for contract, record in (record_by_pool or {}).items()}
        self.refused = refused
        self.traits = traits
        self.past_raw = past_raw
        self.trial_faults = list(trial_faults)
        self.call_fault = call_fault
        self.refuses_from_request = refuses_from_request
        self.requests: list[list[RpcCall]] = []

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.requests.append(list(calls))
        return super().batch(calls)

    def answer(self, call: dict[str, str], block: object) -> object:
        if "from" in call:
            is_refused = call["data"].startswith(self.refused) and len(self.requests) >= self.refuses_from_request
            return self.call_fault if is_refused else f"0x{1:064x}"
        if call["data"].startswith(SCREEN):
            fault = self.trial_faults.pop(0) if self.trial_faults else None
            return fault or "0x" + page(self.record_by_pool.get(loan_of(call["data"])[1], FAIR)).hex()
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


def two_token_step() -> StepInput:
    return step_input({"WETH": 5_000, "USDC": 5_000}, pools=[DEEP, SMALL])


def screened(
    node: FakeNode, moves: Sequence[TokenMove] = MOVES, wrapped_native: str = "", step: StepInput | None = None
) -> tuple[ScreenedToken, ...]:
    return TokenScreen(node, wrapped_native).screen(step or two_token_step(), tuple(moves))


def findings(node: FakeNode, **changes: Any) -> list[TokenFinding]:
    return [screened_token.finding for screened_token in screened(node, **changes)]


def past_balances(*changes_raw: int) -> list[int]:
    """Return the balances of WETH and USDC that the step has, less these changes."""
    raw_by_token = {holding.token: holding.raw for holding in two_token_step().snapshot.holdings}
    return [raw_by_token[token.address] - change_raw for token, change_raw in zip((WETH, USDC), changes_raw, strict=True)]


# --- Calls


def test_screen_of_sound_tokens_takes_one_request() -> None:
    node = FakeNode(past_raw=past_balances(0, 0))

    assert screened(node) == (ScreenedToken(WETH.address, F.CLEAN), ScreenedToken(USDC.address, F.CLEAN))
    assert len(node.requests) == 1


def test_screen_of_no_transfers_asks_nothing() -> None:
    node = FakeNode()

    assert screened(node, moves=()) == ()
    assert node.requests == []


def test_screen_borrows_once_from_each_pool_of_a_token() -> None:
    v3 = v3_pool(WETH, USDC, 2_000, name="v3")
    moves = [TokenMove(token.address, pool, 700) for token in (WETH, USDC) for pool in (DEEP, SMALL, v3)]
    node = FakeNode()

    screened(node, [*moves, replace(moves[0], raw=300)])

    assert node.trials == [(move.token.lower(), move.pool.contract.lower(), move.pool_flags, 700) for move in moves]


def test_screen_reads_all_but_past_balances_at_the_block() -> None:
    step = two_token_step()
    step = with_snapshot(step, head=replace(step.snapshot.head, number=1_000))
    node = FakeNode()

    screened(node, step=step)

    blocks = [params[1] for _, params in node.requests[0]]
    assert [block for block in blocks if isinstance(block, str)] == [hex(1_000 - BLOCKS_BACK)]
    assert all(block == {"blockHash": step.snapshot.head.hash, "requireCanonical": True} for block in blocks if not isinstance(block, str))


def test_screen_bounds_the_gas_of_single_calls() -> None:
    node = FakeNode()

    screened(node, [replace(move, payee=ROUTER, spender=ROUTER) for move in MOVES])

    assert {params[0]["gas"] for _, params in node.requests[0] if "from" in params[0]} == {hex(MAX_CALL_GAS)}


# --- Findings


@pytest.mark.parametrize(("pool", "finding"), [(DEEP, F.NO_RETURN_VALUE), (SMALL, F.CLEAN)], ids=["largest transfer", "smaller"])
def test_screen_has_the_finding_of_the_largest_transfer(pool: Any, finding: TokenFinding) -> None:
    silent = replace(FAIR, transfer_outcome=T.SILENT)

    assert findings(FakeNode({pool.contract: silent}))[0] is finding


@pytest.mark.parametrize("trait", range(8))
def test_screen_finds_a_trait_of_its_token(trait: int) -> None:
    node = FakeNode(traits=[number == trait for number in range(8)])

    finding = F.CALLBACK if trait % 4 == 3 else F.REBASING
    assert findings(node) == [finding if trait // 4 == number else F.CLEAN for number in (0, 1)]


@pytest.mark.parametrize(
    ("allowed_raw", "finding"), [(0, F.CLEAN), (5, F.HONEYPOT)], ids=["without an allowance", "with an allowance left"]
)
def test_screen_finds_a_token_that_refuses_the_router(allowed_raw: int, finding: TokenFinding) -> None:
    """Without an allowance, a token that is bought needs no approval yet."""
    step = with_snapshot(two_token_step(), allowances=(Allowance(WETH.address, ROUTER, allowed_raw),))

    assert findings(FakeNode(refused=APPROVE), step=step) == [finding, F.CLEAN]


def test_screen_names_a_trait_before_a_refused_approval() -> None:
    step = with_snapshot(two_token_step(), allowances=(Allowance(WETH.address, ROUTER, 5),))
    node = FakeNode(refused=APPROVE, traits=[True, *[False] * 7])

    assert findings(node, step=step) == [F.REBASING, F.CLEAN]


@pytest.mark.parametrize(
    ("changes_raw", "wrapped_native", "expected_findings"),
    [
        pytest.param((1, 0), "", [F.REBASING, F.CLEAN], id="first token"),
        pytest.param((0, 1), "", [F.CLEAN, F.REBASING], id="second token"),
        pytest.param((1, 1), WETH.address, [F.CLEAN, F.REBASING], id="wrapped coin is deposited"),
    ],
)
def test_screen_finds_a_balance_that_changed_by_itself(
    changes_raw: tuple[int, int], wrapped_native: str, expected_findings: list[TokenFinding]
) -> None:
    assert findings(FakeNode(past_raw=past_balances(*changes_raw)), wrapped_native=wrapped_native) == expected_findings


def test_screen_keeps_the_finding_of_a_failed_trial() -> None:
    node = FakeNode({DEEP.contract: replace(FAIR, arrived_raw=900)}, traits=(True,) * 4)
    step = with_snapshot(two_token_step(), pools=(DEEP,))

    assert findings(node, moves=[TokenMove(WETH.address, DEEP, 700, spender=ROUTER)], step=step) == [F.FEE_ON_TRANSFER]


# --- A node that does not run the screen


def plain_findings(node: FakeNode) -> list[TokenFinding]:
    """Return the findings of WETH and USDC through the step's pool, without a plan."""
    step = step_input({"WETH": 5_000, "USDC": 5_000})
    return findings(node, moves=screening_moves(step), step=step)


@pytest.mark.parametrize("faults", [(), (BROKEN,), (REVERT,)], ids=["at first", "when repeated", "when a revert is repeated"])
def test_screen_needs_each_trial_to_run_at_last(faults: Sequence[RpcFault]) -> None:
    assert plain_findings(FakeNode(trial_faults=faults)) == [F.CLEAN, F.CLEAN]


@pytest.mark.parametrize(
    ("trial_faults", "code", "text"),
    [
        pytest.param([BROKEN] * 4, "token_screen", "internal error", id="broken for all"),
        pytest.param([BROKEN, None, BROKEN], "token_screen", "internal error", id="broken twice for one"),
        pytest.param([OVERLOADED] * 4, "rate_limit", "limit exceeded", id="overloaded for all"),
        pytest.param([OVERLOADED], "rate_limit", "limit exceeded", id="overloaded for one"),
        pytest.param([BROKEN, None, OVERLOADED], "rate_limit", "limit exceeded", id="overloaded when repeated"),
    ],
)
def test_screen_of_a_node_that_runs_no_trial_says_nothing(trial_faults: list[RpcFault | None], code: str, text: str) -> None:
    with raises_code(Retryable, code, text):
        plain_findings(FakeNode(trial_faults=trial_faults))


@pytest.mark.parametrize("fault_code", [-32005, 429])
def test_screen_of_a_call_beyond_the_node_s_limits_says_nothing(fault_code: int) -> None:
    with raises_code(Retryable, "rate_limit", "limit exceeded"):
        plain_findings(FakeNode(refused="0x", call_fault=RpcFault(fault_code, "limit exceeded")))


BUYER = v2_pool(WETH, USDC, 2_000, name="buyer")
LENDER = v2_pool(WETH, USDC, 2_000, name="lender")
SALE = (TokenMove(WETH.address, BUYER, 10**18, spender=ROUTER), TokenMove(USDC.address, BUYER, 2_000, payee=ROUTER))
EMPTY_BUYER = {BUYER.contract: replace(FAIR, status=2)}


def lender_in_quarantine() -> StepInput:
    """Return a step with two pools of WETH and USDC, of which the lender has failed for USDC."""
    step = step_input({"WETH": 5_000, "USDC": 5_000}, pools=[BUYER, LENDER])
    failed = ScreenedToken(USDC.address, F.CLEAN, "", ScreenSubject.POOL, (FailedPool(LENDER.contract, "no money"),))
    return quarantine_pools(step, [failed])


def test_screen_tries_a_pool_in_quarantine_for_another_token() -> None:
    """The pool of the sale holds none of the token, so it alone cannot be tested by a loan."""
    screened_tokens = screened(FakeNode(EMPTY_BUYER), SALE, step=lender_in_quarantine())

    assert screened_tokens[0] == ScreenedToken(WETH.address, F.CLEAN)


def test_screen_that_cannot_search_for_the_cause_says_nothing() -> None:
    with raises_code(Retryable, "token_screen", "internal error"):
        screened(FakeNode(EMPTY_BUYER, refused="0x", call_fault=BROKEN, refuses_from_request=2), SALE, step=lender_in_quarantine())


def test_screen_asks_a_pool_that_failed_for_no_less() -> None:
    """It would lend a hundredth of its depth, and count as one that moves the token."""
    alone = with_snapshot(lender_in_quarantine(), pools=(BUYER,))

    screened_tokens = screened(FakeNode(refused="0x"), SALE, step=alone)

    assert [screened_token.finding.is_tradable for screened_token in screened_tokens] == [False, False]
