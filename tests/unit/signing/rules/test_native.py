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
    return Grant(kind, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, tuple(one.min_out_raw for one in plan.legs))


def multicall(plan: Plan) -> UnsignedTx:
    return tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S), value_wei=wrapped_native_wei(plan))


def withdraw(raw: int, to: str = WETH, value_wei: int = 0) -> UnsignedTx:
    return tx(to, "0x" + (WITHDRAW + raw.to_bytes(32, "big")).hex(), value_wei=value_wei)


def rule_of(transaction: UnsignedTx, grant: Grant, rules: SigningRules = NATIVE_RULES) -> str | None:
    """The rule that refuses; None when it may be signed."""
    try:
        require_signable(transaction, grant, rules, NONCES)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.") if refusal.verdicts else "call"
    return None


def harmless(before: UnsignedTx, after: UnsignedTx) -> bool:
    """Only the deadline moved, within its window."""
    one, other = decode(before.data), decode(after.data)
    return isinstance(one, Multicall) and isinstance(other, Multicall) and one.calls == other.calls


def same_but_for_when_it_sweeps(before: UnsignedTx, after: UnsignedTx) -> bool:
    """The same calls in the same order, of which sweeps stand elsewhere behind all swaps: the wallet gets the same."""
    calls = [decoded.calls for decoded in (decode(before.data), decode(after.data)) if isinstance(decoded, Multicall)]
    others = [[call for call in row if not isinstance(call, SweepToken)] for row in calls]
    swaps = [
        max((place for place, call in enumerate(row) if isinstance(call, ExactInputSingle | SwapExactTokens)), default=0) for row in calls
    ]
    sweeps = [
        sorted((call.token, call.min_raw, call.recipient) for call in row[last:] if isinstance(call, SweepToken))
        for row, last in zip(calls, swaps, strict=True)
    ]
    return others[0] == others[1] and sweeps[0] == sweeps[1] and len(calls[0]) == len(calls[1])


@pytest.mark.parametrize("name", PLANS)
def test_each_granted_plan_is_signed_and_brings_just_what_it_wraps(name: str) -> None:
    transaction, grant = multicall(PLANS[name]), grant_of(PLANS[name])
    assert signer(NATIVE_RULES).sign(transaction, grant).signed_bytes
    for value_wei in {0, transaction.value_wei - 1, transaction.value_wei + 1, 10**24} - {transaction.value_wei, -1}:
        assert rule_of(replace(transaction, value_wei=value_wei), grant) == "value"


def test_calls_say_what_the_legs_mean() -> None:
    def calls(name: str) -> tuple[object, ...]:
        found = decode(multicall(PLANS[name]).data)
        assert isinstance(found, Multicall)
        return found.calls

    swaps = [10**18, 2 * 10**17, 800_000, 0]
    assert [getattr(call, "amount_in_raw", None) for call in calls("paid by value, then a hub")] == [*swaps, None, None]
    assert calls("wrapped to the wallet")[:2] == (WrapEth(4 * 10**17), SweepToken(WETH, 4 * 10**17, WALLET))
    assert calls("refilled from the wallet")[3:5] == (Pull(WETH, 5 * 10**16), UnwrapWeth9(5 * 10**16, WALLET))
    assert calls("refilled from what is bought")[1] == UnwrapWeth9(BUY.min_out_raw, WALLET)
    assert (selector("wrapETH(uint256)"), selector("pull(address,uint256)")) == (WRAP_ETH, PULL)
    assert (selector("sweepToken(address,uint256,address)"), selector("unwrapWETH9(uint256,address)")) == (SWEEP_TOKEN, UNWRAP_WETH9)


