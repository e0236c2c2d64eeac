"""Remote key: a service, such as a cloud key service, that signs 32-byte hashes and returns DER.

An adapter needs two calls of the service: the public key once (`address_from_public_key`), and a
signature of a digest for each transaction (`RemoteKey`). For AWS KMS these are GetPublicKey, and
Sign with MessageType DIGEST and ECDSA_SHA_256 on a key of ECC_SECG_P256K1; other services return
the same bytes. docs/keys.md has the details.
"""

from __future__ import annotations

from collections.abc import Callable

from eth_account import Account
from eth_keys.datatypes import PublicKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import is_checksum_address
from eth_utils.exceptions import ValidationError

from agent.errors import ConfigError, ErrorCode, PassingFault, Retryable, TrimtabError
from agent.foreign_text import failure_words
from agent.model import SignedTx, UnsignedTx
from agent.signing.agent_approval import AgentApproval, approval_digest
from agent.signing.rules import Vrs, sign_with

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1 (SEC 2, section 2.4.1)."""
_SPKI_PREFIX = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a03420004")
"""SubjectPublicKeyInfo (RFC 5480) of an uncompressed point on secp256k1, up to its coordinates."""
_SEQUENCE_TAG = 0x30
_INTEGER_TAG = 0x02


class InvalidSignature(ValueError):
    """The service's answer is not a DER signature of this hash by this key."""


class RemoteKey:
    """Implements ports.SigningKey over a service that signs digests. Signatures need not be
    deterministic; each must recover to `address`.
    """

    def __init__(self, address: str, sign_digest: Callable[[bytes], bytes]) -> None:
        """Set the service. `sign_digest` takes 32 bytes and returns the DER signature; any error
        that it raises counts as an unavailable service. Raises ConfigError for an address without
        its checksum.
        """
        if not is_checksum_address(address):
            raise ConfigError(
                f"RemoteKey: {address} is not an address with its checksum",
                "use the address that address_from_public_key returns",
            )
        self.address = address
        self._sign_digest = sign_digest

    def __repr__(self) -> str:
        return f"RemoteKey({self.address})"

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey. Raises Retryable if the service does not answer, PassingFault
        for anything but a signature by this key.
        """
        signed_tx = sign_with(tx, self._sign_vrs)
        if Account.recover_transaction(signed_tx.signed_bytes) != self.address:
            raise PassingFault(
                "the key service's signature belongs to another wallet",
                "check wallet.address and the key",
                code=ErrorCode.KEY,
            )
        return signed_tx

    def sign_agent_approval(self, approval: AgentApproval) -> tuple[int, int, int]:
        """Sign as ApprovalKey. Raises the same errors as `sign_transaction`."""
        recovery_bit, r, s = self._sign_vrs(approval_digest(approval))
        return 27 + recovery_bit, r, s

    def _sign_vrs(self, digest: bytes) -> Vrs:
        try:
            der = self._sign_digest(digest)
        except TrimtabError:
            raise
        except Exception as error:  # each service raises its own errors
            raise Retryable(
                f"the key service did not sign: {failure_words(error)}",
                "nothing was sent; check the service and its permissions, try again",
                code=ErrorCode.KEY_SERVICE,
            ) from None
        try:
            return recover_vrs(der, digest, self.address)
        except InvalidSignature as error:
            raise PassingFault(
                f"the key service's answer is not a signature of {self.address}: {error}",
                "check that the service uses the key of this address",
                code=ErrorCode.SIGNATURE,
            ) from None


def recover_vrs(der: bytes, digest: bytes, address: str) -> Vrs:
    """Return recovery bit, r and s of a DER signature over `digest`, with s in the lower half of
    the order (EIP-2). DER has no recovery bit: the result is the one that recovers to `address`.
    Raises InvalidSignature.
    """
    r, s = _parse_der(der)
    if not (0 < r < CURVE_ORDER and 0 < s < CURVE_ORDER):
        raise InvalidSignature("its values are not below the curve's order")
    s = min(s, CURVE_ORDER - s)
    for recovery_bit in (0, 1):
        try:
            public_key = Signature(vrs=(recovery_bit, r, s)).recover_public_key_from_msg_hash(
                digest
            )
        except (BadSignature, ValidationError, ValueError):
            continue
        if public_key.to_checksum_address() == address:
            return recovery_bit, r, s
    raise InvalidSignature("it recovers to another key")


def address_from_public_key(public_key_der: bytes) -> str:
    """Return the checksummed address of a public key in SubjectPublicKeyInfo (RFC 5480). Raises
    InvalidSignature.
    """
    if len(public_key_der) != len(_SPKI_PREFIX) + 64 or not public_key_der.startswith(_SPKI_PREFIX):
        raise InvalidSignature("the public key is not an uncompressed one on secp256k1")
    return PublicKey(public_key_der[len(_SPKI_PREFIX) :]).to_checksum_address()


def _parse_der(der: bytes) -> tuple[int, int]:
    """Return both numbers of ECDSA-Sig-Value (RFC 3279, 2.2.3) in its unique DER encoding."""
    if not isinstance(der, bytes):
        raise InvalidSignature("not bytes")
    if len(der) < 2 or der[0] != _SEQUENCE_TAG or der[1] != len(der) - 2 or der[1] >= 0x80:
        raise InvalidSignature("not one DER sequence")
    r, remaining_bytes = _parse_integer(der[2:])
    s, remaining_bytes = _parse_integer(remaining_bytes)
    if remaining_bytes:
        raise InvalidSignature("more than two integers")
    return r, s


def _parse_integer(der: bytes) -> tuple[int, bytes]:
    if len(der) < 3 or der[0] != _INTEGER_TAG or not 0 < der[1] <= 33 or len(der) < 2 + der[1]:
        raise InvalidSignature("not a DER integer of at most 33 bytes")
    integer_bytes = der[2 : 2 + der[1]]
    remaining_bytes = der[2 + der[1] :]
    if integer_bytes[0] & 0x80 or (
        len(integer_bytes) > 1 and integer_bytes[0] == 0 and not integer_bytes[1] & 0x80
    ):
        raise InvalidSignature("a negative or padded integer")
    return int.from_bytes(integer_bytes, "big"), remaining_bytes
