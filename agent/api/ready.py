"""The ready portfolios of `init --template`, as documents: what each holds on a network, when it acts, and what binds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.config import starters
from agent.config.presets import PRESETS
from agent.errors import ConfigError

Document = dict[str, Any]
NO_FUTURES = "trimtab trades no futures yet: this bound is written as a comment and nothing reads it"


def templates(network: str = "ethereum") -> Document:
    """Every ready portfolio with its tokens on that network. Raises ConfigError for a network without a preset."""
    if network not in PRESETS:
        raise ConfigError(f"--network: {network!r} is not known", f"choose from {', '.join(PRESETS)}")
    preset = PRESETS[network]
    addresses = {token.symbol: token.address for token in preset.tokens}
    found = []
    for one in starters.STARTERS.values():
        tokens = starters.targets(one, preset)
        found.append(
            {
                "name": one.name,
                "about": one.about,
                "shares_bps": dict(one.shares),
                "tokens": [{"symbol": symbol, "address": addresses[symbol], "target": share} for symbol, share in tokens],
                "policy": {name: dict(value) if isinstance(value, Mapping) else value for name, value in one.policy.items()},
                "limits": dict(one.limits),
                "weights": dict(one.weights) or None,
                "todo": one.todo,
                "futures_notional": None if one.futures is None else f"{one.futures}x",
            }
        )
    return {"network": network, "chain_id": preset.chain_id, "templates": found, "futures": NO_FUTURES}
