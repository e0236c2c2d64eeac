"""Names the transaction that has a nonce of the wallet, in a block or on its way to one: for a person to read, never to decide by."""

from __future__ import annotations

from collections.abc import Mapping

from agent.chain.found import RECENT_BLOCKS, used_by
from agent.chain.panel import Panel
from agent.chain.rpc import Transport
from agent.chain.wire import hex_data, octets, quantity
from agent.errors import Retryable, TrimtabError


def taker(panel: Panel, owner: str, nonce: int, head_block: int) -> str | None:
    """Hash of the transaction of `owner` with `nonce`; None where no endpoint can tell."""
    for since_block in (max(0, head_block - RECENT_BLOCKS), 0):
        try:
            found = used_by(panel, owner, nonce, since_block, head_block)
        except TrimtabError:
            continue
        if found is not None:
            return found.tx_hash
    heard = panel.ask(lambda line: _pending(line, owner, nonce))
    return next((said for said in heard.answers.values() if said is not None), None)


def _pending(line: Transport, owner: str, nonce: int) -> str | None:
    block = line.call("eth_getBlockByNumber", ["pending", True])
    listed = block.get("transactions") if isinstance(block, Mapping) else None
    for tx in listed if isinstance(listed, list) else []:
        try:
            if isinstance(tx, Mapping) and str(tx.get("from", "")).lower() == owner.lower() and quantity(tx.get("nonce"), "nonce") == nonce:
                return hex_data(octets(tx.get("hash"), "transaction hash", 32))
        except Retryable:
            continue
    return None
