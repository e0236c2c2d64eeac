"""Tokens whose targets futures hold."""

from __future__ import annotations

from agent.units import Token


def token_of(symbol: str) -> Token:
    return Token(symbol, symbol, 18)
