"""Every rule of the signer's table says no by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode
from eth_account import Account

from agent.errors import ConfigError, Refused
from agent.model import IntentKind, Leg, LegPlace, UnsignedTx
from agent.signing.calldata import APPROVE as APPROVE_SELECTOR
from agent.signing.calldata import EXACT_INPUT_SINGLE, MULTICALL, SWAP_EXACT_TOKENS, SWEEP_TOKEN, Multicall, SweepToken, decode, selector
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.signing import (
    ALLOWED,
    APPROVE,
    APPROVE_GRANT,
    CANCEL,
    CANCEL_GRANT,
    DEADLINE_S,
    FLOORS,
    GWEI,
    MAX_GAS_WEI,
    NONCE,
    NOW_S,
    PLAN,
    ROUTER,
    RULES,
    STRANGER,
    SWAP,
    SWAP_GRANT,
    USDC,
    USDT,
    WALLET,
    WETH,
    leg,
    plan_of,
    refused,
    signer,
    tx,
)
from tests.support.text import raises_code

MSG_SENDER = "0x0000000000000000000000000000000000000001"
ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"


def with_leg(number: int, **changes: object) -> UnsignedTx:
    """The swap with one leg encoded differently from the granted plan."""
    legs: list[Leg] = list(PLAN.legs)
    legs[number] = replace(legs[number], **changes)  # type: ignore[arg-type]
    return tx(ROUTER, encode_multicall(plan_of(*legs), WALLET, DEADLINE_S))


def sweep(token: str = USDC, min_raw: int = PLAN.legs[0].min_out_raw, to: str = WALLET) -> bytes:
    """A sweep of the router's balance, by default that of the first leg."""
    return SWEEP_TOKEN + abi_encode(["address", "uint256", "address"], [token, min_raw, to])


def v3_swap(recipient: str = ROUTER_ITSELF, amount_in: int = 10**18, limit: int = 0, first: Leg = PLAN.legs[0]) -> bytes:
    """A call of the first leg, with what an encoder of ours never writes."""
    params = (first.token_in, first.token_out, first.fee_pips, recipient, amount_in, first.min_out_raw, limit)
    return EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [params])


def multicall(*calls: bytes) -> str:
    """A multicall of these calls."""
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, list(calls)])).hex()


def single(recipient: str = ROUTER_ITSELF, amount_in: int = 10**18, limit: int = 0) -> str:
    """A multicall of the first leg and its sweep alone."""
    return multicall(v3_swap(recipient, amount_in, limit), sweep())


ONE_LEG = replace(SWAP_GRANT, plan=plan_of(PLAN.legs[0]), floors_raw=FLOORS[:1])


@pytest.mark.parametrize("name", ALLOWED)
def test_granted_transaction_is_signed_twice_alike(name: str) -> None:
    transaction, grant = ALLOWED[name]
    first, second = signer().sign(transaction, grant), signer().sign(transaction, grant)
    assert first.signed_bytes == second.signed_bytes
    assert first.hash == second.hash
    assert Account.recover_transaction(first.signed_bytes) == WALLET


