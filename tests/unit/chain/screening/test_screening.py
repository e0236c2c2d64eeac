"""What the answers of a token mean: the record of a trial, single calls, views of share-based tokens, past transfers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.artifacts import own_artifact
from agent.chain.lens import PAGE_FORMAT, CallStatus, uint_word
from agent.chain.rpc import RpcCall, RpcFault
from agent.chain.screening.answers import (
    RECORD_BYTES,
    RECORD_FORMAT,
    SHARE_ROUNDING_RAW,
    TransferOutcome,
    TrialRecord,
    decode_record,
    is_trial_answer,
    judge_trial,
    transfer_outcome,
)
from agent.chain.screening.calls import CallRole, SingleCall, approval_calls, single_calls
from agent.chain.screening.findings import Controls, PoolTrial, TestedCall, TokenTests, approval_result, judge_token, read_controls
from agent.chain.screening.moves import TokenMove
from agent.chain.screening.traits import TRANSFER_TOPIC, find_rebasing, judge_traits, trait_items, transferred_raw
from agent.errors import Retryable
from agent.model import Allowance, FailedPool, ScreenedToken, ScreenSubject, StepInput, TokenFinding
from tests.support.builders import address, step_input, token, v2_pool
from tests.support.chain_reads.token_pages import FAIR, F, T, page
from tests.support.fakes.transport import ScriptedTransport
from tests.support.tokens import USDC, WETH

POOL = v2_pool(WETH, USDC, 10, 50_000)
MOVE = TokenMove(WETH.address, POOL, 1_000)
ROUTER = address("router")
SCREEN = own_artifact("TokenScreen").bytecode


def test_a_record_is_read_word_by_word_and_nothing_else_is_one() -> None:
    record = TrialRecord(3, 1, 2, 3, 4, T.ODD, 6, 7, T.FALSE, T.TRUE, 10, 11, 12)
    assert decode_record(page(record)) == record
    assert len(page(record)) == 1 + RECORD_BYTES
    for other in (b"", page(record)[:-1], page(record) + b"\0", bytes([RECORD_FORMAT + 1]) + page(record)[1:]):
        with pytest.raises(Retryable, match="malformed"):
            decode_record(other)
    assert decode_record(page(replace(record, status=4))).status == 4
    for field in ("transfer_outcome", "approve_outcome", "transfer_from_outcome"):
        with pytest.raises(Retryable, match="unknown status"):
            decode_record(page(replace(record, **{field: T.UNTRIED})))
    with pytest.raises(Retryable, match="unknown status"):
        decode_record(page(replace(record, status=5)))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, F.CLEAN),
        ({"transfer_outcome": T.SILENT}, F.NO_RETURN_VALUE),
        ({"approve_outcome": T.SILENT}, F.NO_RETURN_VALUE),
        ({"transfer_from_outcome": T.SILENT}, F.NO_RETURN_VALUE),
        ({"status": 1}, F.UNKNOWN),
        ({"status": 2}, F.UNKNOWN),
        ({"status": 3}, F.UNREADABLE),
        ({"status": 4}, F.UNKNOWN),
        *(
            ({name: 2**256 - 1}, F.UNREADABLE)
            for name in (
                "pool_balance_before",
                "arrived_raw",
                "pool_balance_after_loan",
                "forwarded_raw",
                "first_remainder",
                "pool_balance_after",
                "second_remainder",
            )
        ),
        *(({name: T.FALSE}, F.FALSE_RETURNING) for name in ("transfer_outcome", "approve_outcome", "transfer_from_outcome")),
        *(({name: T.ODD}, F.FALSE_RETURNING) for name in ("transfer_outcome", "approve_outcome", "transfer_from_outcome")),
        *(({name: T.FAILED}, F.HONEYPOT) for name in ("transfer_outcome", "approve_outcome", "transfer_from_outcome")),
        ({"transfer_outcome": T.FAILED, "transfer_from_outcome": T.FALSE}, F.FALSE_RETURNING),
        ({"hook_count": 1}, F.CALLBACK),
        ({"arrived_raw": 1_000 - SHARE_ROUNDING_RAW - 1}, F.FEE_ON_TRANSFER),
        ({"forwarded_raw": 1_000 - SHARE_ROUNDING_RAW - 1}, F.FEE_ON_TRANSFER),
        ({"pool_balance_after": 50_000 - SHARE_ROUNDING_RAW - 1}, F.FEE_ON_TRANSFER),
        ({"arrived_raw": 1_000 - SHARE_ROUNDING_RAW}, F.REBASING),
        ({"arrived_raw": 1_001}, F.REBASING),
        ({"forwarded_raw": 999}, F.REBASING),
        ({"pool_balance_after": 50_001}, F.REBASING),
        ({"first_remainder": 1}, F.REBASING),
        ({"second_remainder": 1}, F.REBASING),
        ({"pool_balance_before": 50_001}, F.REBASING),
        ({"pool_balance_before": 49_999}, F.REBASING),
    ],
)
def test_a_trial_is_judged_by_every_answer_and_every_balance(changes: dict[str, object], finding: TokenFinding) -> None:
    assert judge_trial(replace(FAIR, **changes))[0] is finding  # type: ignore[arg-type]  # keywords are field names


NODE_REVERTS = (
    *("revert", "invalid opcode: INVALID", "out of gas", "OutOfGas", "MemoryOOG", "MemoryLimitOOG", "PrecompileOOG", "InvalidOperandOOG"),
    *("invalid jump destination", "stack underflow (0 <=> 1)", "stack limit reached 1024 (1023)", "write protection"),
    *("return data out of bounds", "gas uint64 overflow", "EVM error: CreateContractSizeLimit"),
)


def test_a_trial_ran_unless_it_had_too_little_gas() -> None:
    assert [is_trial_answer("0x" + page(replace(FAIR, status=status)).hex()) for status in range(5)] == [True] * 4 + [False]
    assert not is_trial_answer(RpcFault(3, "execution reverted"))


def test_a_fee_is_named_in_basis_points_rounded_up() -> None:
    assert judge_trial(replace(FAIR, arrived_raw=990))[1] == "of 1000 base units 990 arrive when a pool transfers it, 100 bps less"
    assert "when it is forwarded, 30 bps" in judge_trial(replace(FAIR, forwarded_raw=997))[1]
    sold = replace(
        FAIR, lent_raw=30_001, arrived_raw=30_001, forwarded_raw=30_001, pool_balance_after_loan=19_999, pool_balance_after=49_970
    )
    assert "of 30001 base units 29971 arrive when it is sold to a pool, 10 bps" in judge_trial(sold)[1]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("0x", T.SILENT),
        ("0x" + uint_word(1).hex(), T.TRUE),
        ("0x" + uint_word(0).hex(), T.FALSE),
        ("0x" + uint_word(2).hex(), T.ODD),
        ("0x01", T.ODD),
        (None, None),
        (7, None),
        ("<html>", None),
        ("0x0", None),
        (RpcFault(3, "execution failed"), T.FAILED),
        (RpcFault(-32000, "execution reverted"), T.FAILED),
        (RpcFault(-32000, "Out Of Gas"), T.FAILED),
        (RpcFault(-32000, "no", "0x08c379a0"), T.FAILED),
        (RpcFault(-32015, "VM execution error."), T.FAILED),
        (RpcFault(-32000, "EVM error MemoryOOG"), T.FAILED),
        *((RpcFault(-32000, message), T.FAILED) for message in NODE_REVERTS),
        ("0x" + (uint_word(0) + uint_word(1)).hex(), T.ODD),
        (RpcFault(-32000, "EVM error: database error: header not found"), None),
        (RpcFault(-32000, "header not found"), None),
        (RpcFault(-32000, "missing trie node", "0x"), None),
        (RpcFault(-32603, "Internal error"), None),
        (RpcFault(-32601, "the method eth_call does not exist"), None),
        (RpcFault(-32000, "execution aborted (timeout = 5s)"), None),
        (RpcFault(-32000, "goroutine stack exceeds its limit"), None),
        (RpcFault(-32000, "quota of blockchain.googleapis.com exceeded"), None),
    ],
)
def test_a_call_failed_only_if_it_ran(answer: object, outcome: TransferOutcome | None) -> None:
    assert transfer_outcome(answer) is outcome


NOT_LENT = replace(FAIR, status=1)
NOTHING_HELD = replace(FAIR, status=2)
OTHER_POOL = v2_pool(WETH, token("DAI"), 20, 50_000)
POOL_SUBJECT = ScreenSubject.POOL


def checked(pool: object, role: CallRole, outcome: TransferOutcome, account: str = ROUTER) -> TestedCall:
    """A single call of WETH at a pool, with its outcome."""
    move = TokenMove(WETH.address, pool, 1_000)  # type: ignore[arg-type]  # a pool
    if role is CallRole.PAYEE:
        move = replace(move, payee=account)
    elif role is not CallRole.WALLET:
        move = replace(move, spender=account)
    return TestedCall(SingleCall(move, role, ("eth_call", [])), outcome)


def trial(record: TrialRecord = FAIR, pool: object = POOL) -> PoolTrial:
    return PoolTrial(TokenMove(WETH.address, pool, 1_000), record)  # type: ignore[arg-type]  # a pool


def screened_weth(
    trials: list[PoolTrial],
    calls: list[TestedCall],
    by_pool: TransferOutcome = T.TRUE,
    by_wallet: TransferOutcome | None = T.TRUE,
    unlisted: TransferOutcome = T.TRUE,
    others: tuple[TrialRecord, ...] = (),
    listed: tuple[str, ...] = (),
    is_paused: bool = False,
) -> ScreenedToken:
    """The finding on WETH; every pool sends to an unlisted address as `by_pool` says."""
    outcomes = {POOL.contract: by_pool, OTHER_POOL.contract: by_pool}
    controls = Controls(is_paused, frozenset(listed), outcomes, by_wallet, unlisted, tuple(map(judge_trial, others)))
    return judge_token(address("wallet"), TokenTests(WETH.address, tuple(trials), tuple(calls)), controls)


@pytest.mark.parametrize("by_pool", [T.FAILED, T.SILENT, T.TRUE, T.FALSE, T.ODD])
@pytest.mark.parametrize("by_wallet", [None, T.FAILED, T.SILENT, T.TRUE, T.FALSE, T.ODD])
def test_a_token_that_its_only_pool_did_not_lend_is_named(by_pool: TransferOutcome, by_wallet: TransferOutcome | None) -> None:
    screened = screened_weth([trial(NOT_LENT)], [], by_pool, by_wallet)
    if {by_pool, by_wallet} & {T.FALSE, T.ODD}:
        assert (screened.finding, screened.subject) == (F.FALSE_RETURNING, ScreenSubject.TOKEN)
    elif (by_pool, by_wallet) == (T.FAILED, T.FAILED):
        assert (screened.finding, screened.subject) == (F.PAUSED, ScreenSubject.TOKEN)
    else:
        assert (screened.finding, screened.subject) == (F.BLOCKLISTED if by_pool is T.FAILED else F.UNKNOWN, POOL_SUBJECT)


PAID = checked(POOL, CallRole.PAYEE, T.TRUE)
UNPAID = checked(POOL, CallRole.PAYEE, T.FAILED)
POOL_FAULTS: dict[str, tuple[TrialRecord, list[TestedCall], TransferOutcome, str]] = {
    "no-money": (NOTHING_HELD, [UNPAID], T.FAILED, "the pool cannot send 1000 base units of it"),
    "too-little-money": (FAIR, [UNPAID], T.FAILED, "the pool cannot send 1000 base units of it"),
    "false-transfers": (
        NOT_LENT,
        [checked(POOL, CallRole.PAYEE, T.FALSE)],
        T.FALSE,
        "the pool does not return true for 1000 base units of it",
    ),
    "no-loans": (NOT_LENT, [PAID], T.TRUE, "the pool could not be tested: the pool could not transfer it"),
    "cannot-receive": (FAIR, [checked(POOL, CallRole.WALLET, T.FAILED)], T.TRUE, "the pool cannot receive it from the wallet"),
    "receives-false": (FAIR, [checked(POOL, CallRole.WALLET, T.FALSE)], T.TRUE, "the pool cannot receive it from the wallet"),
    "trap": (
        replace(FAIR, transfer_from_outcome=T.FAILED),
        [PAID],
        T.TRUE,
        "the pool fails: honeypot, transferFrom of 1000 base units paid by a pool reverts",
    ),
    "fee": (
        replace(FAIR, arrived_raw=900),
        [PAID],
        T.TRUE,
        "the pool fails: fee_on_transfer, of 1000 base units 900 arrive when a pool transfers it, 1000 bps less",
    ),
}


@pytest.mark.parametrize(("record", "calls", "by_pool", "why"), POOL_FAULTS.values(), ids=POOL_FAULTS)
@pytest.mark.parametrize("place", ["of-the-plan", "elsewhere"])
def test_failing_pool_beside_a_working_one__is_left_out_alone(
    record: TrialRecord, calls: list[TestedCall], by_pool: TransferOutcome, why: str, place: str
) -> None:
    beside = [trial(pool=OTHER_POOL)] if place == "of-the-plan" else []
    screened = screened_weth([trial(record), *beside], calls, by_pool, others=() if beside else (FAIR,))
    assert screened == ScreenedToken(WETH.address, F.CLEAN, "", POOL_SUBJECT, (FailedPool(POOL.contract, why),))


@pytest.mark.parametrize(("record", "calls", "by_pool"), [row[:3] for row in POOL_FAULTS.values()], ids=POOL_FAULTS)
@pytest.mark.parametrize("others", [(), (NOT_LENT,), (NOTHING_HELD, NOT_LENT)], ids=["only", "two", "three"])
def test_a_token_that_no_pool_moves_is_not_traded(
    record: TrialRecord, calls: list[TestedCall], by_pool: TransferOutcome, others: tuple[TrialRecord, ...]
) -> None:
    screened = screened_weth([trial(record)], calls, by_pool, others=others)
    assert not screened.finding.is_tradable
    assert screened.failed_pools == ()


def test_the_wallet_is_not_blamed_for_what_no_pool_sends_either() -> None:
    screened = screened_weth([trial(NOT_LENT)], [checked(POOL, CallRole.WALLET, T.FAILED)], T.FAILED, T.FAILED)
    assert (screened.finding, screened.subject) == (F.PAUSED, ScreenSubject.TOKEN)


def test_two_pools_of_three_that_fail_are_both_left_out() -> None:
    calls = [UNPAID, checked(OTHER_POOL, CallRole.PAYEE, T.FAILED)]
    screened = screened_weth([trial(NOT_LENT), trial(NOTHING_HELD, OTHER_POOL)], calls, T.FAILED, others=(FAIR,))
    assert screened.finding.is_tradable
    assert [failed.pool for failed in screened.failed_pools] == [POOL.contract, OTHER_POOL.contract]


def test_a_pool_that_only_receives_need_not_hold_the_token() -> None:
    sale = [checked(POOL, CallRole.WALLET, T.TRUE)]
    assert screened_weth([trial(NOTHING_HELD)], sale, T.FAILED, others=(FAIR,)) == ScreenedToken(WETH.address, F.CLEAN)


WALLET = address("wallet")
ACCOUNT_FAULTS: dict[str, tuple[list[TestedCall], dict[str, object], ScreenSubject, str]] = {
    "wallet-sends": (
        [checked(POOL, CallRole.WALLET, T.FAILED)],
        {"by_wallet": T.FAILED},
        ScreenSubject.WALLET,
        "the wallet cannot send it",
    ),
    "wallet-sends-false": (
        [checked(POOL, CallRole.WALLET, T.FALSE)],
        {"by_wallet": T.FALSE},
        ScreenSubject.WALLET,
        "the wallet cannot send it",
    ),
    "wallet-receives": ([checked(POOL, CallRole.PAYEE, T.FAILED, WALLET)], {}, ScreenSubject.WALLET, f"{WALLET} cannot receive it"),
    "router-receives": (
        [checked(POOL, CallRole.PAYEE, T.FAILED), checked(POOL, CallRole.PAYEE, T.TRUE, WALLET)],
        {},
        ScreenSubject.SPENDER,
        f"{ROUTER} cannot receive it",
    ),
    "router-spends": ([checked(POOL, CallRole.SPENDER, T.FAILED)], {}, ScreenSubject.SPENDER, f"{ROUTER} cannot spend it"),
    "wallet-listed": ([], {"listed": (WALLET,)}, ScreenSubject.WALLET, "the wallet is on its blocklist"),
    "router-listed": ([PAID], {"listed": (ROUTER,)}, ScreenSubject.SPENDER, "the router is on its blocklist"),
}


@pytest.mark.parametrize(("calls", "controls", "subject", "detail"), ACCOUNT_FAULTS.values(), ids=ACCOUNT_FAULTS)
def test_an_account_that_fails_with_every_pool_is_named(
    calls: list[TestedCall], controls: dict[str, object], subject: ScreenSubject, detail: str
) -> None:
    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls, **controls)  # type: ignore[arg-type]  # keywords of `judged`
    assert (screened.finding, screened.subject) == (F.BLOCKLISTED, subject)
    assert screened.detail.startswith(detail)


@pytest.mark.parametrize("role", [CallRole.PAYEE, CallRole.SPENDER], ids=["payee", "spender"])
def test_account_refused_by_one_pool__is_the_pool_s_fault(role: CallRole) -> None:
    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], [checked(POOL, role, T.FAILED), checked(OTHER_POOL, role, T.TRUE)])
    assert screened.finding.is_tradable
    assert screened.failed_pools == (FailedPool(POOL.contract, f"the pool cannot exchange it with {ROUTER}"),)


def test_token_that_rejects_zero__is_not_blamed_for_it() -> None:
    calls = [checked(POOL, CallRole.SPENDER, T.FAILED)]
    assert screened_weth([trial()], calls, unlisted=T.FAILED) == ScreenedToken(WETH.address, F.CLEAN)


@pytest.mark.parametrize("by_wallet", [T.TRUE, T.FAILED, None])
def test_a_listed_pool_is_named(by_wallet: TransferOutcome | None) -> None:
    screened = screened_weth([trial(NOT_LENT)], [UNPAID], T.FAILED, by_wallet, listed=(POOL.contract,))
    assert screened.detail == f"pool {POOL.contract} is on its blocklist"
    assert (screened.finding, screened.subject) == (F.BLOCKLISTED, POOL_SUBJECT)


def test_token_stuck_in_two_pools_and_the_wallet__is_paused() -> None:
    screened = screened_weth([trial(NOT_LENT)], [UNPAID], T.FAILED, None, others=(NOT_LENT,))
    assert (screened.finding, screened.subject, screened.detail) == (F.PAUSED, ScreenSubject.TOKEN, "pools cannot send it")


def test_a_wallet_that_cannot_send_is_named_with_its_only_pool() -> None:
    screened = screened_weth([trial()], [checked(POOL, CallRole.WALLET, T.FAILED)], by_wallet=T.FAILED)
    assert (screened.subject, screened.detail) == (ScreenSubject.WALLET, "the wallet cannot send it")


def test_pool_that_receives_from_no_one__is_named() -> None:
    calls = [checked(POOL, CallRole.WALLET, T.FAILED), checked(POOL, CallRole.SPENDER, T.FAILED)]
    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls)
    assert screened.finding.is_tradable
    assert [failed.pool for failed in screened.failed_pools] == [POOL.contract]


def test_a_pool_that_makes_one_of_two_payments_is_left_out() -> None:
    calls = [UNPAID, checked(POOL, CallRole.PAYEE, T.TRUE, WALLET)]
    screened = screened_weth([trial(), trial(pool=OTHER_POOL)], calls, T.FAILED)
    assert screened.failed_pools == (FailedPool(POOL.contract, "the pool cannot send 1000 base units of it"),)


@pytest.mark.parametrize("record", [NOT_LENT, replace(FAIR, transfer_outcome=T.FAILED)], ids=["no-loan", "no-transfer"])
def test_token_that_says_paused__is_believed_unless_a_pool_moves_it(record: TrialRecord) -> None:
    """paused() of some tokens is about minting."""
    paused = screened_weth([trial(record)], [UNPAID], T.FAILED, is_paused=True)
    assert (paused.finding, paused.detail) == (F.PAUSED, "paused() returns true")
    moved = screened_weth([trial(record)], [UNPAID], T.FAILED, is_paused=True, others=(FAIR,))
    assert moved.finding is F.CLEAN
    assert [failed.pool for failed in moved.failed_pools] == [POOL.contract]


def test_trap_in_one_of_two_pools__fails_though_transfers_work() -> None:
    trap = replace(FAIR, transfer_from_outcome=T.FAILED)
    assert TokenTests(WETH.address, (trial(), trial(pool=OTHER_POOL)), (PAID,)).all_passed
    assert not TokenTests(WETH.address, (trial(), trial(trap, OTHER_POOL)), (PAID,)).all_passed
    assert not TokenTests(WETH.address, (trial(trap), trial(pool=OTHER_POOL)), (PAID,)).all_passed


@pytest.mark.parametrize("role", [CallRole.PAYEE, CallRole.WALLET, CallRole.SPENDER])
@pytest.mark.parametrize("outcome", [T.FAILED, T.FALSE, T.ODD])
def test_each_transfer_must_work(role: CallRole, outcome: TransferOutcome) -> None:
    assert TokenTests(WETH.address, (trial(),), (checked(POOL, role, T.SILENT),)).all_passed
    assert not TokenTests(WETH.address, (trial(),), (checked(POOL, role, outcome),)).all_passed


R = CallRole.RESET
A = CallRole.APPROVAL
APPROVALS: dict[str, tuple[list[tuple[CallRole, TransferOutcome]], TokenFinding | None]] = {
    "none-needed": ([], None),
    "from-zero": ([(A, T.TRUE)], None),
    "from-zero-silent": ([(A, T.SILENT)], None),
    "from-zero-reverts": ([(A, T.FAILED)], F.HONEYPOT),
    "from-zero-false": ([(A, T.FALSE)], F.FALSE_RETURNING),
    "as-tether": ([(R, T.SILENT), (A, T.FAILED)], None),
    "zero-reverts": ([(R, T.FAILED), (A, T.TRUE)], None),
    "zero-is-false": ([(R, T.FALSE), (A, T.TRUE)], None),
    "both-revert": ([(R, T.FAILED), (A, T.FAILED)], F.HONEYPOT),
    "both-false": ([(R, T.FALSE), (A, T.FALSE)], F.FALSE_RETURNING),
}


@pytest.mark.parametrize(("outcomes", "finding"), APPROVALS.values(), ids=APPROVALS)
def test_a_token_is_sellable_if_one_way_to_approve_is_left(
    outcomes: list[tuple[CallRole, TransferOutcome]], finding: TokenFinding | None
) -> None:
    tests = TokenTests(WETH.address, (trial(),), tuple(checked(POOL, role, outcome) for role, outcome in outcomes))
    result = approval_result(tests)
    assert (None if result is None else result[0]) is finding
    assert tests.all_passed


def test_a_second_spenders_approval_does_not_help_the_first() -> None:
    calls = [checked(POOL, R, T.TRUE, address("manager")), checked(POOL, R, T.FAILED), checked(POOL, A, T.FAILED)]
    assert approval_result(TokenTests(WETH.address, (trial(),), tuple(calls))) is not None


@pytest.mark.parametrize(
    ("allowed_raw", "roles"), [(None, []), (0, ["approval"]), (1, ["reset", "approval"]), (999, ["reset", "approval"]), (1_000, [])]
)
def test_approvals_are_tested_up_to_the_amount_that_is_sold(allowed_raw: int | None, roles: list[str]) -> None:
    allowances = () if allowed_raw is None else (Allowance(WETH.address, ROUTER, allowed_raw),)
    snapshot = replace(step_input().snapshot, allowances=allowances)
    moves = [replace(MOVE, raw=raw, spender=ROUTER) for raw in (400, 600)]
    calls = list(approval_calls(snapshot, moves, ROUTER, "latest"))
    assert [call.role.value for call in calls] == roles
    assert [int(call.rpc_call[1][0]["data"][-64:], 16) for call in calls] == [{"reset": 0, "approval": 1_000}[role] for role in roles]


def test_an_allowance_left_is_tested_before_its_token_is_bought() -> None:
    bought = [replace(MOVE, payee=ROUTER)]
    snapshot = replace(step_input().snapshot, allowances=(Allowance(USDC.address, ROUTER, 0), Allowance(WETH.address, ROUTER, 5)))
    assert [call.role for call in approval_calls(snapshot, bought, ROUTER, "latest")] == [R, A]
    for allowances in ((), (Allowance(WETH.address, ROUTER, 0),)):
        assert list(approval_calls(replace(snapshot, allowances=allowances), bought, ROUTER, "latest")) == []


def test_an_allowance_left_is_tested_up_to_the_largest_purchase() -> None:
    bought = [replace(MOVE, raw=raw, payee=ROUTER) for raw in (400, 600, 500)]
    snapshot = replace(step_input().snapshot, allowances=(Allowance(WETH.address, ROUTER, 5),))
    *_, approval = approval_calls(snapshot, bought, ROUTER, "latest")
    assert int(approval.rpc_call[1][0]["data"][-64:], 16) == 600


def test_traits_are_asked_by_their_selectors() -> None:
    items = trait_items(step_input().snapshot, WETH.address)
    assert [item.calldata[:4].hex() for item in items] == ["f5eb42dc", "1da24f3e", "1bd39674", "556f0dc7"]
    assert {item.target for item in items} == {WETH.address}


def test_views_of_share_based_or_calling_tokens__are_named() -> None:
    none = [CallStatus.FAILED] * 4
    assert judge_traits(none) is None
    for number, name in enumerate(("sharesOf", "scaledBalanceOf", "gonsForBalance")):
        screen_result = judge_traits([*none[:number], uint_word(0), *none[number + 1 :]])
        assert screen_result == (F.REBASING, f"its balances are shares: {name}()")
    assert judge_traits([*none[:3], uint_word(1)]) == (F.CALLBACK, "it is an ERC-777 token: granularity()")


def test_transfers_are_summed_and_logs_that_are_none_are_no_sum() -> None:
    def log(raw: int, topics: int = 3) -> dict[str, object]:
        return {"topics": ["0x"] * topics, "data": "0x" + uint_word(raw).hex()}

    assert transferred_raw([]) == 0
    assert transferred_raw([log(5), log(7)]) == 12
    for other in (None, RpcFault(1, "no"), [log(5), 7], [log(5, topics=2)], [log(5, topics=4)], [{**log(5), "data": "0x01"}], [{}]):
        assert transferred_raw(other) is None


def step_holding(raw: int) -> StepInput:
    step = step_input()
    holdings = tuple(replace(holding, raw=raw) if holding.token == WETH.address else holding for holding in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))


def test_single_calls_stay_within_the_balance_and_the_allowance() -> None:
    step = step_holding(400)
    move = replace(MOVE, payee=ROUTER, spender=ROUTER)
    allowances = (Allowance(WETH.address, ROUTER, 300), Allowance(USDC.address, ROUTER, 9), Allowance(WETH.address, address("x"), 8))
    step = replace(step, snapshot=replace(step.snapshot, allowances=allowances))

    def amounts(of: StepInput) -> list[tuple[str, int]]:
        return [(call.role.value, int(call.rpc_call[1][0]["data"][-64:], 16)) for call in single_calls(of.snapshot, move, "latest")]

    assert amounts(step) == [("payee", 1_000), ("wallet", 400), ("spender", 300)]
    assert amounts(replace(step, snapshot=replace(step.snapshot, allowances=())))[2] == ("spender", 0)
    rich = replace(
        step_holding(5_000), snapshot=replace(step_holding(5_000).snapshot, allowances=(Allowance(WETH.address, ROUTER, 9_000),))
    )
    assert amounts(rich) == [("payee", 1_000), ("wallet", 1_000), ("spender", 1_000)]
    assert amounts(step_holding(0)) == [("payee", 1_000)]
    assert list(single_calls(step.snapshot, MOVE, "latest")) == []


class FakeControlsNode(ScriptedTransport):
    """Answers every transfer with true, every trial as fair and every view with a failure; keeps the amount of each transfer by its
    sender, and the amounts of the trials of each request.
    """

    def __init__(self) -> None:
        super().__init__("controlled", self.answer)
        self.raw_by_sender: dict[str, int] = {}
        self.lent_raw: list[list[int]] = []

    def batch(self, calls: Sequence[RpcCall]) -> list[object]:
        loans = [call["data"].removeprefix(SCREEN) for _, (call, *_) in calls if call["data"].startswith(SCREEN)]
        if loans:
            self.lent_raw.append([int.from_bytes(bytes.fromhex(loan)[106:122], "big") for loan in loans])
        return super().batch(calls)

    def answer(self, _method: str, params: list[dict[str, str]]) -> str:
        call = params[0]
        if call["data"].startswith(SCREEN):
            return "0x" + page(FAIR).hex()
        if "from" in call:
            self.raw_by_sender[call["from"]] = int(call["data"][-64:], 16)
            return f"0x{1:064x}"
        return "0x" + (bytes([PAGE_FORMAT]) + bytes([CallStatus.FAILED.value]) * 16).hex()  # paused(), and five for wallet, router and pool


@pytest.mark.parametrize(("held_raw", "tried_raw"), [(1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000)])
def test_controls__wallet_sends_what_it_or_the_pool_holds(held_raw: int, tried_raw: int) -> None:
    """With more than it holds, or is asked for, a sound wallet would be named as the one that cannot send."""
    step = step_holding(held_raw)
    node = FakeControlsNode()
    step = replace(step, snapshot=replace(step.snapshot, pools=(POOL,)))
    tests = TokenTests(WETH.address, (PoolTrial(replace(MOVE, spender=ROUTER), FAIR),), ())
    controls = read_controls(node, step.snapshot, tests, "latest")
    assert node.raw_by_sender[step.snapshot.owner] == tried_raw
    assert node.raw_by_sender[POOL.contract] == MOVE.raw
    assert controls.wallet_outcome is T.TRUE
    assert not controls.is_paused
    assert controls.listed_addresses == frozenset()
    assert controls.other_results == ()


def controls_of(node: FakeControlsNode, step: StepInput, *moves: TokenMove) -> Controls:
    tests = TokenTests(WETH.address, tuple(PoolTrial(move, FAIR) for move in moves), ())
    return read_controls(node, step.snapshot, tests, "latest")


def test_controls__empty_wallet__has_no_outcome() -> None:
    assert controls_of(FakeControlsNode(), step_holding(0), replace(MOVE, spender=ROUTER)).wallet_outcome is None


def test_controls__pool_pays_the_largest_of_its_payments() -> None:
    node = FakeControlsNode()
    payments = [replace(MOVE, raw=raw, payee=ROUTER) for raw in (700, 900, 800)]
    controls_of(node, step_holding(400), replace(MOVE, raw=5_000, spender=ROUTER), *payments)
    assert node.raw_by_sender[POOL.contract] == 900


def test_controls__every_other_pool_is_tried_with_a_hundredth() -> None:
    node = FakeControlsNode()
    step = step_holding(400)
    others = [v2_pool(WETH, USDC, 10, 50_000, name=f"other {number}") for number in range(21)]
    tiny = replace(others[0], reserve0=99, reserve1=99)
    step = replace(step, snapshot=replace(step.snapshot, pools=(POOL, tiny, *others[1:])))
    controls = controls_of(node, step, replace(MOVE, spender=ROUTER))
    assert len(controls.other_results) == 21
    assert [len(loans) for loans in node.lent_raw] == [20, 1]
    hundredth_raw = others[1].depth(WETH.address) // 100
    assert sorted(raw for loans in node.lent_raw for raw in loans) == [1] + [hundredth_raw] * 20


def logs_of(received: list[int] | None, sent: list[int] | None) -> ScriptedTransport:
    """Return a node that answers two requests for Transfer events, first those to the wallet, then those from it."""
    sides = iter([received, sent])

    def events(_params: list[object]) -> list[dict[str, object]] | None:
        side = next(sides)
        return None if side is None else [{"topics": ["0x"] * 3, "data": "0x" + uint_word(raw).hex()} for raw in side]

    return ScriptedTransport(eth_getLogs=events)


def rebased(logs: ScriptedTransport, now: int, earlier: int | None, number: int = 100) -> str:
    step = step_holding(now)
    step = replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=number)))
    finding = find_rebasing(logs, step.snapshot, WETH.address, earlier)
    return "" if finding is None else finding[1]


def test_a_balance_that_transfers_explain_is_not_rebased() -> None:
    assert rebased(logs_of([5, 7], [2]), now=110, earlier=100) == ""


@pytest.mark.parametrize("logs", [logs_of(None, [2]), logs_of([5], None)], ids=["received", "sent"])
def test_a_balance_whose_transfers_were_not_read_is_not_rebased(logs: ScriptedTransport) -> None:
    assert rebased(logs, now=110, earlier=100) == ""


def test_a_balance_from_nothing_is_rebased() -> None:
    assert "changed by 5 base units" in rebased(logs_of([], []), now=5, earlier=0)


def test_transfers_are_read_first_to_the_wallet_then_from_it() -> None:
    logs = logs_of([], [])
    rebased(logs, now=110, earlier=100)
    wallet_topic = "0x" + step_input().snapshot.owner[2:].lower().rjust(64, "0")
    assert [span["topics"] for span in (params[0] for _, params in logs.calls)] == [
        [TRANSFER_TOPIC, None, wallet_topic],
        [TRANSFER_TOPIC, wallet_topic],
    ]


@pytest.mark.parametrize(("now", "change"), [(111, 1), (109, -1)])
def test_a_balance_one_base_unit_off_its_transfers_is_rebased(now: int, change: int) -> None:
    assert f"changed by {change} base units" in rebased(logs_of([5, 7], [2]), now, earlier=100)


def test_unchanged_or_unread_balance__needs_no_transfers() -> None:
    logs = logs_of([], [])
    assert rebased(logs, now=100, earlier=100) == ""
    assert rebased(logs, now=100, earlier=None) == ""
    assert logs.calls == []


@pytest.mark.parametrize(("number", "first"), [(100, 37), (64, 1), (10, 1)])
def test_transfers__are_read_from_the_block_after_the_balance(number: int, first: int) -> None:
    logs = logs_of([], [])
    rebased(logs, now=110, earlier=100, number=number)
    assert [(span["fromBlock"], span["toBlock"]) for span in (params[0] for _, params in logs.calls)] == [(hex(first), hex(number))] * 2
