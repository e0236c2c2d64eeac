"""Strategies of a config that commands edit."""

from __future__ import annotations

from tests.support.on_chain.strategies import strategies


def with_idle() -> dict[str, object]:
    """The strategies with a third that holds USDC."""
    three = strategies("50%", "40%")
    common = {"floor": "0%", "health": "off", "cooldown": "0s", "destination": "target"}
    three["strategies"] = [*three["strategies"], {"name": "idle", "share": "10%", "weights": {"USDC": "100%"}, **common}]  # type: ignore[misc]  # a list
    return three