def test_legacy_transaction_is_signed_as_legacy() -> None:
    legacy = replace(CANCEL, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    signed = signer().sign(legacy, CANCEL_GRANT)
    assert signed.signed_bytes[0] >= 0xC0
    assert Account.recover_transaction(signed.signed_bytes) == WALLET


def test_signed_bytes_are_not_in_the_repr() -> None:
    signed = signer().sign(CANCEL, CANCEL_GRANT)
    assert signed.signed_bytes.hex() not in repr(signed)
    assert repr(signed.signed_bytes) not in repr(signed)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("chain_id", {"chain_id": 1}),
        ("nonce", {"nonce": -1}),
        ("nonce", {"nonce": NONCE - 1}),
        ("nonce", {"nonce": NONCE + 1}),
        ("nonce", {"nonce": 2**64 - 1}),
        ("value", {"value_wei": 1}),
        ("fees", {"max_priority_fee_wei": 11 * GWEI}),
        ("fees", {"max_priority_fee_wei": -1}),
        ("fees", {"max_fee_wei": 0, "max_priority_fee_wei": 0}),
        ("fees", {"gas_price_wei": GWEI}),
        ("fees", {"max_priority_fee_wei": None}),
        ("fees", {"max_fee_wei": None, "max_priority_fee_wei": None}),
        ("gas", {"gas": 20_999}),
        ("gas_cost", {"gas": MAX_GAS_WEI // (10 * GWEI) + 1}),
        ("gas_price", {"max_fee_wei": 15 * GWEI + 1}),
        ("gas_price", {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 15 * GWEI + 1}),
        ("tip", {"max_priority_fee_wei": 5 * GWEI + 1}),
        ("to", {"to": ROUTER.lower()}),
        ("call", {"data": "f00"}),
        ("call", {"data": "0x12345678"}),
        ("kind", {"data": "0x"}),
        ("contract", {"to": STRANGER}),
        ("contract", {"to": WETH}),
        ("contract", {"to": NATIVE}),
    ],
)
def test_swap_with_a_wrong_field_is_refused(rule: str, changes: dict[str, object]) -> None:
    refused(replace(SWAP, **changes), SWAP_GRANT, rule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "number", "changes"),
    [
        ("amount_in", 0, {"amount_in_raw": 10**18 + 1}),
        ("min_out", 0, {"min_out_raw": PLAN.legs[0].min_out_raw - 1}),
        ("min_out", 3, {"min_out_raw": 1}),
        ("min_out", 1, {"min_out_raw": UINT256_MAX}),
        ("pool_fee", 0, {"fee_pips": 500}),
        ("venue", 0, {"venue": "uniswap_v2"}),
        ("venue", 1, {"venue": "uniswap_v3"}),
        ("tokens", 0, {"token_out": USDT}),
        ("tokens", 0, {"token_out": STRANGER}),
        ("tokens", 1, {"token_in": STRANGER}),
    ],
)
def test_leg_that_differs_from_the_plan_is_refused(rule: str, number: int, changes: dict[str, object]) -> None:
    refusal = refused(with_leg(number, **changes), SWAP_GRANT, rule)
    assert f"leg {number + 1}: " in str(refusal.verdicts[0].measured_text), "legs count from one"


@pytest.mark.parametrize("recipient", [STRANGER, ROUTER, NATIVE, MSG_SENDER, WALLET, USDC])
def test_v3_output_that_does_not_wait_in_the_router_is_refused(recipient: str) -> None:
    """Even one to the wallet: its minimum would be on the pool's own figure, not on a balance."""
    refused(tx(ROUTER, single(recipient)), ONE_LEG, "recipient")


@pytest.mark.parametrize("recipient", [STRANGER, ROUTER, NATIVE, MSG_SENDER, ROUTER_ITSELF, USDC])
def test_recipient_of_sweep_and_v2_leg_is_the_wallet(recipient: str) -> None:
    refused(tx(ROUTER, multicall(v3_swap(), sweep(to=recipient))), ONE_LEG, "recipient")
    second = PLAN.legs[1]
    abi_values = [second.amount_in_raw, second.min_out_raw, [second.token_in, second.token_out], recipient]
    call = SWAP_EXACT_TOKENS + abi_encode(["uint256", "uint256", "address[]", "address"], abi_values)
    refused(tx(ROUTER, multicall(call)), replace(SWAP_GRANT, plan=plan_of(second), floors_raw=FLOORS[1:2]), "recipient")


@pytest.mark.parametrize(
    ("calls", "rule"),
    [
        ((v3_swap(),), "router_balance"),
        ((v3_swap(), sweep(min_raw=0)), "min_out"),
        ((v3_swap(), sweep(min_raw=PLAN.legs[0].min_out_raw - 1)), "min_out"),
        ((v3_swap(), sweep(min_raw=PLAN.legs[0].min_out_raw + 1)), "min_out"),
        ((v3_swap(), sweep(token=WETH)), "legs"),
        ((sweep(), v3_swap()), "call"),
        ((sweep(), v3_swap(), sweep()), "call"),
        ((v3_swap(), sweep(), sweep()), "legs"),
        ((v3_swap(), sweep(), sweep(min_raw=0)), "legs"),
    ],
)
def test_v3_output_is_swept_once_with_its_minimum(calls: tuple[bytes, ...], rule: str) -> None:
    refused(tx(ROUTER, multicall(*calls)), ONE_LEG, rule)