@pytest.mark.parametrize("name", PLANS)
def test_no_flipped_bit_and_no_changed_word_is_signed(name: str) -> None:
    transaction, grant = multicall(PLANS[name]), grant_of(PLANS[name])
    data = bytes.fromhex(transaction.data[2:])
    mutants = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for at in range(4, len(data), 32):
        for other in (bytes(32), (1).to_bytes(32, "big"), bytes(12) + bytes.fromhex(STRANGER[2:]), b"\xff" * 32, b""):
            mutants.append(data[:at] + other + data[at + 32 :])
    for mutant in mutants:
        mutated = replace(transaction, data="0x" + mutant.hex())
        assert mutated == transaction or rule_of(mutated, grant) is not None or harmless(transaction, mutated)


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
    changed = legs.copy()
    changed[number] = replace(legs[number], **{field: data.draw(values)})
    wallet = data.draw(st.sampled_from([WALLET, STRANGER, ROUTER]))
    try:
        found = encode_multicall(plan_of(*changed), wallet, DEADLINE_S)
    except (Refused, ValueError, IndexError):
        return  # the encoder refuses it before the signer sees it
    mutated = replace(multicall(PLANS[name]), data=found)
    same = mutated.data == multicall(PLANS[name]).data or same_but_for_when_it_sweeps(multicall(PLANS[name]), mutated)
    assert same or rule_of(mutated, grant_of(PLANS[name])) is not None


def test_a_granted_plan_that_would_leave_something_in_the_router_is_refused_by_name() -> None:
    """Even if the planner and the encoder both erred."""
    coin, paid = by_value(SELL)
    stranded = plan_of(build_wrap_leg(WETH, 10**18, R))
    late = plan_of(SELL_V2, coin, paid)
    taken = plan_of(replace(HUB[0], amount_out_raw=10**17), build_unwrap_leg(WETH, 10**16), replace(HUB[1], amount_in_raw=10**17))
    to_router = plan_of(SELL, replace(build_unwrap_leg(WETH, 10**16), sink=R))
    other = plan_of(replace(coin, amount_in_raw=10**17, amount_out_raw=10**17), paid)
    pulled = plan_of(BUY, build_unwrap_leg(WETH, 5 * 10**16))
    refusals = {"native": (stranded, late, other), "router_balance": (taken, pulled), "recipient": (to_router,)}
    for rule, plan in ((rule, plan) for rule, plans in refusals.items() for plan in plans):
        assert rule_of(replace(tx(ROUTER, raw_multicall(plan)), value_wei=wrapped_native_wei(plan)), grant_of(plan)) == rule


def raw_multicall(plan: Plan) -> str:
    """What an encoder without our checks would write."""
    from eth_abi.abi import encode as abi_encode

    from agent.venues import calldata

    calls: list[bytes] = []
    paid_wei = 0
    for one in plan.legs:
        if one.venue == "wrapped_native":
            calls += calldata._wrap_calls(one, WALLET)
            paid_wei = one.amount_in_raw if one.token_in == NATIVE and one.sink is R else 0
        else:
            calls.append(calldata._swap_call(one, WALLET, one.amount_in_raw if one.source is W else paid_wei))
            paid_wei = 0
            if one.sink is W and one.venue == "uniswap_v3":
                calls.append(calldata._sweep_call(one.token_out, one.min_out_raw, WALLET))
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, calls])).hex()


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        (None, withdraw(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP)),
        ("amount_in", withdraw(5 * 10**16 + 1), grant_of(ONLY, IntentKind.UNWRAP)),
        ("contract", withdraw(5 * 10**16, to=USDC), grant_of(ONLY, IntentKind.UNWRAP)),
        ("contract", withdraw(5 * 10**16, to=STRANGER), grant_of(ONLY, IntentKind.UNWRAP)),
        ("value", withdraw(5 * 10**16, value_wei=1), grant_of(ONLY, IntentKind.UNWRAP)),
        ("kind", withdraw(5 * 10**16), grant_of(ONLY)),
        ("plan", withdraw(5 * 10**16), replace(grant_of(ONLY, IntentKind.UNWRAP), plan=None)),
        ("plan", withdraw(10**18), grant_of(plan_of(SELL), IntentKind.UNWRAP)),
        ("plan", withdraw(5 * 10**16), grant_of(plan_of(*ONLY.legs, SELL), IntentKind.UNWRAP)),
        ("plan", withdraw(5 * 10**16), grant_of(plan_of(build_unwrap_leg(WETH, 5 * 10**16, R)), IntentKind.UNWRAP)),
    ],
)
def test_unwrapping_by_the_wallet_is_the_granted_amount_of_the_wrapped_coin_alone(
    rule: str | None, transaction: UnsignedTx, grant: Grant
) -> None:
    assert rule_of(transaction, grant) == rule


