"""Tests of agent/signing/rules.py: fields, fees and kinds of a transaction, each refused by the name of its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from agent.errors import ConfigError, Refused
from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.signing.rules import transaction_fields
from agent.units import NATIVE
from tests.support.signables import SIGNABLES
from tests.support.signing import (
    APPROVE,
    APPROVE_GRANT,
    CANCEL,
    CANCEL_GRANT,
    ESCAPE,
    FUTURES_ALLOWED,
    FUTURES_RULES,
    GWEI,
    MAX_GAS_WEI,
    NONCE,
    REDUCE,
    ROUTER,
    RULES,
    STRANGER,
    SWAP,
    SWAP_GRANT,
    WALLET,
    WETH,
    assert_refused_by,
    futures_grant,
    refusing_rule,
    signer,
)

LEGACY = {"max_fee_wei": None, "max_priority_fee_wei": None}


@pytest.mark.parametrize("name", [name for name, signable in SIGNABLES.items() if signable.tx.max_fee_wei is not None])
def test_signature_covers_the_judged_fields_twice_alike(name: str) -> None:
    transaction = SIGNABLES[name].tx

    first, second = (signer(SIGNABLES[name].rules).sign(transaction, SIGNABLES[name].grant) for _ in range(2))

    assert first == second
    assert Account.recover_transaction(first.signed_bytes) == WALLET
    signed_fields = TypedTransaction.from_bytes(HexBytes(first.signed_bytes)).as_dict()
    assert {name: signed_fields[name] for name in transaction_fields(transaction)} == {
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "to": HexBytes(transaction.to),
        "value": transaction.value_wei,
        "data": HexBytes(transaction.data),
        "gas": transaction.gas,
        "type": 2,
        "maxFeePerGas": transaction.max_fee_wei,
        "maxPriorityFeePerGas": transaction.max_priority_fee_wei,
    }


def test_legacy_transaction_is_signed_as_legacy() -> None:
    signed = signer().sign(replace(CANCEL, **LEGACY, gas_price_wei=GWEI), CANCEL_GRANT)  # type: ignore[arg-type]  # field names

    assert signed.signed_bytes[0] >= 0xC0
    assert Account.recover_transaction(signed.signed_bytes) == WALLET


def test_signed_bytes_are_not_in_the_repr() -> None:
    signed = signer().sign(CANCEL, CANCEL_GRANT)

    assert signed.signed_bytes.hex() not in repr(signed)
    assert repr(signed.signed_bytes) not in repr(signed)


@pytest.mark.parametrize(
    ("rule", "tx_fields"),
    [
        pytest.param("chain_id", {"chain_id": 1}, id="another chain"),
        pytest.param("nonce", {"nonce": -1}, id="negative nonce"),
        pytest.param("nonce", {"nonce": NONCE - 1}, id="nonce before"),
        pytest.param("nonce", {"nonce": NONCE + 1}, id="nonce after"),
        pytest.param("nonce", {"nonce": 2**64 - 1}, id="largest nonce"),
        pytest.param("value", {"value_wei": 1}, id="one wei sent"),
        pytest.param("fees", {"max_fee_wei": GWEI, "max_priority_fee_wei": GWEI + 1}, id="tip one wei above the max fee"),
        pytest.param("fees", {"max_priority_fee_wei": -1}, id="negative tip"),
        pytest.param("fees", {"max_fee_wei": 0, "max_priority_fee_wei": 0}, id="no fee"),
        pytest.param("fees", {"gas_price_wei": GWEI}, id="all fee fields"),
        pytest.param("fees", {"max_priority_fee_wei": None}, id="no tip"),
        pytest.param("fees", LEGACY, id="no fee field"),
        pytest.param("fees", LEGACY | {"gas_price_wei": 0}, id="legacy price of zero"),
        pytest.param("fees", LEGACY | {"gas_price_wei": -1}, id="negative legacy price"),
        pytest.param("gas", {"gas": 20_999}, id="gas one below the least"),
        pytest.param("gas_cost", {"gas": MAX_GAS_WEI // (10 * GWEI) + 1}, id="gas one above the granted"),
        pytest.param("gas_price", {"max_fee_wei": 15 * GWEI + 1}, id="max fee one wei above"),
        pytest.param("gas_price", LEGACY | {"gas_price_wei": 15 * GWEI + 1}, id="legacy price one wei above"),
        pytest.param("tip", {"max_priority_fee_wei": 5 * GWEI + 1}, id="tip one wei above its cap"),
        pytest.param("to", {"to": ROUTER.lower()}, id="no checksum"),
        pytest.param("call", {"data": "f00"}, id="no hex"),
        pytest.param("call", {"data": "0x12345678"}, id="unknown function"),
        pytest.param("kind", {"data": "0x"}, id="no data"),
        pytest.param("contract", {"to": STRANGER}, id="to a stranger"),
        pytest.param("contract", {"to": WETH}, id="to a token"),
        pytest.param("contract", {"to": NATIVE}, id="to nobody"),
    ],
)
def test_swap_with_a_wrong_field_is_refused(rule: str, tx_fields: dict[str, object]) -> None:
    assert_refused_by(rule, replace(SWAP, **tx_fields), SWAP_GRANT)  # type: ignore[arg-type]  # field names, checked by replace


@pytest.mark.parametrize(
    "tx_fields",
    [
        pytest.param({"gas": MAX_GAS_WEI // (10 * GWEI)}, id="all granted gas"),
        pytest.param({"max_priority_fee_wei": 0}, id="no tip"),
        pytest.param({"max_priority_fee_wei": 5 * GWEI}, id="tip at its cap"),
        pytest.param({"max_fee_wei": GWEI, "max_priority_fee_wei": GWEI}, id="tip of the whole fee"),
        pytest.param({"max_fee_wei": 1, "max_priority_fee_wei": 1}, id="one wei"),
        pytest.param({"max_fee_wei": 15 * GWEI}, id="max fee at the limit"),
        pytest.param(LEGACY | {"gas_price_wei": 1}, id="legacy price of one wei"),
        pytest.param(LEGACY | {"gas_price_wei": 15 * GWEI}, id="legacy price at the limit"),
    ],
)
def test_fees_at_the_edge_of_their_limits_are_signed(tx_fields: dict[str, object]) -> None:
    assert signer().sign(replace(SWAP, **tx_fields), SWAP_GRANT).signed_bytes  # type: ignore[arg-type]  # field names


def test_gas_at_the_least_is_signed() -> None:
    assert signer().sign(replace(CANCEL, gas=21_000), CANCEL_GRANT).signed_bytes


def test_gas_cost_alone_bounds_the_price_without_a_limit() -> None:
    rules = replace(RULES, max_fee_wei=None)
    dear_cancel = replace(CANCEL, max_fee_wei=MAX_GAS_WEI // CANCEL.gas)

    assert signer(rules).sign(dear_cancel, CANCEL_GRANT).signed_bytes
    assert_refused_by("gas_cost", replace(dear_cancel, max_fee_wei=MAX_GAS_WEI // CANCEL.gas + 1), CANCEL_GRANT, rules)


@pytest.mark.parametrize(
    ("signed_tip_wei", "tip_wei", "rule"),
    [
        pytest.param(None, 5 * GWEI, None, id="first, at the cap"),
        pytest.param(None, 5 * GWEI + 1, "tip", id="first, one wei above"),
        pytest.param(GWEI, 5 * GWEI, None, id="after a small tip, at the cap"),
        pytest.param(8 * GWEI, 9 * GWEI, None, id="an eighth above what was signed"),
        pytest.param(8 * GWEI, 9 * GWEI + 1, "tip", id="one wei above that"),
    ],
)
def test_tip_of_a_replacement_may_be_an_eighth_above_the_signed(signed_tip_wei: int | None, tip_wei: int, rule: str | None) -> None:
    replacement = replace(CANCEL, max_fee_wei=15 * GWEI, max_priority_fee_wei=tip_wei)

    assert refusing_rule(replacement, CANCEL_GRANT, nonces={NONCE: signed_tip_wei}) == rule


@pytest.mark.parametrize(
    ("is_emergency", "highest_wei"),
    [
        pytest.param(False, 15 * GWEI, id="limits.gas_price"),
        pytest.param(True, 30 * GWEI, id="the ceiling of emergencies"),
    ],
)
def test_gas_price_of_an_emergency_has_its_own_ceiling(is_emergency: bool, highest_wei: int) -> None:
    transaction, _ = FUTURES_ALLOWED["futures: escape" if is_emergency else "futures: reduce"]
    grant = futures_grant(ESCAPE if is_emergency else REDUCE, is_emergency=is_emergency)
    grant = replace(grant, max_gas_wei=10**18)

    assert signer(FUTURES_RULES).sign(replace(transaction, max_fee_wei=highest_wei), grant).signed_bytes
    assert_refused_by("gas_price", replace(transaction, max_fee_wei=highest_wei + 1), grant, FUTURES_RULES)


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("plan", SWAP, replace(SWAP_GRANT, plan=None), id="swap without a plan"),
        pytest.param("approval", APPROVE, replace(APPROVE_GRANT, approval_terms=None), id="approval without its terms"),
        pytest.param("cancel", replace(CANCEL, to=STRANGER), CANCEL_GRANT, id="cancel to a stranger"),
        pytest.param("value", replace(CANCEL, value_wei=1), CANCEL_GRANT, id="cancel that pays"),
        pytest.param("kind", replace(CANCEL, data=SWAP.data), CANCEL_GRANT, id="cancel that calls"),
        pytest.param("call", replace(CANCEL, data="0x00"), CANCEL_GRANT, id="cancel with a byte"),
    ],
)
def test_transaction_beside_its_grant_is_refused(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert_refused_by(rule, transaction, grant)


@pytest.mark.parametrize("kind", list(IntentKind))
@pytest.mark.parametrize(
    "typed_data",
    [
        {"primaryType": "Permit", "domain": {"chainId": 31337}, "message": {"owner": WALLET, "spender": ROUTER}},
        {"primaryType": "\x1b[31mred"},
        {},
    ],
    ids=["permit", "terminal escape", "empty"],
)
def test_typed_data_is_refused_whatever_the_grant(typed_data: dict[str, object], kind: IntentKind) -> None:
    with pytest.raises(Refused) as refusal:
        signer().refuse_typed(typed_data, replace(CANCEL_GRANT, kind=kind))

    assert refusal.value.verdicts[0].guard == "signer.typed_data"
    assert "\x1b" not in str(refusal.value)


def test_signer_for_another_wallet_is_not_built() -> None:
    with pytest.raises(ConfigError, match=r"wallet\.address"):
        signer(replace(RULES, wallet=STRANGER))
