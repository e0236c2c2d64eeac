"""Key sources of the config: the wallet's, and the futures venue's agent key."""

from __future__ import annotations

from agent.config.loaded import LoadedConfig
from agent.config.tables.futures import HyperliquidTable
from agent.errors import ConfigError
from agent.signing import keys


def stored_key_text(source: keys.KeySource, keyring_remedy: str) -> str:
    """Return where the key is stored. Raises ConfigError for a variable that is not set, and for a
    keyring entry that does not exist or cannot be read.
    """
    match source:
        case keys.KeyEnv(name, variables):
            if not variables.get(name):
                raise ConfigError(f"variable {name} is not set", f"export {name} before --send")
            return f"variable {name}"
        case keys.KeyringEntry(service, name):
            if not keys.is_in_keyring((service, name)):
                raise ConfigError(f"{service}/{name} is not in the keyring", keyring_remedy)
            return f"keyring entry {service}/{name}, in {keys.require_keyring()}"
    return "a key source is configured"


def key_source(loaded_config: LoadedConfig) -> keys.KeySource:
    """Return the key source of the config. Raises ConfigError if none is configured."""
    wallet = loaded_config.config.wallet
    if loaded_config.keystore_path is not None:
        return keys.KeystoreFile(
            loaded_config.keystore_path, "TRIMTAB_KEYSTORE_PASSWORD", loaded_config.variables
        )
    if wallet.key_env is not None:
        return keys.KeyEnv(wallet.key_env, loaded_config.variables)
    if wallet.keyring is not None:
        return keys.KeyringEntry(*wallet.keyring.split("/"))
    if wallet.test_account is not None:
        return keys.TestAccountKey(wallet.test_account)
    if wallet.prompt:
        return keys.KeyPrompt()
    raise ConfigError(
        "wallet: no key source, so nothing can be signed",
        "set keystore, keyring, key_env, signer_url_env or prompt = true",
    )


def agent_key_source(loaded_config: LoadedConfig) -> keys.KeySource:
    """Return the source of the futures venue's agent key. Raises ConfigError if none is
    configured.
    """
    futures_table = loaded_config.config.futures
    if isinstance(futures_table, HyperliquidTable):
        if futures_table.agent_keystore is not None:
            return keys.KeystoreFile(
                loaded_config.path.parent / futures_table.agent_keystore,
                "TRIMTAB_AGENT_PASSWORD",
                loaded_config.variables,
            )
        if futures_table.agent_key_env is not None:
            return keys.KeyEnv(futures_table.agent_key_env, loaded_config.variables)
        if futures_table.agent_keyring is not None:
            return keys.KeyringEntry(*futures_table.agent_keyring.split("/"))
    raise ConfigError(
        "futures: no agent key, so no order can be signed",
        "set agent_keystore, agent_keyring or agent_key_env",
    )
