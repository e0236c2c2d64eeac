"""Signatures of owners as they are pasted, or in files; what is none is refused in plain words with what to paste."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.app.money.signature_files import parse_signature
from agent.errors import ConfigError

HASH = "0x" + "ab" * 32
SIGNATURE = "0x" + "12" * 65


@pytest.mark.parametrize(
    "content", [SIGNATURE, f"{SIGNATURE}\n", json.dumps({"safe_tx_hash": HASH, "signature": SIGNATURE})], ids=["hex", "line", "json"]
)
def test_a_signature_is_read_from_a_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "signature.txt"
    path.write_text(content)
    assert parse_signature(str(path), HASH) == parse_signature(SIGNATURE, HASH) == bytes.fromhex("12" * 65)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not begin with 0x, and no file has this name"),
        (b"hello", "is a file without a signature: it has other characters than 0x and hex digits"),
        (b"\xff\xfe\x00", "is a file of neither hex digits nor JSON"),
        (b"{nonsense", "is a file of neither hex digits nor JSON"),
        (b'{"hash": "0x12"}', "is a file without a signature in its JSON"),
    ],
    ids=["no file", "words", "bytes", "broken json", "other json"],
)
def test_what_is_no_signature_is_named_with_what_to_paste(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        parse_signature(str(path), HASH)
    assert words in error.value.message
    assert "Error" not in str(error.value)
    assert error.value.remedy.startswith("paste 0x and 130 hex digits")


def test_a_folder_is_no_file_with_a_signature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        parse_signature(str(tmp_path), HASH)
