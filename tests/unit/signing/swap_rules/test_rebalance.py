"""The signer's rule for the Rebalancer says no by its name, and yes to the granted plan alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from eth_abi import encode as abi_encode
from eth_account import Account

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import Leg, LegPlace, Plan, PoolMaker, UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import REBALANCE, FundsLocation, RebalanceCall, decode
from agent.signing.pool_makers import pool_address
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import RebalancerTerms, encode_rebalance
from agent.venues.kinds.uniswap_v4 import UniswapV4
from tests.support.signing import (
    APPROVE_GRANT,
    CANCEL,
    CANCEL_GRANT,
    DEADLINE_S,
    HUB,
    MAKERS,
    NOW_S,
    PLAN,
    PLANS,
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
    WALLET,
    WBTC,
    WETH,
    conditions,
    encode_program,
    leg,
    native_leg,
    plan_of,
    rebalance_tx,
    signer,
    tx,
)
from tests.support.signing import rebalancing_grant_of as grant_of
from tests.support.text import raises_code

R, W = LegPlace.ROUTER, LegPlace.WALLET
SIGNER = signer(REBALANCER_RULES)


def refused(transaction: UnsignedTx, grant: Grant, rule: str) -> None:
    with pytest.raises(Refused) as refusal:
        SIGNER.sign(transaction, grant)
    assert refusal.value.verdicts[0].guard == f"signer.{rule}", refusal.value.message


def with_leg_encoded(plan: Plan, number: int, **changes: object) -> UnsignedTx:
    """The plan with one leg encoded differently, under the conditions of the plan as it was."""
    legs: list[Leg] = list(plan.legs)
    legs[number] = replace(legs[number], **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return _encoded(plan_of(*legs), plan)


def _encoded(changed_plan: Plan, granted: Plan) -> UnsignedTx:
    terms = RebalancerTerms(PRICES | {STRANGER: Fraction(1)}, conditions(granted).min_value_change_raw)
    return tx(REBALANCER, encode_program(changed_plan, DEADLINE_S, terms))


@pytest.mark.parametrize("name", PLANS)
def test_granted_plan_is_signed_twice_alike(name: str) -> None:
    transaction, grant = REBALANCES[name]
    first, second = SIGNER.sign(transaction, grant), SIGNER.sign(transaction, grant)
    assert first.signed_bytes == second.signed_bytes
    assert Account.recover_transaction(first.signed_bytes) == WALLET


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("chain_id", {"chain_id": 1}),
        ("value", {"value_wei": 1}),
        ("contract", {"to": STRANGER}),
        ("contract", {"to": ROUTER}),
        ("contract", {"to": WETH}),
        ("gas", {"gas": 20_999}),
        ("call", {"data": "0x" + REBALANCE.hex()}),
        ("call", {"data": "0x" + (REBALANCE + abi_encode(["bytes"], [b""])).hex()}),
    ],
)
def test_rebalance_with_a_wrong_field_is_refused(rule: str, changes: dict[str, object]) -> None:
    transaction, grant = REBALANCES["pairs"]
    refused(replace(transaction, **changes), grant, rule)  # type: ignore[arg-type]  # keywords are field names, checked by replace


@pytest.mark.parametrize(
    ("rule", "number", "changes"),
    [
        ("amount_in", 0, {"amount_in_raw": 10**18 + 1}),
        ("min_out", 0, {"min_out_raw": PLAN.legs[0].min_out_raw - 1}),
        ("min_out", 3, {"min_out_raw": 1}),
        ("min_out", 1, {"min_out_raw": 2**100}),
        ("pool", 0, {"fee_pips": 500}),
        ("pool_fee", 1, {"fee_pips": 2999}),
        ("venue", 0, {"venue": "uniswap_v2"}),
        ("venue", 1, {"venue": "uniswap_v3"}),
        ("venue", 0, {"venue": "wrapped_native"}),
        ("tokens", 0, {"token_out": USDT}),
        ("tokens", 0, {"token_out": STRANGER}),
        ("tokens", 1, {"token_in": STRANGER}),
    ],
)
def test_leg_that_differs_from_the_plan_is_refused(rule: str, number: int, changes: dict[str, object]) -> None:
    refused(with_leg_encoded(PLAN, number, **changes), grant_of(PLAN), rule)


def test_leg_pays_and_is_paid_as_planned() -> None:
    first, hub, last = PLAN.legs[0], PLAN.legs[2], PLAN.legs[3]
    kept_plan = plan_of(replace(first, sink=R), hub, last)
    refused(_encoded(kept_plan, PLAN), grant_of(plan_of(first, hub, last)), "recipient")
    router_plan = plan_of(first, replace(hub, sink=R), replace(last, source=R))
    grant = grant_of(plan_of(first, replace(hub, sink=R), replace(last, source=R)))
    assert SIGNER.sign(_encoded_own(router_plan), grant).signed_bytes
    wallet_plan = plan_of(first, replace(hub, sink=W), replace(last, source=W))
    refused(_encoded_own(wallet_plan), grant, "recipient")
    refused(_encoded_own(router_plan), grant_of(wallet_plan), "recipient")


V4_TIER = 60 << 24 | 3_000
V4 = UniswapV4("uniswap_v4", "0x000000000004444c5dc75cB358380D2e3dE08A90").maker
V4_PLAN = plan_of(leg(WETH, USDC, 10**18, 3 * 10**9, venue="uniswap_v4", pool=pool_address(V4, WETH, USDC, V4_TIER)))
V4_SIGNER = signer(replace(REBALANCER_RULES, venue_makers=(*MAKERS.items(), ("uniswap_v4", V4))))


def _v4_refused(rule: str, plan: Plan = V4_PLAN, maker: PoolMaker = V4, tier: int = V4_TIER) -> None:
    data = encode_rebalance(plan, DEADLINE_S, conditions(plan), {"uniswap_v4": maker}, {plan.legs[0].pool: tier})
    with raises_code(Refused, f"signer.{rule}"):
        V4_SIGNER.sign(tx(REBALANCER, data), grant_of(V4_PLAN))


def test_leg_of_v4_is_signed_for_the_granted_pool_alone() -> None:
    data = encode_rebalance(V4_PLAN, DEADLINE_S, conditions(V4_PLAN), {"uniswap_v4": V4}, {V4_PLAN.legs[0].pool: V4_TIER})
    assert V4_SIGNER.sign(tx(REBALANCER, data), grant_of(V4_PLAN)).signed_bytes
    _v4_refused("pool", tier=60 << 24 | 500)
    _v4_refused("pool", tier=10 << 24 | 3_000)
    _v4_refused("venue", maker=replace(V4, init_code_hash="0x" + STRANGER[2:].lower().rjust(64, "0")))
    _v4_refused("venue", maker=replace(V4, address=STRANGER))
    _v4_refused("tokens", plan=plan_of(replace(V4_PLAN.legs[0], token_out=USDT)))


def test_output_of_v4_reaches_a_pair_through_the_contract() -> None:
    first = leg(WBTC, USDC, 800_000, 479_000_000, venue="uniswap_v4", pool=pool_address(V4, WBTC, USDC, V4_TIER), sink=R)
    plan = plan_of(first, leg(USDC, WETH, 479_000_000, 159 * 10**15, venue="uniswap_v2", source=R))
    data = encode_rebalance(plan, DEADLINE_S, conditions(plan), {**MAKERS, "uniswap_v4": V4}, {first.pool: V4_TIER})
    assert V4_SIGNER.sign(tx(REBALANCER, data), grant_of(plan)).signed_bytes
    program = decode(data)
    assert isinstance(program, RebalanceCall)
    assert program.legs[0].sink is program.legs[1].source is FundsLocation.REBALANCER


NATIVE_POOL = pool_address(V4, NATIVE, USDC, V4_TIER)
NATIVE_MAKERS = {"uniswap_v4_native": V4, "uniswap_v4": V4, "wrapped_native": MAKERS["wrapped_native"]}
NATIVE_SIGNER = signer(replace(REBALANCER_RULES, venue_makers=tuple(NATIVE_MAKERS.items())))
SALE = plan_of(leg(WETH, USDC, 10**18, 3 * 10**9, venue="uniswap_v4_native", pool=NATIVE_POOL))
PURCHASE = plan_of(leg(USDC, WETH, 3 * 10**9, 10**18, venue="uniswap_v4_native", pool=NATIVE_POOL))


def _native_tx(plan: Plan, granted: Plan) -> UnsignedTx:
    tiers = dict.fromkeys((NATIVE_POOL, V4_PLAN.legs[0].pool), V4_TIER)
    terms = RebalancerTerms(PRICES, conditions(granted).min_value_change_raw)
    return tx(REBALANCER, encode_rebalance(plan, DEADLINE_S, terms, NATIVE_MAKERS, tiers))


@pytest.mark.parametrize("plan", [SALE, PURCHASE])
def test_leg_of_native_coin_converts_its_own_amount(plan: Plan) -> None:
    assert NATIVE_SIGNER.sign(_native_tx(plan, plan), grant_of(plan)).signed_bytes
    (only_leg,) = plan.legs
    coin = native_leg(*((WETH, NATIVE) if only_leg.token_in == WETH else (NATIVE, WETH)), 10**18)
    swap = replace(only_leg, venue="uniswap_v4")
    plans_by_rule = {
        "legs": plan_of(swap),
        "native": plan_of(*((coin, swap) if only_leg.token_in == WETH else (swap, coin))),
        "pool": plan_of(replace(only_leg, pool="0x" + "00" * 32)),
    }
    for rule, other in plans_by_rule.items():
        with raises_code(Refused, f"signer.{rule}"):
            NATIVE_SIGNER.sign(_native_tx(other, plan), grant_of(plan))


def test_native_coin_is_not_sent_beside_a_pool_of_it() -> None:
    mixed_plan = plan_of(native_leg(NATIVE, WETH, 10**18), *SALE.legs)
    with raises_code(Refused, "signer.native"):
        NATIVE_SIGNER.sign(replace(_native_tx(mixed_plan, mixed_plan), value_wei=10**18), grant_of(mixed_plan))


def _encoded_own(plan: Plan) -> UnsignedTx:
    return tx(REBALANCER, encode_program(plan, DEADLINE_S, conditions(plan)))


def test_leg_between_the_only_two_pinned_tokens_is_signed() -> None:
    plan = plan_of(PLAN.legs[0])
    rules = replace(REBALANCER_RULES, tokens=(WETH, USDC))
    assert signer(rules).sign(_encoded_own(plan), grant_of(plan)).hash


def test_token_that_is_not_pinned_is_refused_even_when_granted() -> None:
    foreign = plan_of(leg(WETH, STRANGER, 10**18, 500))
    terms = RebalancerTerms({WETH: PRICES[WETH], STRANGER: Fraction(1)}, -(10**10))
    grant = replace(
        grant_of(PLAN), plan=foreign, floors_raw=(1,), prices=tuple(terms.prices.items()), min_value_change_raw=terms.min_value_change_raw
    )
    refused(tx(REBALANCER, encode_program(foreign, DEADLINE_S, terms)), grant, "tokens")
    same_token_plan = plan_of(leg(WETH, WETH, 10**18, 500))
    kept_plan = RebalancerTerms({WETH: PRICES[WETH]}, -(10**10))
    refused(tx(REBALANCER, encode_program(same_token_plan, DEADLINE_S, kept_plan)), replace(grant, plan=same_token_plan), "tokens")


@pytest.mark.parametrize("deadline_s", [1, NOW_S - 1, NOW_S, NOW_S + 91, NOW_S + 3600, 2**40 - 1])
def test_deadline_that_has_passed_or_is_too_far_is_refused(deadline_s: int) -> None:
    refused(rebalance_tx(PLAN, deadline_s), grant_of(PLAN), "deadline")


@pytest.mark.parametrize("floor_raw", [-(2**127), -1, 0, 1])
def test_another_value_floor_than_the_granted_is_refused(floor_raw: int) -> None:
    granted = conditions(PLAN)
    refused(rebalance_tx(PLAN, terms=replace(granted, min_value_change_raw=floor_raw)), grant_of(PLAN), "value_floor")


def test_value_floor_below_the_floors_is_refused() -> None:
    low_raw = conditions(PLAN).min_value_change_raw - 10**4  # a base unit of WBTC, by which the floors are lower, is worth 600
    refused(
        rebalance_tx(PLAN, terms=replace(conditions(PLAN), min_value_change_raw=low_raw)),
        grant_of(PLAN, min_value_change_raw=low_raw),
        "value_floor",
    )
    high_raw = conditions(PLAN).min_value_change_raw + 10**6
    assert SIGNER.sign(
        rebalance_tx(PLAN, terms=replace(conditions(PLAN), min_value_change_raw=high_raw)), grant_of(PLAN, min_value_change_raw=high_raw)
    ).signed_bytes


@pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(2), 1 + Fraction(1, 2**60)])
def test_price_that_is_not_the_granted_one_is_refused(factor: Fraction) -> None:
    granted = conditions(PLAN)
    for token in granted.prices:
        other = RebalancerTerms({**granted.prices, token: granted.prices[token] * factor}, granted.min_value_change_raw)
        refused(rebalance_tx(PLAN, terms=other), grant_of(PLAN), "price")


def test_without_prices_or_floor_in_the_grant_nothing_is_signed() -> None:
    refused(REBALANCES["pairs"][0], grant_of(PLAN, prices=()), "price")
    refused(REBALANCES["pairs"][0], grant_of(PLAN, min_value_change_raw=None), "value_floor")
    refused(REBALANCES["pairs"][0], replace(grant_of(PLAN), plan=None), "plan")


def test_bound_that_is_not_the_plans_is_refused() -> None:
    data = bytes.fromhex(REBALANCES["pairs"][0].data[2:])
    bound = (-12 * 10**17).to_bytes(16, "big", signed=True)
    assert data.count(bound) == 1
    for other in (-12 * 10**17 - 1, -12 * 10**17 + 1, 0, -(2**127)):
        loose_data = data.replace(bound, other.to_bytes(16, "big", signed=True))
        refused(tx(REBALANCER, "0x" + loose_data.hex()), grant_of(PLAN), "bounds")


def test_floors_above_the_minimums_or_too_few_are_refused() -> None:
    minimums = tuple(leg_.min_out_raw for leg_ in PLAN.legs)
    refused(REBALANCES["pairs"][0], grant_of(PLAN, floors_raw=minimums[:-1]), "floor")
    for number in range(4):
        higher = tuple(least + (position == number) for position, least in enumerate(minimums))
        refused(REBALANCES["pairs"][0], grant_of(PLAN, floors_raw=higher), "floor")


def test_native_coin_is_exchanged_for_its_pinned_wrapping_alone() -> None:
    other = plan_of(native_leg(NATIVE, USDC, 10**9))
    grant = replace(grant_of(PLAN), plan=other, floors_raw=(1,), prices=((NATIVE, PRICES[NATIVE]), (USDC, Fraction(1))))
    transaction = tx(
        REBALANCER, encode_program(other, DEADLINE_S, RebalancerTerms(PRICES, conditions(PLAN).min_value_change_raw)), value_wei=10**9
    )
    refused(transaction, grant, "tokens")
    transaction, grant = REBALANCES["coin"]
    for value_wei in (0, 10**18 - 1, 10**18 + 1, 2 * 10**18):
        refused(replace(transaction, value_wei=value_wei), grant, "value")
    with pytest.raises(Refused):
        signer(replace(REBALANCER_RULES, wrapped_native=None)).sign(transaction, grant)


def test_native_coin_of_the_contract_is_not_converted() -> None:
    """Unwrapped into the contract and wrapped from there, it would go unwatched into a pool."""
    through_plan = plan_of(
        native_leg(WETH, NATIVE, 1, sink=R),
        native_leg(NATIVE, WETH, 100 * 10**18, source=R, sink=R),
        leg(WETH, USDC, 10**18, 3_000_000_000, source=R),
    )
    transaction, grant = rebalance_tx(through_plan), grant_of(through_plan)
    refused(transaction, grant, "native")
    for legs in (through_plan.legs[:1], through_plan.legs[1:]):
        kept_plan = plan_of(replace(legs[0], sink=W, source=R) if legs[0].token_in == NATIVE else legs[0], *legs[1:])
        with pytest.raises(Refused):
            SIGNER.sign(rebalance_tx(kept_plan), grant_of(kept_plan))


def test_multicall_trades_at_the_routers_deployment_alone() -> None:
    for venue in ("slipstream", "pancake_v3", "uniswap_v3/other", "uniswap_v2/other"):
        other = replace(SWAP_GRANT.plan, legs=tuple(replace(leg_, venue=venue) for leg_ in SWAP_GRANT.plan.legs))
        with raises_code(Refused, "signer.venue"):
            signer(RULES).sign(SWAP, replace(SWAP_GRANT, plan=other))


def test_value_goes_with_no_other_call() -> None:
    spender = replace(REBALANCER_RULES, routers=(ROUTER,))
    for transaction, grant in ((SWAP, SWAP_GRANT), (CANCEL, CANCEL_GRANT)):
        with pytest.raises(Refused) as refusal:
            signer(spender).sign(replace(transaction, value_wei=1), grant)
        assert refusal.value.verdicts[0].guard == "signer.value"


def test_router_is_no_rebalancer_and_a_rebalancer_no_router() -> None:
    as_router = replace(RULES, routers=(REBALANCER, ROUTER))
    with raises_code(Refused, "signer.contract"):
        signer(as_router).sign(*REBALANCES["pairs"])
    refused(replace(SWAP, to=REBALANCER), SWAP_GRANT, "contract")


def test_rebalancer_may_be_approved_exactly() -> None:
    grant = replace(APPROVE_GRANT, approval_terms=(USDT, REBALANCER, 500_000_000), plan=None)
    assert SIGNER.sign(tx(USDT, encode_approve(REBALANCER, 500_000_000)), grant).signed_bytes
    refused(tx(USDT, encode_approve(ROUTER, 500_000_000)), replace(grant, approval_terms=(USDT, ROUTER, 500_000_000)), "spender")
    refused(
        tx(USDT, encode_approve(REBALANCER, UINT256_MAX)), replace(grant, approval_terms=(USDT, REBALANCER, UINT256_MAX)), "approval_amount"
    )


def program_with(plan: Plan, flows: dict[int, tuple[FundsLocation, FundsLocation, str | None]]) -> UnsignedTx:
    """The plan's program with payer, recipient and next token of some legs replaced; a pair is one of Uniswap V2."""
    data = bytearray.fromhex(encode_program(plan, DEADLINE_S, conditions(plan))[2:])
    length = int.from_bytes(data[36:68], "big")
    call = decode("0x" + data.hex())
    assert isinstance(call, RebalanceCall)
    tokens = [*(entry.token for entry in call.watched_balances), *call.unwatched_tokens]
    rows = list(dict.fromkeys(swap.maker for swap in call.legs))
    start = 68 + length - 44 * len(plan.legs)
    for number, (source, sink, next_token) in flows.items():
        first = start + 44 * number
        data[first] = source.value | sink.value << 2
        data[first + 4] = 0 if next_token is None else tokens.index(next_token)
        data[first + 5] = 0 if next_token is None else rows.index(MAKERS["uniswap_v2"])
    return tx(REBALANCER, "0x" + bytes(data).hex())