def test_outputs_are_swept_together_and_apart_from_a_hub() -> None:
    """Legs 1 and 5 buy USDC, which legs 3 and 4 use as a hub: a sweep before, one after."""
    legs = (*PLAN.legs, leg(WETH, USDC, 10**17, 300_000_000, fee_pips=500))
    min_outs_raw = [leg_.min_out_raw for leg_ in legs]
    grant = replace(SWAP_GRANT, plan=plan_of(*legs), floors_raw=(*FLOORS, 1))
    call = decode(encode_multicall(plan_of(*legs), WALLET, DEADLINE_S))
    assert isinstance(call, Multicall)
    sweeps = [(number, leg_) for number, leg_ in enumerate(call.calls) if isinstance(leg_, SweepToken)]
    assert sweeps == [(2, SweepToken(USDC, min_outs_raw[0], WALLET)), (6, SweepToken(USDC, min_outs_raw[4], WALLET))]
    assert signer().sign(tx(ROUTER, encode_multicall(plan_of(*legs), WALLET, DEADLINE_S)), grant).signed_bytes
    joint_plan = plan_of(legs[0], legs[4], legs[1])
    joint_call = decode(encode_multicall(joint_plan, WALLET, DEADLINE_S))
    assert isinstance(joint_call, Multicall)
    assert joint_call.calls[-1] == SweepToken(USDC, min_outs_raw[0] + min_outs_raw[4], WALLET)
    mixed_plan = plan_of(legs[2], legs[0], legs[3])
    with raises_code(Refused, "router_balance"):
        encode_multicall(mixed_plan, WALLET, DEADLINE_S)
    hub_swap = v3_swap(amount_in=legs[2].amount_in_raw, first=legs[2])
    calls = (hub_swap, v3_swap(), sweep())
    refused(tx(ROUTER, multicall(*calls)), replace(SWAP_GRANT, plan=mixed_plan, floors_raw=(1, 1, 1)), "router_balance")
    late_sweep = multicall(v3_swap(), hub_swap, sweep())
    refused(tx(ROUTER, late_sweep), replace(SWAP_GRANT, plan=plan_of(*legs[0::2][:2], legs[3]), floors_raw=(1, 1, 1)), "router_balance")


def test_granted_leg_alone_is_signed() -> None:
    assert signer().sign(tx(ROUTER, single()), ONE_LEG).signed_bytes


def test_price_limit_is_refused() -> None:
    refused(tx(ROUTER, single(limit=1)), ONE_LEG, "price_limit")


def test_leg_of_the_wallet_spends_no_router_balance() -> None:
    refused(tx(ROUTER, single(amount_in=0)), ONE_LEG, "amount_in")


def test_plan_that_leaves_tokens_in_the_router_is_refused() -> None:
    plan = plan_of(replace(PLAN.legs[0], sink=LegPlace.ROUTER))
    grant = replace(SWAP_GRANT, plan=plan, floors_raw=FLOORS[:1])
    refused(tx(ROUTER, multicall(v3_swap())), grant, "router_balance")
    refused(tx(ROUTER, single()), grant, "legs")


def test_plan_that_spends_what_no_leg_left_is_refused() -> None:
    plan = plan_of(replace(PLAN.legs[0], source=LegPlace.ROUTER))
    refused(tx(ROUTER, single(amount_in=0)), replace(SWAP_GRANT, plan=plan, floors_raw=FLOORS[:1]), "router_balance")


@pytest.mark.parametrize("deadline_s", [1, NOW_S - 1, NOW_S, NOW_S + 91, NOW_S + 3600, UINT256_MAX])
def test_deadline_that_has_passed_or_is_too_far_is_refused(deadline_s: int) -> None:
    refused(tx(ROUTER, encode_multicall(PLAN, WALLET, deadline_s)), SWAP_GRANT, "deadline")


def test_shorter_of_the_grants_and_the_rules_deadline_counts() -> None:
    assert signer().sign(tx(ROUTER, encode_multicall(PLAN, WALLET, NOW_S + 90)), SWAP_GRANT).signed_bytes
    refused(tx(ROUTER, encode_multicall(PLAN, WALLET, NOW_S + 31)), replace(SWAP_GRANT, deadline_s=NOW_S + 30), "deadline")
    refused(tx(ROUTER, encode_multicall(PLAN, WALLET, NOW_S + 91)), replace(SWAP_GRANT, deadline_s=NOW_S + 3600), "deadline")


