"""What contracts may take of the wallet's tokens, asked of the tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.abi import ALLOWANCE, address_word
from agent.chain.ask import ask
from agent.chain.lens import CallItem, Status, uint
from agent.chain.rpc import Transport

PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
"""Uniswap's Permit2, at the same address on every chain: the agent never allows it anything, wallets that were used before may have."""


def read_allowances(line: Transport, owner: str, pairs: Sequence[tuple[str, str]]) -> tuple[int | None, ...]:
    """Base units that each (token, spender) may move of `owner`; None where the token does not say. Raises Retryable."""
    asked = [CallItem(token, ALLOWANCE + address_word(owner) + address_word(spender)) for token, spender in pairs]
    found = (uint(answer) for answer in ask(line, asked))
    return tuple(None if isinstance(one, Status) else one for one in found)
