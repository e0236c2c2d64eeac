"""Voting: a majority and the minimum, one vote for an operator, and fewer liars than voters needed decide nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.quorum import (
    NoQuorum,
    confirmed_value,
    highest_confirmed_number,
    lowest_sufficient_number,
    operators_by_value,
    quorum_size,
)
from tests.support.text import raises_code


@pytest.mark.parametrize(
    ("operators", "minimum", "enough"),
    [
        pytest.param(1, 1, 1, id="one of one"),
        pytest.param(2, 1, 2, id="two, one wanted"),
        pytest.param(2, 2, 2, id="two"),
        pytest.param(3, 2, 2, id="three"),
        pytest.param(4, 2, 3, id="four"),
        pytest.param(5, 2, 3, id="five"),
        pytest.param(1, 2, 2, id="one, two wanted"),
        pytest.param(3, 3, 3, id="three of three"),
    ],
)
def test_majority__is_of_the_answers_and_no_fewer_than_configured(operators: int, minimum: int, enough: int) -> None:
    assert quorum_size(operators, minimum) == enough


def test_the_value_of_the_majority_counts() -> None:
    assert confirmed_value([("liar", "b"), ("alpha", "a"), ("beta", "a")], 2, "it") == "a"
    assert confirmed_value([("alone", "a")], 1, "it") == "a"
    assert confirmed_value([("alpha", None), ("beta", None)], 2, "it") is None


@pytest.mark.parametrize(
    "votes",
    [
        [("alpha", "a"), ("beta", "b")],
        [("alpha", "a")],
        [("alpha", "a"), ("alpha", "a")],
        pytest.param([("alpha", "a"), ("beta", "b"), ("gamma", "c")], id="all differ"),
        pytest.param([("two-faced", "a"), ("two-faced", "b"), ("alpha", "a")], id="one operator with two voices"),
        [],
    ],
)
def test_too_few_alike_are_no_quorum(votes: list[tuple[str, str]]) -> None:
    with raises_code(NoQuorum, "quorum"):
        confirmed_value(votes, 2, "it")


def test_who_differs_is_told_and_what_they_say_is_not() -> None:
    with raises_code(NoQuorum, "quorum", "alpha", "beta") as caught:
        confirmed_value([("alpha", "secret"), ("beta", "b"), ("gamma", "secret")], 3, "it")
    assert "secret" not in str(caught.value)


def test_an_operator_that_contradicts_itself_is_behind_nothing() -> None:
    assert operators_by_value([("x", 1), ("x", 2), ("y", 1)]) == {1: {"y"}, 2: set()}


@given(truth=st.integers(10, 1000), lies=st.lists(st.integers(0, 10**9), max_size=2), honest=st.integers(3, 5))
def test_minority_of_liars__moves_no_height_or_amount(truth: int, lies: list[int], honest: int) -> None:
    answer_by_operator = {f"honest{n}": truth for n in range(honest)} | {f"liar{n}": lie for n, lie in enumerate(lies)}
    enough = quorum_size(len(answer_by_operator), 2)
    assert highest_confirmed_number(answer_by_operator, enough) == lowest_sufficient_number(answer_by_operator, enough) == truth


@given(answers=st.lists(st.integers(0, 50), min_size=1, max_size=7))
def test_needed_votes__vouch_for_a_height_and_an_amount(answers: list[int]) -> None:
    values = {str(n): value for n, value in enumerate(answers)}
    enough = quorum_size(len(values), 1)
    assert sum(value >= highest_confirmed_number(values, enough) for value in answers) >= enough
    assert sum(value <= lowest_sufficient_number(values, enough) for value in answers) >= enough


def test_of_two_the_more_careful_word_counts() -> None:
    assert highest_confirmed_number({"alpha": 7, "liar": 99}, 2) == 7
    assert highest_confirmed_number({"alpha": 7, "late": 6}, 2) == 6
    assert lowest_sufficient_number({"alpha": 21_000, "liar": 5}, 2) == 21_000