def test_multicall_without_deadline_is_refused() -> None:
    """Only the position manager is called so, for liquidity."""
    body = abi_encode(["bytes[]"], [[bytes.fromhex(SWAP.data[2:])]])
    call = tx(ROUTER, "0x" + (selector("multicall(bytes[])") + body).hex())
    refused(call, SWAP_GRANT, "kind")
    refused(call, replace(SWAP_GRANT, kind=IntentKind.LIQUIDITY), "call")


def test_bare_swap_outside_a_multicall_is_refused() -> None:
    inner = EXACT_INPUT_SINGLE + abi_encode(["uint256"], [1])
    refused(tx(ROUTER, "0x" + inner.hex()), ONE_LEG, "call")


def test_anything_but_a_swap_inside_a_multicall_is_refused() -> None:
    for inner in (
        bytes.fromhex(SWAP.data[2:]),
        APPROVE_SELECTOR + abi_encode(["address", "uint256"], [STRANGER, 1]),
        selector("sweepToken(address,uint256,address)") + abi_encode(["address", "uint256", "address"], [USDC, 0, STRANGER]),
        selector("approveMax(address)") + abi_encode(["address"], [USDC]),
        b"",
    ):
        data = MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, [inner]])
        refused(tx(ROUTER, "0x" + data.hex()), ONE_LEG, "call")


def test_legs_missing_doubled_or_in_another_order_are_refused() -> None:
    first, second, third, fourth = PLAN.legs
    refused(tx(ROUTER, encode_multicall(plan_of(first, second), WALLET, DEADLINE_S)), SWAP_GRANT, "legs")
    refused(tx(ROUTER, encode_multicall(plan_of(*PLAN.legs, first), WALLET, DEADLINE_S)), SWAP_GRANT, "legs")
    refused(tx(ROUTER, encode_multicall(plan_of(second, first, third, fourth), WALLET, DEADLINE_S)), SWAP_GRANT, "venue")
    empty_multicall = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, []])).hex()
    refused(tx(ROUTER, empty_multicall), replace(SWAP_GRANT, plan=plan_of(), floors_raw=()), "legs")


def test_minimum_below_the_floor_is_refused_even_if_planned() -> None:
    floors_raw = (*FLOORS[:2], PLAN.legs[2].min_out_raw + 1, FLOORS[3])
    refused(SWAP, replace(SWAP_GRANT, floors_raw=floors_raw), "floor")


def test_missing_floor_refuses() -> None:
    refused(SWAP, replace(SWAP_GRANT, floors_raw=()), "floor")
    refused(SWAP, replace(SWAP_GRANT, floors_raw=FLOORS[:3]), "floor")


def test_minimum_of_zero_is_refused_at_a_floor_of_zero() -> None:
    plan = plan_of(replace(PLAN.legs[0], min_out_raw=0))
    params = (WETH, USDC, 3000, ROUTER_ITSELF, 10**18, 0, 0)
    call = EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [params])
    data = MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, [call]])
    refused(tx(ROUTER, "0x" + data.hex()), replace(SWAP_GRANT, plan=plan, floors_raw=(0,)), "floor")


def test_token_not_pinned_is_refused_even_if_planned() -> None:
    plan = plan_of(leg(WETH, STRANGER, 10**18, 10**9))
    grant = replace(SWAP_GRANT, plan=plan, floors_raw=(1,))
    refused(tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S)), grant, "tokens")


def test_swap_between_the_only_two_pinned_tokens_is_signed() -> None:
    plan = plan_of(PLAN.legs[0])
    assert signer(replace(RULES, tokens=(WETH, USDC))).sign(tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S)), ONE_LEG).hash


def test_grant_without_its_terms_is_refused() -> None:
    refused(SWAP, replace(SWAP_GRANT, plan=None), "plan")
    refused(APPROVE, replace(APPROVE_GRANT, approval_terms=None), "approval")


