"""Signatures that owners of a Safe give by hand: 0x-hex, or a file with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.foreign_text import decode_text, read_json

NO_HEX = "other characters than 0x and hex digits, or an odd number of digits"
"""What text has that is no bytes in hex."""


def parse_signatures(text: str, safe_tx_hash: str) -> list[bytes]:
    """Return the bytes of a signature in 0x-hex, or of those in a file, each of which begins a line
    with 0x. Raises ConfigError.
    """
    fields = {"signature": text}
    if not text.startswith("0x"):
        fields = _read_signature_file(text)
    try:
        signatures = [
            signature_bytes(signature_text)
            for signature_text in re.split(r"\s+(?=0x)", str(fields["signature"]))
        ]
    except ValueError:
        problem = f"has {NO_HEX}"
        if not text.startswith("0x"):
            problem = f"is a file without a signature: it has {NO_HEX}"
        raise _signature_error(text, problem) from None
    signed_hash = str(fields.get("safe_tx_hash", safe_tx_hash))
    if signed_hash != safe_tx_hash:
        raise ConfigError(
            f"safe_tx_hash: {text[:60]} signs {signed_hash[:66]}, and {safe_tx_hash} waits",
            "let its owner sign the proposal that waits",
        )
    return signatures


def _read_signature_file(text: str) -> dict[str, Any]:
    """Return the fields of a file with signatures alone, or with the JSON of `proposal sign`."""
    try:
        file_text = decode_text(Path(text).read_bytes()).strip().strip('"')
        if not file_text.startswith("{"):
            return {"signature": file_text}
        document: dict[str, Any] = read_json(file_text)
    except FileNotFoundError:
        raise _signature_error(text, "does not begin with 0x, and no file has this name") from None
    except OSError as error:
        raise _signature_error(text, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _signature_error(text, "is a file of neither hex digits nor JSON") from None
    if "signature" not in document and isinstance(document.get("result"), str):
        return {"signature": document["result"]}  # a wallet's answer by JSON-RPC
    if "signature" not in document:
        raise _signature_error(text, "is a file without a signature in its JSON")
    return document


def _signature_error(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"signature: {text[:60]!r} {problem}",
        "paste 0x and 130 hex digits, as the owner's wallet shows them after signing what trimtab"
        " proposal sign --export prints, or name a file with them or with what trimtab proposal sign"
        " --json printed",
    )


def signature_bytes(signature_text: str) -> bytes:
    """Return the bytes of 0x-hex. Raises ValueError for other text."""
    return bytes.fromhex(signature_text.removeprefix("0x"))
