"""The owner's requests that belong to a layer: their proposers, and the commands that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.layers.futures.planning import requests as futures
from agent.layers.futures.requests import CloseHedge, Deleverage, MarginAccountRequest, OpenHedge
from agent.model import LayerRequest
from agent.planning.proposals import Proposer

PROPOSERS: Mapping[type[LayerRequest], Callable[[Any], Proposer]] = {
    MarginAccountRequest: futures.margin_proposer,
    Deleverage: futures.deleverage_proposer,
    OpenHedge: futures.hedge_proposer,
    CloseHedge: futures.hedge_proposer,
}
"""Proposer of a request, by its type; equal inputs give equal proposals."""
COMMANDS: Mapping[type[LayerRequest], Callable[[Any], str]] = {
    MarginAccountRequest: futures.move_command,
    Deleverage: lambda _: "deleverage",
    OpenHedge: lambda _: "hedge",
    CloseHedge: lambda _: "hedge",
}
"""The owner's command of a request, by its type."""
