"""API tokens with scopes, in a file beside the store that holds their hashes.

A token has 256 random bits, so SHA-256 is enough: slow hashes are for passwords, which can be
guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTimeout

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable
from agent.files import open_unlinked, replace_file
from agent.foreign_text import read_json
from agent.units import DAY_S, utc_text

FILE_SUFFIX = ".tokens"
"""Ending of the file's name, after that of the store."""
TOKEN_PATTERN = re.compile(r"trimtab_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
TOKEN_IN_URL_PATTERN = re.compile(r"trimtab_[0-9a-f]{16}_")
NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,32}")
MAX_LIFETIME_S = 366 * DAY_S
MAX_TOKENS = 1_000
"""Entries in the file, ended ones included; the oldest ended ones are dropped first."""
LOCK_TIMEOUT_S = 10.0
UNKNOWN_TOKEN_DIGEST = b"\0" * 32
"""Hash to compare with if the id is unknown, so that this takes as long as a wrong secret."""


class TokenScope(StrEnum):
    """What a token may do. None of them includes another."""

    READ = "read"
    PLAN = "plan"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An entry of the file. Times are Unix seconds."""

    id: str
    name: str
    scopes: tuple[TokenScope, ...]
    sha256: str
    created_s: int
    expires_s: int
    revoked_s: int | None = None
    networks: tuple[str, ...] = ()
    """Addresses and networks that may use it, such as "10.0.0.0/8"; without any, every address."""

    def state(self, now_s: int) -> str:
        """Return "active", "expired" or "revoked"."""
        if self.revoked_s is not None:
            return "revoked"
        return "active" if now_s < self.expires_s else "expired"

    def permits(self, scope: TokenScope, now_s: int) -> bool:
        """Return whether the token is active and has this scope."""
        return scope in self.scopes and self.state(now_s) == "active"

    def serves(self, address: str) -> bool:
        """Return whether a client at this address may use it; with networks, none without one."""
        if not self.networks:
            return True
        try:
            client_address = ip_address(address)
        except ValueError:
            return False
        return any(client_address in ip_network(network) for network in self.networks)

    def document(self, now_s: int) -> dict[str, Any]:
        """Return the entry as a document, without its hash."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": [scope.value for scope in self.scopes],
            "networks": list(self.networks),
            "created": utc_text(self.created_s),
            "expires": utc_text(self.expires_s),
            "state": self.state(now_s),
        }