OWN, HERE, PAIR = FundsLocation


def test_program_that_leaves_something_behind_is_refused() -> None:
    cases = {
        "fed into the contract, paid from the pair": {2: (OWN, HERE, None)},
        "fed into the pair, paid from the contract": {3: (HERE, OWN, None)},
        "fed into another pair": {2: (OWN, PAIR, USDT)},
        "fed into a pair of the token with itself": {2: (OWN, PAIR, USDC)},
    }
    for name, flows in cases.items():
        transaction = program_with(PLAN, flows)
        assert transaction.data != REBALANCES["pairs"][0].data, name
        refused(transaction, grant_of(PLAN), "router_balance")
    refused(program_with(HUB, {3: (PAIR, OWN, None)}), grant_of(HUB), "router_balance")
    refused(program_with(HUB, {1: (OWN, HERE, None), 2: (OWN, PAIR, WETH)}), grant_of(HUB), "router_balance")


def test_leg_between_a_pair_and_what_waits_in_it_is_refused() -> None:
    first, last = PLAN.legs[2], PLAN.legs[3]
    between = leg(WBTC, USDC, 5, 500, venue="uniswap_v2", pool=last.pool)
    plan = plan_of(first, between, last)
    assert SIGNER.sign(_encoded_own(plan), grant_of(plan)).signed_bytes
    refused(program_with(plan, {0: (OWN, PAIR, WBTC), 2: (PAIR, OWN, None)}), grant_of(plan), "router_balance")


