"""Secrets that must not be read later: texts and private keys that hide their value, and the
process that holds them (T18).
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from agent.errors import ConfigError, OperatorNeeded
from agent.model import SignedTx, UnsignedTx
from agent.signing.rules import transaction_fields

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


_PR_SET_DUMPABLE = 4
_MNEMONIC_WORDS = (12, 15, 18, 21, 24)
"""Lengths of a BIP-39 phrase."""
KEY_PATH = "m/44'/60'/0'/0/"
"""BIP-44 path of Ethereum accounts; the account's number follows."""


class Secret:
    """Text that is revealed only by name; it cannot be pickled or copied."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


class PrivateKey:
    """A private key that can sign, and shows nothing but its address; it cannot be pickled or
    copied.
    """

    __slots__ = ("__account", "address")

    def __init__(self, account: LocalAccount) -> None:
        self.__account = account
        self.address: str = account.address

    def sign(self, fields: Mapping[str, Any]) -> SignedTx:
        """Signed bytes of the transaction and their hash. Raises OperatorNeeded if the fields
        cannot be signed.
        """
        signed = self._try(fields)
        if isinstance(signed, str):
            raise OperatorNeeded(f"the transaction cannot be signed: {signed}")
        return signed

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey: the same bytes each time (RFC 6979, by eth-account)."""
        return self.sign(transaction_fields(tx))

    def reveal(self) -> bytes:
        """Return the 32 bytes of the key itself, for encryption; the caller must not store or show
        them.
        """
        return bytes(self.__account.key)

    def _try(self, fields: Mapping[str, Any]) -> SignedTx | str:
        """Return errors instead of raising: a traceback would hold the library's frames, and those
        hold the key.
        """
        try:
            raw, digest, *_ = self.__account.sign_transaction(dict(fields))  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
        except Exception as error:  # any error; none must leave this frame
            return type(error).__name__
        return SignedTx(bytes(raw), "0x" + bytes(digest).hex())

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled or copied")


def parse_private_key(text: Secret, field: str, index: int = 0) -> PrivateKey | ConfigError:
    """The key of 64 hex digits with or without 0x, or account `index` of a BIP-39 phrase in
    English.

    An error is returned, not raised, so that the frames that saw the key are gone when it is shown.
    """
    from eth_account import Account
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic

    words = text.reveal().split()
    if len(words) in _MNEMONIC_WORDS:
        try:
            return PrivateKey(
                Account.from_key(
                    key_from_seed(seed_from_mnemonic(" ".join(words), ""), f"{KEY_PATH}{index}")
                )
            )
        except Exception:  # the library's message repeats the phrase
            return ConfigError(
                f"{field} is not a recovery phrase",
                "check each word and their order; its last word is a checksum",
            )
    try:
        raw = bytes.fromhex(text.reveal().strip().removeprefix("0x"))
        if len(raw) == 32:
            return PrivateKey(Account.from_key(raw))
    except Exception:  # noqa: S110 reported below, without the value and without the frames that hold it
        pass
    return ConfigError(f"{field} is not a private key", "it has 64 hex digits")


def disable_core_dumps() -> None:
    """Forbid core files of this process and its children, and reads of its memory by all but the
    superuser.

    Both would reveal the key.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        ctypes.CDLL(None).prctl(
            _PR_SET_DUMPABLE, 0, 0, 0, 0
        )  # Linux; also where core files are piped to a program
    except (OSError, AttributeError):  # a system without prctl: the limit above is all there is
        return
