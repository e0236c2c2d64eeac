"""Tests of agent/signing/swap_rules.py for the Rebalancer: the granted plan alone is signed, every other one refused by its rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from eth_abi import encode as abi_encode

from agent.chain.tokens import encode_approve
from agent.model import Leg, LegPlace, Plan, PoolMaker, UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import REBALANCE, FundsLocation, RebalanceCall, decode
from agent.signing.pool_makers import pool_address
from agent.signing.rules import SigningRules
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import RebalancerTerms, encode_rebalance
from agent.venues.kinds.uniswap_v4 import UniswapV4
from tests.support import signing
from tests.support.signing import (
    APPROVE_GRANT,
    CANCEL,
    CANCEL_GRANT,
    DEADLINE_S,
    HUB,
    MAKERS,
    NOW_S,
    PLAN,
    PRICES,
    REBALANCER,
    REBALANCER_RULES,
    REBALANCES,
    ROUTER,
    RULES,
    STRANGER,
    SWAP,
    SWAP_GRANT,
    USDC,
    USDT,
    WBTC,
    WETH,
    conditions,
    encode_program,
    leg,
    native_leg,
    plan_of,
    rebalance_tx,
    rebalancing_grant_of,
    signer,
    tx,
)

R = LegPlace.ROUTER
W = LegPlace.WALLET
OWN = FundsLocation.WALLET
HERE = FundsLocation.REBALANCER
IN_PAIR = FundsLocation.PAIR
PAIRS_TX, PAIRS_GRANT = REBALANCES["pairs"]
MINIMUMS = tuple(swap.min_out_raw for swap in PLAN.legs)
assert_refused_by = partial(signing.assert_refused_by, rules=REBALANCER_RULES)


def assert_signed(transaction: UnsignedTx, grant: Grant, rules: SigningRules = REBALANCER_RULES) -> None:
    assert signer(rules).sign(transaction, grant).signed_bytes


def encoded_under(plan: Plan, granted: Plan) -> UnsignedTx:
    """Return a plan under the value floor of the granted one."""
    terms = RebalancerTerms(PRICES | {STRANGER: Fraction(1)}, conditions(granted).min_value_change_raw)
    return tx(REBALANCER, encode_program(plan, DEADLINE_S, terms))


def with_changed_leg(plan: Plan, leg_index: int, **leg_fields: object) -> Plan:
    legs: list[Leg] = list(plan.legs)
    legs[leg_index] = replace(legs[leg_index], **leg_fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return plan_of(*legs)


def with_overwritten(plan: Plan, old: bytes, new: bytes) -> UnsignedTx:
    """Return the plan with these bytes in place of others, which stand there once."""
    data = bytes.fromhex(rebalance_tx(plan).data[2:])
    assert data.count(old) == 1
    return tx(REBALANCER, "0x" + data.replace(old, new).hex())


# --- Transaction and grant.


@pytest.mark.parametrize(
    ("rule", "tx_fields"),
    [
        pytest.param("chain_id", {"chain_id": 1}, id="another chain"),
        pytest.param("value", {"value_wei": 1}, id="one wei sent"),
        pytest.param("contract", {"to": STRANGER}, id="to a stranger"),
        pytest.param("contract", {"to": ROUTER}, id="to a router"),
        pytest.param("contract", {"to": WETH}, id="to a token"),
        pytest.param("gas", {"gas": 20_999}, id="gas one below the least"),
        pytest.param("call", {"data": "0x" + REBALANCE.hex()}, id="no program"),
        pytest.param("call", {"data": "0x" + (REBALANCE + abi_encode(["bytes"], [b""])).hex()}, id="an empty program"),
    ],
)
def test_rebalance_with_a_wrong_field_is_refused(rule: str, tx_fields: dict[str, object]) -> None:
    assert_refused_by(rule, replace(PAIRS_TX, **tx_fields), PAIRS_GRANT)  # type: ignore[arg-type]  # field names, checked by replace


@pytest.mark.parametrize(
    ("rule", "grant_fields"),
    [
        pytest.param("price", {"prices": ()}, id="no prices"),
        pytest.param("value_floor", {"min_value_change_raw": None}, id="no value floor"),
        pytest.param("plan", {"plan": None}, id="no plan"),
        pytest.param("legs", {"plan": plan_of(), "floors_raw": ()}, id="a plan of no legs"),
        pytest.param("legs", {"plan": plan_of(*PLAN.legs, PLAN.legs[0]), "floors_raw": (*MINIMUMS, 1)}, id="a plan of more legs"),
        pytest.param("floor", {"floors_raw": MINIMUMS[:-1]}, id="one floor too few"),
        pytest.param("pool", {"plan": with_changed_leg(PLAN, 0, pool=STRANGER)}, id="another pool of a pinned maker"),
    ],
)
def test_rebalance_beside_its_grant_is_refused(rule: str, grant_fields: dict[str, object]) -> None:
    assert_refused_by(rule, PAIRS_TX, replace(PAIRS_GRANT, **grant_fields))  # type: ignore[arg-type]  # field names, checked by replace


def test_program_of_fewer_legs_than_the_plan_is_refused() -> None:
    two_legs = plan_of(*PLAN.legs[:2])

    assert_refused_by("legs", encoded_under(plan_of(two_legs.legs[0]), two_legs), rebalancing_grant_of(two_legs))


@pytest.mark.parametrize(
    "deadline_s",
    [
        pytest.param(1, id="long ago"),
        pytest.param(NOW_S - 1, id="a second ago"),
        pytest.param(NOW_S, id="now"),
        pytest.param(NOW_S + 91, id="one second too far"),
        pytest.param(NOW_S + 3_600, id="an hour"),
        pytest.param(2**40 - 1, id="for ever"),
    ],
)
def test_deadline_that_has_passed_or_is_too_far_is_refused(deadline_s: int) -> None:
    assert_refused_by("deadline", rebalance_tx(PLAN, deadline_s), PAIRS_GRANT)


def test_router_is_no_rebalancer_and_a_rebalancer_no_router() -> None:
    assert_refused_by("contract", PAIRS_TX, PAIRS_GRANT, rules=replace(RULES, routers=(REBALANCER, ROUTER)))
    assert_refused_by("contract", replace(SWAP, to=REBALANCER), SWAP_GRANT)


@pytest.mark.parametrize(("transaction", "grant"), [(SWAP, SWAP_GRANT), (CANCEL, CANCEL_GRANT)], ids=["swap", "cancel"])
def test_value_goes_with_no_other_call(transaction: UnsignedTx, grant: Grant) -> None:
    assert_refused_by("value", replace(transaction, value_wei=1), grant, rules=replace(REBALANCER_RULES, routers=(ROUTER,)))


@pytest.mark.parametrize("venue", ["slipstream", "pancake_v3", "uniswap_v3/other", "uniswap_v2/other"])
def test_multicall_trades_at_the_routers_deployment_alone(venue: str) -> None:
    plan = replace(PLAN, legs=tuple(replace(swap, venue=venue) for swap in PLAN.legs))

    assert_refused_by("venue", SWAP, replace(SWAP_GRANT, plan=plan), rules=RULES)


@pytest.mark.parametrize(
    ("rule", "spender", "raw"),
    [
        pytest.param("spender", ROUTER, 500_000_000, id="a router that is not pinned"),
        pytest.param("approval_amount", REBALANCER, UINT256_MAX, id="unlimited"),
    ],
)
def test_approval_of_the_rebalancer_is_exact(rule: str, spender: str, raw: int) -> None:
    def grant_of(granted_spender: str, granted_raw: int) -> Grant:
        return replace(APPROVE_GRANT, approval_terms=(USDT, granted_spender, granted_raw), plan=None)

    assert_signed(tx(USDT, encode_approve(REBALANCER, 500_000_000)), grant_of(REBALANCER, 500_000_000))
    assert_refused_by(rule, tx(USDT, encode_approve(spender, raw)), grant_of(spender, raw))


# --- Legs.


@pytest.mark.parametrize(
    ("rule", "leg_index", "leg_fields"),
    [
        pytest.param("amount_in", 0, {"amount_in_raw": 10**18 + 1}, id="sells one wei more"),
        pytest.param("amount_in", 0, {"amount_in_raw": 10**18 - 1}, id="sells one wei less"),
        pytest.param("min_out", 0, {"min_out_raw": PLAN.legs[0].min_out_raw - 1}, id="minimum one unit lower"),
        pytest.param("min_out", 3, {"min_out_raw": 1}, id="minimum of one unit"),
        pytest.param("min_out", 1, {"min_out_raw": 2**100}, id="minimum never met"),
        pytest.param("pool", 0, {"fee_pips": 500}, id="another V3 tier"),
        pytest.param("pool_fee", 1, {"fee_pips": 2_999}, id="another V2 fee"),
        pytest.param("venue", 0, {"venue": "uniswap_v2"}, id="V2 in place of V3"),
        pytest.param("venue", 1, {"venue": "uniswap_v3"}, id="V3 in place of V2"),
        pytest.param("venue", 0, {"venue": "wrapped_native"}, id="a conversion in place of V3"),
        pytest.param("tokens", 0, {"token_out": USDT}, id="buys another token"),
        pytest.param("tokens", 0, {"token_out": STRANGER}, id="buys a stranger's token"),
        pytest.param("tokens", 1, {"token_in": STRANGER}, id="sells a stranger's token"),
    ],
)
def test_program_leg_that_differs_from_the_plan_is_refused(rule: str, leg_index: int, leg_fields: dict[str, object]) -> None:
    assert_refused_by(rule, encoded_under(with_changed_leg(PLAN, leg_index, **leg_fields), PLAN), PAIRS_GRANT)


ROUTED = plan_of(PLAN.legs[0], *PLAN.legs[2:])
"""A sale, and two legs over a hub."""
UNROUTED = plan_of(PLAN.legs[0], replace(PLAN.legs[2], sink=W), replace(PLAN.legs[3], source=W))
STRANDED = with_changed_leg(ROUTED, 0, sink=R)


@pytest.mark.parametrize(
    ("encoded", "granted"),
    [
        pytest.param(encoded_under(STRANDED, PLAN), ROUTED, id="keeps what the wallet should get"),
        pytest.param(rebalance_tx(UNROUTED), ROUTED, id="pays the wallet what the next leg spends"),
        pytest.param(rebalance_tx(ROUTED), UNROUTED, id="pays the next leg what the wallet should get"),
    ],
)
def test_leg_pays_and_is_paid_as_planned(encoded: UnsignedTx, granted: Plan) -> None:
    assert_signed(rebalance_tx(ROUTED), rebalancing_grant_of(ROUTED))
    assert_refused_by("recipient", encoded, rebalancing_grant_of(granted))


def test_leg_between_the_only_two_pinned_tokens_is_signed() -> None:
    plan = plan_of(PLAN.legs[0])

    assert_signed(rebalance_tx(plan), rebalancing_grant_of(plan), replace(REBALANCER_RULES, tokens=(WETH, USDC)))


@pytest.mark.parametrize("bought", [STRANGER, WETH], ids=["a token that is not pinned", "the token sold"])
def test_leg_of_an_unpinned_or_one_token_is_refused(bought: str) -> None:
    plan = plan_of(leg(WETH, bought, 10**18, 500))
    terms = RebalancerTerms({WETH: PRICES[WETH]} | ({STRANGER: Fraction(1)} if bought == STRANGER else {}), -(10**10))
    grant = replace(
        PAIRS_GRANT, plan=plan, floors_raw=(1,), prices=tuple(terms.prices.items()), min_value_change_raw=terms.min_value_change_raw
    )

    assert_refused_by("tokens", tx(REBALANCER, encode_program(plan, DEADLINE_S, terms)), grant)


@pytest.mark.parametrize(("field", "rule"), [("amount_in_raw", "amount_in"), ("min_out_raw", "floor")], ids=["input", "minimum"])
def test_amount_of_zero_is_refused_even_as_granted(field: str, rule: str) -> None:
    """The encoder refuses it too, so it is overwritten here."""
    swap = PLAN.legs[0]
    data = rebalance_tx(plan_of(swap)).data.replace(getattr(swap, field).to_bytes(16, "big").hex(), bytes(16).hex())
    granted = plan_of(replace(swap, **{field: 0}))

    assert data != rebalance_tx(plan_of(swap)).data
    assert_refused_by(rule, tx(REBALANCER, data), rebalancing_grant_of(granted, floors_raw=(0,)))


@pytest.mark.parametrize("venue", ["uniswap_v2", "uniswap_v3", "wrapped_native"])
@pytest.mark.parametrize(
    "pinned_maker",
    [
        pytest.param(lambda maker: replace(maker, address=STRANGER), id="another address"),
        pytest.param(lambda maker: replace(maker, init_code_hash="0x" + "11" * 32), id="another code"),
        pytest.param(lambda maker: None, id="none"),
    ],
)
def test_pool_of_another_maker_than_pinned_is_refused(venue: str, pinned_maker: Callable[[PoolMaker], PoolMaker | None]) -> None:
    transaction, grant = REBALANCES["coin" if venue == "wrapped_native" else "pairs"]
    makers = MAKERS | {venue: pinned_maker(MAKERS[venue])}
    rules = replace(REBALANCER_RULES, venue_makers=tuple((name, maker) for name, maker in makers.items() if maker is not None))

    assert_refused_by("venue", transaction, grant, rules=rules)


# --- Bounds, prices and floors.


WETH_BOUND_RAW = -12 * 10**17
"""What both legs of the plan that sell WETH spend."""


@pytest.mark.parametrize(
    "bound_raw",
    [
        pytest.param(WETH_BOUND_RAW - 1, id="one wei looser"),
        pytest.param(WETH_BOUND_RAW + 1, id="one wei tighter"),
        pytest.param(0, id="zero"),
        pytest.param(-(2**127), id="none"),
    ],
)
def test_bound_that_is_not_the_plans_is_refused(bound_raw: int) -> None:
    bounds = (value.to_bytes(16, "big", signed=True) for value in (WETH_BOUND_RAW, bound_raw))

    assert_refused_by("bounds", with_overwritten(PLAN, *bounds), PAIRS_GRANT)


@pytest.mark.parametrize("token", sorted(conditions(PLAN).prices))
@pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(2), 1 + Fraction(1, 2**60)], ids=["half", "double", "a bit more"])
def test_price_that_is_not_the_granted_one_is_refused(token: str, factor: Fraction) -> None:
    terms = conditions(PLAN)
    other_terms = RebalancerTerms({**terms.prices, token: terms.prices[token] * factor}, terms.min_value_change_raw)

    assert_refused_by("price", rebalance_tx(PLAN, terms=other_terms), PAIRS_GRANT)


def value_floor_tx(plan: Plan, value_floor_raw: int) -> UnsignedTx:
    return rebalance_tx(plan, terms=replace(conditions(plan), min_value_change_raw=value_floor_raw))


GRANTED_FLOOR_RAW = conditions(PLAN).min_value_change_raw


@pytest.mark.parametrize("value_floor_raw", [-(2**127), -1, 0, 1, GRANTED_FLOOR_RAW - 1, GRANTED_FLOOR_RAW + 1])
def test_value_floor_other_than_granted_is_refused(value_floor_raw: int) -> None:
    assert_refused_by("value_floor", value_floor_tx(PLAN, value_floor_raw), PAIRS_GRANT)


def test_value_floor_above_the_floors_is_signed() -> None:
    value_floor_raw = GRANTED_FLOOR_RAW + 10**6

    assert_signed(value_floor_tx(PLAN, value_floor_raw), rebalancing_grant_of(PLAN, min_value_change_raw=value_floor_raw))


def test_value_floor_is_at_least_the_sum_of_floors() -> None:
    """One base unit below the sum of the floors is left for the rounding of prices."""
    plan = plan_of(PLAN.legs[0])
    floor_raw = plan.legs[0].min_out_raw - 1
    least_raw = int(floor_raw - 10**18 * PRICES[WETH] - 1)

    def grant_of(value_floor_raw: int) -> Grant:
        return rebalancing_grant_of(plan, floors_raw=(floor_raw,), min_value_change_raw=value_floor_raw)

    assert_signed(value_floor_tx(plan, least_raw), grant_of(least_raw))
    assert_refused_by("value_floor", value_floor_tx(plan, least_raw - 1), grant_of(least_raw - 1))


@pytest.mark.parametrize("leg_index", range(4))
def test_floor_one_unit_above_a_minimum_is_refused(leg_index: int) -> None:
    floors_raw = tuple(minimum_raw + (number == leg_index) for number, minimum_raw in enumerate(MINIMUMS))

    assert_refused_by("floor", PAIRS_TX, rebalancing_grant_of(PLAN, floors_raw=floors_raw))


def test_minimums_at_floors_are_signed_to_the_last_second() -> None:
    assert_signed(rebalance_tx(PLAN, NOW_S + 90), rebalancing_grant_of(PLAN, floors_raw=MINIMUMS))


# --- V4.


V4_TIER = 60 << 24 | 3_000
V4 = UniswapV4("uniswap_v4", "0x000000000004444c5dc75cB358380D2e3dE08A90").maker
V4_LEG = leg(WETH, USDC, 10**18, 3 * 10**9, venue="uniswap_v4", pool=pool_address(V4, WETH, USDC, V4_TIER))
V4_PLAN = plan_of(V4_LEG)
V4_RULES = replace(REBALANCER_RULES, venue_makers=(*MAKERS.items(), ("uniswap_v4", V4)))


def v4_tx(swap: Leg = V4_LEG, maker: PoolMaker = V4, tier: int = V4_TIER) -> UnsignedTx:
    plan = plan_of(swap)
    return tx(REBALANCER, encode_rebalance(plan, DEADLINE_S, conditions(plan), {"uniswap_v4": maker}, {swap.pool: tier}))


def test_leg_of_v4_is_signed_as_granted() -> None:
    assert_signed(v4_tx(), rebalancing_grant_of(V4_PLAN), V4_RULES)


@pytest.mark.parametrize(
    ("rule", "transaction"),
    [
        pytest.param("pool", v4_tx(tier=60 << 24 | 500), id="another fee"),
        pytest.param("pool", v4_tx(tier=10 << 24 | 3_000), id="another spacing"),
        pytest.param("venue", v4_tx(maker=replace(V4, init_code_hash="0x" + STRANGER[2:].lower().rjust(64, "0"))), id="a hook"),
        pytest.param("venue", v4_tx(maker=replace(V4, address=STRANGER)), id="another manager"),
        pytest.param("tokens", v4_tx(replace(V4_LEG, token_out=USDT)), id="another token"),
    ],
)
def test_leg_of_v4_other_than_granted_is_refused(rule: str, transaction: UnsignedTx) -> None:
    assert_refused_by(rule, transaction, rebalancing_grant_of(V4_PLAN), rules=V4_RULES)


def test_output_of_v4_reaches_a_pair_through_the_contract() -> None:
    v4_leg = leg(WBTC, USDC, 800_000, 479_000_000, venue="uniswap_v4", pool=pool_address(V4, WBTC, USDC, V4_TIER), sink=R)
    plan = plan_of(v4_leg, leg(USDC, WETH, 479_000_000, 159 * 10**15, venue="uniswap_v2", source=R))
    data = encode_rebalance(plan, DEADLINE_S, conditions(plan), {**MAKERS, "uniswap_v4": V4}, {v4_leg.pool: V4_TIER})
    program = decode(data)

    assert_signed(tx(REBALANCER, data), rebalancing_grant_of(plan), V4_RULES)
    assert isinstance(program, RebalanceCall)
    assert program.legs[0].sink is program.legs[1].source is HERE


# --- Native coin.


NATIVE_POOL = pool_address(V4, NATIVE, USDC, V4_TIER)
NATIVE_MAKERS = {"uniswap_v4_native": V4, "uniswap_v4": V4, "wrapped_native": MAKERS["wrapped_native"]}
NATIVE_RULES = replace(REBALANCER_RULES, venue_makers=tuple(NATIVE_MAKERS.items()))
NATIVE_SALE = leg(WETH, USDC, 10**18, 3 * 10**9, venue="uniswap_v4_native", pool=NATIVE_POOL)
NATIVE_PURCHASE = leg(USDC, WETH, 3 * 10**9, 10**18, venue="uniswap_v4_native", pool=NATIVE_POOL)
UNWRAP = native_leg(WETH, NATIVE, 10**18)
WRAP = native_leg(NATIVE, WETH, 10**18)


def native_tx(plan: Plan, granted: Plan) -> UnsignedTx:
    """Return a plan through the pool of native coin under the value floor of the granted one."""
    tiers = dict.fromkeys((NATIVE_POOL, V4_LEG.pool), V4_TIER)
    terms = RebalancerTerms(PRICES, conditions(granted).min_value_change_raw)
    return tx(REBALANCER, encode_rebalance(plan, DEADLINE_S, terms, NATIVE_MAKERS, tiers))


def plain(swap: Leg) -> Leg:
    """Return the leg through the same pool without its conversion."""
    return replace(swap, venue="uniswap_v4")


@pytest.mark.parametrize("swap", [NATIVE_SALE, NATIVE_PURCHASE], ids=["sale", "purchase"])
def test_leg_of_native_coin_is_signed_with_its_conversion(swap: Leg) -> None:
    assert_signed(native_tx(plan_of(swap), plan_of(swap)), rebalancing_grant_of(plan_of(swap)), NATIVE_RULES)


@pytest.mark.parametrize(
    ("rule", "granted", "encoded"),
    [
        pytest.param("legs", NATIVE_SALE, plan_of(plain(NATIVE_SALE)), id="sale without a conversion"),
        pytest.param("legs", NATIVE_PURCHASE, plan_of(plain(NATIVE_PURCHASE)), id="purchase without a conversion"),
        pytest.param("native", NATIVE_SALE, plan_of(UNWRAP, plain(NATIVE_SALE)), id="conversion in the wallet, sale"),
        pytest.param("native", NATIVE_PURCHASE, plan_of(plain(NATIVE_PURCHASE), WRAP), id="conversion in the wallet, purchase"),
        pytest.param("pool", replace(NATIVE_SALE, pool="0x" + "11" * 32), plan_of(NATIVE_SALE), id="sale in another pool"),
        pytest.param("pool", replace(NATIVE_PURCHASE, pool="0x" + "11" * 32), plan_of(NATIVE_PURCHASE), id="purchase in another pool"),
    ],
)
def test_leg_of_native_coin_converts_its_own_amount(rule: str, granted: Leg, encoded: Plan) -> None:
    assert_refused_by(rule, native_tx(encoded, plan_of(granted)), rebalancing_grant_of(plan_of(granted)), rules=NATIVE_RULES)


def test_native_coin_is_not_sent_beside_a_pool_of_it() -> None:
    plan = plan_of(WRAP, NATIVE_SALE)

    assert_refused_by("native", replace(native_tx(plan, plan), value_wei=10**18), rebalancing_grant_of(plan), rules=NATIVE_RULES)


def test_native_coin_is_exchanged_for_its_wrapping_alone() -> None:
    plan = plan_of(native_leg(NATIVE, USDC, 10**9))
    grant = replace(PAIRS_GRANT, plan=plan, floors_raw=(1,), prices=((NATIVE, PRICES[NATIVE]), (USDC, Fraction(1))))
    data = encode_program(plan, DEADLINE_S, RebalancerTerms(PRICES, GRANTED_FLOOR_RAW))

    assert_refused_by("tokens", tx(REBALANCER, data, value_wei=10**9), grant)


def test_native_coin_without_a_wrapped_token_is_refused() -> None:
    assert_refused_by("tokens", *REBALANCES["coin"], rules=replace(REBALANCER_RULES, wrapped_native=None))


@pytest.mark.parametrize("value_wei", [0, 10**18 - 1, 10**18 + 1, 2 * 10**18], ids=["none", "one wei less", "one wei more", "twice"])
def test_native_coin_sent_is_what_the_plan_wraps(value_wei: int) -> None:
    transaction, grant = REBALANCES["coin"]

    assert_refused_by("value", replace(transaction, value_wei=value_wei), grant)


UNWRAP_HERE = native_leg(WETH, NATIVE, 1, sink=R)
WRAP_HERE = native_leg(NATIVE, WETH, 100 * 10**18, source=R, sink=R)
SALE_FROM_HERE = leg(WETH, USDC, 10**18, 3_000_000_000, source=R)


@pytest.mark.parametrize(
    ("rule", "legs"),
    [
        pytest.param("native", (UNWRAP_HERE, WRAP_HERE, SALE_FROM_HERE), id="unwrapped and wrapped there"),
        pytest.param("native", (UNWRAP_HERE, replace(WRAP_HERE, sink=W)), id="unwrapped there"),
    ],
)
def test_native_coin_of_the_contract_is_not_converted(rule: str, legs: tuple[Leg, ...]) -> None:
    """Unwrapped into the contract and wrapped from there, it would go unwatched into a pool."""
    plan = plan_of(*legs)

    assert_refused_by(rule, rebalance_tx(plan), rebalancing_grant_of(plan))


# --- Nothing stays in the contract or in a pair.


def program_with(plan: Plan, flows: dict[int, tuple[FundsLocation, FundsLocation, str | None]]) -> UnsignedTx:
    """Return the plan's program with payer, recipient and next token of some legs replaced; a pair is one of Uniswap V2."""
    data = bytearray.fromhex(encode_program(plan, DEADLINE_S, conditions(plan))[2:])
    length = int.from_bytes(data[36:68], "big")
    call = decode("0x" + data.hex())
    assert isinstance(call, RebalanceCall)
    tokens = [*(entry.token for entry in call.watched_balances), *call.unwatched_tokens]
    makers = list(dict.fromkeys(swap.maker for swap in call.legs))
    legs_start = 68 + length - 44 * len(plan.legs)
    for leg_index, (source, sink, next_token) in flows.items():
        leg_start = legs_start + 44 * leg_index
        data[leg_start] = source.value | sink.value << 2
        data[leg_start + 4] = 0 if next_token is None else tokens.index(next_token)
        data[leg_start + 5] = 0 if next_token is None else makers.index(MAKERS["uniswap_v2"])
    return tx(REBALANCER, "0x" + bytes(data).hex())


