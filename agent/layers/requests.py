"""The owner's requests that belong to a layer: their proposers, and the commands that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.layers.futures.planning import requests as futures
from agent.layers.futures.requests import CloseHedge, Deleverage, MoveMargin, OpenHedge
from agent.model import LayerRequest
from agent.planning.proposals import Proposer

PROPOSERS: Mapping[type[LayerRequest], Callable[[Any], Proposer]] = {
    MoveMargin: futures.move_margin,
    Deleverage: futures.deleverage,
    OpenHedge: futures.hedge_by_owner,
    CloseHedge: futures.hedge_by_owner,
}
"""Proposer of a request, by its type; equal inputs give equal proposals."""
COMMANDS: Mapping[type[LayerRequest], Callable[[Any], str]] = {
    MoveMargin: futures.move_command,
    Deleverage: lambda _: "deleverage",
    OpenHedge: lambda _: "hedge",
    CloseHedge: lambda _: "hedge",
}
"""The owner's command of a request, by its type."""
