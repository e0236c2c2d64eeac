"""Secrets: texts and private keys that hide their value, and protection of the process (T18)."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from agent.errors import ConfigError, OperatorNeeded
from agent.foreign_text import failure_words
from agent.model import SignedTx, UnsignedTx
from agent.signing.agent_approval import AgentApproval, approval_typed_data
from agent.signing.rules import transaction_fields
from agent.signing.safe_tx import typed_data

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


_PR_SET_DUMPABLE = 4
_UNSIGNED_REMEDY = "nothing was sent; this is a bug, report it"
_MNEMONIC_WORDS = (12, 15, 18, 21, 24)
"""Valid word counts of a BIP-39 phrase."""
BIP44_PATH = "m/44'/60'/0'/0/"
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

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey: the same bytes each time (RFC 6979, by eth-account). Raises
        OperatorNeeded if it cannot be signed.
        """
        signed_or_problem = self._sign_or_problem(transaction_fields(tx))
        if isinstance(signed_or_problem, str):
            raise OperatorNeeded(
                f"the transaction cannot be signed: {signed_or_problem}", _UNSIGNED_REMEDY
            )
        return signed_or_problem

    def sign_agent_approval(self, approval: AgentApproval) -> tuple[int, int, int]:
        """Sign as ApprovalKey. Raises OperatorNeeded if it cannot be signed."""
        signature = self._sign_typed_data("the approval", approval_typed_data(approval))
        return int(signature.v), int(signature.r), int(signature.s)

    def sign_safe_tx(self, safe: str, tx: UnsignedTx) -> bytes:
        """Return the signature, 65 bytes, of a Safe's call by this key as its owner. The caller has
        judged the call. Raises OperatorNeeded if it cannot be signed.
        """
        return bytes(self._sign_typed_data("the call of the Safe", typed_data(safe, tx)).signature)

    def reveal(self) -> bytes:
        """Return the 32 bytes of the key, for encryption; the caller must not store or show
        them.
        """
        return bytes(self.__account.key)

    def _sign_or_problem(self, tx_fields: Mapping[str, Any]) -> SignedTx | str:
        """Return the signed transaction, or why it cannot be signed. The error itself is not raised,
        because the frames of its traceback would hold the key.
        """
        try:
            signed_bytes, tx_hash, *_ = self.__account.sign_transaction(dict(tx_fields))  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
        except Exception as error:  # an error's traceback would hold the key
            return failure_words(error)
        return SignedTx(bytes(signed_bytes), "0x" + bytes(tx_hash).hex())

    def _sign_typed_data(self, subject: str, message_json: dict[str, Any]) -> Any:
        signature_or_problem = self._sign_message_or_problem(message_json)
        if isinstance(signature_or_problem, str):
            raise OperatorNeeded(
                f"{subject} cannot be signed: {signature_or_problem}", _UNSIGNED_REMEDY
            )
        return signature_or_problem

    def _sign_message_or_problem(self, message_json: dict[str, Any]) -> Any:
        """Return the signature, or why there is none, for the same reason."""
        try:
            from eth_account.messages import encode_typed_data

            return self.__account.sign_message(encode_typed_data(full_message=message_json))
        except Exception as error:  # an error's traceback would hold the key
            return failure_words(error)

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


class AgentPrivateKey:
    """The agent key of a futures venue. It signs any encoded message; the wallet's key signs
    transactions, and of messages only approvals of agents and calls of a Safe.
    """

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
            signature_or_problem: object = self.__account.sign_message(signable_message)
        except Exception as error:  # an error's traceback would hold the key
            signature_or_problem = failure_words(error)
        if isinstance(signature_or_problem, str):
            raise OperatorNeeded(
                f"the message cannot be signed: {signature_or_problem}", _UNSIGNED_REMEDY
            )
        return signature_or_problem

    def __repr__(self) -> str:
        return f"AgentPrivateKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


def parse_private_key(
    key_text: Secret, config_field: str, index: int = 0
) -> PrivateKey | ConfigError:
    """Parse a key of 64 hex digits with or without 0x, or account `index` of an English BIP-39
    phrase.

    Errors are returned, not raised, because the frames of a traceback would hold the key.
    """
    from eth_account import Account
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic

    words = key_text.reveal().split()
    if len(words) in _MNEMONIC_WORDS:
        try:
            seed = seed_from_mnemonic(" ".join(words), "")
            return PrivateKey(Account.from_key(key_from_seed(seed, f"{BIP44_PATH}{index}")))
        except Exception:  # the library's message repeats the phrase
            return ConfigError(
                f"{config_field} is not a recovery phrase",
                "check each word and the order; the last word is a checksum",
            )
    try:
        key_bytes = bytes.fromhex(key_text.reveal().strip().removeprefix("0x"))
        if len(key_bytes) == 32:
            return PrivateKey(Account.from_key(key_bytes))
    except Exception:  # noqa: S110 reported below, without the value and without the frames that hold it
        pass
    return ConfigError(f"{config_field} is not a private key", "a private key has 64 hex digits")


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
