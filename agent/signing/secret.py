"""Keys that sign. Here: secret texts and private keys that hide their value, and protection of the
process (T18). Elsewhere: a remote service that signs 32-byte hashes and returns DER.

An adapter needs two calls of the service: the public key once (`address_from_public_key`), and a
signature of a digest for each transaction (`RemoteKey`). For AWS KMS these are GetPublicKey, and
Sign with MessageType DIGEST and ECDSA_SHA_256 on a key of ECC_SECG_P256K1; other services return
the same bytes. docs/keys.md has the details.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from eth_keys.datatypes import PublicKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable, TrimtabError
from agent.model import SignedTx, UnsignedTx
from agent.signing.agent_approval import AgentApproval, approval_digest, approval_typed_data
from agent.signing.rules import Vrs, sign_with, transaction_fields

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


_PR_SET_DUMPABLE = 4
_MNEMONIC_WORDS = (12, 15, 18, 21, 24)
"""Numbers of words of a BIP-39 phrase."""
KEY_PATH = "m/44'/60'/0'/0/"
"""BIP-44 path of Ethereum accounts; the account's number follows."""


class Secret:
    """Text that only `reveal` returns; it cannot be pickled or copied."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


class PrivateKey:
    """A private key that signs and shows only its address; it cannot be pickled or copied."""

    __slots__ = ("__account", "address")

    def __init__(self, account: LocalAccount) -> None:
        self.__account = account
        self.address: str = account.address

    def sign(self, fields: Mapping[str, Any]) -> SignedTx:
        """Return the signed bytes and their hash. Raises OperatorNeeded if the fields cannot be
        signed.
        """
        signed = self._try(fields)
        if isinstance(signed, str):
            raise OperatorNeeded(f"the transaction cannot be signed: {signed}")
        return signed

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey: the same bytes each time (RFC 6979, by eth-account)."""
        return self.sign(transaction_fields(tx))

    def sign_agent_approval(self, approval: AgentApproval) -> tuple[int, int, int]:
        """Sign as ApprovalKey. Raises OperatorNeeded if it cannot be signed."""
        signed = self._try_approval(approval)
        if isinstance(signed, str):
            raise OperatorNeeded(f"the approval cannot be signed: {signed}")
        return signed

    def reveal(self) -> bytes:
        """Return the 32 bytes of the key, for encryption; the caller must not store or show
        them.
        """
        return bytes(self.__account.key)

    def _try(self, fields: Mapping[str, Any]) -> SignedTx | str:
        """Return the name of an error instead of raising it, because the frames of its traceback
        would hold the key.
        """
        try:
            raw, digest, *_ = self.__account.sign_transaction(dict(fields))  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
        except Exception as error:  # no error must leave this frame
            return type(error).__name__
        return SignedTx(bytes(raw), "0x" + bytes(digest).hex())

    def _try_approval(self, approval: AgentApproval) -> tuple[int, int, int] | str:
        """Return the name of an error instead of raising it, as `_try` does."""
        try:
            from eth_account.messages import encode_typed_data

            message = encode_typed_data(full_message=approval_typed_data(approval))
            signed = self.__account.sign_message(message)
        except Exception as error:  # no error must leave this frame
            return type(error).__name__
        return int(signed.v), int(signed.r), int(signed.s)

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


class AgentPrivateKey:
    """The agent key of a futures venue, which signs EIP-712 messages; the wallet's key cannot."""

    __slots__ = ("__account", "address")

    def __init__(self, key: PrivateKey) -> None:
        from eth_account import Account

        self.__account: LocalAccount = Account.from_key(key.reveal())
        self.address: str = key.address

    def sign_message(self, signable_message: Any) -> Any:
        """Return the signature of an encoded message. Raises OperatorNeeded if it cannot be
        signed.
        """
        try:
            signed: object = self.__account.sign_message(signable_message)
        except Exception as error:  # no error must leave this frame
            signed = type(error).__name__
        if isinstance(signed, str):
            raise OperatorNeeded(f"the message cannot be signed: {signed}")
        return signed

    def __repr__(self) -> str:
        return f"AgentPrivateKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


def parse_private_key(text: Secret, field: str, index: int = 0) -> PrivateKey | ConfigError:
    """Parse a key of 64 hex digits with or without 0x, or account `index` of an English BIP-39
    phrase.

    An error is returned, not raised: the frames of its traceback would hold the key.
    """
    from eth_account import Account
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic

    words = text.reveal().split()
    if len(words) in _MNEMONIC_WORDS:
        try:
            seed = seed_from_mnemonic(" ".join(words), "")
            return PrivateKey(Account.from_key(key_from_seed(seed, f"{KEY_PATH}{index}")))
        except Exception:  # the library's message repeats the phrase
            return ConfigError(
                f"{field} is not a recovery phrase",
                "check each word and the order; the last word is a checksum",
            )
    try:
        raw = bytes.fromhex(text.reveal().strip().removeprefix("0x"))
        if len(raw) == 32:
            return PrivateKey(Account.from_key(raw))
    except Exception:  # noqa: S110 reported below, without the value and without the frames that hold it
        pass
    return ConfigError(f"{field} is not a private key", "it has 64 hex digits")