class TokenFile:
    """The tokens of one store. Reads again when the file has changed."""

    def __init__(self, store_path: Path) -> None:
        self.path = store_path.with_name(store_path.name + FILE_SUFFIX)
        self._file_stamp: tuple[int, ...] | None = None
        self._tokens: tuple[ApiToken, ...] = ()

    def tokens(self) -> tuple[ApiToken, ...]:
        """Return all entries, oldest first. Raises ConfigError if others may read or write the
        file, and OperatorNeeded if it is damaged.
        """
        try:
            with open(self.path, "rb", opener=open_unlinked) as file:
                file_stat = os.fstat(file.fileno())
                if file_stat.st_uid not in (os.geteuid(), 0) or file_stat.st_mode & 0o077:
                    raise ConfigError(
                        f"tokens: others may read or write {self.path}",
                        f"run: chmod 600 {shlex.quote(str(self.path))}",
                        code=ErrorCode.FILE,
                    )
                file_stamp = (file_stat.st_ino, file_stat.st_mtime_ns, file_stat.st_size)
                if file_stamp != self._file_stamp:
                    self._tokens = _parse_tokens(file.read(), self.path)
                    self._file_stamp = file_stamp
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(
                f"tokens: {self.path}: {error.strerror}", code=ErrorCode.FILE
            ) from None
        return self._tokens

    def add(
        self,
        name: str,
        scopes: Collection[str],
        lifetime_s: int,
        now_s: int,
        networks: Collection[str] = (),
    ) -> tuple[ApiToken, str]:
        """Add a token; return its entry and its text, which is not stored. Raises ConfigError for a
        name in use, an unknown scope, an invalid network and values out of range.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(
                f"NAME: {name!r} is not a name", "use up to 32 letters, digits, dots and dashes"
            )
        for scope in scopes:
            if scope not in TokenScope._value2member_map_:
                raise ConfigError(
                    f"--scope: {scope!r} is unknown",
                    f"use {', '.join(TokenScope)}; repeat --scope for several",
                )
        if not scopes:
            raise ConfigError("--scope: none given", f"use {', '.join(TokenScope)}")
        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise ConfigError(
                f"--expires: must be above 0 and at most {MAX_LIFETIME_S // DAY_S}d", "write 90d"
            )
        parsed_networks = tuple(_parse_network(network) for network in networks)
        with self._locked_tokens() as tokens:
            if any(
                api_token.name == name and api_token.state(now_s) == "active"
                for api_token in tokens
            ):
                raise ConfigError(
                    f"NAME: an active token is named {name}",
                    f"revoke it first: trimtab token revoke {name}",
                    code=ErrorCode.EXISTS,
                )
            token_id = secrets.token_hex(8)
            token_text = f"trimtab_{token_id}_{secrets.token_urlsafe(32)}"
            ordered_scopes = tuple(scope for scope in TokenScope if scope.value in scopes)
            expires_s = now_s + lifetime_s
            added_token = ApiToken(
                token_id,
                name,
                ordered_scopes,
                _digest(token_text).hex(),
                now_s,
                expires_s,
                networks=parsed_networks,
            )
            self._write(_without_oldest_ended((*tokens, added_token), now_s))
        return added_token, token_text

    def revoke(self, name: str, now_s: int) -> ApiToken:
        """Revoke the active token of this name at once, and all others of it, which a clock set back
        would let in again; or return the one that was revoked last. Raises ConfigError if there is
        neither.
        """
        with self._locked_tokens() as tokens:
            named_tokens = [token for token in tokens if token.name == name]
            matching_tokens = [token for token in named_tokens if token.state(now_s) == "active"]
            revoked_tokens = [token for token in named_tokens if token.revoked_s is not None]
            if not matching_tokens and revoked_tokens:
                return revoked_tokens[-1]
            if not matching_tokens:
                raise ConfigError(
                    f"NAME: no active token is named {name!r}", "see trimtab token list"
                )
            self._write(
                tuple(
                    replace(token, revoked_s=now_s)
                    if token.name == name and token.revoked_s is None
                    else token
                    for token in tokens
                )
            )
        return replace(matching_tokens[-1], revoked_s=now_s)

    def find(self, token_text: str) -> ApiToken | None:
        """Return the entry of a token's text, even if expired or revoked; None if there is none.
        The comparison takes equally long for every wrong text.
        """
        match = TOKEN_PATTERN.fullmatch(token_text)
        api_token = next((token for token in self.tokens() if match and token.id == match[1]), None)
        expected_digest = (
            UNKNOWN_TOKEN_DIGEST if api_token is None else bytes.fromhex(api_token.sha256)
        )
        return api_token if hmac.compare_digest(_digest(token_text), expected_digest) else None

    @contextmanager
    def _locked_tokens(self) -> Iterator[tuple[ApiToken, ...]]:
        lock = FileLock(
            self.path.with_name(self.path.name + ".lock"), timeout=LOCK_TIMEOUT_S, mode=0o600
        )
        try:
            with lock:
                yield self.tokens()
        except LockTimeout:
            raise Retryable("tokens: another command changes them", "try again") from None

    def _write(self, tokens: tuple[ApiToken, ...]) -> None:
        file_text = json.dumps(
            {"version": 1, "tokens": [asdict(token) for token in tokens]}, indent=1
        )
        try:
            replace_file(self.path, file_text.encode() + b"\n")
        except OSError as error:
            raise ConfigError(
                f"tokens: cannot write {self.path}: {error.strerror}", code=ErrorCode.FILE
            ) from None


def _parse_network(network_text: str) -> str:
    try:
        return str(ip_network(network_text))
    except ValueError as error:
        raise ConfigError(
            f"--from: {network_text!r} is no address or network: {error}",
            "write 203.0.113.7 or 10.0.0.0/8",
        ) from None


def _parse_tokens(file_bytes: bytes, path: Path) -> tuple[ApiToken, ...]:
    try:
        tokens_document = read_json(file_bytes.decode())
        if tokens_document["version"] != 1:
            raise ValueError("version")
        token_rows: list[dict[str, Any]] = tokens_document["tokens"]
        tokens = tuple(
            ApiToken(
                **{
                    **token_row,
                    "scopes": tuple(TokenScope(scope) for scope in token_row["scopes"]),
                    "networks": tuple(
                        str(ip_network(network)) for network in token_row.get("networks", ())
                    ),
                }
            )
            for token_row in token_rows
        )
        for token in tokens:
            if len(bytes.fromhex(token.sha256)) != len(UNKNOWN_TOKEN_DIGEST):
                raise ValueError("sha256")
            if not isinstance(token.id, str) or not isinstance(token.name, str):
                raise TypeError("id or name")
            for time_s in (token.created_s, token.expires_s, token.revoked_s or 0):
                utc_text(time_s)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise OperatorNeeded(
            f"tokens: {path} is damaged",
            "delete it, which revokes every token, and add new ones",
            code=ErrorCode.DAMAGED,
        ) from None
    return tokens


def _without_oldest_ended(tokens: tuple[ApiToken, ...], now_s: int) -> tuple[ApiToken, ...]:
    """Drop the oldest ended entries beyond MAX_TOKENS."""
    excess_count = len(tokens) - MAX_TOKENS
    if excess_count <= 0:
        return tokens
    dropped_tokens = [token for token in tokens if token.state(now_s) != "active"][:excess_count]
    if len(dropped_tokens) < excess_count:
        raise ConfigError(f"NAME: {MAX_TOKENS} tokens are active", "revoke some first")
    return tuple(api_token for api_token in tokens if api_token not in dropped_tokens)


def _digest(token_text: str) -> bytes:
    return hashlib.sha256(token_text.encode("utf-8", "surrogatepass")).digest()
