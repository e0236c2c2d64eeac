"""TOML and JSON of files and services: bounded before their parsers, which recurse and whose time
grows with the square of a key's parts, see them; and the errors of libraries in plain words.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NoReturn

MAX_NESTING = 32
"""Deepest nesting of lists and tables. More can crash the interpreter under the recursion limit that
py-evm sets.
"""
MAX_TOML_LENGTH = 1_000_000
"""Longest TOML, in characters; a config with every key and comment has less than a tenth."""
MAX_KEY_PARTS = 16
"""Largest number of parts of a dotted key."""
MAX_WORD_LENGTH = 400
"""Longest key, number or other word of TOML outside quotes; Python reads no integer above 4,300
digits.
"""
MAX_QUOTED_LENGTH = 300
"""Longest quotation of a library's error, in characters."""
UNEXPECTED = "unexpected error"
"""Words of a failure of no known kind."""
HIDDEN_KEY = "(hidden)"
"""What stands for a key in an error."""
_SHOWN_KEY_CHARS = 11
"""Longest part of a key that an error may show, in characters."""
BYTE_ORDER_MARK = "\ufeff"
"""First character of files that some Windows editors write."""

_KEY_LIKE = re.compile(
    r"(?<![0-9A-Za-z])(?:0[xX])?[0-9a-fA-F]{60,68}(?![0-9A-Za-z])"
    r"|(?<![A-Za-z])(?:[A-Za-z]{3,8}\s+){11,}[A-Za-z]{3,8}(?![A-Za-z])"
)
"""A private key, which may lack digits or have some twice, or a recovery phrase."""
# Here and below closing quotes are optional, so that no text makes the search start over.
_JSON_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_TOML_TOKENS = re.compile(
    r'"""(?:[^\\]|\\(?:.|\Z))*?(?:"{3,5}|\Z)'  # one or two quotes may stand before the end
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\[^\n])*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*"
    r"|[\[\]{}.,=\n]"
    r"|[^\s\[\]{}.,=\"'#]+",
    re.DOTALL,
)
_SYSTEM_MODULES = ("builtins", "socket")
"""Modules whose errors have the system's own words, such as "Permission denied"."""
_FAILURES = {
    r"Time(?:d)?Out|Timeout|DeadlineExceeded": "no answer in time",
    r"SSL|Certificate": "its certificate is not accepted",
    r"UnicodeDecode": "it is not plain text",
    r"Unicode|InvalidHeader": "its address or key has characters that cannot be sent",
    r"InvalidURL|\w+Schema|LocationValue|LocationParse": "its address is not valid",
    r"Credential|Unauthenticated": "its credentials are missing or invalid",
    r"Permission|AccessDenied|Forbidden|Unauthorized": "access is denied",
    r"Throttl|TooMany|RateLimit|ResourceExhausted": "it limits requests",
    r"KeyringLocked": "it is locked",
    r"Chunked|Incomplete|Protocol|Disconnected|Closed|Cancelled|BrokenPipe|Reset": (
        "the connection was closed during the answer"
    ),
    r"Connect|Unavailable|Unreachable": "it cannot be reached",
    r"MemoryError": "too little memory",
    r"KeyError": "a value is missing",
}
"""Words of a failure by a part of the name of its class or of a base of it; the first counts."""
_DEPTH_CHANGES = {"[": 1, "{": 1, "]": -1, "}": -1}


def decode_text(file_bytes: bytes) -> str:
    """Return the text of a file, with its byte order mark if it has one. Raises ValueError if it is
    not UTF-8.
    """
    try:
        return file_bytes.decode()
    except UnicodeDecodeError as error:
        utf_16_marks = (b"\xff\xfe", b"\xfe\xff")
        what = (
            "UTF-16" if file_bytes.startswith(utf_16_marks) else f"not UTF-8 at byte {error.start}"
        )
        raise ValueError(f"the text is {what}; save it as UTF-8") from None


def failure_words(error: BaseException) -> str:
    """Return in plain words why a library or the system failed. The error's own text, which may
    repeat an address or a key, is left out; so is the name of its class.
    """
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return failure_words(reason)
    if isinstance(error, OSError) and error.strerror and type(error).__module__ in _SYSTEM_MODULES:
        return error.strerror
    class_names = " ".join(cls.__name__ for cls in type(error).__mro__)
    return next(
        (words for pattern, words in _FAILURES.items() if re.search(pattern, class_names)),
        UNEXPECTED,
    )


def failure_text(error: BaseException) -> str:
    """Return `failure_words` with the first line of the error's text, for errors that have no
    secret.
    """
    words = failure_words(error)
    first_line = str(error).strip().partition("\n")[0][:MAX_QUOTED_LENGTH]
    if words == UNEXPECTED:
        return first_line or words
    is_plain = isinstance(error, OSError | UnicodeError) or not first_line
    return words if is_plain else f"{words}: {first_line}"


