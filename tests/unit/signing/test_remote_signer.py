"""A remote signer holds the wallet's key: only the transaction that it was asked for, by this wallet, is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import rlp
from eth_account import Account

from agent.errors import PassingFault, Retryable, TrimtabError
from agent.model import UnsignedTx
from agent.signing.remote_key import CURVE_ORDER
from agent.signing.remote_signer import RemoteSigner
from agent.signing.rules import transaction_fields
from tests.support.signing import CANCEL
from tests.support.text import raises_code

KEY = "0x" + "c0ffee" + "5eed" * 14 + "42"
OTHER_KEY = "0x" + "11" * 32
ADDRESS = Account.from_key(KEY).address
TX = replace(CANCEL, to=ADDRESS, data="0xa9059cbb", value_wei=7)
LEGACY_TX = replace(TX, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=10**9)
DEPLOYMENT = replace(TX, to="")


def raw_of(tx: UnsignedTx, key: str = KEY) -> str:
    return "0x" + Account.sign_transaction(transaction_fields(tx), key).raw_transaction.hex().removeprefix("0x")


def signer_that_answers(answer: object) -> RemoteSigner:
    return RemoteSigner(ADDRESS, lambda method, parameters: answer)


def with_high_s(raw_hex: str) -> str:
    fields = list(rlp.decode(bytes.fromhex(raw_hex[4:])))
    fields[-3] = b"" if fields[-3] else b"\x01"
    fields[-1] = (CURVE_ORDER - int.from_bytes(fields[-1], "big")).to_bytes(32, "big")
    return "0x02" + rlp.encode(fields).hex()


@pytest.mark.parametrize("tx", [TX, LEGACY_TX, DEPLOYMENT], ids=["EIP-1559", "legacy", "deployment"])
@pytest.mark.parametrize(
    "answer_form",
    [lambda raw: raw, lambda raw: {"raw": raw, "tx": {}}, lambda raw: raw.removeprefix("0x")],
    ids=["Web3Signer", "geth", "bare"],
)
def test_signature_of_the_asked_transaction_is_accepted(tx: UnsignedTx, answer_form: Callable[[str], object]) -> None:
    signed_tx = signer_that_answers(answer_form(raw_of(tx))).sign_transaction(tx)
    assert signed_tx.signed_bytes.hex() == raw_of(tx)[2:]
    assert Account.recover_transaction(signed_tx.signed_bytes) == ADDRESS


@pytest.mark.parametrize(
    "changes",
    [
        {"to": Account.from_key(OTHER_KEY).address},
        {"value_wei": TX.value_wei + 1},
        {"nonce": TX.nonce + 1},
        {"gas": TX.gas + 1},
        {"data": TX.data + "00"},
        {"chain_id": TX.chain_id + 1},
        {"max_fee_wei": (TX.max_fee_wei or 0) + 1},
        {"max_priority_fee_wei": (TX.max_priority_fee_wei or 0) + 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_transaction_that_differs_in_one_field_is_refused(changes: dict[str, Any]) -> None:
    with raises_code(PassingFault, "signature", "not this transaction"):
        signer_that_answers(raw_of(replace(TX, **changes))).sign_transaction(TX)


@pytest.mark.parametrize(
    "answer",
    [
        raw_of(TX, OTHER_KEY),
        with_high_s(raw_of(TX)),
        raw_of(LEGACY_TX),
        raw_of(TX)[:-2],
        raw_of(TX) + "00",
        None,
        "",
        "0x",
        "0x02",
        "<html>",
        7,
        [],
        {"tx": {}},
    ],
    ids=["other key", "high s", "other type", "cut", "longer", "null", "empty", "0x", "type only", "page", "number", "list", "no raw"],
)
def test_answer_that_is_no_signature_of_this_wallet_is_refused(answer: object) -> None:
    with raises_code(PassingFault, "signature", "not this transaction"):
        signer_that_answers(answer).sign_transaction(TX)


@pytest.mark.parametrize(
    ("tx", "fees"),
    [
        (TX, {"maxFeePerGas": hex(TX.max_fee_wei or 0), "maxPriorityFeePerGas": hex(TX.max_priority_fee_wei or 0)}),
        (LEGACY_TX, {"gasPrice": hex(10**9)}),
    ],
    ids=["EIP-1559", "legacy"],
)
def test_signer_is_asked_for_exactly_the_transaction(tx: UnsignedTx, fees: dict[str, str]) -> None:
    calls: list[tuple[str, list[Any]]] = []

    def call(method: str, parameters: list[Any]) -> object:
        calls.append((method, parameters))
        return raw_of(tx)

    RemoteSigner(ADDRESS, call).sign_transaction(tx)
    request = {
        "from": ADDRESS,
        "to": ADDRESS,
        "gas": hex(tx.gas),
        "value": "0x7",
        "data": "0xa9059cbb",
        "nonce": hex(tx.nonce),
        "chainId": hex(tx.chain_id),
    }
    assert calls == [("eth_signTransaction", [request | fees])]


def test_deployment_is_asked_for_without_a_recipient() -> None:
    calls: list[list[Any]] = []

    def call(method: str, parameters: list[Any]) -> object:
        calls.append(parameters)
        return raw_of(DEPLOYMENT)

    RemoteSigner(ADDRESS, call).sign_transaction(DEPLOYMENT)
    assert "to" not in calls[0][0]


@pytest.mark.parametrize("error", [Retryable("503"), PassingFault("a page"), TrimtabError("denied")])
def test_signer_that_does_not_answer_is_tried_again(error: TrimtabError) -> None:
    def call(method: str, parameters: list[Any]) -> object:
        raise error

    with raises_code(Retryable, "key_service", error.message):
        RemoteSigner(ADDRESS, call).sign_transaction(TX)


def test_accounts_are_compared_without_case() -> None:
    assert signer_that_answers([ADDRESS, "0xAB"]).accounts() == [ADDRESS.lower(), "0xab"]
    assert signer_that_answers([]).accounts() == []


@pytest.mark.parametrize("answer", [None, {"error": "busy"}, ADDRESS])
def test_accounts__that_are_no_list_may_come_later(answer: object) -> None:
    with raises_code(Retryable, "key_service", "eth_accounts is not a list"):
        signer_that_answers(answer).accounts()
