"""Token lists in Uniswap's format, and look-alike symbols."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.codec import json_field
from agent.config.networks.presets import TemplateAsset
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError
from agent.foreign_text import decode_text, read_json
from agent.units import safe_label

FORMAT_REMEDY = "use a JSON file in Uniswap's token list format"
_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")
# Look-alike letters of token symbols, from the confusables of Unicode Technical Standard 39.
_CONFUSABLES = (
    str.maketrans("01|!il5$82", "olllllssbz")
    | str.maketrans("аеорсухіѕјһԁѡвкмнтгьԛ", "aeopcyxlsjhdwbkmhtrbq")  # Cyrillic
    | str.maketrans("αορυνικτχβεηγ", "aopuvlktxbeny")  # Greek
    | str.maketrans("ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdeghljklmnoprstuvwyz")  # small capitals
)


@dataclass(frozen=True, slots=True)
class TokenList:
    """The tokens of one chain in a file whose SHA-256 is `digest`. `warnings` names the first entry
    of the chain that was left out, the reason, and the number of others.
    """

    tokens: tuple[TemplateAsset, ...]
    digest: str
    warnings: tuple[str, ...] = ()


def read_token_list(path: Path, chain_id: int, pinned_sha256: str | None = None) -> TokenList:
    """Return the chain's tokens of a list, without those with deceptive names (T16, T17) and those
    that cannot be read.

    A list with deceptive names only has no tokens. Raises ConfigError if the file is not a token
    list, if no token of the chain can be read, or if its SHA-256 is not `pinned_sha256` (None:
    any).
    """
    if pinned_sha256 is not None and not _SHA256.fullmatch(pinned_sha256):
        raise ConfigError(
            f"--token-list-sha256: {pinned_sha256!r} is not a SHA-256", "write its 64 hex digits"
        )
    try:
        list_bytes = path.read_bytes()
        token_entries = json_field(read_json(decode_text(list_bytes)), "tokens")
    except OSError as error:
        raise ConfigError(
            f"--token-list {path}: cannot be read: {error.strerror}", "name a readable file"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"--token-list {path}: not a token list: {error}", FORMAT_REMEDY
        ) from None
    if not isinstance(token_entries, list):
        raise ConfigError(
            f"--token-list {path}: not a token list: it has no list named tokens", FORMAT_REMEDY
        )
    digest = hashlib.sha256(list_bytes).hexdigest()
    if pinned_sha256 is not None and pinned_sha256.lower().removeprefix("0x") != digest:
        raise ConfigError(
            f"--token-list {path}: its SHA-256 is {digest}, but {pinned_sha256.lower()} is pinned",
            "find out why it changed before using it",
        )
    readable_tokens, entry_faults = _parse_entries(token_entries, chain_id)
    if not readable_tokens and not entry_faults:
        raise ConfigError(
            f"--token-list {path}: no token of chain {chain_id}",
            "use the list of this chain",
        )
    if not readable_tokens:
        raise ConfigError(
            f"--token-list {path}: not a token list: {entry_faults[0]}", FORMAT_REMEDY
        )
    warnings: tuple[str, ...] = ()
    if entry_faults:
        more_text = f", and {len(entry_faults) - 1} more" if len(entry_faults) > 1 else ""
        warnings = (f"--token-list {path}: left out {entry_faults[0]}{more_text}",)
    return TokenList(tuple(filter(_has_safe_symbol, readable_tokens)), digest, warnings)


def _parse_entries(
    token_entries: list[object], chain_id: int
) -> tuple[list[TemplateAsset], list[str]]:
    """Return the tokens of the chain, those with deceptive names too, and the faults of its
    entries.
    """
    readable_tokens: list[TemplateAsset] = []
    entry_faults: list[str] = []
    for entry_number, entry in enumerate(token_entries, 1):
        entry_chain_id = json_field(entry, "chainId")
        if isinstance(entry_chain_id, int) and entry_chain_id != chain_id:
            continue
        token_or_fault = _parse_entry(entry)
        if isinstance(token_or_fault, str):
            entry_faults.append(f"entry {entry_number}: {token_or_fault}")
            continue
        readable_tokens.append(token_or_fault)
        if not _has_safe_symbol(token_or_fault):
            entry_faults.append(f"entry {entry_number}: symbol: not 1 to 16 letters, digits or ._-")
    return readable_tokens, entry_faults


def _has_safe_symbol(token: TemplateAsset) -> bool:
    return safe_label(token.symbol, "") != ""


def _parse_entry(entry: object) -> TemplateAsset | str:
    """Return the token of an entry, or which of its fields is wrong."""
    symbol, address, decimals = (
        json_field(entry, field_name) for field_name in ("symbol", "address", "decimals")
    )
    if not isinstance(json_field(entry, "chainId"), int):
        return "chainId: not a number"
    if not isinstance(symbol, str):
        return f"symbol: {symbol!r} is not text"
    if isinstance(decimals, str) and re.fullmatch("[0-9]{1,3}", decimals):
        decimals = int(decimals)
    if not isinstance(decimals, int) or isinstance(decimals, bool) or not 0 <= decimals <= 255:
        return f"decimals of {symbol!r}: {decimals!r} is not a number from 0 to 255"
    if not isinstance(address, str):
        return f"address of {symbol!r}: {address!r} is not text"
    try:
        return TemplateAsset(symbol, parse_address(address, "address"), "", None, decimals)
    except ConfigError as error:
        return f"{symbol!r}: {error.message}"


def confusable_skeleton(symbol: str) -> str:
    """Return the canonical form of a symbol: look-alike letters are equal, case and separators are
    ignored.
    """
    folded_symbol = unicodedata.normalize("NFKD", symbol).casefold()
    kept_characters = "".join(
        char for char in folded_symbol if unicodedata.category(char)[0] in "LNS" or char in "|!"
    )
    return kept_characters.translate(_CONFUSABLES).replace("rn", "m").replace("vv", "w")


def refuse_look_alike(
    symbol: str,
    address: str | None,
    known_tokens: Iterable[TemplateAsset],
    listed_tokens: Sequence[TemplateAsset],
    field: str = "--target",
) -> None:
    """Raise ConfigError if `symbol` looks like another token's symbol, known or in the list. A
    known token's own symbol is always accepted.
    """
    known_tokens = tuple(known_tokens)
    if any(token.symbol == symbol for token in known_tokens):
        return
    skeleton = confusable_skeleton(symbol)
    for token in (*known_tokens, *listed_tokens):
        if symbol == token.symbol or address == token.address:
            continue
        if confusable_skeleton(token.symbol) == skeleton:
            raise ConfigError(
                f"{field}: {symbol!r} looks like {token.symbol}, which is another token"
                f" ({token.address})",
                "give the token's address instead",
            )
