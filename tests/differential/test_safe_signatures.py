"""Hashes and signatures of a Safe's transactions are those of the published type, of eth_account and of the real contract, 1.4.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from web3.exceptions import ContractCustomError, ContractLogicError

from agent.localchain import LocalChain
from agent.model import UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, MULTI_SEND
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.safe_tx import SAFE_TX_FIELDS, safe_tx_hash, signature_owner
from agent.units import NATIVE
from tests.support.wallets import SafeWallet, deploy_safe

DOMAIN_TYPEHASH = bytes.fromhex("47e79534a245952e8b16893a336b85a3d9ea9fa8c573f3d803afb92a79469218")
SAFE_TX_TYPEHASH = bytes.fromhex("bb8310d486368db6bd6f849402fdd73ad53d316b5a4b2644ad6efe0f941286d8")
"""As published in Safe.sol, 1.4.1."""
SAFE_TX_TYPE = [
    {"name": "to", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "data", "type": "bytes"},
    {"name": "operation", "type": "uint8"},
    {"name": "safeTxGas", "type": "uint256"},
    {"name": "baseGas", "type": "uint256"},
    {"name": "gasPrice", "type": "uint256"},
    {"name": "gasToken", "type": "address"},
    {"name": "refundReceiver", "type": "address"},
    {"name": "nonce", "type": "uint256"},
]
ADDRESSES = st.integers(1, 2**160 - 1).map(lambda number: to_checksum_address(f"0x{number:040x}"))
DATA = st.binary(max_size=400)


def transactions(chain_id: int) -> st.SearchStrategy[UnsignedTx]:
    """Calls of a Safe, some of them batches."""

    def tx(is_batch: bool, to: str, value_wei: int, data: bytes, nonce: int) -> UnsignedTx:
        if is_batch:
            to = BATCH_CONTRACT
            value_wei = 0
            data = MULTI_SEND + data
        return UnsignedTx(chain_id, nonce, to, value_wei, "0x" + data.hex(), 0, None, None, 1)

    return st.builds(tx, st.booleans(), ADDRESSES, st.integers(0, 2**256 - 1), DATA, st.integers(0, 2**256 - 1))


def fields_of(tx: UnsignedTx) -> list[Any]:
    is_batch = tx.to == BATCH_CONTRACT
    return [tx.to, tx.value_wei, bytes.fromhex(tx.data[2:]), int(is_batch), 0, 0, 0, NATIVE, NATIVE, tx.nonce]


def hash_by_hand(safe: str, tx: UnsignedTx) -> bytes:
    """encodeTransactionData of Safe.sol."""
    to, value, data, *others = fields_of(tx)
    struct_types = ["bytes32", "address", "uint256", "bytes32", "uint8", *["uint256"] * 3, *["address"] * 2, "uint256"]
    struct = keccak(encode(struct_types, [SAFE_TX_TYPEHASH, to, value, keccak(data), *others]))
    domain = keccak(encode(["bytes32", "uint256", "address"], [DOMAIN_TYPEHASH, tx.chain_id, safe]))
    return bytes(keccak(b"\x19\x01" + domain + struct))


@pytest.fixture
def safe(anvil_chain: LocalChain) -> SafeWallet:
    return deploy_safe(anvil_chain)


def test_the_type_is_the_published_one() -> None:
    fields = ",".join(f"{field['type']} {field['name']}" for field in SAFE_TX_TYPE)
    assert keccak(text=f"SafeTx({fields})") == SAFE_TX_TYPEHASH
    assert [{"name": name, "type": abi_type} for abi_type, name in SAFE_TX_FIELDS] == SAFE_TX_TYPE
    assert keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)") == DOMAIN_TYPEHASH


def for_random(chain: LocalChain, examples: int, check: Callable[[UnsignedTx], None]) -> None:
    settings(max_examples=examples, deadline=None)(given(tx=transactions(chain.chain_id))(check))()


def test_hashes_of_random_transactions_are_those_of_the_contract(safe: SafeWallet) -> None:
    def check(tx: UnsignedTx) -> None:
        expected = hash_by_hand(safe.address, tx)
        assert bytes(safe.contract.functions.getTransactionHash(*fields_of(tx)).call()) == expected
        assert safe_tx_hash(safe.address, tx) == "0x" + expected.hex()

    for_random(safe.chain, 200, check)


def test_signatures_of_random_transactions_are_taken_by_the_contract_and_of_no_other(safe: SafeWallet) -> None:
    chain_id = safe.chain.chain_id
    keys = [load_key(TestAccountKey(index), chain_id, ask=None) for index in (5, 6)]
    accounts = {owner.address: owner for owner in safe.owners}
    domain = {"chainId": chain_id, "verifyingContract": safe.address}
    names = [field["name"] for field in SAFE_TX_TYPE]

    def is_taken(tx_hash: bytes, signature_by_owner: dict[str, bytes]) -> bool:
        signatures = b"".join(signature_by_owner[owner] for owner in sorted(signature_by_owner, key=lambda owner: int(owner, 16)))
        try:
            safe.contract.functions.checkSignatures(tx_hash, b"", signatures).call()
        except (ContractLogicError, ContractCustomError):
            return False
        return True

    def check(tx: UnsignedTx) -> None:
        tx_hash = hash_by_hand(safe.address, tx)
        message = dict(zip(names, fields_of(tx), strict=True))
        signature_by_owner = {key.address: key.sign_safe_tx(safe.address, tx) for key in keys}
        for owner, signature in signature_by_owner.items():
            by_type = Account.sign_typed_data(accounts[owner].private_key, domain, {"SafeTx": SAFE_TX_TYPE}, message)
            assert bytes(by_type.signature) == signature
            assert signature_owner(safe.address, tx, signature) == owner
        assert is_taken(tx_hash, signature_by_owner)
        other_tx = replace(tx, nonce=tx.nonce ^ 1)
        assert not is_taken(hash_by_hand(safe.address, other_tx), signature_by_owner)
        assert signature_owner(safe.address, other_tx, signature_by_owner[keys[0].address]) not in accounts
        first = accounts[keys[0].address]
        *r_and_s, v = Account.sign_message(encode_defunct(tx_hash), first.private_key).signature
        by_message = bytes((*r_and_s, v + 4))
        assert signature_owner(safe.address, tx, by_message) == first.address
        assert is_taken(tx_hash, signature_by_owner | {first.address: by_message})

    for_random(safe.chain, 200, check)
