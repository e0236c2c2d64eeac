"""What stands where a Safe should: answers that no Safe gives are errors of ours, never a guess."""

from __future__ import annotations

import pytest

from agent.chain.safe import SafeContract
from agent.errors import ConfigError, Retryable
from tests.endpoints import Script
from tests.signing import WALLET, tx

WORD = "0x" + (5).to_bytes(32, "big").hex()


@pytest.mark.parametrize("answer", ["0x", "0x05", None, 7, "0xzz"])
def test_a_nonce_that_is_none_is_an_error_of_ours(answer: object) -> None:
    """Found by fuzzing: an account without code answers 0x."""
    with pytest.raises(Retryable):
        SafeContract(Script(eth_call=answer), WALLET).nonce()
    with pytest.raises(Retryable):
        SafeContract(Script(eth_call=answer), WALLET).require_hash(tx(WALLET, "0x"))
    with pytest.raises(ConfigError, match="no Safe of version"):
        SafeContract(Script(eth_call=answer), WALLET).require_known()


def test_a_nonce_is_read() -> None:
    assert SafeContract(Script(eth_call=WORD), WALLET).nonce() == 5
