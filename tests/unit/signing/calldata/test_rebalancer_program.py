"""Tests of agent/signing/calldata.py for programs of the Rebalancer: the plan comes back, and what cannot run is not encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

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
OWN = FundsLocation.WALLET
HERE = FundsLocation.REBALANCER
IN_PAIR = FundsLocation.PAIR


def decoded(plan: Plan, terms: RebalancerTerms | None = None) -> RebalanceCall:
    call = decode(encode_program(plan, DEADLINE_S, terms or conditions(plan)))
    assert isinstance(call, RebalanceCall)
    return call


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_program_decodes_to_its_plan(plan: Plan) -> None:
    call = decoded(plan)

    assert call.deadline_s == DEADLINE_S
    assert call.min_value_change_raw == conditions(plan).min_value_change_raw
    assert {entry.token: entry.min_change_raw for entry in call.watched_balances} == min_balance_changes(plan.legs)
    assert all(entry.price_x128 == int(PRICES[entry.token] * 2**128) for entry in call.watched_balances)
    for program_leg, planned in zip(call.legs, plan.legs, strict=True):
        assert program_leg.token_in == planned.token_in
        assert program_leg.token_out == planned.token_out
        assert program_leg.min_out_raw == planned.min_out_raw
        assert program_leg.amount_raw == (planned.amount_in_raw if planned.source is LegPlace.WALLET else 0)
        assert program_leg.tier == planned.fee_pips
        assert program_leg.maker == MAKERS[planned.venue]


HUB_LEG, PAIR_LEG = PLAN.legs[2:]
SAME_PAIR_LEG = leg(WBTC, USDC, 5, 500, venue="uniswap_v2", pool=PAIR_LEG.pool)


@pytest.mark.parametrize(
    ("plan", "locations"),
    [
        pytest.param(PLAN, [(OWN, OWN), (OWN, OWN), (OWN, IN_PAIR), (IN_PAIR, OWN)], id="straight into a V2 pair"),
        pytest.param(HUB, [(OWN, OWN), (OWN, HERE), (OWN, HERE), (HERE, OWN)], id="through the contract"),
        pytest.param(COIN, [(OWN, IN_PAIR), (IN_PAIR, OWN), (OWN, HERE), (HERE, OWN)], id="wrapped coin into a pair"),
        pytest.param(
            plan_of(HUB_LEG, SAME_PAIR_LEG, PAIR_LEG), [(OWN, HERE), (OWN, OWN), (HERE, OWN)], id="another leg uses the pair in between"
        ),
        pytest.param(plan_of(replace(SAME_PAIR_LEG, sink=R), PAIR_LEG), [(OWN, HERE), (HERE, OWN)], id="from the pair itself"),
    ],
)
def test_hub_amount_goes_into_a_v2_pair_or_the_contract(plan: Plan, locations: list[tuple[FundsLocation, FundsLocation]]) -> None:
    assert [(program_leg.source, program_leg.sink) for program_leg in decoded(plan).legs] == locations


def test_leg_into_a_pair_names_its_next_token() -> None:
    assert decoded(PLAN).legs[2].next_pair_token == WBTC


def test_hubs_are_listed_and_not_watched() -> None:
    call = decoded(plan_of(leg(WETH, USDC, 10**18, 3_000_000_000, sink=R), leg(USDC, WBTC, 3_000_000_000, 5_000_000, source=R)))

    assert [entry.token for entry in call.watched_balances] == [WETH, WBTC]
    assert call.unwatched_tokens == (USDC,)


def test_bound_of_what_is_given_and_received_is_the_sum() -> None:
    sale = leg(WETH, USDC, 10**18, 3_000_000_000)
    purchase = leg(USDC, WBTC, 1_000_000_000, 1_600_000)

    assert min_balance_changes((sale, purchase)) == {
        WETH: -(10**18),
        USDC: sale.min_out_raw - 1_000_000_000,
        WBTC: purchase.min_out_raw,
    }


@pytest.mark.parametrize(("plan", "value_wei"), [(COIN, 10**18), (PLAN, 0), (HUB, 0)], ids=["coin", "pairs", "hub"])
def test_native_coin_is_brought_along_as_value(plan: Plan, value_wei: int) -> None:
    assert wrapped_native_wei(plan) == value_wei


def test_native_coin_is_bounded_by_what_is_wrapped_and_unwrapped() -> None:
    assert min_balance_changes(COIN.legs)[NATIVE] == 2 * 10**17 - 10**18


# --- What is not encoded.


def hub_plan(hub_raw: int) -> Plan:
    """Return a plan whose first leg leaves at least this much USDC for the second."""
    return plan_of(leg(WETH, USDC, 5, 500, sink=R, min_out_raw=hub_raw), leg(USDC, WBTC, 500, 500, source=R))


def test_price_of_192_bits_is_the_largest() -> None:
    largest = Fraction(2**192 - 1, 2**128)

    assert price_x128({WETH: largest}, WETH) == 2**192 - 1
    with raises_code(Refused, "reference_price"):
        price_x128({WETH: Fraction(2**64)}, WETH)


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
        pytest.param(plan_of(), "no_legs", "", id="no legs"),
        pytest.param(plan_of(leg(WETH, USDC, 1, 0)), "amount", "must be above zero", id="buys nothing"),
        pytest.param(plan_of(leg(WETH, USDC, 0, 5)), "amount", "must be above zero", id="sells nothing"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, venue="curve")), "venue", "'curve'", id="another venue"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, sink=R)), "router_balance", "leaves", id="left in the contract"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, source=R)), "router_balance", "no earlier leg", id="not in the contract"),
        pytest.param(
            plan_of(leg(WETH, USDC, 5, 500, sink=R), leg(WBTC, USDC, 5, 500, source=R)), "router_balance", "no earlier leg",
            id="another token in the contract",
        ),
        pytest.param(plan_of(leg(WETH, USDC, 2**127 + 1, 500)), "range", "127 bits", id="input of a base unit too much"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, min_out_raw=2**127)), "range", "127 bits", id="output of 128 bits"),
        pytest.param(hub_plan(2**128), "range", "128 bits", id="output for the next leg of 129 bits"),
        pytest.param(plan_of(leg(WETH, STRANGER, 5, 500)), "reference_price", STRANGER, id="a token without a price"),
    ],
)  # fmt: skip
def test_plan_that_cannot_run_in_the_rebalancer_is_not_encoded(plan: Plan, code: str, figure: str) -> None:
    with raises_code(Refused, code, figure):
        encode_program(plan, DEADLINE_S, RebalancerTerms(PRICES, -1))


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(plan_of(leg(WETH, USDC, 2**127, 500)), id="input"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, min_out_raw=2**127 - 1)), id="output"),
        pytest.param(hub_plan(2**128 - 1), id="output for the next leg"),
    ],
)
def test_largest_numbers_are_encoded(plan: Plan) -> None:
    terms = replace(conditions(plan), min_value_change_raw=-(2**127))
    call = decode(encode_program(plan, 2**40 - 1, terms))

    assert isinstance(call, RebalanceCall)
    assert (call.deadline_s, call.min_value_change_raw) == (2**40 - 1, -(2**127))
    assert [program_leg.min_out_raw for program_leg in call.legs] == [planned.min_out_raw for planned in plan.legs]


@pytest.mark.parametrize("deadline_s", [0, -1, 2**40], ids=["none", "negative", "41 bits"])
def test_deadline_that_does_not_fit_is_not_encoded(deadline_s: int) -> None:
    with raises_code(Refused, "deadline"):
        encode_program(PLAN, deadline_s, conditions(PLAN))


def test_value_floor_that_does_not_fit_is_not_encoded() -> None:
    with raises_code(Refused, "range", "value floor"):
        encode_program(PLAN, DEADLINE_S, replace(conditions(PLAN), min_value_change_raw=-(2**127) - 1))


def test_more_tokens_than_a_byte_counts_are_not_encoded() -> None:
    tokens = ["0x" + f"{number:040x}" for number in range(1, 257)]
    legs = [leg(token_in, token_out, 5, 500) for token_in, token_out in pairwise(tokens)]
    terms = RebalancerTerms(dict.fromkeys(tokens, Fraction(1)), 0)

    assert len(decoded(plan_of(*legs[:254]), terms).watched_balances) == 255
    with raises_code(Refused, "tokens", "256 tokens", "at most 255"):
        encode_program(plan_of(*legs), DEADLINE_S, terms)


# --- What is not decoded.


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


def test_plain_program_of_these_tests_is_decoded() -> None:
    call = decode(rebalance_data(raw_program()))
    assert isinstance(call, RebalanceCall)
    assert call.legs[0].style is SwapStyle.V3


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        pytest.param(b"", "ends too early", id="nothing"),
        pytest.param(raw_program()[:40], "ends too early", id="a header alone"),
        pytest.param(raw_program()[:-1], "not whole", id="a byte short"),
        pytest.param(raw_program()[:-44], "not whole", id="no leg"),
        pytest.param(raw_program() + b"\x00", "not whole", id="a byte more"),
        pytest.param(raw_program(watched=3, count=2), "watches more tokens", id="more watched than listed"),
        pytest.param(raw_program(count=3), "does not trade it", id="a token without use"),
        pytest.param(raw_program().replace(bytes.fromhex(USDC[2:]), bytes.fromhex(WETH[2:])), "twice", id="a token twice"),
        pytest.param(
            raw_program(rows=(b"\x03" + V3_ROW[1:], V2_ROW), flow=2 << 2, numbers=b"\x00\x00\x01\x00\x01"), "V4 pays ahead",
            id="V4 into a pair",
        ),
        pytest.param(raw_program(rows=(b"\x05" + V3_ROW[1:],)), "5 is no known swap style", id="unknown style"),
        pytest.param(raw_program(rows=(WRAPPED_ROW[:-1] + b"\x01",)), "does not use", id="code of a conversion"),
        pytest.param(raw_program(rows=(WRAPPED_ROW,), tiers=b"\x00\x00\x01\x00\x00\x00"), "does not use", id="tier of a conversion"),
        pytest.param(raw_program(tiers=b"\x00\x00\x00\x00\x00\x01"), "does not use", id="spacing of V3"),
        pytest.param(raw_program(rows=()), "row that is not listed", id="no rows"),
        pytest.param(raw_program(rows=(V3_ROW, V3_ROW)), "in the order of their legs", id="a row twice"),
        pytest.param(raw_program(rows=(V2_ROW, V3_ROW)), "in the order of their legs", id="a row without use"),
        pytest.param(
            raw_program(rows=(V2_ROW, V3_ROW), numbers=b"\x01\x00\x01\x00\x00"), "in the order of their legs", id="rows in another order"
        ),
        pytest.param(raw_program(flow=3), "3 is no known funds location", id="unknown payer"),
        pytest.param(raw_program(flow=3 << 2), "3 is no known funds location", id="unknown recipient"),
        pytest.param(raw_program(flow=1 << 4), "4 is no known funds location", id="a bit above"),
        pytest.param(raw_program(numbers=b"\x00\x00\x02\x00\x00"), "token that is not listed", id="token not listed"),
        pytest.param(raw_program(numbers=b"\x01\x00\x01\x00\x00"), "row that is not listed", id="row not listed"),
        pytest.param(raw_program(numbers=b"\x00\x00\x01\x01\x00"), "next pair", id="next token without a pair"),
        pytest.param(raw_program(numbers=b"\x00\x00\x01\x00\x01", rows=(V3_ROW, V2_ROW)), "next pair", id="next row without a pair"),
        pytest.param(raw_program(flow=2 << 2), "not a pair", id="ahead to a V3 pool"),
        pytest.param(raw_program(flow=1), "does not pay", id="an amount of the contract"),
    ],
)  # fmt: skip
def test_program_that_is_not_canonical_is_not_decoded(program: bytes, reason: str) -> None:
    with pytest.raises(UndecodableCalldata, match=reason):
        decode(rebalance_data(program))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_decoder_fail(data: bytes) -> None:
    try:
        decode(rebalance_data(data))
    except UndecodableCalldata:
        return


def test_selector_is_that_of_the_contract() -> None:
    assert keccak(text="rebalance(bytes)")[:4] == REBALANCE
    assert any(entry.get("name") == "rebalance" for entry in own_artifact("Rebalancer").abi)
    assert all(leg_.data.startswith("0x" + REBALANCE.hex()) for leg_, _ in REBALANCES.values())


REBALANCER_ERRORS = [entry for entry in own_artifact("Rebalancer").abi if entry["type"] == "error"]
EXAMPLES: dict[str, str | int] = {"address": STRANGER, "uint256": 7, "int256": -7}


def test_contract_has_thirteen_errors() -> None:
    assert len(REBALANCER_ERRORS) == 13


@pytest.mark.parametrize("error", REBALANCER_ERRORS, ids=lambda error: error["name"])
def test_every_error_of_the_contract_has_words(error: dict[str, Any]) -> None:
    types = [parameter["type"] for parameter in error["inputs"]]
    error_selector = selector(f"{error['name']}({','.join(types)})")
    examples = [EXAMPLES[abi_type] for abi_type in types]

    reason = revert_reason(RpcFault(3, "execution reverted", "0x" + (error_selector + abi_encode(types, examples)).hex()))

    assert error_selector in CUSTOM_ERRORS
    assert reason.endswith(f"({error['name']})")
    assert "{" not in reason
    assert all(str(example) in reason for example in examples)
    assert revert_reason(RpcFault(3, "x", "0x" + error_selector.hex())).endswith(f"({error['name']})")
