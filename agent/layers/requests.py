"""Proposers of the owner's requests that belong to a layer."""

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
