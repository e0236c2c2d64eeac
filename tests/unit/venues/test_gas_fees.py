"""Tests of agent/venues/gas_fees.py: fees under the ceiling, and those of a replacement."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.execution.submission.replacement import with_bumped_fees
from agent.model import Head
from agent.venues.gas_fees import GasFees, gas_fees, replacement_fees
from tests.support.text import raises_code
from tests.support.transactions import tx

CAP_WEI = 5


def head(base_fee_wei: int | None) -> Head:
    return Head(31337, 1, "0x" + "ab" * 32, 1, base_fee_wei)


@pytest.mark.parametrize(
    ("base_fee_wei", "tip_wei", "limit_wei", "fees"),
    [
        pytest.param(10, 2, 100, GasFees(22, 2, None), id="twice the base fee and the tip"),
        pytest.param(10, 5, 100, GasFees(25, 5, None), id="a tip at its cap"),
        pytest.param(10, 9_999, 100, GasFees(25, 5, None), id="a tip beyond its cap"),
        pytest.param(10, 2, None, GasFees(22, 2, None), id="no ceiling"),
        pytest.param(0, 0, None, GasFees(1, 0, None), id="at least one wei"),
        pytest.param(60, 2, 100, GasFees(78, 2, None), id="room for a cancel and a bump of it"),
        pytest.param(68, 2, 100, GasFees(79, 2, None), id="the next block's base fee beyond that room"),
        pytest.param(90, 2, 100, GasFees(100, 2, None), id="capped by the ceiling"),
        pytest.param(10, 2, 12, GasFees(12, 2, None), id="the ceiling at base fee and tip"),
    ],
)
def test_fees_are_twice_the_base_fee_and_a_bounded_tip(base_fee_wei: int, tip_wei: int, limit_wei: int | None, fees: GasFees) -> None:
    gas_fees_of_head = gas_fees(head(base_fee_wei), tip_wei, 0, limit_wei=limit_wei, priority_cap_wei=CAP_WEI)

    assert gas_fees_of_head == fees
    assert gas_fees_of_head.max_gas_price_wei == fees.max_fee_wei


def test_fees_above_the_ceiling_are_refused() -> None:
    with pytest.raises(Refused) as refusal:
        gas_fees(head(10), 2, 0, limit_wei=11, priority_cap_wei=CAP_WEI)

    assert refusal.value.verdicts[0].guard == "gas_price"
    assert "above limits.gas_price of 11 wei" in refusal.value.message
    with pytest.raises(Refused, match=r"above futures\.limits\.emergency_gas_price of 11 wei"):
        gas_fees(head(10), 2, 0, limit_wei=11, priority_cap_wei=CAP_WEI, limit_key="futures.limits.emergency_gas_price")


def test_legacy_chains_pay_the_gas_price_under_the_same_ceiling() -> None:
    fees = gas_fees(head(None), 2, 40, limit_wei=40, priority_cap_wei=CAP_WEI)

    assert fees == GasFees(None, None, 40)
    assert fees.max_gas_price_wei == 40
    with raises_code(Refused, "gas_price"):
        gas_fees(head(None), 2, 41, limit_wei=40, priority_cap_wei=CAP_WEI)


@given(
    base_fee_wei=st.integers(0, 10**12), tip_wei=st.integers(0, 10**12), cap_wei=st.integers(0, 10**12), limit_wei=st.integers(1, 10**13)
)
def test_no_fee_is_above_the_ceiling_and_none_below_the_base_fee(base_fee_wei: int, tip_wei: int, cap_wei: int, limit_wei: int) -> None:
    try:
        fees = gas_fees(head(base_fee_wei), tip_wei, 0, limit_wei=limit_wei, priority_cap_wei=cap_wei)
    except Refused:
        assert base_fee_wei + min(tip_wei, cap_wei) > limit_wei
        return

    assert fees.max_fee_wei is not None
    assert fees.max_priority_fee_wei is not None
    assert max(base_fee_wei, fees.max_priority_fee_wei) <= fees.max_fee_wei <= limit_wei
    assert fees.max_priority_fee_wei <= cap_wei


@given(base_fee_wei=st.integers(0, 10**12), tip_wei=st.integers(0, CAP_WEI), slack_wei=st.integers(0, 10**11))
def test_first_fees__leave_room_for_a_cancel_and_a_bump_of_it(base_fee_wei: int, tip_wei: int, slack_wei: int) -> None:
    next_base_fee_wei = base_fee_wei + base_fee_wei // 8 + 1
    limit_wei = (next_base_fee_wei + tip_wei) * 81 // 64 + 3 + slack_wei
    fees = gas_fees(head(base_fee_wei), tip_wei, 0, limit_wei=limit_wei, priority_cap_wei=CAP_WEI)
    first_tx = replace(tx(0), max_fee_wei=fees.max_fee_wei, max_priority_fee_wei=fees.max_priority_fee_wei)

    cancel = with_bumped_fees(first_tx, head(base_fee_wei), limit_wei, soft_limit_wei=0)
    assert with_bumped_fees(cancel, head(base_fee_wei), limit_wei, soft_limit_wei=0).max_gas_price_wei <= limit_wei


@given(max_fee_wei=st.integers(0, 10**13), tip_wei=st.integers(0, 10**12))
def test_replacement_pays_an_eighth_more_in_both_fields(max_fee_wei: int, tip_wei: int) -> None:
    replacement = replacement_fees(replace(tx(0), max_fee_wei=max_fee_wei, max_priority_fee_wei=tip_wei))

    assert replacement.max_fee_wei == max(max_fee_wei + 1, ceil(Fraction(9, 8) * max_fee_wei))
    assert replacement.max_priority_fee_wei == max(tip_wei + 1, ceil(Fraction(9, 8) * tip_wei))


def test_replacement_above_the_ceiling_is_refused() -> None:
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=80)

    assert with_bumped_fees(legacy_tx, head(None), 90) == replace(legacy_tx, gas_price_wei=90)
    with raises_code(Refused, "gas_price"):
        with_bumped_fees(replace(legacy_tx, gas_price_wei=81), head(None), 90)
