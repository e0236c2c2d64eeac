"""Signatures of a Safe's owners: made by a key, and recovered by the rules of Safe.checkNSignatures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from agent.errors import ConfigError
from agent.localchain.world import dev_accounts
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.safe_tx import safe_tx_hash, signature_owner
from agent.signing.secret import PrivateKey
from tests.support.signing import ROUTER, STRANGER, WALLET, tx
from tests.support.text import raises_field

CALL = tx(ROUTER, "0x1234", value_wei=5)
OWNER = dev_accounts()[5]


def owner_key() -> PrivateKey:
    loaded = load_key(TestAccountKey(5), 31337, ask=None)
    assert isinstance(loaded, PrivateKey)
    return loaded


def eth_sign_signature() -> bytes:
    signature = bytearray(Account.sign_message(encode_defunct(hexstr=safe_tx_hash(WALLET, CALL)), OWNER.private_key).signature)
    signature[-1] += 4
    return bytes(signature)


@pytest.mark.parametrize("signature", [owner_key().sign_safe_tx(WALLET, CALL), eth_sign_signature()], ids=["typed data", "eth_sign"])
def test_signature_gives_its_owner(signature: bytes) -> None:
    assert signature_owner(WALLET, CALL, signature) == OWNER.address


@pytest.mark.parametrize(
    "changes",
    [{"nonce": CALL.nonce + 1}, {"value_wei": 6}, {"data": "0x1235"}, {"to": STRANGER}, {"chain_id": 1}],
    ids=lambda changed_fields: next(iter(changed_fields)),
)
def test_signature_of_another_call_gives_another_address(changes: dict[str, object]) -> None:
    signature = owner_key().sign_safe_tx(WALLET, replace(CALL, **changes))  # type: ignore[arg-type]
    assert signature_owner(WALLET, CALL, signature) != OWNER.address


def test_signature_for_another_safe_gives_another_address() -> None:
    assert signature_owner(WALLET, CALL, owner_key().sign_safe_tx(STRANGER, CALL)) != OWNER.address


@pytest.mark.parametrize("length", [0, 64, 66])
def test_signature_of_another_length_is_refused(length: int) -> None:
    with raises_field("signature", f"{length} bytes instead of 65"):
        signature_owner(WALLET, CALL, bytes(length))


@pytest.mark.parametrize("v", [0, 1, 26, 29, 30, 33])
def test_signature_with_another_v_is_refused(v: int) -> None:
    """0 and 1 are, to the contract, those of a contract and an approved hash."""
    with raises_field("signature", f"v is {v} instead of"):
        signature_owner(WALLET, CALL, owner_key().sign_safe_tx(WALLET, CALL)[:-1] + bytes([v]))


@pytest.mark.parametrize(("v", "last_digits"), [(0, "1b"), (1, "1c")])
def test_signature_counted_from_zero_names_its_last_digits(v: int, last_digits: str) -> None:
    with pytest.raises(ConfigError) as refused:
        signature_owner(WALLET, CALL, bytes(64) + bytes([v]))
    assert f"write {last_digits} as the last two digits" in refused.value.remedy


@pytest.mark.parametrize("r_and_s", [bytes(64), b"\xff" * 64, bytes(32) + b"\x01" * 32], ids=["zero", "above the order", "r of zero"])
def test_signature_that_no_key_makes_is_refused(r_and_s: bytes) -> None:
    with raises_field("signature", "no key makes these bytes"):
        signature_owner(WALLET, CALL, r_and_s + b"\x1b")
