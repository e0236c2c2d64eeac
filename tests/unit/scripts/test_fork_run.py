"""What a local copy of a chain answers in place of a precompile."""

from __future__ import annotations

import pytest

from scripts.fork_run import constant_code

PRICES = bytes(31) + b"\x07" + bytes(31) + b"\x02" + bytes(128)


@pytest.mark.parametrize("answer", [PRICES, b"\x07" * 40], ids=["six words", "a part of a word"])
def test_constant_code_answers_with_its_words(answer: bytes) -> None:
    stores = "".join(f"7f{answer[start : start + 32].hex():0<64}60{start:02x}52" for start in range(0, len(answer), 32))

    assert constant_code(answer).hex() == f"{stores}60{len(answer):02x}6000f3"
