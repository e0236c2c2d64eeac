"""Contracts of contracts/test, and tokens of their kinds on a local chain."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from agent.artifacts import Artifact
from agent.localchain import LocalChain, TokenKind
from agent.units import Token

ABIS = Path(__file__).parents[1] / "abis"


@lru_cache
def attack(name: str) -> Artifact:
    """Return the artifact of a contract of contracts/test."""
    data = json.loads((ABIS / f"{name}.json").read_text())
    return Artifact(data["abi"], data["bytecode"])


def add_foreign(chain: LocalChain, symbol: str, artifact: Artifact, *arguments: object, decimals: int = 18) -> Token:
    """Add a token of another kind, worth one dollar and without a feed; the whale has plenty of it."""
    token = Token(chain.deploy(artifact, symbol, symbol, decimals, *arguments), symbol, decimals)
    books = chain.deployed_world
    chain.deployed_world = replace(
        books,
        tokens={**books.tokens, symbol: token},
        kinds={**books.kinds, symbol: TokenKind.STANDARD},
        prices_usd={**books.prices_usd, symbol: Fraction(1)},
    )
    chain.set_balance(symbol, 10**9 * 10**decimals, owner=chain.whale.address)
    chain.approve_protocol([symbol])
    return token
