"""A signer without a key, for looks that send nothing."""

from __future__ import annotations

from typing import NoReturn

from agent.errors import Refused
from agent.model import UnsignedTx
from agent.ports import Grant


class Onlooker:
    """ports.Signer of a wallet that is only watched."""

    def __init__(self, address: str) -> None:
        self.address = address

    def sign(self, tx: UnsignedTx, grant: Grant) -> NoReturn:
        """Always raises."""
        raise Refused(f"nothing is signed for {self.address} while only looking", remedy="add --send")
