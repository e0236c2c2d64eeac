"""Where the config says the signing key is."""

from __future__ import annotations

from agent.chain import keys, osring
from agent.config.load import LoadedConfig
from agent.errors import ConfigError


def keyring_backend() -> str:
    """Name of the keyring of this system. Raises ConfigError when there is none."""
    return osring.require_backend()


def key_source(loaded: LoadedConfig) -> keys.KeySource:
    """Where the config says the key is. Raises ConfigError when it says nothing."""
    wallet = loaded.config.wallet
    if loaded.keystore_path is not None:
        return keys.KeystoreFile(loaded.keystore_path, "TRIMTAB_KEYSTORE_PASSWORD")
    if wallet.key_env is not None:
        return keys.KeyEnv(wallet.key_env)
    if wallet.keyring is not None:
        return keys.KeyringEntry(*wallet.keyring.split("/"))
    if wallet.test_account is not None:
        return keys.TestAccount(wallet.test_account)
    if wallet.prompt:
        return keys.KeyPrompt()
    raise ConfigError("wallet: no key source, so nothing can be signed", "set keystore, keyring, key_env or prompt = true")
