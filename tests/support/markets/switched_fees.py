"""Tokens whose fee on transfers can be switched on."""

from __future__ import annotations

from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.attacks import attack

FEE_BPS = 5_000
ZERO = "0x" + "00" * 20


def switchable(chain: LocalChain, symbol: str = "LINK") -> str:
    """Let a token of the world be one whose fee can be switched on, with all its balances, pools and allowances."""
    assert isinstance(chain.node, AnvilNode)
    token = chain.tokens[symbol]
    other = chain.deploy(attack("SwitchedFeeToken"), symbol, symbol, token.decimals)
    chain.node.rpc("anvil_setCode", token.address, chain.node.rpc("eth_getCode", other, "latest"))
    return token.address


def switch_on(chain: LocalChain, symbol: str = "LINK", fee_bps: int = FEE_BPS, payer: str = ZERO) -> None:
    """Switch the fee on, for transfers from `payer` or for all."""
    token = chain.contract(chain.tokens[symbol].address, attack("SwitchedFeeToken"))
    chain.send(token.functions.setFee(fee_bps, payer), chain.whale.address)
