"""Tests of agent/signing/swap_rules.py for SwapRouter02: the granted legs, paid to the wallet, and nothing left in the router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode

from agent.errors import Refused
from agent.model import IntentKind, Leg, LegPlace, Plan, UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import APPROVE as APPROVE_SELECTOR
from agent.signing.calldata import (
    EXACT_INPUT_SINGLE,
    MULTICALL,
    SWAP_EXACT_TOKENS,
    SWEEP_TOKEN,
    Multicall,
    MulticallItem,
    SweepToken,
    decode,
    selector,
)
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.signing import (
    DEADLINE_S,
    FLOORS,
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
    assert_refused_by,
    leg,
    plan_of,
    signer,
    tx,
)
from tests.support.text import raises_code

MSG_SENDER = "0x0000000000000000000000000000000000000001"
ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
WETH_TO_USDC, WETH_TO_USDC_V2, USDT_TO_HUB, HUB_TO_WBTC = PLAN.legs
"""A V3 leg, a V2 leg, and two legs over USDC as a hub."""
OTHER_WETH_TO_USDC = leg(WETH, USDC, 10**17, 300_000_000, fee_pips=500)


def swap_tx(*legs: Leg, deadline_s: int = DEADLINE_S) -> UnsignedTx:
    """Return the legs as our encoder writes them."""
    return tx(ROUTER, encode_multicall(plan_of(*legs), WALLET, deadline_s))


def swap_grant(*legs: Leg, floors_raw: Sequence[int] | None = None) -> Grant:
    """Return the grant of these legs, with floors of one base unit (default)."""
    return replace(SWAP_GRANT, plan=plan_of(*legs), floors_raw=tuple(floors_raw or [1] * len(legs)))


def multicall_tx(*calls: bytes) -> UnsignedTx:
    """Return a multicall of these calls, whatever they are."""
    return tx(ROUTER, "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [DEADLINE_S, list(calls)])).hex())


def sweep(token: str = USDC, min_raw: int = WETH_TO_USDC.min_out_raw, to: str = WALLET) -> bytes:
    """Return a sweep of the router's balance, by default that of the first leg."""
    return SWEEP_TOKEN + abi_encode(["address", "uint256", "address"], [token, min_raw, to])


def v3_swap(swapped: Leg = WETH_TO_USDC, recipient: str = ROUTER_ITSELF, price_limit: int = 0, **leg_fields: int) -> bytes:
    """Return the call of a leg, with what an encoder of ours never writes."""
    sold = replace(swapped, **leg_fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    values = (sold.token_in, sold.token_out, sold.fee_pips, recipient, sold.amount_in_raw, sold.min_out_raw, price_limit)
    return EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [values])


def v2_swap(recipient: str) -> bytes:
    """Return the call of the V2 leg to a recipient."""
    swapped = WETH_TO_USDC_V2
    values = [swapped.amount_in_raw, swapped.min_out_raw, [swapped.token_in, swapped.token_out], recipient]
    return SWAP_EXACT_TOKENS + abi_encode(["uint256", "uint256", "address[]", "address"], values)


ONE_LEG = swap_grant(WETH_TO_USDC)
V2_LEG = swap_grant(WETH_TO_USDC_V2)


# --- Legs.


