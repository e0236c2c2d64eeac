"""Tokens of a local chain that refuse or forget."""

from __future__ import annotations

from collections.abc import Callable

from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import replace_token


def refusing_token(chain: LocalChain, symbol: str) -> Callable[..., None]:
    """Turn a token of the world into a RefusingToken, and return a function that sends it a call."""
    token = chain.tokens[symbol]
    artifact = attack("RefusingToken")
    assert isinstance(chain.node, AnvilNode)
    twin = chain.deploy(artifact, symbol, symbol, token.decimals)
    chain.node.rpc("anvil_setCode", token.address, chain.node.rpc("eth_getCode", twin, "latest"))
    contract = chain.contract(token.address, artifact)

    def call(function: str, *arguments: object) -> None:
        chain.send(getattr(contract.functions, function)(*arguments))

    return call


FORGETTING = {"ignores": 1, "halves": 2, "hides": 3, "delays": 4}
"""How a ForgetfulToken treats the wallet's approvals, which all answer true."""


def forgetful_token(chain: LocalChain, how: str) -> Callable[[str], None]:
    """Turn GUEST into a ForgetfulToken of this kind for the wallet, and return a function that changes the kind."""
    address = replace_token(chain, "GUEST", attack("ForgetfulToken"), "GUEST", "GUEST", 18)
    token = chain.contract(address, attack("ForgetfulToken"))

    def forget(kind: str) -> None:
        chain.send(token.functions.forget(chain.wallet.address, FORGETTING.get(kind, 0)))

    forget(how)
    return forget
