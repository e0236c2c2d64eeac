"""[wallet]: its address and key source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.tables.fields import (
    Address,
    ConfigTable,
    KeyringName,
    Variable,
    is_base_url,
)


class WalletTable(ConfigTable):
    """The wallet of the portfolio (docs/keys.md). A source of the key is needed only for sending."""

    address: Address
    """Address that holds the portfolio."""
    keystore: str | None = None
    """File with the encrypted key."""
    key_env: Variable | None = None
    """Variable with the key."""
    keyring: KeyringName | None = None
    """Entry of the key in the keyring of the operating system."""
    prompt: bool = False
    """The key is typed at a prompt."""
    signer_url_env: Variable | None = None
    """Variable with the URL of a remote signer, which holds the key and signs whole transactions."""
    test_account: int | None = Field(default=None, ge=0, le=9)
    """Number of a published test key, on local chains."""
    mode: Literal["sign", "propose"] = "sign"
    """In mode "propose" nothing is signed here: transactions are written for an external signer."""
    safe: bool = False
    """The address is a Safe, whose owners sign."""
    proposals: str = Field(default="proposals", min_length=1)
    """Folder of the proposals, beside the config."""
    safe_service: str | None = None
    """Address of the Safe's transaction service, which gets the signatures that are made here."""
    safe_service_token_env: Variable | None = None
    """Variable with the API key, a bearer token, if it requires one."""
    payout_addresses: list[Address] = Field(default_factory=list)
    """The only recipients of `trimtab withdraw` and `stop --send-to`, once `trimtab trust` has
    confirmed them.
    """

    @model_validator(mode="after")
    def _require_one_key_source(self) -> WalletTable:
        key_sources = [
            key
            for key in ("keystore", "key_env", "keyring", "prompt", "signer_url_env")
            if getattr(self, key)
        ]
        if self.test_account is not None:
            key_sources.append("test_account")
        if len(key_sources) > 1:
            raise ValueError(f"more than one key source ({', '.join(key_sources)}); keep one")
        if self.mode == "propose" and key_sources:
            raise ValueError(
                f'mode "propose" signs nothing here and takes no {key_sources[0]}; remove it, or write'
                ' mode = "sign"'
            )
        if self.safe and self.mode != "propose":
            raise ValueError('safe: a Safe has no key to sign with here; write mode = "propose"')
        if self.safe_service is None:
            if self.safe_service_token_env is not None:
                raise ValueError(
                    "safe_service_token_env: has no effect without safe_service; set it, or remove this"
                )
        elif not self.safe:
            raise ValueError("safe_service: has no effect without safe = true; remove it")
        elif not is_base_url(self.safe_service):
            raise ValueError("safe_service: not an https address without a trailing slash")
        return self
