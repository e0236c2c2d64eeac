"""Exact quantities: what is read, how it rounds, what is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.units import (
    MAX_DIGITS,
    Token,
    ceil_int,
    decimal_text,
    floor_int,
    format_duration,
    format_time,
    largest_remainder,
    mul_div_down,
    mul_div_up,
    parse_bps,
    parse_raw,
    plain_amount,
    price_text,
    rough_duration,
    safe_label,
    value_text,
)
from tests.support.builders import token
from tests.support.text import raises_field

USDC = Token("0x" + "11" * 20, "USDC", 6)
WETH = Token("0x" + "22" * 20, "WETH", 18)


@pytest.mark.parametrize(
    ("text", "bps"),
    [("40%", 4000), (0.4, 4000), ("4000bps", 4000), ("0.4", 4000), ("40\u00a0%", 4000), (1, 10_000), ("12.34 %", 1234), (0, 0)],
)
def test_a_weight_is_read_as_percent_share_or_basis_points(text: object, bps: int) -> None:
    assert parse_bps(text, "target") == bps


@pytest.mark.parametrize("text", ["0_5%", "1_000bps", "0.1_5", "\u0665%"])
def test_a_weight_with_an_underscore_or_digits_of_another_script_is_refused(text: str) -> None:
    with raises_field("target"):
        parse_bps(text, "target")


@pytest.mark.parametrize("text", [40, "40", 1.01, "-1%", "0.00001", "1.005%", "x%", "", "NaN", True, None, "infinity"])
def test_bare_number_above_one__is_refused_by_field(text: object) -> None:
    with raises_field("target"):
        parse_bps(text, "target")


@pytest.mark.parametrize("text", ["-1", "1e3", "0x10", "1,5", "", ".", "1.0000001", "1" + "0" * 80, " ", "NaN"])
def test_what_is_no_plain_amount_is_refused_by_field(text: str) -> None:
    with raises_field("amount"):
        parse_raw(text, 6, "amount")


def test_amount_of_too_many_digits__is_named_with_the_most() -> None:
    with pytest.raises(ConfigError, match=r"portfolio\.max_live_value: 111111111111… has 44 digits") as caught:
        parse_raw("1" * 44, 6, "portfolio.max_live_value")
    assert caught.value.remedy == f"write at most {MAX_DIGITS}"
    assert parse_raw("9" * MAX_DIGITS + ".5", 6, "amount") == int("9" * MAX_DIGITS + "500000")


@given(raw=st.integers(0, 10**MAX_DIGITS - 1), decimals=st.integers(0, 36))
def test_an_amount_survives_being_written_and_read(raw: int, decimals: int) -> None:
    assert parse_raw(decimal_text(raw, decimals), decimals, "amount") == raw


@given(a=st.integers(0, 2**256), b=st.integers(0, 2**256), d=st.integers(1, 2**256))
def test_rounding_does_what_its_name_says(a: int, b: int, d: int) -> None:
    exact = Fraction(a * b, d)
    assert mul_div_down(a, b, d) == floor_int(exact) <= exact <= ceil_int(exact) == mul_div_up(a, b, d)


@given(st.lists(st.fractions(0, 10**30), min_size=1, max_size=12).filter(lambda shares: sum(shares) > 0))
def test_largest_remainder__sums_to_the_whole_within_one(shares: list[Fraction]) -> None:
    rounded = largest_remainder(shares)
    whole = sum(shares)
    assert sum(rounded) == 10_000
    assert all(abs(bps - share * 10_000 / whole) < 1 for bps, share in zip(rounded, shares, strict=True))


def test_shares_of_nothing_have_no_weights() -> None:
    with pytest.raises(ValueError, match="positive sum"):
        largest_remainder([Fraction(0), Fraction(0)])


@pytest.mark.parametrize(("value", "text"), [("4.9", "4.90"), ("10", "10"), ("12.014", "12.01"), ("-0.5", "-0.50"), ("1000.1", "1000.10")])
def test_money_of_a_sentence__has_no_single_decimal(value: str, text: str) -> None:
    assert token("USDC").money_text(Fraction(value) * 10**6) == f"{text} USDC"


def test_values_and_prices_are_shown_in_whole_coins() -> None:
    assert value_text(Fraction(-1_234_567), 6) == "-1.234567"
    assert value_text(Fraction(1_999_999), 6, 2) == "2"
    assert price_text(Fraction(3_000 * 10**6, 10**18), 18, 6) == "3000"
    assert price_text(Fraction(0), 18, 6) == "0"
    assert price_text(Fraction(1, 3), 0, 0, 4) == "0.3333"


@pytest.mark.parametrize("symbol", ["\x1b[31mUSDC", "USDC\u202e", "=1+1", "<b>", "", "A" * 17, "U SDC"])
def test_foreign_text_is_never_shown_as_a_symbol(symbol: str) -> None:
    assert safe_label(symbol, USDC.address) == USDC.address
    assert Token(USDC.address, symbol, 6).label == USDC.address


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0, "0 s", "0 s"),
        (3_599, "59 min 59 s", "59 min 59 s"),
        (3_601, "1 h 1 s", "1 h"),
        (86_460, "1 day 1 min", "1 day"),
        (90_000, "1 day 1 h", "1 day 1 h"),
        (90_001, "1 day 1 h 1 s", "1 day 1 h"),
        (180_184, "2 days 2 h 3 min 4 s", "2 days 2 h"),
    ],
)
def test_duration_is_exact_and_one_that_passes_is_rounded(seconds: int, exact: str, rough: str) -> None:
    assert format_duration(seconds) == exact
    assert rough_duration(seconds) == rough


@pytest.mark.parametrize(
    ("at_s", "text"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        (253_402_300_800, "second 253402300800"),
        (-1, "second -1"),
    ],
)
def test_time_beyond_any_calendar_is_a_number(at_s: int, text: str) -> None:
    assert format_time(at_s) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (0.5, "0.5"),
        (np.int64(3), "3"),
        (Decimal("0.1"), "0.1"),
        (Decimal("1E+3"), "1000"),
        ("0.10", "0.10"),
    ],
)
def test_amount_that_is_exact_is_a_plain_decimal(amount: object, text: str) -> None:
    assert plain_amount(amount, "amount") == text


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0.1, 'amount: the digits of 0.1 as a float are not exact (write "0.1" in quotes)'),
        (np.float64(1e-7), 'amount: the digits of 0.0000001 as a float are not exact (write "0.0000001" in quotes)'),
        (0.1 + 0.2, 'amount: the digits of 0.30000000000000004 as a float are not exact (write "0.30000000000000004" in quotes)'),
        (float("nan"), "amount: 'NaN' is not an amount (write a plain decimal such as 1.5)"),
        (float("inf"), "amount: 'Infinity' is not an amount (write a plain decimal such as 1.5)"),
        (Decimal("sNaN"), "amount: 'sNaN' is not an amount (write a plain decimal such as 1.5)"),
        (-1, "amount: '-1' is not an amount (write a plain decimal such as 1.5)"),
        (-0.5, "amount: '-0.5' is not an amount (write a plain decimal such as 1.5)"),
        (True, 'amount: True is no amount (write a plain decimal such as "1.5")'),
        (None, 'amount: None is no amount (write a plain decimal such as "1.5")'),
        ([1], 'amount: [1] is no amount (write a plain decimal such as "1.5")'),
        (Decimal("1e-30"), "amount: '0.000000000000000000000000000001' has more than 18 decimal places"),
    ],
)
def test_amount_that_is_not_exact_is_refused(amount: object, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_raw(plain_amount(amount, "amount"), 18, "amount")
    assert str(error.value).startswith(words)
