"""What the answers of a token mean: the record of a trial, single calls, views of share-based tokens, past transfers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.chain.lens import CallStatus, uint_word
from agent.chain.rpc import RpcFault
from agent.chain.screening import (
    RECORD_BYTES,
    RECORD_FORMAT,
    SHARE_ROUNDING_RAW,
    FailedCall,
    TokenScreen,
    TransferOutcome,
    TrialRecord,
    _blocklist_result,
    _judge_traits,
    _not_lent_result,
    _single_calls,
    _transferred_raw,
    decode_record,
    explain_failure,
    judge_trial,
    transfer_outcome,
)
from agent.chain.tokens import TokenMove
from agent.errors import Retryable
from agent.model import Allowance, StepInput, TokenFinding
from tests.support.builders import address, step_input, token, v2_pool

F, T = TokenFinding, TransferOutcome
WETH, USDC = token("WETH"), token("USDC")
POOL = v2_pool(WETH, USDC, 10, 50_000)
MOVE = TokenMove(WETH.address, POOL, 1_000)
ROUTER = address("router")
FAIR = TrialRecord(0, 1_000, 50_000, 1_000, 49_000, T.TRUE, 1_000, 0, T.TRUE, T.TRUE, 50_000, 0, 0)


def page(record: TrialRecord) -> bytes:
    words = (
        record.lent_raw, record.pool_balance_before, record.arrived_raw, record.pool_balance_after_loan,
        record.transfer_outcome.value, record.forwarded_raw, record.first_remainder,
        record.approve_outcome.value, record.transfer_from_outcome.value,
        record.pool_balance_after, record.second_remainder, record.hook_count,
    )  # fmt: skip
    return bytes([RECORD_FORMAT, record.status]) + b"".join(uint_word(word) for word in words)


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
        (None, T.ODD),
        (RpcFault(3, "execution failed"), T.FAILED),
        (RpcFault(-32000, "execution reverted"), T.FAILED),
        (RpcFault(-32000, "Out Of Gas"), T.FAILED),
        (RpcFault(-32000, "no", "0x08c379a0"), T.FAILED),
        (RpcFault(-32000, "header not found"), None),
    ],
)
def test_a_call_failed_only_if_it_ran(answer: object, outcome: TransferOutcome | None) -> None:
    assert transfer_outcome(answer) is outcome


UNKNOWN = (F.UNKNOWN, "the pool could not transfer it")


@pytest.mark.parametrize("by_pool", [None, *TransferOutcome])
@pytest.mark.parametrize("by_wallet", [None, *TransferOutcome])
def test_a_token_that_a_pool_did_not_lend_is_paused_or_has_the_pool_on_its_list(
    by_pool: TransferOutcome | None, by_wallet: TransferOutcome | None
) -> None:
    found, _ = _not_lent_result(MOVE, UNKNOWN, by_pool, by_wallet)
    if by_pool is not T.FAILED:
        assert found is F.UNKNOWN
    else:
        assert found is (F.BLOCKLISTED if by_wallet in (T.TRUE, T.SILENT) else F.PAUSED)


def test_the_role_of_the_address_that_cannot_transfer_is_named() -> None:
    result = (F.CLEAN, "")
    payee = FailedCall(replace(MOVE, payee=ROUTER), "payee", T.FAILED)
    wallet, spender = (FailedCall(replace(MOVE, spender=ROUTER), role, T.FAILED) for role in ("wallet", "spender"))
    assert _blocklist_result(result, [replace(payee, outcome=None), payee], T.TRUE)[0] is F.UNKNOWN
    assert _blocklist_result(result, [payee], None) == (F.BLOCKLISTED, f"{ROUTER} cannot receive it from pool {POOL.address}")
    assert _blocklist_result(result, [wallet], None) == (F.BLOCKLISTED, f"the wallet cannot send it to pool {POOL.address}")
    for by_nobody in (T.TRUE, T.SILENT):
        assert _blocklist_result(result, [spender], by_nobody) == (F.BLOCKLISTED, f"{ROUTER} cannot spend it")
    for by_nobody in (T.FAILED, None):
        assert _blocklist_result(result, [spender], by_nobody) == result
        assert _blocklist_result(result, [spender, payee], by_nobody)[0] is F.BLOCKLISTED


def test_views_that_only_share_based_or_calling_tokens_have_are_named() -> None:
    none = [CallStatus.FAILED] * 4
    assert _judge_traits(none) is None
    for number, name in enumerate(("sharesOf", "scaledBalanceOf", "gonsForBalance")):
        found = _judge_traits([*none[:number], uint_word(0), *none[number + 1 :]])
        assert found == (F.REBASING, f"its balances are shares: {name}()")
    assert _judge_traits([*none[:3], uint_word(1)]) == (F.CALLBACK, "it is an ERC-777 token: granularity()")


def test_transfers_are_summed_and_logs_that_are_none_are_no_sum() -> None:
    def log(raw: int, topics: int = 3) -> dict[str, object]:
        return {"topics": ["0x"] * topics, "data": "0x" + uint_word(raw).hex()}

    assert _transferred_raw([]) == 0
    assert _transferred_raw([log(5), log(7)]) == 12
    for other in (None, RpcFault(1, "no"), [log(5), 7], [log(5, topics=2)], [log(5, topics=4)], [{**log(5), "data": "0x01"}], [{}]):
        assert _transferred_raw(other) is None


class Node:
    """Answers to the calls of `explain_failure`: three transfers, then pages of views."""

    name = "node"

    def __init__(self, transfers: list[object], views: dict[int, int]) -> None:
        self.transfers, self.views = transfers, views
        self.calls: list[tuple[str, list[object]]] = []

    def batch(self, calls: list[tuple[str, list[object]]]) -> list[object]:
        self.calls = calls
        return [*self.transfers, *([RpcFault(-32601, "no")] * (len(calls) - 3))]


def held(raw: int) -> StepInput:
    step = step_input()
    holdings = tuple(replace(one, raw=raw) if one.token == WETH.address else one for one in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))


def test_single_calls_stay_within_the_balance_and_the_allowance() -> None:
    step, move = held(400), replace(MOVE, payee=ROUTER, spender=ROUTER)
    allowances = (Allowance(WETH.address, ROUTER, 300), Allowance(USDC.address, ROUTER, 9), Allowance(WETH.address, address("x"), 8))
    step = replace(step, snapshot=replace(step.snapshot, allowances=allowances))

    def amounts(of: StepInput) -> list[tuple[str, int]]:
        return [(role, int(call[1][0]["data"][-64:], 16)) for _, role, call in _single_calls(of.snapshot, move, "latest")]  # type: ignore[index,call-overload]

    assert amounts(step) == [("payee", 1_000), ("wallet", 400), ("spender", 300)]
    assert amounts(replace(step, snapshot=replace(step.snapshot, allowances=())))[2] == ("spender", 0)
    rich = replace(held(5_000), snapshot=replace(held(5_000).snapshot, allowances=(Allowance(WETH.address, ROUTER, 9_000),)))
    assert amounts(rich) == [("payee", 1_000), ("wallet", 1_000), ("spender", 1_000)]
    assert amounts(held(0)) == [("payee", 1_000)]
    assert _single_calls(step.snapshot, MOVE, "latest") == []


def test_a_result_that_is_known_is_not_asked_about_again() -> None:
    node = Node([], {})
    for known in ((F.HONEYPOT, "it reverts"), (F.FEE_ON_TRANSFER, "a fee")):
        assert explain_failure(node, step_input().snapshot, MOVE, known, [], "latest") == known  # type: ignore[arg-type]  # only `batch` is used
    for outcome in (T.FALSE, T.ODD):
        failed = [FailedCall(MOVE, "wallet", outcome)]
        assert explain_failure(node, step_input().snapshot, MOVE, UNKNOWN, failed, "latest")[0] is F.FALSE_RETURNING  # type: ignore[arg-type]
    assert node.calls == []


class Logs:
    """Answers two requests for Transfer events, first those to the wallet, then those from it."""

    name = "logs"

    def __init__(self, received: list[int], sent: list[int]) -> None:
        self.received, self.sent = received, sent
        self.filters: list[dict[str, object]] = []

    def batch(self, calls: list[tuple[str, list[dict[str, object]]]]) -> list[object]:
        self.filters = [params[0] for _, params in calls]
        return [[{"topics": ["0x"] * 3, "data": "0x" + uint_word(raw).hex()} for raw in side] for side in (self.received, self.sent)]


def rebased(logs: Logs, now: int, earlier: int | None, number: int = 100) -> str:
    step = held(now)
    step = replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=number)))
    finding = TokenScreen(logs, address("wrapped"))._find_rebasing(step, WETH.address, earlier)  # type: ignore[arg-type]  # only `batch` is used
    return "" if finding is None else finding[1]


def test_a_balance_that_transfers_explain_is_not_rebased() -> None:
    assert rebased(Logs([5, 7], [2]), now=110, earlier=100) == ""


@pytest.mark.parametrize(("now", "change"), [(111, 1), (109, -1)])
def test_a_balance_one_base_unit_off_its_transfers_is_rebased(now: int, change: int) -> None:
    assert f"changed by {change} base units" in rebased(Logs([5, 7], [2]), now, earlier=100)


def test_a_balance_that_is_the_same_or_was_not_read_asks_for_no_transfers() -> None:
    logs = Logs([], [])
    assert rebased(logs, now=100, earlier=100) == ""
    assert rebased(logs, now=100, earlier=None) == ""
    assert logs.filters == []


@pytest.mark.parametrize(("number", "first"), [(100, 37), (64, 1), (10, 1)])
def test_transfers_are_read_from_the_block_after_the_earlier_balance(number: int, first: int) -> None:
    logs = Logs([], [])
    rebased(logs, now=110, earlier=100, number=number)
    assert [(span["fromBlock"], span["toBlock"]) for span in logs.filters] == [(hex(first), hex(number))] * 2