def test_a_wrapped_coin_that_is_not_pinned_is_not_unwrapped() -> None:
    unpinned = replace(NATIVE_RULES, tokens=frozenset(NATIVE_RULES.tokens) - {WETH})
    for rules in (unpinned, replace(NATIVE_RULES, wrapped_native=None)):
        assert rule_of(withdraw(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP), rules) == "contract"


def test_no_flipped_bit_of_an_unwrapping_is_signed() -> None:
    transaction, grant = withdraw(5 * 10**16), grant_of(ONLY, IntentKind.UNWRAP)
    data = bytes.fromhex(transaction.data[2:])
    for at in range(8 * len(data)):
        mutant = bytearray(data)
        mutant[at // 8] ^= 1 << at % 8
        assert rule_of(replace(transaction, data="0x" + mutant.hex()), grant) is not None


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
def test_a_leg_that_no_plan_has_is_refused_by_its_rule_whatever_the_calls_are(rule: str, plan: Plan) -> None:
    """The legs are judged before the calls, so these are of another plan."""
    coin = sum(one.amount_in_raw for one in plan.legs if one.token_in == NATIVE)
    sent = tx(ROUTER, encode_multicall(plan_of(SELL), WALLET, DEADLINE_S), value_wei=coin)
    assert rule_of(sent, replace(grant_of(plan), floors_raw=(0,) * len(plan.legs))) == rule


def test_a_path_through_a_third_token_and_a_coin_paid_in_parts_are_refused() -> None:
    from eth_abi.abi import encode as abi_encode

    from agent.signing.calldata import SWAP_EXACT_TOKENS

    long = SWAP_EXACT_TOKENS + abi_encode(
        ["uint256", "uint256", "address[]", "address"], [SELL_V2.amount_in_raw, SELL_V2.min_out_raw, [WETH, USDT, USDC], WALLET]
    )
    data = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, [long]])).hex()
    assert rule_of(tx(ROUTER, data), grant_of(plan_of(SELL_V2))) == "tokens", "its first two tokens are the plan's"
    coin, paid = by_value(SELL)
    for other in (
        replace(paid, amount_in_raw=paid.amount_in_raw - 1),
        replace(paid, source=W),
        replace(build_unwrap_leg(WETH, 10**18), source=R),
    ):
        broken = plan_of(coin, other)
        sent = tx(ROUTER, encode_multicall(plan_of(SELL), WALLET, DEADLINE_S), value_wei=wrapped_native_wei(broken))
        assert rule_of(sent, grant_of(broken)) == "native"


def test_two_swaps_are_paid_in_coin_in_the_order_of_the_plan() -> None:
    """The router spends its coin on the first swap of wrapped coin: another order would pay for another swap."""
    plan = plan_of(*by_value(SELL), *by_value(SELL_V2))
    assert rule_of(multicall(plan), grant_of(plan)) is None
    early = plan_of(*by_value(SELL), SELL_V2, *by_value(replace(SELL_V2, amount_in_raw=10**17, amount_out_raw=295_000_000)))
    assert rule_of(replace(tx(ROUTER, raw_multicall(early)), value_wei=wrapped_native_wei(early)), grant_of(early)) == "native"
