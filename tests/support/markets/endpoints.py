"""Endpoints of a local chain."""

from __future__ import annotations

from agent.chain.providers.endpoint import EndpointProvider


def endpoint_of(url: str, operator: str, timeout_s: float = 10.0) -> EndpointProvider:
    return EndpointProvider(url, operator, timeout_s, attempts=1)
