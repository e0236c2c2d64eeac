"""Native coin before the signer: what is granted is signed, every rule says no by its name, and no mutation passes (threat T4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import IntentKind, LegPlace, Plan, UnsignedTx
from agent.planning.gas import build_unwrap_leg, build_wrap_leg
from agent.ports import Grant
from agent.signing.calldata import (
    MULTICALL,
    PULL,
    SWEEP_TOKEN,
    UNWRAP_WETH9,
    WITHDRAW,
    WRAP_ETH,
    ExactInputSingle,
    Multicall,
    Pull,
    SwapExactTokens,
    SweepToken,
    UnwrapWeth9,
    WrapEth,
    decode,
    selector,
)
from agent.signing.rules import SigningRules, require_signable
from agent.units import NATIVE
from agent.venues.calldata import encode_multicall, wrapped_native_wei
from tests.support.records.native_legs import BUY, HUB, ONLY, PLANS, SELL, SELL_V2, R, W, by_value
from tests.support.signing import (
    DEADLINE_S,
    MAX_GAS_WEI,
    NONCES,
    NOW_S,
    ROUTER,
    RULES,
    STRANGER,
    USDC,
    USDT,
    WALLET,
    WETH,
    plan_of,
    signer,
    tx,
)

NATIVE_RULES = replace(RULES, wrapped_native=WETH)


def grant_of(plan: Plan, kind: IntentKind = IntentKind.SWAP) -> Grant:
    return Grant(kind, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, tuple(leg_.min_out_raw for leg_ in plan.legs))


def multicall_tx(plan: Plan) -> UnsignedTx:
    return tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S), value_wei=wrapped_native_wei(plan))


def unwrap_tx(raw: int, to: str = WETH, value_wei: int = 0) -> UnsignedTx:
    return tx(to, "0x" + (WITHDRAW + raw.to_bytes(32, "big")).hex(), value_wei=value_wei)


def refusing_rule(transaction: UnsignedTx, grant: Grant, rules: SigningRules = NATIVE_RULES) -> str | None:
    """The rule that refuses; None when it may be signed."""
    try:
        require_signable(transaction, grant, rules, NONCES)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.") if refusal.verdicts else "call"
    return None


def harmless(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """Only the deadline moved, within its window."""
    leg_, other_call = decode(original.data), decode(mutated.data)
    return isinstance(leg_, Multicall) and isinstance(other_call, Multicall) and leg_.calls == other_call.calls


def same_but_for_when_it_sweeps(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """The same calls in the same order, of which sweeps stand elsewhere behind all swaps: the wallet gets the same."""
    calls = [decoded.calls for decoded in (decode(original.data), decode(mutated.data)) if isinstance(decoded, Multicall)]
    other_calls = [[call for call in row if not isinstance(call, SweepToken)] for row in calls]
    last_swaps = [
        max((place for place, call in enumerate(row) if isinstance(call, ExactInputSingle | SwapExactTokens)), default=0) for row in calls
    ]
    sweeps = [
        sorted((call.token, call.min_raw, call.recipient) for call in row[last:] if isinstance(call, SweepToken))
        for row, last in zip(calls, last_swaps, strict=True)
    ]
    return other_calls[0] == other_calls[1] and sweeps[0] == sweeps[1] and len(calls[0]) == len(calls[1])


@pytest.mark.parametrize("name", PLANS)
def test_granted_plan_brings_just_what_it_wraps(name: str) -> None:
    transaction, grant = multicall_tx(PLANS[name]), grant_of(PLANS[name])
    assert signer(NATIVE_RULES).sign(transaction, grant).signed_bytes
    for value_wei in {0, transaction.value_wei - 1, transaction.value_wei + 1, 10**24} - {transaction.value_wei, -1}:
        assert refusing_rule(replace(transaction, value_wei=value_wei), grant) == "value"


def test_calls_say_what_the_legs_mean() -> None:
    def calls(name: str) -> tuple[object, ...]:
        call = decode(multicall_tx(PLANS[name]).data)
        assert isinstance(call, Multicall)
        return call.calls

    last_swaps = [10**18, 2 * 10**17, 800_000, 0]
    assert [getattr(call, "amount_in_raw", None) for call in calls("paid by value, then a hub")] == [*last_swaps, None, None]
    assert calls("wrapped to the wallet")[:2] == (WrapEth(4 * 10**17), SweepToken(WETH, 4 * 10**17, WALLET))
    assert calls("refilled from the wallet")[3:5] == (Pull(WETH, 5 * 10**16), UnwrapWeth9(5 * 10**16, WALLET))
    assert calls("refilled from what is bought")[1] == UnwrapWeth9(BUY.min_out_raw, WALLET)
    assert (selector("wrapETH(uint256)"), selector("pull(address,uint256)")) == (WRAP_ETH, PULL)
    assert (selector("sweepToken(address,uint256,address)"), selector("unwrapWETH9(uint256,address)")) == (SWEEP_TOKEN, UNWRAP_WETH9)


@pytest.mark.parametrize("name", PLANS)
def test_no_flipped_bit_and_no_changed_word_is_signed(name: str) -> None:
    transaction, grant = multicall_tx(PLANS[name]), grant_of(PLANS[name])
    data = bytes.fromhex(transaction.data[2:])
    mutated_datas = [data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :] for position in range(len(data))]
    for position in range(4, len(data), 32):
        for other_call in (bytes(32), (1).to_bytes(32, "big"), bytes(12) + bytes.fromhex(STRANGER[2:]), b"\xff" * 32, b""):
            mutated_datas.append(data[:position] + other_call + data[position + 32 :])
    for mutated_data in mutated_datas:
        mutated = replace(transaction, data="0x" + mutated_data.hex())
        assert mutated == transaction or refusing_rule(mutated, grant) is not None or harmless(transaction, mutated)


@given(data=st.data(), name=st.sampled_from(sorted(PLANS)))
def test_no_multicall_of_another_plan_is_signed(data: st.DataObject, name: str) -> None:
    legs = list(PLANS[name].legs)
    number = data.draw(st.integers(0, len(legs) - 1))
    amounts = st.integers(1, 2**128)
    field, values = data.draw(
        st.sampled_from(
            [
                ("token_in", st.sampled_from([WETH, USDC, USDT, NATIVE, STRANGER])),
                ("token_out", st.sampled_from([WETH, USDC, USDT, NATIVE, STRANGER])),
                ("amount_in_raw", amounts),
                ("min_out_raw", amounts),
                ("source", st.sampled_from(LegPlace)),
                ("sink", st.sampled_from(LegPlace)),
                ("venue", st.sampled_from(["uniswap_v2", "uniswap_v3", "wrapped_native"])),
            ]
        )
    )
    changed_legs = legs.copy()
    changed_legs[number] = replace(legs[number], **{field: data.draw(values)})
    wallet = data.draw(st.sampled_from([WALLET, STRANGER, ROUTER]))
    try:
        call = encode_multicall(plan_of(*changed_legs), wallet, DEADLINE_S)
    except (Refused, ValueError, IndexError):
        return  # the encoder refuses it before the signer sees it
    mutated = replace(multicall_tx(PLANS[name]), data=call)
    is_same_call = mutated.data == multicall_tx(PLANS[name]).data or same_but_for_when_it_sweeps(multicall_tx(PLANS[name]), mutated)
    assert is_same_call or refusing_rule(mutated, grant_of(PLANS[name])) is not None


def test_plan_that_leaves_coin_in_the_router_is_refused() -> None:
    """Even if the planner and the encoder both erred."""
    wrap, sale = by_value(SELL)
    stranded = plan_of(build_wrap_leg(WETH, 10**18, R))
    late_payment = plan_of(SELL_V2, wrap, sale)
    taken = plan_of(replace(HUB[0], amount_out_raw=10**17), build_unwrap_leg(WETH, 10**16), replace(HUB[1], amount_in_raw=10**17))
    to_router = plan_of(SELL, replace(build_unwrap_leg(WETH, 10**16), sink=R))
    other_call = plan_of(replace(wrap, amount_in_raw=10**17, amount_out_raw=10**17), sale)
    pulled = plan_of(BUY, build_unwrap_leg(WETH, 5 * 10**16))
    refusals = {"native": (stranded, late_payment, other_call), "router_balance": (taken, pulled), "recipient": (to_router,)}
    for rule, plan in ((rule, plan) for rule, plans in refusals.items() for plan in plans):
        assert refusing_rule(replace(tx(ROUTER, raw_multicall(plan)), value_wei=wrapped_native_wei(plan)), grant_of(plan)) == rule


def raw_multicall(plan: Plan) -> str:
    """What an encoder without our checks would write."""
    from eth_abi.abi import encode as abi_encode

    from agent.venues import calldata

    calls: list[bytes] = []
    paid_wei = 0
    for leg_ in plan.legs:
        if leg_.venue == "wrapped_native":
            calls += calldata._wrap_calls(leg_, WALLET)
            paid_wei = leg_.amount_in_raw if leg_.token_in == NATIVE and leg_.sink is R else 0
        else:
            calls.append(calldata._swap_call(leg_, WALLET, leg_.amount_in_raw if leg_.source is W else paid_wei))
            paid_wei = 0
            if leg_.sink is W and leg_.venue == "uniswap_v3":
                calls.append(calldata._sweep_call(leg_.token_out, leg_.min_out_raw, WALLET))
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, calls])).hex()


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        (None, unwrap_tx(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP)),
        ("amount_in", unwrap_tx(5 * 10**16 + 1), grant_of(ONLY, IntentKind.UNWRAP)),
        ("contract", unwrap_tx(5 * 10**16, to=USDC), grant_of(ONLY, IntentKind.UNWRAP)),
        ("contract", unwrap_tx(5 * 10**16, to=STRANGER), grant_of(ONLY, IntentKind.UNWRAP)),
        ("value", unwrap_tx(5 * 10**16, value_wei=1), grant_of(ONLY, IntentKind.UNWRAP)),
        ("kind", unwrap_tx(5 * 10**16), grant_of(ONLY)),
        ("plan", unwrap_tx(5 * 10**16), replace(grant_of(ONLY, IntentKind.UNWRAP), plan=None)),
        ("plan", unwrap_tx(10**18), grant_of(plan_of(SELL), IntentKind.UNWRAP)),
        ("plan", unwrap_tx(5 * 10**16), grant_of(plan_of(*ONLY.legs, SELL), IntentKind.UNWRAP)),
        ("plan", unwrap_tx(5 * 10**16), grant_of(plan_of(build_unwrap_leg(WETH, 5 * 10**16, R)), IntentKind.UNWRAP)),
    ],
)
def test_unwrapping_is_of_the_granted_amount_alone(rule: str | None, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


def test_wrapped_coin_that_is_not_pinned_is_not_unwrapped() -> None:
    unpinned = replace(NATIVE_RULES, tokens=frozenset(NATIVE_RULES.tokens) - {WETH})
    for rules in (unpinned, replace(NATIVE_RULES, wrapped_native=None)):
        assert refusing_rule(unwrap_tx(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP), rules) == "contract"


def test_no_flipped_bit_of_an_unwrapping_is_signed() -> None:
    transaction, grant = unwrap_tx(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP)
    data = bytes.fromhex(transaction.data[2:])
    for position in range(8 * len(data)):
        mutated_data = bytearray(data)
        mutated_data[position // 8] ^= 1 << position % 8
        assert refusing_rule(replace(transaction, data="0x" + mutated_data.hex()), grant) is not None


@pytest.mark.parametrize(
    ("rule", "plan"),
    [
        ("tokens", plan_of(replace(build_wrap_leg(WETH, 10**18, W), token_out=USDC))),
        ("tokens", plan_of(replace(build_unwrap_leg(WETH, 10**18), token_in=USDC))),
        ("source", plan_of(replace(build_wrap_leg(WETH, 10**18, W), source=R))),
        ("source", plan_of(replace(build_unwrap_leg(WETH, 10**18), source=R, sink=R))),
        ("recipient", plan_of(SELL, replace(build_unwrap_leg(WETH, 10**18), sink=R))),
        ("amount_in", plan_of(replace(SELL, amount_in_raw=0))),
        ("amount_in", plan_of(build_wrap_leg(WETH, 4 * 10**17, W), replace(build_unwrap_leg(WETH, 1), amount_in_raw=0))),
        ("floor", plan_of(replace(build_unwrap_leg(WETH, 10**18), min_out_raw=0))),
    ],
)
def test_leg_that_no_plan_has_is_refused_by_its_rule(rule: str, plan: Plan) -> None:
    """The legs are judged before the calls, so these are of another plan."""
    wrap = sum(leg_.amount_in_raw for leg_ in plan.legs if leg_.token_in == NATIVE)
    transaction = tx(ROUTER, encode_multicall(plan_of(SELL), WALLET, DEADLINE_S), value_wei=wrap)
    assert refusing_rule(transaction, replace(grant_of(plan), floors_raw=(0,) * len(plan.legs))) == rule


def test_path_of_three_tokens_and_partial_payment_are_refused() -> None:
    from eth_abi.abi import encode as abi_encode

    from agent.signing.calldata import SWAP_EXACT_TOKENS

    long_path = SWAP_EXACT_TOKENS + abi_encode(
        ["uint256", "uint256", "address[]", "address"], [SELL_V2.amount_in_raw, SELL_V2.min_out_raw, [WETH, USDT, USDC], WALLET]
    )
    data = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, [long_path]])).hex()
    assert refusing_rule(tx(ROUTER, data), grant_of(plan_of(SELL_V2))) == "tokens", "its first two tokens are the plan's"
    wrap, sale = by_value(SELL)
    for other_call in (
        replace(sale, amount_in_raw=sale.amount_in_raw - 1),
        replace(sale, source=W),
        replace(build_unwrap_leg(WETH, 10**18), source=R),
    ):
        broken_plan = plan_of(wrap, other_call)
        transaction = tx(ROUTER, encode_multicall(plan_of(SELL), WALLET, DEADLINE_S), value_wei=wrapped_native_wei(broken_plan))
        assert refusing_rule(transaction, grant_of(broken_plan)) == "native"


def test_two_swaps_are_paid_in_coin_in_the_order_of_the_plan() -> None:
    """The router spends its coin on the first swap of wrapped coin: another order would pay for another swap."""
    plan = plan_of(*by_value(SELL), *by_value(SELL_V2))
    assert refusing_rule(multicall_tx(plan), grant_of(plan)) is None
    early_plan = plan_of(*by_value(SELL), SELL_V2, *by_value(replace(SELL_V2, amount_in_raw=10**17, amount_out_raw=295_000_000)))
    assert (
        refusing_rule(replace(tx(ROUTER, raw_multicall(early_plan)), value_wei=wrapped_native_wei(early_plan)), grant_of(early_plan))
        == "native"
    )
