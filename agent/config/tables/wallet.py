"""[wallet]: its address and key source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.tables.fields import (
    Address,
    ConfigTable,
    KeyringName,
    Variable,
)


class WalletTable(ConfigTable):
    """Wallet of the portfolio. A key source is needed only for sending.

    `keystore` is the file of an encrypted key, `key_env` the environment variable that holds the
    key, `keyring` service/name in the keyring of the operating system; with `prompt` the key is
    typed at a prompt. `test_account` is the index of a published test key, for local chains. In
    mode "propose" nothing is signed here: transactions are written into the folder `proposals` for
    an external signer. `safe` marks the address as a Safe, whose owners sign.
    """

    address: Address
    keystore: str | None = None
    key_env: Variable | None = None
    keyring: KeyringName | None = None
    prompt: bool = False
    test_account: int | None = Field(default=None, ge=0, le=9)
    mode: Literal["sign", "propose"] = "sign"
    safe: bool = False
    proposals: str = Field(default="proposals", min_length=1)
    payout_addresses: list[Address] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_key(self) -> WalletTable:
        sources = [n for n in ("keystore", "key_env", "keyring", "prompt") if getattr(self, n)]
        if self.test_account is not None:
            sources.append("test_account")
        if len(sources) > 1:
            raise ValueError(f"more than one key source ({', '.join(sources)}); keep one")
        if self.mode == "propose" and sources:
            raise ValueError(
                f'mode "propose" signs nothing here and takes no {sources[0]}; remove it, or write'
                ' mode = "sign"'
            )
        if self.safe and self.mode != "propose":
            raise ValueError('safe: a Safe has no key to sign with here; write mode = "propose"')
        return self
