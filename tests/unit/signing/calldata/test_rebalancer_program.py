"""Programs of the Rebalancer: what is packed is what is read back, and what cannot run is not packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from eth_abi import encode as abi_encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from agent.artifacts import own_artifact
from agent.chain.receipts import CUSTOM_ERRORS, revert_reason
from agent.chain.rpc import RpcFault
from agent.errors import Refused
from agent.model import LegPlace, Plan, SwapStyle
from agent.signing.calldata import REBALANCE, FundsLocation, RebalanceCall, UndecodableCalldata, decode, selector
from agent.units import NATIVE
from agent.venues.calldata import RebalancerTerms, min_balance_changes, price_x128, wrapped_native_wei
from tests.support.signing import (
    COIN,
    DEADLINE_S,
    HUB,
    MAKERS,
    PLAN,
    PLANS,
    PRICES,
    REBALANCES,
    STRANGER,
    USDC,
    USDT,
    WBTC,
    WETH,
    conditions,
    encode_program,
    leg,
    plan_of,
)
from tests.support.text import raises_code

R = LegPlace.ROUTER


def decoded(plan: Plan, terms: RebalancerTerms | None = None) -> RebalanceCall:
    call = decode(encode_program(plan, DEADLINE_S, terms or conditions(plan)))
    assert isinstance(call, RebalanceCall)
    return call


def funds_locations(plan: Plan) -> list[tuple[FundsLocation, FundsLocation]]:
    return [(leg_.source, leg_.sink) for leg_ in decoded(plan).legs]


@pytest.mark.parametrize("name", PLANS)
def test_program_reads_back_as_its_plan(name: str) -> None:
    plan, call = PLANS[name], decoded(PLANS[name])
    assert call.deadline_s == DEADLINE_S
    assert call.min_value_change_raw == conditions(plan).min_value_change_raw
    assert {entry.token: entry.min_change_raw for entry in call.watched_balances} == min_balance_changes(plan.legs)
    assert all(entry.price_x128 == int(PRICES[entry.token] * 2**128) for entry in call.watched_balances)
    for swap, leg_ in zip(call.legs, plan.legs, strict=True):
        assert (swap.token_in, swap.token_out, swap.min_out_raw) == (leg_.token_in, leg_.token_out, leg_.min_out_raw)
        assert swap.amount_raw == (leg_.amount_in_raw if leg_.source is LegPlace.WALLET else 0)
        assert swap.tier == leg_.fee_pips
        assert swap.maker == MAKERS[leg_.venue]


def test_hub_amount_goes_into_a_v2_pair_or_the_contract() -> None:
    wallet = FundsLocation.WALLET
    assert funds_locations(PLAN) == [(wallet, wallet), (wallet, wallet), (wallet, FundsLocation.PAIR), (FundsLocation.PAIR, wallet)]
    assert decoded(PLAN).legs[2].next_pair_token == WBTC
    assert funds_locations(HUB) == [
        (wallet, wallet),
        (wallet, FundsLocation.REBALANCER),
        (wallet, FundsLocation.REBALANCER),
        (FundsLocation.REBALANCER, wallet),
    ]
    assert funds_locations(COIN) == [
        (wallet, FundsLocation.PAIR),
        (FundsLocation.PAIR, wallet),
        (wallet, FundsLocation.REBALANCER),
        (FundsLocation.REBALANCER, wallet),
    ]


def test_pair_that_a_leg_uses_in_between_is_not_paid_early() -> None:
    hub_leg, pair_leg = PLAN.legs[2], PLAN.legs[3]
    between = leg(WBTC, USDC, 5, 500, venue="uniswap_v2", pool=pair_leg.pool)
    assert funds_locations(plan_of(hub_leg, between, pair_leg)) == [
        (FundsLocation.WALLET, FundsLocation.REBALANCER),
        (FundsLocation.WALLET, FundsLocation.WALLET),
        (FundsLocation.REBALANCER, FundsLocation.WALLET),
    ]
    same_pair_leg = leg(WBTC, USDC, 5, 500, venue="uniswap_v2", pool=pair_leg.pool, sink=R)
    assert funds_locations(plan_of(same_pair_leg, pair_leg)) == [
        (FundsLocation.WALLET, FundsLocation.REBALANCER),
        (FundsLocation.REBALANCER, FundsLocation.WALLET),
    ]


def test_hubs_are_listed_and_not_watched() -> None:
    call = decoded(plan_of(leg(WETH, USDC, 10**18, 3_000_000_000, sink=R), leg(USDC, WBTC, 3_000_000_000, 5_000_000, source=R)))
    assert [entry.token for entry in call.watched_balances] == [WETH, WBTC]
    assert call.unwatched_tokens == (USDC,)


def test_what_is_both_given_and_got_is_bounded_by_its_sum() -> None:
    both_plan = plan_of(leg(WETH, USDC, 10**18, 3_000_000_000), leg(USDC, WBTC, 1_000_000_000, 1_600_000))
    assert min_balance_changes(both_plan.legs) == {
        WETH: -(10**18),
        USDC: both_plan.legs[0].min_out_raw - 1_000_000_000,
        WBTC: both_plan.legs[1].min_out_raw,
    }


def test_native_coin_is_brought_along_as_value() -> None:
    assert wrapped_native_wei(COIN) == 10**18
    assert wrapped_native_wei(PLAN) == wrapped_native_wei(HUB) == 0
    assert min_balance_changes(COIN.legs)[NATIVE] == 2 * 10**17 - 10**18


@given(price=st.fractions(min_value=0, max_value=2**63))
def test_prices_lose_less_than_two_to_the_minus_128(price: Fraction) -> None:
    if price < Fraction(1, 2**128):
        with raises_code(Refused, "reference_price"):
            price_x128({WETH: price}, WETH)
        return
    assert 0 <= price - Fraction(price_x128({WETH: price}, WETH), 2**128) < Fraction(1, 2**128)


@pytest.mark.parametrize(
    ("plan", "code", "figure"),
    [
        (plan_of(), "no_legs", ""),
        (plan_of(leg(WETH, USDC, 1, 0)), "amount", "must be above zero"),
        (plan_of(leg(WETH, USDC, 0, 5)), "amount", "must be above zero"),
        (plan_of(leg(WETH, USDC, 5, 500, venue="curve")), "venue", "'curve'"),
        (plan_of(leg(WETH, USDC, 5, 500, sink=R)), "router_balance", "leaves"),
        (plan_of(leg(WETH, USDC, 5, 500, source=R)), "router_balance", "no earlier leg"),
        (plan_of(leg(WETH, USDC, 5, 500, sink=R), leg(WBTC, USDC, 5, 500, source=R)), "router_balance", "no earlier leg"),
        (plan_of(leg(WETH, USDC, 2**128, 500)), "range", "bits"),
        (plan_of(leg(WETH, USDC, 5, 2**129)), "range", "bits"),
        (plan_of(leg(WETH, STRANGER, 5, 500)), "reference_price", STRANGER),
    ],
)
def test_plan_that_cannot_run_in_the_rebalancer_is_not_encoded(plan: Plan, code: str, figure: str) -> None:
    terms = RebalancerTerms(PRICES, -1)
    with raises_code(Refused, code, figure):
        encode_program(plan, DEADLINE_S, terms)


def test_deadline_or_floor_that_does_not_fit_is_not_encoded() -> None:
    for deadline_s in (0, -1, 2**40):
        with raises_code(Refused, "deadline"):
            encode_program(PLAN, deadline_s, conditions(PLAN))
    with raises_code(Refused, "range", "value floor"):
        encode_program(PLAN, DEADLINE_S, replace(conditions(PLAN), min_value_change_raw=-(2**127) - 1))


def test_more_tokens_than_a_byte_counts_are_not_encoded() -> None:
    tokens = ["0x" + f"{number:040x}" for number in range(1, 302)]
    legs = [leg(tokens[number], tokens[number + 1], 5, 500) for number in range(300)]
    with raises_code(Refused, "tokens", "at most 255"):
        encode_program(plan_of(*legs), DEADLINE_S, RebalancerTerms(dict.fromkeys(tokens, Fraction(1)), 0))


def rebalance_data(program: bytes) -> str:
    return "0x" + (REBALANCE + abi_encode(["bytes"], [program])).hex()


V2_ROW, V3_ROW, WRAPPED_ROW = (
    bytes([maker.style.value]) + bytes.fromhex(maker.address[2:] + maker.init_code_hash[2:]) for maker in MAKERS.values()
)


def raw_program(
    count: int = 2,
    watched: int = 2,
    flow: int = 0,
    numbers: bytes = b"\x00\x00\x01\x00\x00",
    amount: int = 5,
    rows: Sequence[bytes] = (V3_ROW,),
    tiers: bytes = bytes(6),
) -> bytes:
    """A program of one leg; `numbers` are its row, tokens in and out, next token and next row."""
    tokens = b"".join(bytes.fromhex(token[2:]) for token in (WETH, USDC, USDT)[:count])
    header = (10**9).to_bytes(5, "big") + bytes([watched, count, len(rows)]) + bytes(16)
    terms = (bytes(23) + b"\x01" + bytes(16)) * watched
    leg_bytes = bytes([flow]) + numbers + tiers + amount.to_bytes(16, "big") + bytes(15) + b"\x01"
    return header + tokens + terms + b"".join(rows) + leg_bytes


def test_plain_program_of_these_tests_is_understood() -> None:
    call = decode(rebalance_data(raw_program()))
    assert isinstance(call, RebalanceCall)
    assert call.legs[0].style is SwapStyle.V3


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"", "ends too early"),
        (raw_program()[:40], "ends too early"),
        (raw_program()[:-1], "not whole"),
        (raw_program()[:-44], "not whole"),
        (raw_program() + b"\x00", "not whole"),
        (raw_program(watched=3, count=2), "watches more tokens"),
        (raw_program(count=3), "does not trade it"),
        (raw_program(rows=(b"\x03" + V3_ROW[1:], V2_ROW), flow=2 << 2, numbers=b"\x00\x00\x01\x00\x01"), "V4 pays ahead"),
        (raw_program(rows=(b"\x05" + V3_ROW[1:],)), "5 is no known swap style"),
        (raw_program(rows=(WRAPPED_ROW[:-1] + b"\x01",)), "does not use"),
        (raw_program(rows=(WRAPPED_ROW,), tiers=b"\x00\x00\x01\x00\x00\x00"), "does not use"),
        (raw_program(tiers=b"\x00\x00\x00\x00\x00\x01"), "does not use"),
        (raw_program(rows=()), "row that is not listed"),
        (raw_program(rows=(V3_ROW, V3_ROW)), "in the order of their legs"),
        (raw_program(rows=(V2_ROW, V3_ROW)), "in the order of their legs"),
        (raw_program(rows=(V2_ROW, V3_ROW), numbers=b"\x01\x00\x01\x00\x00"), "in the order of their legs"),
        (raw_program(flow=3), "3 is no known funds location"),
        (raw_program(flow=3 << 2), "3 is no known funds location"),
        (raw_program(flow=1 << 4), "4 is no known funds location"),
        (raw_program(numbers=b"\x00\x00\x02\x00\x00"), "token that is not listed"),
        (raw_program(numbers=b"\x01\x00\x01\x00\x00"), "row that is not listed"),
        (raw_program(numbers=b"\x00\x00\x01\x01\x00"), "next pair"),
        (raw_program(numbers=b"\x00\x00\x01\x00\x01", rows=(V3_ROW, V2_ROW)), "next pair"),
        (raw_program(flow=2 << 2), "not a pair"),
        (raw_program(flow=1), "does not pay"),
        (raw_program().replace(bytes.fromhex(USDC[2:]), bytes.fromhex(WETH[2:])), "twice"),
    ],
)
def test_program_that_is_not_canonical_is_not_understood(program: bytes, reason: str) -> None:
    with pytest.raises(UndecodableCalldata, match=reason):
        decode(rebalance_data(program))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    try:
        decode(rebalance_data(data))
    except UndecodableCalldata:
        return


def test_selector_is_that_of_the_contract() -> None:
    assert keccak(text="rebalance(bytes)")[:4] == REBALANCE
    assert any(entry.get("name") == "rebalance" for entry in own_artifact("Rebalancer").abi)
    assert all(leg_.data.startswith("0x" + REBALANCE.hex()) for leg_, _ in REBALANCES.values())


def test_every_error_of_the_contract_has_words() -> None:
    errors = [entry for entry in own_artifact("Rebalancer").abi if entry["type"] == "error"]
    assert len(errors) == 13
    for entry in errors:
        types = [value["type"] for value in entry["inputs"]]
        error_selector = selector(f"{entry['name']}({','.join(types)})")
        assert error_selector in CUSTOM_ERRORS, entry["name"]
        reason_text = revert_reason(
            RpcFault(3, "execution reverted", "0x" + (error_selector + abi_encode(types, [_example(t) for t in types])).hex())
        )
        assert reason_text.endswith(f"({entry['name']})")
        assert "{" not in reason_text
        assert all(str(_example(t)) in reason_text for t in types)
        assert revert_reason(RpcFault(3, "x", "0x" + error_selector.hex())).endswith(f"({entry['name']})")


def _example(kind: str) -> str | int:
    return {"address": STRANGER, "uint256": 7, "int256": -7}[kind]