def key_like_texts(*texts: str) -> list[str]:
    """Return the parts of the texts, one by one and joined by spaces, that look like a private key or
    a recovery phrase.
    """
    return [part for text in (*texts, " ".join(texts)) for part in _KEY_LIKE.findall(text)]


def without_parts_of(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the parts of these secrets that are longer than _SHOWN_KEY_CHARS, in
    upper or lower case: errors shorten what they quote.
    """
    is_hidden = bytearray(len(text))
    part_length = _SHOWN_KEY_CHARS + 1
    for secret in secrets:
        for first in range(len(secret) - _SHOWN_KEY_CHARS):
            part = re.escape(secret[first : first + part_length])
            for match in re.finditer(part, text, re.IGNORECASE):
                is_hidden[match.start() : match.end()] = b"\1" * part_length
    groups = groupby(zip(text, is_hidden, strict=True), key=lambda pair: pair[1])
    return "".join(
        HIDDEN_KEY if hides else "".join(character for character, _ in pairs)
        for hides, pairs in groups
    )


def read_json(json_text: str, number_type: type[str] | None = None) -> Any:
    """Return the JSON of an untrusted file, with `number_type` its numbers as they are written,
    and NaN and Infinity too. Raises ValueError if it is invalid, nested too deep, repeats a key, or
    without `number_type` has NaN, Infinity or a number too large for a float.
    """
    json_text = json_text.removeprefix(BYTE_ORDER_MARK)
    if is_nested_deeper(json_text, MAX_NESTING):
        raise ValueError(f"nested more than {MAX_NESTING} deep")
    return json.loads(
        json_text,
        object_pairs_hook=_unique_keys,
        parse_float=number_type or _finite_float,
        parse_int=number_type,
        parse_constant=number_type or _refuse_constant,
    )


def _finite_float(number_text: str) -> float:
    number = float(number_text)
    if abs(number) == math.inf:
        raise ValueError(f"{number_text} is too large a number")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def is_nested_deeper(json_text: str, max_depth: int) -> bool:
    """Return whether lists and objects of JSON nest deeper than `max_depth`. The time grows with the
    length, whatever the text.
    """
    if json_text.count("[") + json_text.count("{") <= max_depth:
        return False
    depth = 0
    for json_token in _JSON_TOKENS.finditer(json_text):
        depth += _DEPTH_CHANGES.get(json_token[0], 0)
        if depth > max_depth:
            return True
    return False


def read_toml(toml_text: str) -> dict[str, Any]:
    """Return the tables of TOML. Raises TOMLDecodeError, a ValueError, if it is invalid or beyond
    the bounds.
    """
    return tomllib.loads(bounded_toml(toml_text))


def bounded_toml(toml_text: str) -> str:
    """Return TOML for a parser, without its byte order mark. Raises TOMLDecodeError if it is too
    long, nested too deep, or has a key of too many parts.
    """
    toml_text = toml_text.removeprefix(BYTE_ORDER_MARK)
    if len(toml_text) > MAX_TOML_LENGTH:
        raise tomllib.TOMLDecodeError(f"longer than {MAX_TOML_LENGTH:,} characters")
    depth = key_parts = 0
    for toml_token in _TOML_TOKENS.finditer(toml_text):
        word = toml_token[0]
        if word == ".":
            key_parts += 1
        elif word in ",=\n" or word in _DEPTH_CHANGES:
            key_parts = 0
            depth += _DEPTH_CHANGES.get(word, 0)
        problem = ""
        if depth > MAX_NESTING:
            problem = f"nested more than {MAX_NESTING} deep"
        elif key_parts >= MAX_KEY_PARTS:
            problem = f"a key of more than {MAX_KEY_PARTS} parts"
        elif len(word) > MAX_WORD_LENGTH and word[0] not in "\"'#":
            problem = f"a word of more than {MAX_WORD_LENGTH} characters"
        if problem:
            line = toml_text.count("\n", 0, toml_token.start()) + 1
            raise tomllib.TOMLDecodeError(f"{problem} (at line {line})")
    return toml_text


def _unique_keys(key_value_pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a dict. Raises ValueError for a repeated key, of which json would keep only the last
    value.
    """
    value_by_key = dict(key_value_pairs)
    if len(value_by_key) != len(key_value_pairs):
        key_counts = Counter(key for key, _ in key_value_pairs)
        repeated_key = key_counts.most_common(1)[0][0]
        raise ValueError(f"key {repeated_key!r} appears twice")
    return value_by_key
