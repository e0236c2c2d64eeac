"""Decimals and symbols of tokens as the lens answers them: each with its own token, and none that amounts would overflow with."""

from __future__ import annotations

import pytest

from agent.chain.lens import uint_word
from agent.chain.tokens import read_tokens
from agent.errors import ConfigError
from agent.units import Token
from tests.support.builders import address
from tests.support.fakes.transport import ScriptedTransport

A = address("a")
B = address("b")


def symbol(text: str, *, offset: int = 32, length: int | None = None) -> bytes:
    data = text.encode()
    return uint_word(offset) + uint_word(len(data) if length is None else length) + data.ljust(32, b"\0")


def read(*answers: bytes) -> tuple[Token, ...]:
    parts = [b"\0" + len(answer).to_bytes(2, "big") + answer for answer in answers]
    page = "0x" + (b"\1" + b"".join(parts)).hex()
    return read_tokens(ScriptedTransport(eth_call=page), [A, B][: len(answers) // 2])


def test_each_token_has_its_own_decimals_and_symbol() -> None:
    tokens = read(uint_word(18), symbol("AAA"), uint_word(6), symbol("BBB"))
    assert tokens == (Token(A, "AAA", 18), Token(B, "BBB", 6))


@pytest.mark.parametrize("decimals", [0, 36])
def test_decimals_up_to_the_bound_are_read(decimals: int) -> None:
    assert read(uint_word(decimals), symbol("AAA"))[0].decimals == decimals


@pytest.mark.parametrize("decimals", [37, 255, 256, 2**255])
def test_decimals_above_the_bound_are_a_mistake_of_the_config(decimals: int) -> None:
    with pytest.raises(ConfigError, match="decimals"):
        read(uint_word(decimals), symbol("AAA"))


def test_a_symbol_of_32_bytes_is_read() -> None:
    assert read(uint_word(18), b"MKR".ljust(32, b"\0"))[0].symbol == "MKR"


def test_a_symbol_without_padding_is_read() -> None:
    assert read(uint_word(18), symbol("AAA")[:67])[0].symbol == "AAA"


@pytest.mark.parametrize("answer", [symbol("AAA", offset=64), symbol("AAA", length=33), symbol("AAA")[:66], b""])
def test_a_token_whose_symbol_is_none_is_shown_by_its_address(answer: bytes) -> None:
    assert read(uint_word(18), answer)[0].symbol != "AAA"


def test_a_symbol_of_32_letters_fills_its_word() -> None:
    assert read(uint_word(18), symbol("A" * 32, length=3))[0].symbol == "AAA"
