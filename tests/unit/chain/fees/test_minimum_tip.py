"""Tests of agent/chain/fees/minimum_tip.py: which refusals are about the tip, the least tip that they name, and suggested tips."""

from __future__ import annotations

import pytest

from agent.chain.fees.minimum_tip import named_minimum_wei, suggested_tip, wants_higher_tip
from agent.chain.rpc import RpcFault
from tests.support.constants import GWEI
from tests.support.tips import NAMELESS, WORDINGS


@pytest.mark.parametrize("wording", WORDINGS)
def test_refusal_of_a_tip_is_read_in_the_words_of_each_node(wording: str) -> None:
    message = WORDINGS[wording].format(tip=7, needed=25 * GWEI)

    assert wants_higher_tip(message)
    assert wants_higher_tip(message.upper())
    assert named_minimum_wei(message) == (None if wording in NAMELESS else 25 * GWEI)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("Tip too low", id="tip"),
        pytest.param("tips are too low", id="tips"),
        pytest.param("priority fee too low", id="priority fee"),
        pytest.param("maxPriorityFeePerGas too low", id="field of the tip"),
        pytest.param("transaction underpriced: priorityFeeCap 5, minimum needed 20000", id="cap of the priority fee"),
    ],
)
def test_refusal_that_names_the_tip_wants_a_higher_one(message: str) -> None:
    assert wants_higher_tip(message)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("replacement transaction underpriced: new tx gas tip cap 100 < 110 queued", id="replacement"),
        pytest.param("max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7", id="base fee"),
        pytest.param(
            "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 50, BaseFee: 100, MaxPriorityFeePerGas:200, Block number: 5", id="maximum fee"
        ),
        pytest.param("transaction underpriced: fee cap 5, minimum needed 20000", id="fee cap"),
        pytest.param("blob gas tip cap underpriced", id="blob"),
        pytest.param("intrinsic gas too low: gas 1000, minimum needed 21000", id="gas"),
        pytest.param("insufficient funds for gas * price + value: have 1 want 2", id="funds"),
        pytest.param("multiple transactions", id="part of a word"),
    ],
)
def test_refusal_of_something_else_wants_no_higher_tip(message: str) -> None:
    assert not wants_higher_tip(message)


@pytest.mark.parametrize(
    ("message", "wei"),
    [
        pytest.param("gas tip cap 0x5f5e100, minimum needed 0x3b9aca00", GWEI, id="hexadecimal"),
        pytest.param("priority fee too low, min 1.5 gwei", 3 * GWEI // 2, id="gwei"),
        pytest.param("priority fee too low, min 1.05 gwei", 105 * GWEI // 100, id="gwei with a zero"),
        pytest.param("priority fee too low, min 2 gwei", 2 * GWEI, id="whole gwei"),
        pytest.param("priority fee too low, min 1.0000000019 gwei", GWEI + 1, id="gwei beyond a wei"),
        pytest.param("tip too low: 5 wei, at least 7 wei", 7, id="wei"),
        pytest.param("Tip 5 is too low. Minimum required priority fee is 77", 77, id="a sentence"),
        pytest.param("tip too low: needed 3 more, at least 8 wei", 8, id="the last of two"),
        pytest.param("tip too low, minimum needed by nodes of this network is 77", 77, id="a long sentence"),
        pytest.param("gas price too low: tip cap 1, minimum needed 5", 5, id="gas price elsewhere"),
    ],
)
def test_minimum_that_a_refusal_names_is_in_wei(message: str, wei: int) -> None:
    assert named_minimum_wei(message) == wei


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("gas price '218' is below configured minimum gas price '1140000000000'", id="a price with the base fee"),
        pytest.param("tip too low, at least 0.5", id="no unit"),
        pytest.param("tip 5 too low", id="the tip itself"),
        pytest.param(f"tip too low, minimum {'x' * 41} 77", id="too far away"),
    ],
)
def test_minimum_that_is_no_tip_is_not_read(message: str) -> None:
    assert named_minimum_wei(message) is None


@pytest.mark.parametrize(
    ("answer", "tip_wei"),
    [
        pytest.param("0x0", 0, id="zero"),
        pytest.param("0x1", 1, id="one wei"),
        pytest.param(None, None, id="null"),
        pytest.param("many", None, id="text"),
        pytest.param(RpcFault(-32601, "the method does not exist"), None, id="no method"),
    ],
)
def test_suggested_tip_of_zero_is_one_and_nonsense_none(answer: object, tip_wei: int | None) -> None:
    assert suggested_tip(answer) == tip_wei
