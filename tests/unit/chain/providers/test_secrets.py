"""Tests of agent/chain/providers/secrets.py: the parts of an address that may be a token, as written and decoded."""

from __future__ import annotations

import pytest

from agent.chain.providers.secrets import secret_parts


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        pytest.param("https://node.example", set(), id="no parts"),
        pytest.param("https://node.example/v3/tok%2Fen/", {"v3/tok%2Fen", "v3/tok/en", "v3", "tok%2Fen", "tok/en"}, id="path"),
        pytest.param(
            "https://node.example?key=to%6Ben&a=b", {"key=to%6Ben&a=b", "key=token&a=b", "to%6Ben", "token", "b"}, id="values of a query"
        ),
        pytest.param("https://node.example?token", {"token"}, id="query without a value"),
        pytest.param("https://us%65r:pa%73s@node.example", {"us%65r", "user", "pa%73s", "pass"}, id="credentials"),
        pytest.param("https://node.example#to%6Ben", {"to%6Ben", "token"}, id="fragment"),
    ],
)
def test_secret_parts_of_an_address_have_both_forms(address: str, parts: set[str]) -> None:
    all_parts = secret_parts(address)

    assert set(all_parts) == parts
    assert len(all_parts) == len(parts), "each once"


@pytest.mark.parametrize("text", ["", "token", "node.example/token", "http://[", "https://[::1/token"])
def test_secret_parts_of_no_address_are_none(text: str) -> None:
    assert secret_parts(text) == []
