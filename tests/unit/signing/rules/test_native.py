"""Tests of agent/signing for native coin: each plan that wraps, pays or unwraps it is signed whole, and no mutation (threat T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import IntentKind, Leg, LegPlace, Plan, UnsignedTx
from agent.planning.gas import build_unwrap_leg, build_wrap_leg
from agent.ports import Grant
from agent.signing.calldata import (
    MULTICALL,
    PULL,
    SWAP_EXACT_TOKENS,
    SWEEP_TOKEN,
    UNWRAP_WETH9,
    WITHDRAW,
    WRAP_ETH,
    ExactInputSingle,
    Multicall,
    MulticallItem,
    Pull,
    SwapExactTokens,
    SweepToken,
    UnwrapWeth9,
    WrapEth,
    decode,
    selector,
)
from agent.signing.rules import SigningRules
from agent.units import NATIVE
from agent.venues import calldata
from agent.venues.calldata import encode_multicall, wrapped_native_wei
from tests.support import signing
from tests.support.records.native_legs import BUY, HUB, ONLY, PLANS, SELL, SELL_V2, R, W, by_value
from tests.support.signables import with_bytes
from tests.support.signing import (
    DEADLINE_S,
    MAX_GAS_WEI,
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
refusing_rule = partial(signing.refusing_rule, rules=NATIVE_RULES)
REFILL_WEI = 5 * 10**16


def grant_of(plan: Plan, kind: IntentKind = IntentKind.SWAP) -> Grant:
    """Return the grant of the plan, with its minimums as floors."""
    return Grant(kind, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, tuple(swap.min_out_raw for swap in plan.legs))


def multicall_tx(plan: Plan) -> UnsignedTx:
    return tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S), value_wei=wrapped_native_wei(plan))


def unwrap_tx(raw: int, to: str = WETH, value_wei: int = 0) -> UnsignedTx:
    return tx(to, "0x" + (WITHDRAW + raw.to_bytes(32, "big")).hex(), value_wei=value_wei)


def multicall_of(transaction: UnsignedTx) -> Multicall:
    call = decode(transaction.data)
    assert isinstance(call, Multicall)
    return call


def harmless(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """Return whether only the deadline moved, and stayed within its window."""
    mutated_call = decode(mutated.data)
    return (
        isinstance(mutated_call, Multicall)
        and mutated_call.calls == multicall_of(original).calls
        and NOW_S < mutated_call.deadline_s <= NOW_S + 90
    )


def swaps_and_sweeps(call: Multicall) -> tuple[list[MulticallItem], list[tuple[str, int, str]]]:
    """Return all calls but sweeps, in order, and the sweeps behind the last swap, in any order: what the wallet gets."""
    places = [place for place, item in enumerate(call.calls) if isinstance(item, ExactInputSingle | SwapExactTokens)]
    sweeps = [item for item in call.calls[max(places, default=0) :] if isinstance(item, SweepToken)]
    others = [item for item in call.calls if not isinstance(item, SweepToken)]
    return others, sorted((item.token, item.min_raw, item.recipient) for item in sweeps)


def same_for_the_wallet(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    original_call = multicall_of(original)
    mutated_call = multicall_of(mutated)
    return swaps_and_sweeps(original_call) == swaps_and_sweeps(mutated_call) and len(original_call.calls) == len(mutated_call.calls)


# --- Granted plans.


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_granted_plan_brings_just_what_it_wraps(plan: Plan) -> None:
    transaction = multicall_tx(plan)
    other_values_wei = {0, transaction.value_wei - 1, transaction.value_wei + 1, 10**24} - {transaction.value_wei, -1}

    assert signer(NATIVE_RULES).sign(transaction, grant_of(plan)).signed_bytes
    for value_wei in other_values_wei:
        assert refusing_rule(replace(transaction, value_wei=value_wei), grant_of(plan)) == "value"


@pytest.mark.parametrize(
    ("name", "first_index", "calls"),
    [
        pytest.param("wrapped to the wallet", 0, (WrapEth(4 * 10**17), SweepToken(WETH, 4 * 10**17, WALLET)), id="wrapped"),
        pytest.param("refilled from the wallet", 3, (Pull(WETH, REFILL_WEI), UnwrapWeth9(REFILL_WEI, WALLET)), id="unwrapped"),
        pytest.param("refilled from what is bought", 1, (UnwrapWeth9(BUY.min_out_raw, WALLET),), id="unwrapped from the router"),
    ],
)
def test_conversion_is_encoded_as_its_leg(name: str, first_index: int, calls: tuple[MulticallItem, ...]) -> None:
    assert multicall_of(multicall_tx(PLANS[name])).calls[first_index : first_index + len(calls)] == calls


def test_swaps_paid_by_value_name_their_amounts() -> None:
    calls = multicall_of(multicall_tx(PLANS["paid by value, then a hub"])).calls

    assert [getattr(call, "amount_in_raw", None) for call in calls] == [10**18, 2 * 10**17, 800_000, 0, None, None]


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("wrapETH(uint256)", WRAP_ETH),
        ("pull(address,uint256)", PULL),
        ("sweepToken(address,uint256,address)", SWEEP_TOKEN),
        ("unwrapWETH9(uint256,address)", UNWRAP_WETH9),
    ],
)
def test_selector_is_that_of_the_router(signature: str, expected: bytes) -> None:
    assert selector(signature) == expected


def test_two_swaps_are_paid_in_coin_in_the_order_of_the_plan() -> None:
    """The router spends its coin on the first swap of wrapped coin: another order would pay for another swap."""
    plan = plan_of(*by_value(SELL), *by_value(SELL_V2))
    unpaid_between = plan_of(*by_value(SELL), SELL_V2, *by_value(replace(SELL_V2, amount_in_raw=10**17, amount_out_raw=295_000_000)))

    assert refusing_rule(multicall_tx(plan), grant_of(plan)) is None
    assert refusing_rule(unchecked_tx(unpaid_between), grant_of(unpaid_between)) == "native"


# --- Mutations.


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_flipped_bit_in_a_byte_and_no_changed_word_is_signed(plan: Plan) -> None:
    transaction = multicall_tx(plan)
    data = bytes.fromhex(transaction.data[2:])
    mutations = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for at in range(4, len(data), 32):
        for word in (bytes(32), (1).to_bytes(32, "big"), bytes(12) + bytes.fromhex(STRANGER[2:]), b"\xff" * 32, b""):
            mutations.append(data[:at] + word + data[at + 32 :])

    for mutation in mutations:
        mutated = with_bytes(transaction, mutation)
        assert mutated == transaction or refusing_rule(mutated, grant_of(plan)) is not None or harmless(transaction, mutated)


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
    legs[number] = replace(legs[number], **{field: data.draw(values)})
    wallet = data.draw(st.sampled_from([WALLET, STRANGER, ROUTER]))
    try:
        call_data = encode_multicall(plan_of(*legs), wallet, DEADLINE_S)
    except (Refused, ValueError, IndexError):
        return  # the encoder refuses it before the signer sees it
    original = multicall_tx(PLANS[name])
    mutated = replace(original, data=call_data)

    assert same_for_the_wallet(original, mutated) or refusing_rule(mutated, grant_of(PLANS[name])) is not None


# --- Plans that no planner makes, even if the encoder erred too.


def unchecked_tx(plan: Plan) -> UnsignedTx:
    """Return what an encoder without our checks would write."""
    calls: list[bytes] = []
    paid_wei = 0
    for swap in plan.legs:
        if swap.venue == "wrapped_native":
            calls += calldata._wrap_calls(swap, WALLET)
            paid_wei = swap.amount_in_raw if swap.token_in == NATIVE and swap.sink is R else 0
        else:
            calls.append(calldata._swap_call(swap, WALLET, swap.amount_in_raw if swap.source is W else paid_wei))
            paid_wei = 0
            if swap.sink is W and swap.venue == "uniswap_v3":
                calls.append(calldata._sweep_call(swap.token_out, swap.min_out_raw, WALLET))
    data = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, calls])).hex()
    return tx(ROUTER, data, value_wei=wrapped_native_wei(plan))


WRAP, PAID_SALE = by_value(SELL)
SMALL_WRAP = replace(WRAP, amount_in_raw=10**17, amount_out_raw=10**17)
BOUGHT_MORE = replace(HUB[0], amount_out_raw=10**17)
SOLD_LESS = replace(HUB[1], amount_in_raw=10**17)
WRAP_TO_WALLET = build_wrap_leg(WETH, 4 * 10**17, W)
ROUTER_SALE = replace(SELL, source=R)
ROUTER_SALE_V2 = replace(SELL_V2, source=R)


@pytest.mark.parametrize(
    ("rule", "plan"),
    [
        pytest.param("native", plan_of(WRAP), id="wrapped and not sold"),
        pytest.param("native", plan_of(SELL_V2, WRAP, PAID_SALE), id="paid after another sale"),
        pytest.param("native", plan_of(SMALL_WRAP, PAID_SALE), id="wrapped less than sold"),
        pytest.param("native", plan_of(ROUTER_SALE, WRAP_TO_WALLET), id="router's balance sold before a wrap"),
        pytest.param("native", plan_of(ROUTER_SALE_V2, WRAP_TO_WALLET), id="router's balance sold in a V2 pool before a wrap"),
        pytest.param("native", plan_of(WRAP, PAID_SALE, ROUTER_SALE_V2, WRAP_TO_WALLET), id="router's balance sold after a paid sale"),
        pytest.param("router_balance", plan_of(BOUGHT_MORE, build_unwrap_leg(WETH, 10**16), SOLD_LESS), id="unwrapped from a hub"),
        pytest.param("router_balance", plan_of(BUY, build_unwrap_leg(WETH, REFILL_WEI)), id="pulled onto what was bought"),
        pytest.param("recipient", plan_of(SELL, replace(build_unwrap_leg(WETH, 10**16), sink=R)), id="unwrapped into the router"),
    ],
)
def test_plan_that_leaves_coin_in_the_router_is_refused(rule: str, plan: Plan) -> None:
    assert refusing_rule(unchecked_tx(plan), grant_of(plan)) == rule


@pytest.mark.parametrize(
    ("rule", "plan"),
    [
        pytest.param("tokens", plan_of(replace(build_wrap_leg(WETH, 10**18, W), token_out=USDC)), id="wraps into another token"),
        pytest.param("tokens", plan_of(replace(build_unwrap_leg(WETH, 10**18), token_in=USDC)), id="unwraps another token"),
        pytest.param("source", plan_of(replace(build_wrap_leg(WETH, 10**18, W), source=R)), id="wraps the router's coin"),
        pytest.param("source", plan_of(replace(build_unwrap_leg(WETH, 10**18), source=R, sink=R)), id="unwraps within the router"),
        pytest.param("recipient", plan_of(SELL, replace(build_unwrap_leg(WETH, 10**18), sink=R)), id="unwraps into the router"),
        pytest.param("amount_in", plan_of(replace(SELL, amount_in_raw=0)), id="sells nothing"),
        pytest.param(
            "amount_in", plan_of(build_wrap_leg(WETH, 4 * 10**17, W), replace(build_unwrap_leg(WETH, 1), amount_in_raw=0)),
            id="unwraps nothing",
        ),
        pytest.param("floor", plan_of(replace(build_unwrap_leg(WETH, 10**18), min_out_raw=0)), id="unwraps without a minimum"),
        pytest.param("native", plan_of(WRAP, replace(PAID_SALE, amount_in_raw=10**18 - 1)), id="sells one wei less than it wraps"),
        pytest.param("native", plan_of(WRAP, replace(PAID_SALE, source=W)), id="wraps for a sale of the wallet"),
        pytest.param("native", plan_of(WRAP, replace(build_unwrap_leg(WETH, 10**18), source=R)), id="wraps for an unwrap"),
    ],
)  # fmt: skip
def test_leg_that_no_plan_has_is_refused_by_its_rule(rule: str, plan: Plan) -> None:
    """The legs are judged before the calls, so these are of another plan."""
    transaction = tx(ROUTER, encode_multicall(plan_of(SELL), WALLET, DEADLINE_S), value_wei=wrapped_native_wei(plan))

    assert refusing_rule(transaction, replace(grant_of(plan), floors_raw=(0,) * len(plan.legs))) == rule


def test_path_through_a_third_token_is_refused() -> None:
    """Its first two tokens are the plan's."""
    values = [SELL_V2.amount_in_raw, SELL_V2.min_out_raw, [WETH, USDT, USDC], WALLET]
    call = SWAP_EXACT_TOKENS + abi_encode(["uint256", "uint256", "address[]", "address"], values)
    data = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, [call]])).hex()

    assert refusing_rule(tx(ROUTER, data), grant_of(plan_of(SELL_V2))) == "tokens"


