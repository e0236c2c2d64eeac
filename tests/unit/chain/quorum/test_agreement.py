"""Agreement of operators: byte for byte, each operator once, whoever differs is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.chain.lens import CallStatus
from agent.chain.quorum import EndpointAnswer, find_quorum
from agent.errors import Refused
from agent.model import Head
from tests.support.text import raises_code

HEAD = Head(1, 100, "0x" + "ab" * 32, 1_700_000_000, 10**9)
NAMES = ("wallet's nonce", "wallet's native balance", "balance of WETH", "round of feed")
VALUES = (5, 10**18, b"\1" * 32, b"\2" * 160)
TRUTH = EndpointAnswer("alpha", HEAD, VALUES)


def says(operator: str, **changes: Any) -> EndpointAnswer:
    return replace(TRUTH, operator=operator, **changes)


LIES = [
    ({"head": replace(HEAD, timestamp_s=HEAD.timestamp_s + 1)}, "the header of block 100"),
    ({"head": replace(HEAD, base_fee_wei=1)}, "the header of block 100"),
    ({"block_values": (6, *VALUES[1:])}, "the wallet's nonce"),
    ({"block_values": (5, 0, *VALUES[2:])}, "the wallet's native balance"),
    ({"block_values": (*VALUES[:2], b"\1" * 31 + b"\2", VALUES[3])}, "the balance of WETH"),
    ({"block_values": (*VALUES[:3], CallStatus.FAILED)}, "the round of feed"),
]


def test_two_operators_that_say_the_same_agree() -> None:
    agreed = find_quorum([says("beta"), says("alpha")], NAMES, 2)
    assert agreed.agreeing_operators == ("alpha", "beta")
    assert agreed.dissent == ()
    assert agreed.endpoint_answer.compared_values == TRUTH.compared_values


@pytest.mark.parametrize(("lie", "what"), LIES)
def test_differing_field__ends_the_agreement_and_is_named(lie: dict[str, Any], what: str) -> None:
    with pytest.raises(Refused) as caught:
        find_quorum([says("alpha"), says("beta", **lie)], NAMES, 2)
    assert what in str(caught.value)
    assert "alpha" in str(caught.value)
    assert "beta" in str(caught.value)
    assert [(v.guard, v.passed) for v in caught.value.verdicts] == [("quorum", False)]


@pytest.mark.parametrize("min_operators", [1, 2])
@pytest.mark.parametrize(("lie", "what"), LIES)
def test_differing_one_of_three__is_named_and_does_not_count(lie: dict[str, Any], what: str, min_operators: int) -> None:
    agreed = find_quorum([says("liar", **lie), says("alpha"), says("beta")], NAMES, min_operators)
    assert agreed.agreeing_operators == ("alpha", "beta")
    assert agreed.endpoint_answer.compared_values == TRUTH.compared_values
    assert agreed.dissent == (("liar", what),)


def test_two_endpoints_of_one_operator_count_once() -> None:
    with raises_code(Refused, "quorum", "only alpha"):
        find_quorum([says("alpha"), says("alpha")], NAMES, 2)
    assert find_quorum([says("alpha"), says("alpha")], NAMES, 1).agreeing_operators == ("alpha",)


def test_endpoints_of_one_operator__do_not_outvote_another() -> None:
    with raises_code(Refused, "quorum", "alpha differs in the wallet's nonce"):
        find_quorum([says("liar", block_values=(9, *VALUES[1:]))] * 5 + [says("alpha")], NAMES, 1)


def test_an_operator_that_contradicts_itself_counts_for_nothing() -> None:
    with raises_code(Refused, "quorum", "an operator that contradicts itself"):
        find_quorum([says("alpha"), says("alpha", block_values=(6, *VALUES[1:]))], NAMES, 1)
    agreed = find_quorum([says("two-faced", block_values=(6, *VALUES[1:])), says("two-faced"), says("alpha"), says("beta")], NAMES, 2)
    assert agreed.agreeing_operators == ("alpha", "beta")
    assert agreed.dissent == (("two-faced", "the wallet's nonce"),)


def test_one_against_one_is_refused_even_where_one_would_do() -> None:
    with raises_code(Refused, "quorum", "beta differs in the wallet's native balance"):
        find_quorum([says("alpha"), says("beta", block_values=(5, 7, *VALUES[2:]))], NAMES, 1)


def test_a_single_operator_is_enough_where_it_was_allowed() -> None:
    assert find_quorum([says("alpha")], NAMES, 1).agreeing_operators == ("alpha",)
    with raises_code(Refused, "quorum", "only alpha confirms block 100"):
        find_quorum([says("alpha")], NAMES, 2)
