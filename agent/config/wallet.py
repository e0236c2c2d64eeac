"""[wallet]: whose portfolio, and where its key is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.fields import Address, KeyringName, Variable
from agent.config.table import Table


class WalletTable(Table):
    """Whose portfolio; a key source is needed only to send. `keyring` is service/name in the keyring of the operating system.

    In mode "propose" nothing is signed here: transactions are written into the folder `proposals` for somebody who signs
    elsewhere. `safe` says that the address is that of a Safe, whose owners sign.
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
        given = [n for n in ("keystore", "key_env", "keyring") if getattr(self, n)] + (["prompt"] if self.prompt else [])
        given += ["test_account"] if self.test_account is not None else []
        if len(given) > 1:
            raise ValueError(f"more than one key source ({', '.join(given)}); keep one")
        if self.mode == "propose" and given:
            raise ValueError(f'mode "propose" signs nothing here, so {given[0]} has no use; remove it, or write mode = "sign"')
        if self.safe and self.mode != "propose":
            raise ValueError('safe: a Safe has no key that could sign here; write mode = "propose"')
        return self
