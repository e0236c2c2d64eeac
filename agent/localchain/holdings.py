"""What an address holds of the tokens of the embedded chain: read in one request, and set by the whale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.localchain.chain import LocalChain
from agent.localchain.description import TokenKind

BALANCE_OF = "0x70a08231"
"""Selector of balanceOf(address)."""


def balances(chain: LocalChain, symbols: Iterable[str], owner: str) -> dict[str, int]:
    """See LocalChain.balances."""
    wanted = list(symbols)
    data = BALANCE_OF + owner.removeprefix("0x").lower().rjust(64, "0")
    calls = [("eth_call", [{"from": owner, "to": chain.tokens[symbol].address, "data": data}, "latest"]) for symbol in wanted]
    return {symbol: int(str(answer), 16) for symbol, answer in zip(wanted, chain.node.ask(calls), strict=True)}


def set_balances(chain: LocalChain, wanted: Mapping[str, int], owner: str) -> None:
    """See LocalChain.set_balance."""
    held = balances(chain, wanted, owner)
    for symbol, raw in wanted.items():
        missing, token = raw - held[symbol], chain.token_contract(symbol).functions
        if missing == 0:
            continue
        if chain.books.kinds[symbol] is TokenKind.WRAPPED_NATIVE:
            move = token.transfer(owner, missing) if missing > 0 else token.transferFrom(owner, chain.whale.address, -missing)
        else:
            move = token.mint(owner, missing) if missing > 0 else token.burn(owner, -missing)
        chain.send(move)
