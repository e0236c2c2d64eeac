"""Tests of agent/chain/providers/checked.py: the canonical form of each answer that web3 gets."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chain.providers.checked import QUANTITY_METHODS, checked_answer
from agent.errors import Retryable
from tests.support.fakes.transport import BLOCK, HEAD_JSON
from tests.support.text import raises_code

CANONICAL_HEAD = {"number": "0x10", "hash": BLOCK, "timestamp": "0x64", "baseFeePerGas": "0x7"}


@pytest.mark.parametrize(
    ("method", "answer", "canonical"),
    [
        *(pytest.param(method, "0x7", "0x7", id=method) for method in QUANTITY_METHODS),
        pytest.param("eth_gasPrice", "0x007", "0x7", id="leading zeros"),
        pytest.param("eth_call", "0xAB", "0xab", id="capitals of a call"),
        pytest.param("eth_call", "0x", "0x", id="empty call"),
        pytest.param("eth_getStorageAt", "0x7", f"0x{7:064x}", id="slot cut short"),
        pytest.param("eth_getStorageAt", f"0x{7:064x}", f"0x{7:064x}", id="slot"),
        pytest.param("eth_getBlockByNumber", HEAD_JSON | {"size": "0x1"}, CANONICAL_HEAD, id="unread field of a block"),
        pytest.param(
            "eth_getBlockByNumber",
            HEAD_JSON | {"baseFeePerGas": None},
            {name: text for name, text in CANONICAL_HEAD.items() if name != "baseFeePerGas"},
            id="block without a base fee",
        ),
    ],
)
def test_answer_is_brought_into_its_canonical_form(method: str, answer: Any, canonical: Any) -> None:
    assert checked_answer(method, answer) == canonical


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        *(
            pytest.param("eth_getBalance", answer, id=f"quantity {answer!r}")
            for answer in ("0x", "-0x1", "0x_1", " 0x1", "1", 7, True, None)
        ),
        *(pytest.param("eth_call", answer, id=f"data {answer!r}") for answer in ("0xabc", "abcd", "0xzz", 7, None)),
        pytest.param("eth_getStorageAt", "0x" + "f" * 65, id="slot of 33 bytes"),
        *(
            pytest.param("eth_getBlockByNumber", HEAD_JSON | {name: None}, id=f"block without {name}")
            for name in ("number", "hash", "timestamp")
        ),
        pytest.param("eth_getBlockByNumber", None, id="no block"),
    ],
)
def test_answer_of_another_form_is_retryable(method: str, answer: Any) -> None:
    with raises_code(Retryable, "answer"):
        checked_answer(method, answer)
