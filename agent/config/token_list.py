"""Token lists in Uniswap's format: names and addresses of one chain, from a file whose hash can be pinned; look-alikes are refused."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import codec
from agent.config.fields import parse_address
from agent.config.template import TemplateAsset
from agent.errors import ConfigError
from agent.units import safe_label

_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")
# Letters that are drawn alike: Unicode Technical Standard 39, confusables, as far as symbols of tokens go.
_DRAWN_ALIKE = str.maketrans(
    "01|!il5$82" + "аеорсухіѕјһԁѡвкмнтгьԛ" + "αορυνικτχβεηγ" + "ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "ollllls" + "sbz" + "aeopcyxlsjhdwbkmhtrbq" + "aopuvlktxbeny" + "abcdeghljklmnoprstuvwyz",
)


@dataclass(frozen=True, slots=True)
class TokenList:
    """The tokens of one chain in a file whose SHA-256 is `digest`."""

    tokens: tuple[TemplateAsset, ...]
    digest: str


def read_token_list(path: Path, chain_id: int, pinned: str | None = None) -> TokenList:
    """The chain's tokens of a list; names that could deceive are left out (T16, T17).

    Raises ConfigError when the file is no such list, has no token of the chain, or its SHA-256 is not `pinned` (None: any).
    """
    if pinned is not None and not _SHA256.fullmatch(pinned):
        raise ConfigError(f"--token-list-sha256: {pinned!r} is not a SHA-256", "write its 64 hex digits")
    try:
        raw = path.read_bytes()
        entries = codec.read_json(raw.decode())["tokens"]
        of_chain = [entry for entry in entries if entry["chainId"] == chain_id]
        found = tuple(
            TemplateAsset(entry["symbol"], parse_address(entry["address"], "token list"), "", None, int(entry["decimals"]))
            for entry in of_chain
            if safe_label(entry["symbol"], "") != ""
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--token-list {path}: not a token list: {error!r}", "give a JSON file in Uniswap's token list format") from None
    digest = hashlib.sha256(raw).hexdigest()
    if pinned is not None and pinned.lower().removeprefix("0x") != digest:
        raise ConfigError(
            f"--token-list {path}: its SHA-256 is {digest}, pinned is {pinned.lower()}", "find out who changed it before you use it"
        )
    if not of_chain:
        raise ConfigError(f"--token-list {path}: it has no token of chain {chain_id}", "give the list of this chain")
    return TokenList(found, digest)


def drawn(symbol: str) -> str:
    """What a symbol looks like: letters that are drawn alike are the same letter, case and separators do not count."""
    plain = unicodedata.normalize("NFKD", symbol).casefold()
    kept = "".join(char for char in plain if unicodedata.category(char)[0] in "LNS" or char in "|!")
    return kept.translate(_DRAWN_ALIKE).replace("rn", "m").replace("vv", "w")


def refuse_look_alike(
    name: str, address: str | None, known: Iterable[TemplateAsset], listed: Sequence[TemplateAsset], field: str = "--target"
) -> None:
    """Raises ConfigError when `name` looks like another token's symbol: one that is known, or another of the list.

    A known token's own symbol is never in doubt, whatever a list says.
    """
    known = tuple(known)
    if any(token.symbol == name for token in known):
        return
    for token in (*known, *listed):
        if token.symbol != name and token.address != address and drawn(token.symbol) == drawn(name):
            raise ConfigError(
                f"{field}: {name!r} looks like {token.symbol}, which is another token ({token.address})",
                "give the address of the one you mean instead",
            )