def test_output_goes_to_the_pair_of_its_tokens_from_v3_alone() -> None:
    """A V2 leg that pays into its own pair would pay the pool that it trades with."""
    v3_first = plan_of(leg(WETH, USDC, 10**18, 3_000_000_000, sink=R), leg(USDC, WETH, 3_000_000_000, 10**18, venue="uniswap_v2", source=R))
    assert SIGNER.sign(program_with(v3_first, {0: (OWN, PAIR, WETH), 1: (PAIR, OWN, None)}), grant_of(v3_first)).signed_bytes
    v2_first = plan_of(leg(WETH, USDC, 10**18, 3_000_000_000, venue="uniswap_v2", sink=R), v3_first.legs[1])
    refused(program_with(v2_first, {0: (OWN, PAIR, WETH), 1: (PAIR, OWN, None)}), grant_of(v2_first), "router_balance")


@pytest.mark.parametrize("venue", ["uniswap_v2", "uniswap_v3", "wrapped_native"])
def test_pools_of_another_maker_than_the_pinned_are_refused(venue: str) -> None:
    transaction, grant = REBALANCES["coin" if venue == "wrapped_native" else "pairs"]
    maker = MAKERS[venue]
    plans_by_rule = [replace(maker, address=STRANGER), replace(maker, init_code_hash="0x" + "11" * 32)]
    for pinned in [MAKERS | {venue: other} for other in plans_by_rule] + [{name: MAKERS[name] for name in MAKERS if name != venue}]:
        with raises_code(Refused, "signer.venue"):
            signer(replace(REBALANCER_RULES, venue_makers=tuple(pinned.items()))).sign(transaction, grant)