# --- Unwrapping by the wallet itself.


UNWRAP_GRANT = grant_of(ONLY, IntentKind.UNWRAP)


def unwrap_grant_of(*legs: Leg) -> Grant:
    return grant_of(plan_of(*legs), IntentKind.UNWRAP)


def test_unwrapping_of_the_granted_amount_is_signed() -> None:
    assert refusing_rule(unwrap_tx(REFILL_WEI), UNWRAP_GRANT) is None


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("amount_in", unwrap_tx(REFILL_WEI + 1), UNWRAP_GRANT, id="one wei more"),
        pytest.param("amount_in", unwrap_tx(REFILL_WEI - 1), UNWRAP_GRANT, id="one wei less"),
        pytest.param("contract", unwrap_tx(REFILL_WEI, to=USDC), UNWRAP_GRANT, id="another token"),
        pytest.param("contract", unwrap_tx(REFILL_WEI, to=STRANGER), UNWRAP_GRANT, id="a stranger"),
        pytest.param("value", unwrap_tx(REFILL_WEI, value_wei=1), UNWRAP_GRANT, id="one wei sent"),
        pytest.param("kind", unwrap_tx(REFILL_WEI), grant_of(ONLY), id="granted as a swap"),
        pytest.param("plan", unwrap_tx(REFILL_WEI), replace(UNWRAP_GRANT, plan=None), id="no plan"),
        pytest.param("plan", unwrap_tx(10**18), unwrap_grant_of(SELL), id="the plan of a swap"),
        pytest.param("plan", unwrap_tx(REFILL_WEI), unwrap_grant_of(*ONLY.legs, SELL), id="a swap beside it"),
        pytest.param("plan", unwrap_tx(REFILL_WEI), unwrap_grant_of(build_unwrap_leg(WETH, REFILL_WEI, R)), id="from the router"),
    ],
)
def test_unwrapping_other_than_granted_is_refused(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(replace(NATIVE_RULES, tokens=tuple(set(RULES.tokens) - {WETH})), id="not pinned"),
        pytest.param(replace(NATIVE_RULES, wrapped_native=None), id="not the wrapped coin"),
    ],
)
def test_unwrapping_of_an_unpinned_coin_is_refused(rules: SigningRules) -> None:
    assert refusing_rule(unwrap_tx(REFILL_WEI), UNWRAP_GRANT, rules=rules) == "contract"
