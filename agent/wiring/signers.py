"""The source of the wallet's key: one of the machine, or the remote signer of the config."""

from __future__ import annotations

from typing import Any

from agent.chain.rpc import RpcFault
from agent.config.loaded import LoadedConfig
from agent.config.secrets.key_sources import key_source
from agent.errors import ConfigError, Retryable
from agent.signing import keys
from agent.signing.remote_signer import RemoteSigner


def wallet_key_source(loaded_config: LoadedConfig) -> keys.KeySource:
    """Return the key source of the config. Raises ConfigError if none is configured."""
    if loaded_config.config.wallet.signer_url_env is None:
        return key_source(loaded_config)
    return keys.SuppliedKey(remote_signer(loaded_config))


def remote_signer(loaded_config: LoadedConfig) -> RemoteSigner:
    """Return the remote signer of the config, which is not asked yet. Raises ConfigError if its
    variable is not set, or is not an address of the web.
    """
    from agent.chain.providers.endpoint import EndpointProvider  # web3 is loaded to connect only

    wallet = loaded_config.config.wallet
    url = loaded_config.variables.get(str(wallet.signer_url_env), "")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"wallet.signer_url_env: the environment variable {wallet.signer_url_env} is not set to an"
            " http or https address",
            f"export {wallet.signer_url_env} with the address of the remote signer",
        )
    provider = EndpointProvider(url, "signer")

    def call(method: str, parameters: list[Any]) -> object:
        answer = provider.batch([(method, parameters)])[0]
        if isinstance(answer, RpcFault):
            raise Retryable(answer.message)
        return answer

    return RemoteSigner(wallet.address, call)


def require_signer_has_key(loaded_config: LoadedConfig) -> None:
    """Raise ConfigError unless the remote signer signs for the wallet, Retryable if it does not
    answer.
    """
    address = loaded_config.config.wallet.address
    if address.lower() not in remote_signer(loaded_config).accounts():
        raise ConfigError(
            f"wallet.signer_url_env: the remote signer has no key of {address}",
            "add the key at the signer, or correct wallet.address",
        )


def require_key_outside_environment(loaded_config: LoadedConfig) -> None:
    """Raise ConfigError if the wallet's key, or the password of its keystore, has to be in the
    environment of this process or typed: one worker's environment would hold the keys of all.
    """
    wallet = loaded_config.config.wallet
    for key in ("keystore", "key_env", "prompt"):
        if getattr(wallet, key):
            raise ConfigError(
                f"wallet.{key}: a worker has no keys of wallets in its environment",
                'set wallet.signer_url_env, wallet.keyring or mode = "propose", or use trimtab run'
                " on one machine",
            )
