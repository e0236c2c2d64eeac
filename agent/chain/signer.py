"""Signs what the table of rules allows, with a key in this process or elsewhere, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from agent.chain.rules import Nonces, SigningRules, check, check_typed
from agent.errors import ConfigError
from agent.model import SignedTx, UnsignedTx
from agent.ports import Grant, SigningKey


class LocalSigner:
    """ports.Signer: the one gate before a key. With a key in memory the same transaction gives the same bytes (RFC 6979)."""

    def __init__(self, key: SigningKey, rules: SigningRules, nonces: Callable[[], Nonces]) -> None:
        """`nonces` asks the journal, at each signature. Raises ConfigError when the key is of another wallet."""
        if key.address != rules.wallet:
            raise ConfigError(f"wallet.address {rules.wallet} is not the address of the key, {key.address}", "correct one of the two")
        self._key = key
        self._rules = rules
        self._nonces = nonces

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        return self._key.address

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Signed bytes and their hash. Raises Refused naming the rule that says no."""
        check(tx, grant, self._rules, self._nonces())
        return self._key.sign_transaction(tx)

    def sign_typed(self, typed_data: Mapping[str, object], grant: Grant) -> NoReturn:
        """Always raises Refused: typed data passes the same gate, whose table for it is empty."""
        check_typed(typed_data)
