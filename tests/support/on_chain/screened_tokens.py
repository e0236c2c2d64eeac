"""Listed tokens that became another contract."""

from __future__ import annotations

from collections.abc import Callable

from agent.localchain import LocalChain
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import replace_token


def listed_token(chain: LocalChain, contract: str) -> tuple[str, Callable[..., None]]:
    """A listed token that became `contract`, and a way to call its functions."""
    address = replace_token(chain, "GUEST", attack(contract), "GUEST", "GUEST", 18)
    token = chain.contract(address, attack(contract))

    def tell(function: str, *arguments: object) -> None:
        chain.send(getattr(token.functions, function)(*arguments))

    return address, tell
