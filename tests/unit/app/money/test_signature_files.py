"""Signatures of owners as they are pasted, or in files; what is none is refused in plain words with what to paste."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.app.money.signature_files import parse_signatures
from agent.errors import ConfigError

HASH = "0x" + "ab" * 32
SIGNATURE = "0x" + "12" * 65
NO_HEX = "other characters than 0x and hex digits, or an odd number of digits"


@pytest.mark.parametrize(
    "content",
    [
        SIGNATURE,
        f"{SIGNATURE}\n",
        json.dumps({"safe_tx_hash": HASH, "signature": SIGNATURE}),
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": SIGNATURE}),
    ],
    ids=["hex", "line", "json", "answer of a wallet"],
)
def test_a_signature_is_read_from_a_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "signature.txt"
    path.write_text(content)
    assert parse_signatures(str(path), HASH) == parse_signatures(SIGNATURE, HASH) == [bytes.fromhex("12" * 65)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"], ids=["lines", "lines of Windows", "empty lines"])
def test_file_with_several_signatures_is_read_whole(end: str, tmp_path: Path) -> None:
    path = tmp_path / "both.txt"
    path.write_text(end.join((SIGNATURE, "0x" + "34" * 65, "")), newline="")
    assert parse_signatures(str(path), HASH) == [bytes.fromhex("12" * 65), bytes.fromhex("34" * 65)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not begin with 0x, and no file has this name"),
        (b"hello", f"is a file without a signature: it has {NO_HEX}"),
        (b"0x" + b"1" * 131, f"is a file without a signature: it has {NO_HEX}"),
        (b"\xff\xfe\x00", "is a file of neither hex digits nor JSON"),
        (b"{nonsense", "is a file of neither hex digits nor JSON"),
        (b'{"hash": "0x12"}', "is a file without a signature in its JSON"),
        (b'{"result": null}', "is a file without a signature in its JSON"),
    ],
    ids=["no file", "words", "131 digits", "bytes", "broken json", "other json", "no result"],
)
def test_file_without_a_signature_is_named_with_what_to_paste(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        parse_signatures(str(path), HASH)
    assert words in error.value.message
    assert "Error" not in str(error.value)
    assert error.value.remedy.startswith("paste 0x and 130 hex digits")


@pytest.mark.parametrize("text", ["0xzz", SIGNATURE[:-1], SIGNATURE + "1"], ids=["no hex", "129 digits", "131 digits"])
def test_pasted_text_without_whole_bytes_is_no_signature(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_signatures(text, HASH)
    assert error.value.message == f"signature: {text[:60]!r} has {NO_HEX}"
    assert error.value.remedy.startswith("paste 0x and 130 hex digits")


@pytest.mark.parametrize("signed_hash", ["0x" + "ab" * 31 + "ac", "", "ab" * 32], ids=["another", "empty", "no 0x"])
def test_signature_file_of_another_proposal_is_refused(signed_hash: str, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text(json.dumps({"safe_tx_hash": signed_hash, "signature": SIGNATURE}))
    with pytest.raises(ConfigError) as error:
        parse_signatures(str(path), HASH)
    assert error.value.message == f"safe_tx_hash: {str(path)[:60]} signs {signed_hash}, and {HASH} waits"
    assert error.value.remedy == "let its owner sign the proposal that waits"


def test_a_folder_is_no_file_with_a_signature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        parse_signatures(str(tmp_path), HASH)
