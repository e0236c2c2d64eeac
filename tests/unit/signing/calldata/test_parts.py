"""How revert data reads, what fees are paid, which approvals a plan needs, what is not encoded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.receipts import REVERT_MESSAGES, revert_reason
from agent.chain.rpc import RpcFault
from agent.chain.tokens import encode_approve, needed_approvals, nonzero_allowances
from agent.errors import Refused
from agent.execution.reconcile import with_bumped_fees
from agent.model import Allowance, Head, LegPlace
from agent.planning.approval_gas import swap_spend
from agent.signing.calldata import Approve, UndecodableCalldata, decode, selector
from agent.venues.calldata import encode_multicall
from agent.venues.gas_fees import GasFees, gas_fees, replacement_fees
from tests.support.builders import snapshot
from tests.support.signing import DEADLINE_S, PLAN, ROUTER, STRANGER, USDC, USDT, WALLET, WBTC, WETH, leg, plan_of
from tests.support.text import raises_code
from tests.support.transactions import tx

HASH = "0x" + "ab" * 32


def error_data(text: str) -> str:
    return "0x" + (selector("Error(string)") + abi_encode(["string"], [text])).hex()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (RpcFault(3, "execution reverted: STF", error_data("STF")), "balance or allowance is too small, or the token forbids it (STF)"),
        (RpcFault(3, "execution reverted: Too little received"), "its fee rose since the snapshot (Too little received)"),
        (RpcFault(-32000, "VM Exception while processing transaction: revert Transaction too old"), "the deadline has passed"),
        (RpcFault(3, "execution reverted", "0x" + selector("Panic(uint256)").hex() + f"{0x11:064x}"), "arithmetic overflow (Panic 0x11)"),
        (RpcFault(3, "execution reverted", "0x" + selector("Panic(uint256)").hex() + f"{0x77:064x}"), "panic (Panic 0x77)"),
        (RpcFault(3, "execution reverted", "0x" + selector("Panic(uint256)").hex() + "11"), "reverted with custom error 0x4e487b71"),
        (RpcFault(3, "execution reverted", "0x" + selector("NoSuchPool(uint256)").hex() + "01"), "swap ?: the venue's factory"),
        (
            RpcFault(3, "x", "0x" + selector("ERC20InsufficientBalance(address,uint256,uint256)").hex() + "00" * 96),
            "the balance of a token is too small (ERC20InsufficientBalance)",
        ),
        (RpcFault(3, "x", "0xdeadbeef00"), "reverted with custom error 0xdeadbeef"),
        (RpcFault(3, "x", "0xde"), "data that cannot be decoded"),
        (RpcFault(3, "x", "0x" + selector("Error(string)").hex() + "ff" * 40), "a reason that cannot be decoded"),
        (RpcFault(3, "execution reverted", "0x"), "reverted without a reason"),
        (RpcFault(3, "execution reverted"), "reverted without a reason"),
        (RpcFault(3, "execution reverted", error_data("Pausable: paused")), "Pausable: paused"),
    ],
)
def test_revert_data_reads_as_words(fault: RpcFault, reason: str) -> None:
    assert reason in revert_reason(fault)


def test_tokens_own_words_reach_nobody_unwashed() -> None:
    reason = revert_reason(RpcFault(3, "execution reverted", error_data("\x1b[31m<script>=cmd|" + "A" * 1000)))
    assert "\x1b" not in reason
    assert "<" not in reason
    assert "|" not in reason
    assert len(reason) <= 120


@given(st.binary(max_size=200))
def test_no_revert_data_makes_the_reader_fail(data: bytes) -> None:
    for head in (b"", selector("Error(string)"), selector("Panic(uint256)")):
        assert revert_reason(RpcFault(3, "execution reverted", "0x" + (head + data).hex()))


def test_every_code_in_the_table_has_words() -> None:
    assert all(reason and reason != code for code, reason in REVERT_MESSAGES.items())


def head(base_fee_wei: int | None) -> Head:
    return Head(31337, 1, HASH, 1, base_fee_wei)


def test_fees_are_twice_the_base_fee_and_a_bounded_tip() -> None:
    assert gas_fees(head(10), 2, 0, limit_wei=100, priority_cap_wei=5) == GasFees(22, 2, None)
    assert gas_fees(head(10), 9_999, 0, limit_wei=100, priority_cap_wei=5) == GasFees(25, 5, None)
    assert gas_fees(head(10), 2, 0, limit_wei=None, priority_cap_wei=5).max_gas_price_wei == 22
    assert gas_fees(head(0), 0, 0, limit_wei=None, priority_cap_wei=5).max_gas_price_wei == 1


def test_fee_ceiling_caps_the_max_fee_or_refuses() -> None:
    assert gas_fees(head(10), 2, 0, limit_wei=15, priority_cap_wei=5) == GasFees(15, 2, None)
    assert gas_fees(head(10), 2, 0, limit_wei=12, priority_cap_wei=5).max_fee_wei == 12
    with pytest.raises(Refused) as caught:
        gas_fees(head(10), 2, 0, limit_wei=11, priority_cap_wei=5)
    assert caught.value.verdicts[0].guard == "gas_price"


def test_legacy_chains_pay_the_gas_price_under_the_same_ceiling() -> None:
    assert gas_fees(head(None), 2, 40, limit_wei=40, priority_cap_wei=5) == GasFees(None, None, 40)
    assert gas_fees(head(None), 2, 40, limit_wei=40, priority_cap_wei=5).max_gas_price_wei == 40
    with pytest.raises(Refused):
        gas_fees(head(None), 2, 41, limit_wei=40, priority_cap_wei=5)


@given(base=st.integers(0, 10**12), tip=st.integers(0, 10**12), cap=st.integers(0, 10**12), limit=st.integers(1, 10**13))
def test_no_fee_is_above_the_ceiling_and_none_below_the_base_fee(base: int, tip: int, cap: int, limit: int) -> None:
    try:
        paid = gas_fees(head(base), tip, 0, limit_wei=limit, priority_cap_wei=cap)
    except Refused:
        assert base + min(tip, cap) > limit
        return
    assert paid.max_fee_wei is not None
    assert paid.max_priority_fee_wei is not None
    assert max(base, paid.max_priority_fee_wei) <= paid.max_fee_wei <= limit
    assert paid.max_priority_fee_wei <= cap


@given(max_fee_wei=st.integers(0, 10**13), tip=st.integers(0, 10**12))
def test_replacement_pays_an_eighth_more_in_both_fields(max_fee_wei: int, tip: int) -> None:
    replacement = replacement_fees(replace(tx(0), max_fee_wei=max_fee_wei, max_priority_fee_wei=tip))
    assert replacement.max_fee_wei is not None
    assert replacement.max_priority_fee_wei is not None
    assert replacement.max_fee_wei >= Fraction(9, 8) * max_fee_wei
    assert replacement.max_priority_fee_wei >= Fraction(9, 8) * tip
    assert replacement.max_fee_wei > max_fee_wei
    assert replacement.max_priority_fee_wei > tip


def test_replacement_above_the_ceiling_is_refused() -> None:
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=80)
    assert with_bumped_fees(legacy_tx, head(None), 90) == replace(legacy_tx, gas_price_wei=90)
    with pytest.raises(Refused):
        with_bumped_fees(replace(legacy_tx, gas_price_wei=81), head(None), 90)


def test_approvals_are_exactly_what_the_wallet_spends_per_token() -> None:
    assert swap_spend(PLAN.legs) == {WETH: 12 * 10**17, USDT: 500_000_000}
    empty_snapshot = snapshot(allowances=(Allowance(WETH, ROUTER, 0), Allowance(USDT, ROUTER, 0)))
    assert needed_approvals(PLAN, empty_snapshot, ROUTER) == ((WETH, 12 * 10**17), (USDT, 500_000_000))
    partial_snapshot = snapshot(allowances=(Allowance(WETH, ROUTER, 12 * 10**17), Allowance(USDT, ROUTER, 1)))
    assert needed_approvals(PLAN, partial_snapshot, ROUTER) == ((USDT, 0), (USDT, 500_000_000))
    reset_snapshot = snapshot(allowances=(Allowance(WETH, ROUTER, 0), Allowance(USDT, ROUTER, 1)))
    assert needed_approvals(PLAN, reset_snapshot, ROUTER) == ((USDT, 0), (USDT, 500_000_000), (WETH, 12 * 10**17))


def test_allowance_of_another_spender_does_not_count() -> None:
    other_snapshot = snapshot(allowances=(Allowance(WETH, ROUTER, 2 * 10**18), Allowance(USDT, STRANGER, 10**12)))
    with raises_code(Refused, "allowance"):
        needed_approvals(PLAN, other_snapshot, ROUTER)


def test_left_over_allowances_are_all_that_are_above_zero() -> None:
    state = snapshot(allowances=(Allowance(WETH, ROUTER, 0), Allowance(USDT, STRANGER, 1)))
    assert nonzero_allowances(state) == ((USDT, STRANGER),)


def test_approval_decodes_to_itself() -> None:
    assert decode(encode_approve(ROUTER, 7)) == Approve(ROUTER, 7)


@pytest.mark.parametrize(
    ("plan", "code", "figure"),
    [
        (plan_of(), "no_legs", ""),
        (plan_of(leg(WETH, USDC, 1, 0)), "amount", "must be above zero"),
        (plan_of(leg(WETH, USDC, 0, 5)), "amount", "must be above zero"),
        (plan_of(leg(WETH, USDC, 5, 500, venue="curve")), "venue", "'curve'"),
        (plan_of(leg(WETH, USDC, 5, 500, sink=LegPlace.ROUTER)), "router_balance", "leaves"),
        (plan_of(leg(WETH, USDC, 5, 500, source=LegPlace.ROUTER)), "router_balance", "no earlier leg"),
        (
            plan_of(leg(WETH, USDC, 5, 500, sink=LegPlace.ROUTER), leg(WBTC, USDC, 5, 500, source=LegPlace.ROUTER)),
            "router_balance",
            "no earlier leg",
        ),
    ],
)
def test_plan_that_cannot_run_in_the_router_is_not_encoded(plan: object, code: str, figure: str) -> None:
    with raises_code(Refused, code, figure):
        encode_multicall(plan, WALLET, DEADLINE_S)  # type: ignore[arg-type]
    with raises_code(Refused, "deadline"):
        encode_multicall(PLAN, WALLET, 0)


@pytest.mark.parametrize("data", ["", "0x", "0x0", "0xzz", "095ea7b3", "0x 095ea7b3", "0x095ea7b3"])
def test_what_is_no_calldata_is_not_understood(data: str) -> None:
    with pytest.raises(UndecodableCalldata):
        decode(data)
