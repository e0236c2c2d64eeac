"""A key service as clouds have them signs for the agent: across a loop in another thread, in DER, never the same twice (R6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, OperatorNeeded, PassingFault, Refused, Retryable
from agent.signing import remote_key
from agent.signing.remote_key import CURVE_ORDER, InvalidSignature, RemoteKey, address_from_public_key, recover_vrs
from agent.signing.rules import LocalSigner
from tests.support.records.key_services import SECRET, KeyService
from tests.support.signables import flipped_bits
from tests.support.signing import ALLOWED, CANCEL, CANCEL_GRANT, NONCES, RULES, SWAP, SWAP_GRANT, WALLET
from tests.support.text import raises_code


@pytest.fixture(scope="module")
def service() -> Iterator[KeyService]:
    key_service = KeyService()
    yield key_service
    key_service.close()


@pytest.fixture
def signer(service: KeyService) -> LocalSigner:
    service.spoil = lambda der: der
    address = address_from_public_key(service.public_key())
    return LocalSigner(RemoteKey(address, service.sign), replace(RULES, wallet=address), lambda: NONCES)


def test_address_is_that_of_the_services_public_key(service: KeyService) -> None:
    assert address_from_public_key(service.public_key()) == Account.from_key(SECRET).address


@pytest.mark.parametrize(
    "changes", [{}, {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 10**9}], ids=["1559", "legacy"]
)
def test_service_signs_the_transaction_and_never_twice_alike(signer: LocalSigner, changes: dict[str, int | None]) -> None:
    cancel = replace(CANCEL, to=signer.address, **changes)

    transactions = [signer.sign(cancel, CANCEL_GRANT) for _ in range(12)]

    assert {Account.recover_transaction(transaction.signed_bytes) for transaction in transactions} == {signer.address}
    assert len({transaction.hash for transaction in transactions}) == len(transactions)


def test_gate_stands_before_a_service_too(signer: LocalSigner, service: KeyService) -> None:
    """Nothing outside the policy even reaches it."""
    request_count = len(service.asked)
    for mutated in list(flipped_bits(SWAP))[::97]:
        with pytest.raises(Refused, match="the signer refuses by rule"):
            signer.sign(mutated, SWAP_GRANT)
    for transaction, grant in ALLOWED.values():
        with pytest.raises(Refused, match=r"by rule '(contract|value)'"):
            signer.sign(replace(transaction, to=WALLET, value_wei=1), grant)
    assert len(service.asked) == request_count


def high_s(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return encode_dss_signature(r, max(s, CURVE_ORDER - s))


def test_signature_with_a_high_s_is_lowered(signer: LocalSigner, service: KeyService) -> None:
    service.spoil = high_s
    signed = signer.sign(replace(CANCEL, to=signer.address), CANCEL_GRANT)
    assert Account.recover_transaction(signed.signed_bytes) == signer.address
    _, _, s = TypedTransaction.from_bytes(HexBytes(signed.signed_bytes)).vrs()
    assert s <= CURVE_ORDER // 2


def signature_of_another_key(der: bytes) -> bytes:
    return ec.derive_private_key(SECRET + 1, ec.SECP256K1()).sign(bytes(32), ec.ECDSA(Prehashed(hashes.SHA256())))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(signature_of_another_key, id="another key"),
        pytest.param(lambda der: b"", id="nothing"),
        pytest.param(lambda der: der[:-1], id="cut"),
        pytest.param(lambda der: der + b"\0", id="longer"),
        pytest.param(lambda der: bytes([0x31]) + der[1:], id="no sequence"),
        pytest.param(lambda der: encode_dss_signature(0, 1), id="r of zero"),
        pytest.param(lambda der: encode_dss_signature(1, 0), id="s of zero"),
        pytest.param(lambda der: encode_dss_signature(1, CURVE_ORDER), id="s at the order"),
        pytest.param(lambda der: encode_dss_signature(CURVE_ORDER, 5), id="r at the order"),
        pytest.param(lambda der: encode_dss_signature(CURVE_ORDER + 1, 5), id="r above the order"),
        pytest.param(lambda der: b"\x30\x06\x02\x01\xff\x02\x01\x01", id="negative"),
        pytest.param(lambda der: b"\x30\x08\x02\x02\x00\x01\x02\x02\x00\x01", id="padded"),
        pytest.param(lambda der: b"\x30\x80" + der[2:], id="indefinite length"),
    ],
)
def test_answer_that_is_not_the_wallets_signature_is_never_sent(
    signer: LocalSigner, service: KeyService, spoil: Callable[[bytes], bytes]
) -> None:
    service.spoil = spoil

    with raises_code(OperatorNeeded, "signature"):
        signer.sign(replace(CANCEL, to=signer.address), CANCEL_GRANT)


@given(der=st.binary(max_size=80), digest=st.binary(min_size=32, max_size=32))
def test_no_random_bytes_are_a_signature(der: bytes, digest: bytes) -> None:
    with pytest.raises(InvalidSignature):
        recover_vrs(der, digest, WALLET)


EDGES = [0, 1, 127, 128, 255, 256, 2**247 - 1, 2**247, 2**255 - 1, 2**255, CURVE_ORDER - 1, CURVE_ORDER, 2**256 - 1]


@given(r=st.sampled_from(EDGES) | st.integers(0, 2**256 - 1), s=st.sampled_from(EDGES) | st.integers(0, 2**256 - 1), data=st.data())
def test_encoding_of_two_integers_is_read_and_no_other_bytes_are(r: int, s: int, data: st.DataObject) -> None:
    """The encoder is the library's; an integer of 256 bits takes 33 bytes."""
    der = encode_dss_signature(r, s)
    assert remote_key._parse_der(der) == (r, s)
    position = data.draw(st.integers(0, len(der) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped_bytes = bytearray(der)
    flipped_bytes[position] ^= 1 << bit
    for other_bytes in (bytes(flipped_bytes), der[:position], der + b"\0", der[:-1], b"\x30\x00"):
        try:
            decoded = remote_key._parse_der(other_bytes)
        except InvalidSignature:
            continue
        assert decoded != (r, s)
        assert encode_dss_signature(*decoded) == other_bytes


ONE = b"\x02\x01\x01"


@pytest.mark.parametrize(
    "integers",
    [
        pytest.param(b"\x02\x22\x01" + bytes(33) + ONE, id="34 bytes"),
        pytest.param(b"\x02\x02\x00\x7f" + ONE, id="a needless zero"),
        pytest.param(ONE * 3, id="three integers"),
        pytest.param(ONE, id="one integer"),
        pytest.param(b"", id="no integer"),
    ],
)
def test_der_of_other_integers_is_refused(integers: bytes) -> None:
    with pytest.raises(InvalidSignature):
        remote_key._parse_der(bytes([0x30, len(integers)]) + integers)


def test_error_of_trimtab_in_a_service_is_kept() -> None:
    def refuse(digest: bytes) -> bytes:
        raise OperatorNeeded("the key is locked", "unlock it")

    signer = LocalSigner(RemoteKey(WALLET, refuse), RULES, lambda: NONCES)
    with pytest.raises(OperatorNeeded, match="the key is locked"):
        signer.sign(CANCEL, CANCEL_GRANT)
    assert repr(RemoteKey(WALLET, refuse)) == f"RemoteKey({WALLET})"
    assert repr(signer) == f"LocalSigner({WALLET})"


def test_service_out_of_reach_is_retried_without_its_words() -> None:
    def be_out_of_reach(digest: bytes) -> bytes:
        raise ConnectionError("https://user:secret@kms.example/")

    signer = LocalSigner(RemoteKey(WALLET, be_out_of_reach), RULES, lambda: NONCES)
    with raises_code(Retryable, "key_service", "did not sign: it cannot be reached") as raised:
        signer.sign(CANCEL, CANCEL_GRANT)
    assert "secret" not in str(raised.value)
    assert "was sent" in raised.value.remedy


def test_service_with_another_key_is_no_signer_of_this_wallet(service: KeyService) -> None:
    with pytest.raises(ConfigError, match="the key"):
        LocalSigner(RemoteKey(address_from_public_key(service.public_key()), service.sign), RULES, lambda: NONCES)


def other_curve_key() -> bytes:
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("public_key", [other_curve_key(), b""], ids=["another curve", "nothing"])
def test_public_key_of_another_form_is_refused(public_key: bytes) -> None:
    with pytest.raises(InvalidSignature):
        address_from_public_key(public_key)


def test_public_key_a_byte_short_is_refused(service: KeyService) -> None:
    with pytest.raises(InvalidSignature):
        address_from_public_key(service.public_key()[:-1])


@pytest.mark.parametrize(
    "address", [WALLET.lower(), WALLET[:2] + WALLET[2:].upper(), WALLET[:-1], ""], ids=["lower", "upper", "short", "none"]
)
def test_address_without_its_checksum__is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="checksum"):
        RemoteKey(address, lambda _: b"")


@pytest.mark.parametrize("answer", [None, "3044", 48, memoryview(b"0D")], ids=["none", "text", "number", "view"])
def test_answer_that_is_not_bytes__is_no_signature(answer: object) -> None:
    with pytest.raises(PassingFault, match="not bytes"):
        RemoteKey(WALLET, cast(Any, lambda _: answer)).sign_transaction(SWAP)