def disable_core_dumps() -> None:
    """Forbid core files of this process and its children, and reads of its memory by users other
    than root. Both would reveal the key.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # Linux; also effective where core files are piped to a program.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):  # systems without prctl have only the limit above
        return


CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1 (SEC 2, section 2.4.1)."""
_SPKI = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a03420004")
"""SubjectPublicKeyInfo (RFC 5480) of an uncompressed point on secp256k1, up to its coordinates."""
_SEQUENCE, _INTEGER = 0x30, 0x02


class InvalidSignature(ValueError):
    """The service's answer is not a DER signature of this hash by this key."""


class RemoteKey:
    """Implements ports.SigningKey over a service that signs digests. Signatures need not be
    deterministic; each must recover to `address`.
    """

    def __init__(self, address: str, sign_digest: Callable[[bytes], bytes]) -> None:
        """Set the service. `sign_digest` takes 32 bytes and returns the DER signature; any error
        that it raises counts as an unavailable service.
        """
        self.address = address
        self._sign_digest = sign_digest

    def __repr__(self) -> str:
        return f"RemoteKey({self.address})"

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey. Raises Retryable if the service does not answer, OperatorNeeded
        for a signature by another key.
        """
        from eth_account import Account

        signed = sign_with(tx, self._vrs)
        if Account.recover_transaction(signed.raw) != self.address:
            raise OperatorNeeded(
                "the key service's signature belongs to another wallet",
                "check wallet.address and the key",
                code=ErrorCode.KEY,
            )
        return signed

    def sign_agent_approval(self, approval: AgentApproval) -> Vrs:
        """Sign as ApprovalKey. Raises the same errors as `sign_transaction`."""
        bit, r, s = self._vrs(approval_digest(approval))
        return 27 + bit, r, s

    def _vrs(self, digest: bytes) -> Vrs:
        try:
            der = self._sign_digest(digest)
        except TrimtabError:
            raise
        except Exception as error:  # each service raises its own errors
            raise Retryable(
                f"the key service did not sign ({type(error).__name__})",
                "nothing was sent; check the service and its permissions, try again",
                code=ErrorCode.KEY_SERVICE,
            ) from None
        try:
            return recover_vrs(der, digest, self.address)
        except InvalidSignature as error:
            raise OperatorNeeded(
                f"the key service's answer is not a signature of {self.address}: {error}",
                "check that the service uses the key of this address",
                code=ErrorCode.SIGNATURE,
            ) from None


def recover_vrs(der: bytes, digest: bytes, address: str) -> Vrs:
    """Return recovery bit, r and s of a DER signature over `digest`, with s in the lower half of
    the order (EIP-2). DER has no recovery bit: the result is the one that recovers to `address`.
    Raises InvalidSignature.
    """
    r, s = _integers(der)
    if not (0 < r < CURVE_ORDER and 0 < s < CURVE_ORDER):
        raise InvalidSignature("its values are not below the curve's order")
    s = min(s, CURVE_ORDER - s)
    for bit in (0, 1):
        try:
            found = Signature(vrs=(bit, r, s)).recover_public_key_from_msg_hash(digest)
        except (BadSignature, ValidationError, ValueError):
            continue
        if found.to_checksum_address() == address:
            return bit, r, s
    raise InvalidSignature("it recovers to another key")


def address_from_public_key(public_key_der: bytes) -> str:
    """Return the checksummed address of a public key in SubjectPublicKeyInfo (RFC 5480). Raises
    InvalidSignature.
    """
    if len(public_key_der) != len(_SPKI) + 64 or not public_key_der.startswith(_SPKI):
        raise InvalidSignature("the public key is not an uncompressed one on secp256k1")
    return PublicKey(public_key_der[len(_SPKI) :]).to_checksum_address()


def _integers(der: bytes) -> tuple[int, int]:
    """Return both numbers of ECDSA-Sig-Value (RFC 3279, 2.2.3) in its unique DER encoding."""
    if len(der) < 2 or der[0] != _SEQUENCE or der[1] != len(der) - 2 or der[1] >= 0x80:
        raise InvalidSignature("not one DER sequence")
    r, rest = _integer(der[2:])
    s, rest = _integer(rest)
    if rest:
        raise InvalidSignature("more than two integers")
    return r, s


def _integer(data: bytes) -> tuple[int, bytes]:
    if len(data) < 3 or data[0] != _INTEGER or not 0 < data[1] <= 33 or len(data) < 2 + data[1]:
        raise InvalidSignature("not a DER integer of at most 33 bytes")
    body, rest = data[2 : 2 + data[1]], data[2 + data[1] :]
    if body[0] & 0x80 or (len(body) > 1 and body[0] == 0 and not body[1] & 0x80):
        raise InvalidSignature("a negative or padded integer")
    return int.from_bytes(body, "big"), rest
