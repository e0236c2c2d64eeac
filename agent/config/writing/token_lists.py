"""Token lists in Uniswap's format, and look-alike symbols."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import codec
from agent.config.networks.presets import TemplateAsset
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError
from agent.units import safe_label

_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")
# Look-alike letters of token symbols, from the confusables of Unicode Technical Standard 39.
_CONFUSABLES = str.maketrans(
    "01|!il5$82" + "аеорсухіѕјһԁѡвкмнтгьԛ" + "αορυνικτχβεηγ" + "ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "ollllls" + "sbz" + "aeopcyxlsjhdwbkmhtrbq" + "aopuvlktxbeny" + "abcdeghljklmnoprstuvwyz",
)


@dataclass(frozen=True, slots=True)
class TokenList:
    """The tokens of one chain in a file whose SHA-256 is `digest`."""

    tokens: tuple[TemplateAsset, ...]
    digest: str


def read_token_list(path: Path, chain_id: int, pinned_sha256: str | None = None) -> TokenList:
    """Return the chain's tokens of a list, without those with deceptive names (T16, T17).

    Raises ConfigError if the file is not a token list, has no token of the chain, or its SHA-256 is
    not `pinned_sha256` (None: any).
    """
    if pinned_sha256 is not None and not _SHA256.fullmatch(pinned_sha256):
        raise ConfigError(
            f"--token-list-sha256: {pinned_sha256!r} is not a SHA-256", "write its 64 hex digits"
        )
    try:
        list_bytes = path.read_bytes()
        token_entries = codec.read_json(list_bytes.decode())["tokens"]
        chain_entries = [entry for entry in token_entries if entry["chainId"] == chain_id]
        listed_tokens = tuple(
            TemplateAsset(
                entry["symbol"],
                parse_address(entry["address"], "token list"),
                "",
                None,
                int(entry["decimals"]),
            )
            for entry in chain_entries
            if safe_label(entry["symbol"], "") != ""
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--token-list {path}: not a token list: {error!r}",
            "use a JSON file in Uniswap's token list format",
        ) from None
    digest = hashlib.sha256(list_bytes).hexdigest()
    if pinned_sha256 is not None and pinned_sha256.lower().removeprefix("0x") != digest:
        raise ConfigError(
            f"--token-list {path}: its SHA-256 is {digest}, but {pinned_sha256.lower()} is pinned",
            "find out why it changed before using it",
        )
    if not chain_entries:
        raise ConfigError(
            f"--token-list {path}: no token of chain {chain_id}",
            "use the list of this chain",
        )
    return TokenList(listed_tokens, digest)


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
