"""Which tokens of a network go by another name: a coin by that of its wrapped token."""

from __future__ import annotations

from agent.config.networks import NETWORKS

FORMER_NAMES = {"MATIC": "POL"}
"""Present symbol of a coin by its former one, in upper case."""


def name_remedy(symbol: str, chain_id: int) -> str:
    """Return which known symbol to write in place of `symbol`: one that differs in case, that of the
    wrapped token, or another token priced as that coin. Empty if none is known.
    """
    network = next((network for network in NETWORKS if network.chain_id == chain_id), None)
    if network is None:
        return ""
    present_name = FORMER_NAMES.get(symbol.upper(), symbol.upper())
    names = {symbol.upper(), present_name, f"W{present_name}"}
    symbols = [
        token.symbol
        for token in network.tokens
        if token.symbol.upper() in names or token.priced_as in names
    ]
    if not symbols:
        return ""
    native_text = ", or native for the coin itself" if present_name == network.native_symbol else ""
    return f"write {' or '.join(symbols)}{native_text}"