def test_cancel_pays_nobody_and_calls_nothing() -> None:
    refused(replace(CANCEL, to=STRANGER), CANCEL_GRANT, "cancel")
    refused(replace(CANCEL, value_wei=1), CANCEL_GRANT, "value")
    refused(replace(CANCEL, data=SWAP.data), CANCEL_GRANT, "kind")
    refused(replace(CANCEL, data="0x00"), CANCEL_GRANT, "call")


@pytest.mark.parametrize("kind", list(IntentKind))
def test_typed_data_is_refused_whatever_it_says(kind: IntentKind) -> None:
    permit = {"primaryType": "Permit", "domain": {"chainId": 31337}, "message": {"owner": WALLET, "spender": ROUTER}}
    for typed_data in (permit, {"primaryType": "\x1b[31mred"}, {}):
        with pytest.raises(Refused) as refusal:
            signer().refuse_typed(typed_data, replace(CANCEL_GRANT, kind=kind))
        assert refusal.value.verdicts[0].guard == "signer.typed_data"
        assert "\x1b" not in str(refusal.value)


def test_signer_for_another_wallet_is_not_built() -> None:
    with pytest.raises(ConfigError, match=r"wallet\.address"):
        signer(replace(RULES, wallet=STRANGER))


@pytest.mark.parametrize(
    "changes",
    [
        {"gas": MAX_GAS_WEI // (10 * GWEI)},
        {"max_priority_fee_wei": 0},
        {"max_fee_wei": GWEI, "max_priority_fee_wei": GWEI},
        {"max_fee_wei": 1, "max_priority_fee_wei": 1},
        {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 1},
        {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 15 * GWEI},
    ],
)
def test_fees_at_the_edge_of_their_limits_are_signed(changes: dict[str, object]) -> None:
    assert signer().sign(replace(SWAP, **changes), SWAP_GRANT).signed_bytes  # type: ignore[arg-type]


@pytest.mark.parametrize("price_wei", [0, -1])
def test_legacy_price_of_nothing_is_refused(price_wei: int) -> None:
    refused(replace(SWAP, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=price_wei), SWAP_GRANT, "fees")


def test_gas_cost_alone_bounds_the_price_without_a_limit() -> None:
    unlimited_signer = signer(replace(RULES, max_fee_wei=None))
    dear_cancel = replace(CANCEL, max_fee_wei=MAX_GAS_WEI // CANCEL.gas)
    assert unlimited_signer.sign(dear_cancel, CANCEL_GRANT).signed_bytes
    with raises_code(Refused, "signer.gas_cost"):
        unlimited_signer.sign(replace(dear_cancel, max_fee_wei=dear_cancel.max_fee_wei + 1), CANCEL_GRANT)


def test_deadline_one_second_after_the_grant_is_signed() -> None:
    assert signer().sign(tx(ROUTER, encode_multicall(PLAN, WALLET, NOW_S + 1)), SWAP_GRANT).signed_bytes


def test_minimum_at_its_floor_is_signed() -> None:
    minimums = tuple(planned.min_out_raw for planned in PLAN.legs)
    assert signer().sign(SWAP, replace(SWAP_GRANT, floors_raw=minimums)).signed_bytes


def test_minimum_of_one_base_unit_is_signed() -> None:
    plan = plan_of(replace(PLAN.legs[0], min_out_raw=1))
    grant = replace(SWAP_GRANT, plan=plan, floors_raw=(1,))
    assert signer().sign(tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S)), grant).signed_bytes


def test_sweep_has_the_sum_of_the_minimums_of_all_its_legs() -> None:
    first, second = PLAN.legs[0], leg(WETH, USDC, 10**17, 300_000_000, fee_pips=500)
    grant = replace(SWAP_GRANT, plan=plan_of(first, second), floors_raw=(1, 1))
    swaps = (v3_swap(), v3_swap(amount_in=second.amount_in_raw, first=second))
    min_outs_raw = first.min_out_raw + second.min_out_raw
    assert signer().sign(tx(ROUTER, multicall(*swaps, sweep(min_raw=min_outs_raw))), grant).signed_bytes
    refused(tx(ROUTER, multicall(*swaps, sweep(min_raw=min_outs_raw - 1))), grant, "min_out")
    refused(tx(ROUTER, multicall(*swaps, sweep(min_raw=first.min_out_raw))), grant, "min_out")
