"""A signer without a key: what the real table of rules lets pass gets a name, and no chain would take it for signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from agent import codec
from agent.chain.rules import Nonces, SigningRules, check
from agent.model import SignedTx, UnsignedTx
from agent.ports import Grant


class KeylessSigner:
    """ports.Signer: the bytes are the transaction's fields as JSON, the hash theirs; the same for the same transaction."""

    def __init__(self, rules: SigningRules, nonces: Callable[[], Nonces]) -> None:
        self._rules, self._nonces = rules, nonces

    @property
    def address(self) -> str:
        """The wallet of the rules."""
        return self._rules.wallet

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """See ports.Signer."""
        check(tx, grant, self._rules, self._nonces())
        raw = codec.dumps(tx).encode()
        return SignedTx(raw, "0x" + hashlib.sha256(raw).hexdigest())


def unsigned(signed: SignedTx) -> UnsignedTx:
    """The fields of what such a signer made. Raises ConfigError for anything else."""
    return codec.loads(UnsignedTx, signed.raw.decode(errors="replace"))