@pytest.mark.parametrize(
    ("rule", "leg_index", "leg_fields"),
    [
        pytest.param("amount_in", 0, {"amount_in_raw": 10**18 + 1}, id="sells one wei more"),
        pytest.param("amount_in", 0, {"amount_in_raw": 10**18 - 1}, id="sells one wei less"),
        pytest.param("min_out", 0, {"min_out_raw": WETH_TO_USDC.min_out_raw - 1}, id="minimum one unit lower"),
        pytest.param("min_out", 3, {"min_out_raw": 1}, id="minimum of one unit"),
        pytest.param("min_out", 1, {"min_out_raw": UINT256_MAX}, id="minimum never met"),
        pytest.param("pool_fee", 0, {"fee_pips": 500}, id="another fee tier"),
        pytest.param("venue", 0, {"venue": "uniswap_v2"}, id="V2 in place of V3"),
        pytest.param("venue", 1, {"venue": "uniswap_v3"}, id="V3 in place of V2"),
        pytest.param("tokens", 0, {"token_out": USDT}, id="buys another token"),
        pytest.param("tokens", 0, {"token_out": STRANGER}, id="buys a stranger's token"),
        pytest.param("tokens", 1, {"token_in": STRANGER}, id="sells a stranger's token"),
    ],
)
def test_multicall_leg_that_differs_from_the_plan_is_refused(rule: str, leg_index: int, leg_fields: dict[str, object]) -> None:
    legs = list(PLAN.legs)
    legs[leg_index] = replace(legs[leg_index], **leg_fields)  # type: ignore[arg-type]  # keywords are field names

    refusal = assert_refused_by(rule, swap_tx(*legs), SWAP_GRANT)

    assert f"leg {leg_index + 1}: " in str(refusal.verdicts[0].measured_text), "legs count from one"


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("legs", swap_tx(*PLAN.legs[:2]), SWAP_GRANT, id="legs left out"),
        pytest.param("legs", swap_tx(*PLAN.legs, WETH_TO_USDC), SWAP_GRANT, id="a leg twice"),
        pytest.param("venue", swap_tx(WETH_TO_USDC_V2, WETH_TO_USDC, *PLAN.legs[2:]), SWAP_GRANT, id="another order"),
        pytest.param("legs", multicall_tx(), swap_grant(), id="no legs"),
        pytest.param("tokens", swap_tx(leg(WETH, STRANGER, 10**18, 10**9)), swap_grant(leg(WETH, STRANGER, 10**18, 10**9)), id="unpinned"),
        pytest.param("price_limit", multicall_tx(v3_swap(price_limit=1), sweep()), ONE_LEG, id="a price limit"),
        pytest.param("amount_in", multicall_tx(v3_swap(amount_in_raw=0), sweep()), ONE_LEG, id="the router's balance"),
    ],
)
def test_multicall_of_other_legs_is_refused(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert_refused_by(rule, transaction, grant)


def test_multicall_of_the_granted_leg_alone_is_signed() -> None:
    assert signer().sign(multicall_tx(v3_swap(), sweep()), ONE_LEG).signed_bytes


def test_multicall_between_the_only_two_pinned_tokens_is_signed() -> None:
    assert signer(replace(RULES, tokens=(WETH, USDC))).sign(swap_tx(WETH_TO_USDC), ONE_LEG).signed_bytes


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(bytes.fromhex(SWAP.data[2:]), id="multicall"),
        pytest.param(APPROVE_SELECTOR + abi_encode(["address", "uint256"], [STRANGER, 1]), id="approve"),
        pytest.param(sweep(min_raw=0, to=STRANGER), id="sweep to a stranger"),
        pytest.param(selector("approveMax(address)") + abi_encode(["address"], [USDC]), id="approveMax"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_multicall_of_anything_but_a_swap_is_refused(call: bytes) -> None:
    assert_refused_by("call", multicall_tx(call), ONE_LEG)


def test_swap_outside_a_multicall_is_refused() -> None:
    assert_refused_by("call", tx(ROUTER, "0x" + v3_swap().hex()), ONE_LEG)


@pytest.mark.parametrize(("kind", "rule"), [(IntentKind.SWAP, "kind"), (IntentKind.LIQUIDITY, "call")], ids=["swap", "liquidity"])
def test_multicall_without_deadline_is_refused(kind: IntentKind, rule: str) -> None:
    """Only the position manager is called so, for liquidity."""
    body = abi_encode(["bytes[]"], [[bytes.fromhex(SWAP.data[2:])]])
    call = tx(ROUTER, "0x" + (selector("multicall(bytes[])") + body).hex())

    assert_refused_by(rule, call, replace(SWAP_GRANT, kind=kind))


# --- Recipients and sweeps.


@pytest.mark.parametrize("recipient", [STRANGER, ROUTER, NATIVE, MSG_SENDER, WALLET, USDC])
def test_v3_output_that_does_not_wait_in_the_router_is_refused(recipient: str) -> None:
    """Even one to the wallet: its minimum would be on the pool's own figure, not on a balance."""
    assert_refused_by("recipient", multicall_tx(v3_swap(recipient=recipient), sweep()), ONE_LEG)


@pytest.mark.parametrize("recipient", [STRANGER, ROUTER, NATIVE, MSG_SENDER, ROUTER_ITSELF, USDC])
def test_sweep_and_v2_leg_pay_the_wallet_alone(recipient: str) -> None:
    assert_refused_by("recipient", multicall_tx(v3_swap(), sweep(to=recipient)), ONE_LEG)
    assert_refused_by("recipient", multicall_tx(v2_swap(recipient)), V2_LEG)


@pytest.mark.parametrize(
    ("rule", "calls"),
    [
        pytest.param("router_balance", [v3_swap()], id="no sweep"),
        pytest.param("min_out", [v3_swap(), sweep(min_raw=0)], id="sweep without minimum"),
        pytest.param("min_out", [v3_swap(), sweep(min_raw=WETH_TO_USDC.min_out_raw - 1)], id="minimum one unit lower"),
        pytest.param("min_out", [v3_swap(), sweep(min_raw=WETH_TO_USDC.min_out_raw + 1)], id="minimum one unit higher"),
        pytest.param("legs", [v3_swap(), sweep(token=WETH)], id="sweep of another token"),
        pytest.param("call", [sweep(), v3_swap()], id="sweep before the swap"),
        pytest.param("call", [sweep(), v3_swap(), sweep()], id="sweep before and after"),
        pytest.param("legs", [v3_swap(), sweep(), sweep()], id="sweep twice"),
        pytest.param("legs", [v3_swap(), sweep(), sweep(min_raw=0)], id="sweep again without minimum"),
    ],
)
def test_v3_output_is_swept_once_with_its_minimum(rule: str, calls: list[bytes]) -> None:
    assert_refused_by(rule, multicall_tx(*calls), ONE_LEG)


def sweeps_of(plan: Plan) -> list[tuple[int, MulticallItem]]:
    """Return the sweeps of a plan as our encoder writes it, by their place."""
    call = decode(encode_multicall(plan, WALLET, DEADLINE_S))
    assert isinstance(call, Multicall)
    return [(place, item) for place, item in enumerate(call.calls) if isinstance(item, SweepToken)]


def test_sweep_stands_before_and_after_the_use_as_a_hub() -> None:
    """Legs 1 and 5 buy USDC, which legs 3 and 4 use as a hub."""
    legs = (*PLAN.legs, OTHER_WETH_TO_USDC)

    assert sweeps_of(plan_of(*legs)) == [
        (2, SweepToken(USDC, WETH_TO_USDC.min_out_raw, WALLET)),
        (6, SweepToken(USDC, OTHER_WETH_TO_USDC.min_out_raw, WALLET)),
    ]
    assert signer().sign(swap_tx(*legs), swap_grant(*legs)).signed_bytes


def test_sweep_of_two_legs_has_the_sum_of_their_minimums() -> None:
    legs = (WETH_TO_USDC, OTHER_WETH_TO_USDC)
    min_raw = WETH_TO_USDC.min_out_raw + OTHER_WETH_TO_USDC.min_out_raw

    def two_swaps_and_sweep(swept_min_raw: int) -> UnsignedTx:
        return multicall_tx(v3_swap(), v3_swap(OTHER_WETH_TO_USDC), sweep(min_raw=swept_min_raw))

    assert sweeps_of(plan_of(*legs, WETH_TO_USDC_V2))[-1][1] == SweepToken(USDC, min_raw, WALLET)
    assert signer().sign(two_swaps_and_sweep(min_raw), swap_grant(*legs)).signed_bytes
    assert_refused_by("min_out", two_swaps_and_sweep(min_raw - 1), swap_grant(*legs))
    assert_refused_by("min_out", two_swaps_and_sweep(WETH_TO_USDC.min_out_raw), swap_grant(*legs))


@pytest.mark.parametrize(
    ("calls", "legs"),
    [
        pytest.param([v3_swap(USDT_TO_HUB), v3_swap(), sweep()], (USDT_TO_HUB, WETH_TO_USDC, HUB_TO_WBTC), id="into a hub's balance"),
        pytest.param([v3_swap(), v3_swap(USDT_TO_HUB), sweep()], (WETH_TO_USDC, USDT_TO_HUB, HUB_TO_WBTC), id="swept after the hub's"),
    ],
)
def test_v3_output_is_never_mixed_with_a_hub(calls: list[bytes], legs: tuple[Leg, ...]) -> None:
    assert_refused_by("router_balance", multicall_tx(*calls), swap_grant(*legs))


def test_encoder_writes_no_output_into_a_hub() -> None:
    with raises_code(Refused, "router_balance"):
        encode_multicall(plan_of(USDT_TO_HUB, WETH_TO_USDC, HUB_TO_WBTC), WALLET, DEADLINE_S)


@pytest.mark.parametrize(
    ("rule", "calls", "leg_fields"),
    [
        pytest.param("router_balance", [v3_swap()], {"sink": LegPlace.ROUTER}, id="output left in the router"),
        pytest.param("legs", [v3_swap(), sweep()], {"sink": LegPlace.ROUTER}, id="swept though the plan leaves it"),
        pytest.param("router_balance", [v3_swap(amount_in_raw=0), sweep()], {"source": LegPlace.ROUTER}, id="input that no leg left"),
    ],
)
def test_plan_that_uses_the_router_balance_alone_is_refused(rule: str, calls: list[bytes], leg_fields: dict[str, LegPlace]) -> None:
    assert_refused_by(rule, multicall_tx(*calls), swap_grant(replace(WETH_TO_USDC, **leg_fields)))  # type: ignore[arg-type]  # field names


# --- Deadlines and floors.


@pytest.mark.parametrize(
    "deadline_s",
    [
        pytest.param(1, id="long ago"),
        pytest.param(NOW_S - 1, id="a second ago"),
        pytest.param(NOW_S, id="now"),
        pytest.param(NOW_S + 91, id="one second too far"),
        pytest.param(NOW_S + 3_600, id="an hour"),
        pytest.param(UINT256_MAX, id="for ever"),
    ],
)
def test_multicall_with_a_deadline_passed_or_too_far_is_refused(deadline_s: int) -> None:
    assert_refused_by("deadline", swap_tx(*PLAN.legs, deadline_s=deadline_s), SWAP_GRANT)


@pytest.mark.parametrize("deadline_s", [NOW_S + 1, NOW_S + 90], ids=["in a second", "at the limit"])
def test_multicall_with_a_deadline_at_the_edge_is_signed(deadline_s: int) -> None:
    assert signer().sign(swap_tx(*PLAN.legs, deadline_s=deadline_s), SWAP_GRANT).signed_bytes


@pytest.mark.parametrize(
    ("granted_s", "deadline_s"),
    [
        pytest.param(NOW_S + 30, NOW_S + 31, id="the grant's"),
        pytest.param(NOW_S + 3_600, NOW_S + 91, id="the rules'"),
    ],
)
def test_multicall_keeps_the_shorter_deadline(granted_s: int, deadline_s: int) -> None:
    grant = replace(SWAP_GRANT, deadline_s=granted_s)

    assert_refused_by("deadline", swap_tx(*PLAN.legs, deadline_s=deadline_s), grant)
    assert signer().sign(swap_tx(*PLAN.legs, deadline_s=deadline_s - 1), grant).signed_bytes


MINIMUMS = tuple(planned.min_out_raw for planned in PLAN.legs)


@pytest.mark.parametrize(
    "floors_raw",
    [
        pytest.param((*FLOORS[:2], USDT_TO_HUB.min_out_raw + 1, FLOORS[3]), id="one unit above a minimum"),
        pytest.param(FLOORS[:3], id="one too few"),
        pytest.param((), id="none"),
    ],
)
def test_minimum_below_the_floor_is_refused_even_if_planned(floors_raw: tuple[int, ...]) -> None:
    assert_refused_by("floor", SWAP, replace(SWAP_GRANT, floors_raw=floors_raw))


def test_minimum_at_its_floor_is_signed() -> None:
    assert signer().sign(SWAP, replace(SWAP_GRANT, floors_raw=MINIMUMS)).signed_bytes


def test_minimum_of_zero_is_refused_at_a_floor_of_zero() -> None:
    free_leg = replace(WETH_TO_USDC, min_out_raw=0)
    one_unit_leg = replace(WETH_TO_USDC, min_out_raw=1)

    assert_refused_by("floor", multicall_tx(v3_swap(free_leg)), swap_grant(free_leg, floors_raw=[0]))
    assert signer().sign(swap_tx(one_unit_leg), swap_grant(one_unit_leg, floors_raw=[1])).signed_bytes
