"""The development accounts that every local node knows, derived from the well-known test mnemonic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

TEST_MNEMONIC = "test test test test test test test test test test test junk"
"""Public: whoever sends real money to these accounts has lost it."""
HD_PATH = "m/44'/60'/0'/0"
COUNT = 10
WALLET, WHALE = 0, 1
"""Account 0 is the wallet that the agent trims, account 1 deploys, provides liquidity and moves the market."""


@dataclass(frozen=True, slots=True)
class TestAccount:
    """Checksummed address and 0x-hex key of a development account."""

    __test__ = False  # pytest takes every Test* for a test class

    address: str
    key: str


@lru_cache(maxsize=1)
def test_accounts() -> tuple[TestAccount, ...]:
    """The ten accounts, in order (BIP-44 path m/44'/60'/0'/0/i)."""
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic
    from eth_keys.main import KeyAPI

    seed = seed_from_mnemonic(TEST_MNEMONIC, "")
    keys = [KeyAPI().PrivateKey(key_from_seed(seed, f"{HD_PATH}/{i}")) for i in range(COUNT)]
    return tuple(TestAccount(key.public_key.to_checksum_address(), key.to_hex()) for key in keys)