HUB_INTO_PAIR = plan_of(PLAN.legs[2], leg(WBTC, USDC, 5, 500, venue="uniswap_v2", pool=PLAN.legs[3].pool), PLAN.legs[3])
V2_ROUND_TRIP = plan_of(
    leg(WETH, USDC, 10**18, 3_000_000_000, venue="uniswap_v2", sink=R),
    leg(USDC, WETH, 3_000_000_000, 10**18, venue="uniswap_v2", source=R),
)
V3_ROUND_TRIP = plan_of(leg(WETH, USDC, 10**18, 3_000_000_000, sink=R), V2_ROUND_TRIP.legs[1])


@pytest.mark.parametrize(
    ("plan", "flows"),
    [
        pytest.param(PLAN, {2: (OWN, HERE, None)}, id="into the contract, paid from the pair"),
        pytest.param(PLAN, {3: (HERE, OWN, None)}, id="into the pair, paid from the contract"),
        pytest.param(PLAN, {2: (OWN, IN_PAIR, USDT)}, id="into another pair"),
        pytest.param(PLAN, {2: (OWN, IN_PAIR, USDC)}, id="into a pair of the token with itself"),
        pytest.param(HUB, {3: (IN_PAIR, OWN, None)}, id="a V3 leg paid from a pair"),
        pytest.param(HUB, {1: (OWN, HERE, None), 2: (OWN, IN_PAIR, WETH)}, id="a hub left in a pair"),
        pytest.param(HUB_INTO_PAIR, {0: (OWN, IN_PAIR, WBTC), 2: (IN_PAIR, OWN, None)}, id="another leg uses the pair in between"),
        pytest.param(V2_ROUND_TRIP, {0: (OWN, IN_PAIR, WETH), 1: (IN_PAIR, OWN, None)}, id="a V2 leg into its own pair"),
    ],
)
def test_program_that_leaves_something_behind_is_refused(
    plan: Plan, flows: dict[int, tuple[FundsLocation, FundsLocation, str | None]]
) -> None:
    transaction = program_with(plan, flows)

    assert transaction.data != rebalance_tx(plan).data
    assert_refused_by("router_balance", transaction, rebalancing_grant_of(plan))


def test_output_goes_to_the_pair_of_its_tokens_from_v3() -> None:
    """From the pair itself it would pay the pool that it trades with."""
    transaction = program_with(V3_ROUND_TRIP, {0: (OWN, IN_PAIR, WETH), 1: (IN_PAIR, OWN, None)})

    assert_signed(transaction, rebalancing_grant_of(V3_ROUND_TRIP))


def test_hub_reaches_a_pair_in_use_through_the_contract() -> None:
    assert_signed(rebalance_tx(HUB_INTO_PAIR), rebalancing_grant_of(HUB_INTO_PAIR))