def test_other_pool_of_a_pinned_maker_is_refused() -> None:
    other = replace(PLAN, legs=(replace(PLAN.legs[0], pool=STRANGER), *PLAN.legs[1:]))
    refused(REBALANCES["pairs"][0], replace(grant_of(PLAN), plan=other), "pool")


def test_program_of_no_or_fewer_legs_is_refused() -> None:
    two_legs = plan_of(*PLAN.legs[:2])
    refused(_encoded(plan_of(two_legs.legs[0]), two_legs), grant_of(two_legs), "legs")
    refused(_encoded(two_legs, two_legs), grant_of(plan_of()), "legs")


def test_amounts_of_zero_are_refused_even_as_granted() -> None:
    """The encoder refuses them too, so they are overwritten here."""
    first = PLAN.legs[0]
    data = rebalance_tx(plan_of(first)).data
    for field, rule in (("amount_in_raw", "amount_in"), ("min_out_raw", "floor")):
        zero_data = data.replace(getattr(first, field).to_bytes(16, "big").hex(), bytes(16).hex())
        granted = plan_of(replace(first, **{field: 0}))
        assert zero_data != data
        refused(tx(REBALANCER, zero_data), grant_of(granted, floors_raw=(0,)), rule)


def test_value_floor_is_at_least_the_sum_of_floors() -> None:
    """One base unit below the sum of the floors is left for the rounding of prices."""
    plan = plan_of(PLAN.legs[0])
    floor = plan.legs[0].min_out_raw - 1
    least = floor - 10**18 * PRICES[WETH] - 1
    assert least.denominator == 1
    for value_floor, is_signed in ((int(least), True), (int(least) - 1, False)):
        transaction = rebalance_tx(plan, terms=replace(conditions(plan), min_value_change_raw=value_floor))
        grant = grant_of(plan, floors_raw=(floor,), min_value_change_raw=value_floor)
        if is_signed:
            assert SIGNER.sign(transaction, grant).signed_bytes
        else:
            refused(transaction, grant, "value_floor")


def test_minimums_at_floors_are_signed_to_the_last_second() -> None:
    minimums = tuple(planned.min_out_raw for planned in PLAN.legs)
    assert SIGNER.sign(rebalance_tx(PLAN, NOW_S + 90), grant_of(PLAN, floors_raw=minimums)).signed_bytes
