"""Tests of agent/chain/screening/findings.py: who is at fault when a test fails: the token, a pool, the wallet or a spender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.artifacts import own_artifact
from agent.chain.lens import PAGE_FORMAT, CallStatus
from agent.chain.rpc import RpcCall
from agent.chain.screening.answers import TransferOutcome, TrialRecord, judge_trial
from agent.chain.screening.calls import CallRole, SingleCall
from agent.chain.screening.findings import Controls, PoolTrial, TestedCall, TokenTests, approval_result, judge_token, read_controls
from agent.chain.screening.moves import TokenMove
from agent.model import FailedPool, Pool, ScreenedToken, ScreenSubject, StepInput, TokenFinding
from tests.support.builders import ROUTER, address, step_input, token, v2_pool, with_snapshot
from tests.support.chain_reads.token_pages import FAIR, F, T, page
from tests.support.fakes.transport import ScriptedTransport
from tests.support.tokens import USDC, WETH

POOL = v2_pool(WETH, USDC, 10, 50_000)
OTHER_POOL = v2_pool(WETH, token("DAI"), 20, 50_000)
MOVE = TokenMove(WETH.address, POOL, 1_000)
WALLET = address("wallet")
SCREEN = own_artifact("TokenScreen").bytecode
NOT_LENT = replace(FAIR, status=1)
NOTHING_HELD = replace(FAIR, status=2)
TRAP = replace(FAIR, transfer_from_outcome=T.FAILED)
CLEAN = ScreenedToken(WETH.address, F.CLEAN)


def call(role: CallRole, outcome: TransferOutcome, pool: Pool = POOL, account: str = ROUTER) -> TestedCall:
    """Return a single call of WETH at a pool, with its outcome."""
    move = replace(MOVE, pool=pool)
    if role is CallRole.PAYEE:
        move = replace(move, payee=account)
    elif role is not CallRole.WALLET:
        move = replace(move, spender=account)
    return TestedCall(SingleCall(move, role, ("eth_call", [])), outcome)


def trial(record: TrialRecord = FAIR, pool: Pool = POOL) -> PoolTrial:
    return PoolTrial(replace(MOVE, pool=pool), record)


def token_tests(trials: Sequence[PoolTrial], calls: Sequence[TestedCall] = ()) -> TokenTests:
    return TokenTests(WETH.address, tuple(trials), tuple(calls))


def screened_weth(
    trials: Sequence[PoolTrial],
    calls: Sequence[TestedCall] = (),
    by_pool: TransferOutcome = T.TRUE,
    by_wallet: TransferOutcome | None = T.TRUE,
    unlisted: TransferOutcome = T.TRUE,
    others: tuple[TrialRecord, ...] = (),
    listed: tuple[str, ...] = (),
    is_paused: bool = False,
) -> ScreenedToken:
    """Return the finding on WETH; every pool sends to an unlisted address as `by_pool` says."""
    outcomes = {POOL.contract: by_pool, OTHER_POOL.contract: by_pool}
    controls = Controls(is_paused, frozenset(listed), outcomes, by_wallet, unlisted, tuple(map(judge_trial, others)))
    return judge_token(WALLET, token_tests(trials, calls), controls)


def pool_fault(why: str, pool: Pool = POOL) -> ScreenedToken:
    """Return the finding of a token that moves, but not through this pool."""
    return replace(CLEAN, subject=ScreenSubject.POOL, failed_pools=(FailedPool(pool.contract, why),))


PAYEE = CallRole.PAYEE
BY_WALLET = CallRole.WALLET
SPENDER = CallRole.SPENDER
PAID = call(PAYEE, T.TRUE)
UNPAID = call(PAYEE, T.FAILED)


# --- Tests that passed


@pytest.mark.parametrize(
    ("records", "passed"),
    [((FAIR, FAIR), True), ((FAIR, TRAP), False), ((TRAP, FAIR), False)],
    ids=["both fair", "second a trap", "first a trap"],
)
def test_token_passes_only_if_each_pool_does(records: tuple[TrialRecord, TrialRecord], passed: bool) -> None:
    assert token_tests([trial(records[0]), trial(records[1], OTHER_POOL)], [PAID]).all_passed is passed


@pytest.mark.parametrize("role", [PAYEE, BY_WALLET, SPENDER])
@pytest.mark.parametrize(("outcome", "passed"), [(T.SILENT, True), (T.TRUE, True), (T.FAILED, False), (T.FALSE, False), (T.ODD, False)])
def test_token_passes_only_if_each_transfer_works(role: CallRole, outcome: TransferOutcome, passed: bool) -> None:
    assert token_tests([trial()], [call(role, outcome)]).all_passed is passed


RESET = CallRole.RESET
APPROVAL = CallRole.APPROVAL


@pytest.mark.parametrize(
    ("outcomes", "finding"),
    [
        pytest.param([], None, id="none needed"),
        pytest.param([(APPROVAL, T.TRUE)], None, id="from zero"),
        pytest.param([(APPROVAL, T.SILENT)], None, id="from zero, silent"),
        pytest.param([(APPROVAL, T.FAILED)], F.HONEYPOT, id="from zero, reverts"),
        pytest.param([(APPROVAL, T.FALSE)], F.FALSE_RETURNING, id="from zero, false"),
        pytest.param([(RESET, T.SILENT), (APPROVAL, T.FAILED)], None, id="after a reset, as Tether"),
        pytest.param([(RESET, T.FAILED), (APPROVAL, T.TRUE)], None, id="reset reverts"),
        pytest.param([(RESET, T.FALSE), (APPROVAL, T.TRUE)], None, id="reset is false"),
        pytest.param([(RESET, T.FAILED), (APPROVAL, T.FAILED)], F.HONEYPOT, id="both revert"),
        pytest.param([(RESET, T.FALSE), (APPROVAL, T.FALSE)], F.FALSE_RETURNING, id="both false"),
    ],
)
def test_approval_needs_one_way_that_works(outcomes: list[tuple[CallRole, TransferOutcome]], finding: TokenFinding | None) -> None:
    tests = token_tests([trial()], [call(role, outcome) for role, outcome in outcomes])

    result = approval_result(tests)

    assert (None if result is None else result[0]) is finding
    assert tests.all_passed, "a transfer needs no approval"


def test_approval_of_another_spender_does_not_help() -> None:
    calls = [call(RESET, T.TRUE, account=address("manager")), call(RESET, T.FAILED), call(APPROVAL, T.FAILED)]

    result = approval_result(token_tests([trial()], calls))

    assert result is not None
    assert result[0] is F.HONEYPOT


# --- Faults of a pool

POOL_FAULTS: dict[str, tuple[TrialRecord, list[TestedCall], TransferOutcome, str]] = {
    "no money": (NOTHING_HELD, [UNPAID], T.FAILED, "the pool cannot send 1000 base units of it"),
    "too little money": (FAIR, [UNPAID], T.FAILED, "the pool cannot send 1000 base units of it"),
    "false transfers": (NOT_LENT, [call(PAYEE, T.FALSE)], T.FALSE, "the pool does not return true for 1000 base units of it"),
    "no loans": (NOT_LENT, [PAID], T.TRUE, "the pool could not be tested: the pool could not transfer it"),
    "cannot receive": (FAIR, [call(BY_WALLET, T.FAILED)], T.TRUE, "the pool cannot receive it from the wallet"),
    "receives false": (FAIR, [call(BY_WALLET, T.FALSE)], T.TRUE, "the pool cannot receive it from the wallet"),
    "trap": (TRAP, [PAID], T.TRUE, "the pool fails: honeypot, transferFrom of 1000 base units paid by a pool reverts"),
    "fee": (
        replace(FAIR, arrived_raw=900),
        [PAID],
        T.TRUE,
        "the pool fails: fee_on_transfer, of 1000 base units 900 arrive when a pool transfers it, 1000 bps less",
    ),
}


@pytest.mark.parametrize(("record", "calls", "by_pool", "why"), POOL_FAULTS.values(), ids=POOL_FAULTS)
@pytest.mark.parametrize(
    ("trials", "others"), [([trial(pool=OTHER_POOL)], ()), ([], (FAIR,))], ids=["another of the plan", "another elsewhere"]
)
def test_pool_that_fails_beside_a_working_one_is_excluded(
    record: TrialRecord,
    calls: list[TestedCall],
    by_pool: TransferOutcome,
    why: str,
    trials: list[PoolTrial],
    others: tuple[TrialRecord, ...],
) -> None:
    assert screened_weth([trial(record), *trials], calls, by_pool, others=others) == pool_fault(why)


@pytest.mark.parametrize(("record", "calls", "by_pool"), [row[:3] for row in POOL_FAULTS.values()], ids=POOL_FAULTS)
@pytest.mark.parametrize("others", [(), (NOT_LENT,), (NOTHING_HELD, NOT_LENT)], ids=["only", "two", "three"])
def test_token_that_no_pool_moves_is_not_traded(
    record: TrialRecord, calls: list[TestedCall], by_pool: TransferOutcome, others: tuple[TrialRecord, ...]
) -> None:
    screened = screened_weth([trial(record)], calls, by_pool, others=others)

    assert not screened.finding.is_tradable
    assert screened.failed_pools == ()


@pytest.mark.parametrize("role", [PAYEE, SPENDER], ids=["payee", "spender"])
def test_pool_that_alone_refuses_an_account_is_excluded(role: CallRole) -> None:
    calls = [call(role, T.FAILED), call(role, T.TRUE, OTHER_POOL)]

    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls)

    assert screened == pool_fault(f"the pool cannot exchange it with {ROUTER}")


def test_pool_that_receives_from_no_account_is_excluded() -> None:
    calls = [call(BY_WALLET, T.FAILED), call(SPENDER, T.FAILED)]

    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls)

    assert screened == pool_fault("the pool cannot receive it from the wallet")


def test_pool_that_makes_one_of_two_payments_is_excluded() -> None:
    calls = [UNPAID, call(PAYEE, T.TRUE, account=WALLET)]

    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls, T.FAILED)

    assert screened == pool_fault("the pool cannot send 1000 base units of it")


def test_pools_that_fail_beside_a_third_are_both_excluded() -> None:
    calls = [UNPAID, call(PAYEE, T.FAILED, OTHER_POOL)]

    screened = screened_weth([trial(NOT_LENT), trial(NOTHING_HELD, OTHER_POOL)], calls, T.FAILED, others=(FAIR,))

    assert screened.finding.is_tradable
    assert [failed.pool for failed in screened.failed_pools] == [POOL.contract, OTHER_POOL.contract]


def test_pool_that_only_receives_may_hold_none_of_the_token() -> None:
    assert screened_weth([trial(NOTHING_HELD)], [call(BY_WALLET, T.TRUE)], T.FAILED, others=(FAIR,)) == CLEAN


@pytest.mark.parametrize("by_wallet", [T.TRUE, T.FAILED, None], ids=["wallet sends", "wallet cannot", "wallet has none"])
def test_pool_on_a_blocklist_is_named(by_wallet: TransferOutcome | None) -> None:
    screened = screened_weth([trial(NOT_LENT)], [UNPAID], T.FAILED, by_wallet, listed=(POOL.contract,))

    assert screened == ScreenedToken(WETH.address, F.BLOCKLISTED, f"pool {POOL.contract} is on its blocklist", ScreenSubject.POOL)


# --- Faults of an account


@pytest.mark.parametrize(
    ("calls", "controls", "subject", "detail"),
    [
        pytest.param(
            [call(BY_WALLET, T.FAILED)], {"by_wallet": T.FAILED}, ScreenSubject.WALLET, "the wallet cannot send it", id="wallet sends"
        ),
        pytest.param(
            [call(BY_WALLET, T.FALSE)], {"by_wallet": T.FALSE}, ScreenSubject.WALLET, "the wallet cannot send it", id="wallet sends false"
        ),
        pytest.param(
            [call(PAYEE, T.FAILED, account=WALLET)],
            {},
            ScreenSubject.WALLET,
            f"{WALLET} cannot receive it from pools",
            id="wallet receives",
        ),
        pytest.param(
            [call(PAYEE, T.FAILED), call(PAYEE, T.TRUE, account=WALLET)],
            {},
            ScreenSubject.SPENDER,
            f"{ROUTER} cannot receive it from pools",
            id="router receives",
        ),
        pytest.param([call(SPENDER, T.FAILED)], {}, ScreenSubject.SPENDER, f"{ROUTER} cannot spend it", id="router spends"),
        pytest.param([], {"listed": (WALLET,)}, ScreenSubject.WALLET, "the wallet is on its blocklist", id="wallet listed"),
        pytest.param([PAID], {"listed": (ROUTER,)}, ScreenSubject.SPENDER, f"{ROUTER} is on its blocklist", id="router listed"),
    ],
)
def test_account_that_fails_with_every_pool_is_named(
    calls: list[TestedCall], controls: dict[str, object], subject: ScreenSubject, detail: str
) -> None:
    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls, **controls)  # type: ignore[arg-type]  # keywords of screened_weth

    assert screened == ScreenedToken(WETH.address, F.BLOCKLISTED, detail, subject)


def test_wallet_that_cannot_send_is_named_with_its_only_pool() -> None:
    screened = screened_weth([trial()], [call(BY_WALLET, T.FAILED)], by_wallet=T.FAILED)

    assert (screened.subject, screened.detail) == (ScreenSubject.WALLET, "the wallet cannot send it")


def test_spender_of_a_token_that_rejects_zero_is_not_named() -> None:
    assert screened_weth([trial()], [call(SPENDER, T.FAILED)], unlisted=T.FAILED) == CLEAN


# --- Faults of the token


@pytest.mark.parametrize("by_pool", [T.FAILED, T.SILENT, T.TRUE, T.FALSE, T.ODD])
@pytest.mark.parametrize("by_wallet", [None, T.FAILED, T.SILENT, T.TRUE, T.FALSE, T.ODD])
def test_token_that_its_only_pool_did_not_lend_is_named(by_pool: TransferOutcome, by_wallet: TransferOutcome | None) -> None:
    if {by_pool, by_wallet} & {T.FALSE, T.ODD}:
        fault = (F.FALSE_RETURNING, ScreenSubject.TOKEN)
    elif (by_pool, by_wallet) == (T.FAILED, T.FAILED):
        fault = (F.PAUSED, ScreenSubject.TOKEN)
    else:
        fault = (F.BLOCKLISTED if by_pool is T.FAILED else F.UNKNOWN, ScreenSubject.POOL)

    screened = screened_weth([trial(NOT_LENT)], [], by_pool, by_wallet)

    assert (screened.finding, screened.subject) == fault


@pytest.mark.parametrize(
    ("calls", "by_wallet", "others", "detail"),
    [
        pytest.param([call(BY_WALLET, T.FAILED)], T.FAILED, (), "neither pools nor the wallet can send it", id="wallet and pool"),
        pytest.param([UNPAID], None, (NOT_LENT,), "pools cannot send it", id="two pools"),
    ],
)
def test_token_that_nobody_sends_is_paused(
    calls: list[TestedCall], by_wallet: TransferOutcome | None, others: tuple[TrialRecord, ...], detail: str
) -> None:
    assert screened_weth([trial(NOT_LENT)], calls, T.FAILED, by_wallet, others=others) == replace(CLEAN, finding=F.PAUSED, detail=detail)


@pytest.mark.parametrize("record", [NOT_LENT, replace(FAIR, transfer_outcome=T.FAILED)], ids=["no loan", "no transfer"])
def test_token_that_says_paused_is_believed_unless_it_moves(record: TrialRecord) -> None:
    """paused() of some tokens is about minting."""
    paused = screened_weth([trial(record)], [UNPAID], T.FAILED, is_paused=True)
    moved = screened_weth([trial(record)], [UNPAID], T.FAILED, is_paused=True, others=(FAIR,))

    assert paused == replace(CLEAN, finding=F.PAUSED, detail="paused() returns true")
    assert moved.finding is F.CLEAN
    assert [failed.pool for failed in moved.failed_pools] == [POOL.contract]


# --- Controls


class FakeControlsNode(ScriptedTransport):
    """Answers every transfer with true, every trial as fair and every view with a failure.

    `raw_by_sender` has the amount of each transfer, `lent_raw` the amounts of the trials of each request.
    """

    def __init__(self) -> None:
        super().__init__("controlled", self.answer)
        self.raw_by_sender: dict[str, int] = {}
        self.lent_raw: list[list[int]] = []

    def batch(self, calls: Sequence[RpcCall]) -> list[object]:
        loans = [request["data"].removeprefix(SCREEN) for _, (request, *_) in calls if request["data"].startswith(SCREEN)]
        if loans:
            self.lent_raw.append([int.from_bytes(bytes.fromhex(loan)[106:122], "big") for loan in loans])
        return super().batch(calls)

    def answer(self, _method: str, params: list[dict[str, str]]) -> str:
        request = params[0]
        if request["data"].startswith(SCREEN):
            return "0x" + page(FAIR).hex()
        if "from" in request:
            self.raw_by_sender[request["from"]] = int(request["data"][-64:], 16)
            return f"0x{1:064x}"
        return "0x" + (bytes([PAGE_FORMAT]) + bytes([CallStatus.FAILED.value]) * 16).hex()  # paused(), and five for wallet, router and pool


def step_of(balance_raw: int, *pools: Pool) -> StepInput:
    """Return a step in which the wallet holds so much WETH."""
    step = step_input()
    holdings = tuple(replace(holding, raw=balance_raw) if holding.token == WETH.address else holding for holding in step.snapshot.holdings)
    return with_snapshot(step, holdings=holdings, pools=pools or (POOL,))


SALE = replace(MOVE, spender=ROUTER)


def controls_of(node: FakeControlsNode, step: StepInput, *moves: TokenMove) -> Controls:
    return read_controls(node, step.snapshot, token_tests([PoolTrial(move, FAIR) for move in moves]), "latest")


@pytest.mark.parametrize(
    ("balance_raw", "tried_raw"), [(1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000)], ids=["one", "less", "as much", "more"]
)
def test_controls_let_the_wallet_send_what_it_and_the_pool_hold(balance_raw: int, tried_raw: int) -> None:
    """With more than it holds, or is asked for, a sound wallet would be named as the one that cannot send."""
    step = step_of(balance_raw)
    node = FakeControlsNode()

    controls = controls_of(node, step, SALE)

    assert (node.raw_by_sender[step.snapshot.owner], node.raw_by_sender[POOL.contract]) == (tried_raw, MOVE.raw)
    assert controls == Controls(False, frozenset(), {POOL.contract: T.TRUE}, T.TRUE, T.TRUE, ())


def test_controls_have_no_outcome_of_an_empty_wallet() -> None:
    assert controls_of(FakeControlsNode(), step_of(0), SALE).wallet_outcome is None


def test_controls_let_a_pool_pay_the_largest_of_its_payments() -> None:
    node = FakeControlsNode()
    payments = [replace(MOVE, raw=raw, payee=ROUTER) for raw in (700, 900, 800)]

    controls_of(node, step_of(400), replace(MOVE, raw=5_000, spender=ROUTER), *payments)

    assert node.raw_by_sender[POOL.contract] == 900


def test_controls_try_every_other_pool_with_a_hundredth() -> None:
    others = [v2_pool(WETH, USDC, 10, 50_000, name=f"other {number}") for number in range(21)]
    tiny = replace(others[0], reserve0=99, reserve1=99)
    node = FakeControlsNode()

    assert len(controls_of(node, step_of(400, POOL, tiny, *others[1:]), SALE).other_results) == 21
    assert [len(loans) for loans in node.lent_raw] == [20, 1]
    assert sorted(raw for loans in node.lent_raw for raw in loans) == [1] + [others[1].depth(WETH.address) // 100] * 20
