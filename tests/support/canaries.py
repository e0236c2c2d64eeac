"""Secrets that tests plant, in every form in which they might come out again, and where to look for them (threat T18)."""

from __future__ import annotations

import base64
import gc
import io
import logging
import pickle
import traceback
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.traceback import Traceback


def forms_of(secret: str) -> set[bytes]:
    """A secret text as bytes, in the ways in which it might be written; a key of hex digits as its bytes too."""
    texts = {secret, secret.upper(), secret.lower(), urllib.parse.quote(secret), repr(secret)[1:-1]}
    raws = {secret.encode()}
    digits = secret.removeprefix("0x")
    if len(digits) == 64:
        key = bytes.fromhex(digits)
        texts |= {digits, digits.upper(), str(int(digits, 16)), repr(key)[2:-1], str(list(key))[1:-1]}
        raws.add(key)
    encoded = {base64.b64encode(raw) for raw in raws} | {base64.urlsafe_b64encode(raw) for raw in raws}
    return {text.encode() for text in texts} | raws | {raw.rstrip(b"=") for raw in encoded}


def found_in(data: bytes, secrets: Iterable[str]) -> list[str]:
    """Which secrets are in `data`, by their first characters only."""
    return [f"{secret[:6]}…" for secret in secrets if any(form in data for form in forms_of(secret))]


def unpacked(data: bytes) -> bytes:
    """What zlib streams in `data` hold: the store compresses what it writes."""
    parts, at = [], data.find(b"x\x9c")
    while at != -1:
        with suppress(zlib.error):
            parts.append(zlib.decompressobj().decompress(data[at:]))
        at = data.find(b"x\x9c", at + 1)
    return b"\0".join(parts)


def files_with(folder: Path, secrets: Iterable[str], besides: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Files below `folder` that hold a secret in any form, those that the owner wrote into it aside."""
    secrets, leaks = list(secrets), {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in set(besides):
            data = path.read_bytes()
            if leaked := found_in(data + b"\0" + unpacked(data), secrets):
                leaks[path.name] = leaked
    return leaks


@contextmanager
def all_logs() -> Iterator[io.StringIO]:
    """Everything that any library logs while the block lasts, at the level of debugging."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setLevel(logging.NOTSET)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def shown_of(error: BaseException) -> str:
    """The error as plain text, as logged, and as rich prints it with every local variable of every frame."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("canary")
    logger.addHandler(handler)
    logger.error("failed: %r %s", error, error, exc_info=error)
    logger.removeHandler(handler)
    Console(file=stream, width=300).print(
        Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, locals_max_string=None, locals_max_length=10)
    )
    seen: BaseException | None = error
    while seen is not None:
        frames = traceback.TracebackException.from_exception(seen, capture_locals=True)
        stream.write("".join(frames.format()) + repr(seen) + repr(seen.args) + repr(vars(seen)))
        seen = seen.__cause__ or seen.__context__
    return stream.getvalue()


def objects_of(package: str) -> list[object]:
    """Every living object whose class is of `package`, those too that the collector was told to leave alone."""
    gc.unfreeze()
    found = [thing for thing in gc.get_objects() if str(type(thing).__module__).partition(".")[0] == package]
    gc.freeze()
    return found


def told_by(thing: object) -> bytes:
    """All that an object says of itself: its text forms, its JSON, its pickle."""
    said = [repr(thing).encode(), str(thing).encode(), f"{thing}".encode()]
    for attempt in ("model_dump_json", "model_dump"):
        method = getattr(thing, attempt, None)
        if callable(method) and not isinstance(thing, type):
            said.append(str(method()).encode())
    try:
        said.append(pickle.dumps(thing))
    except Exception as refused:  # what cannot be pickled says so without showing what it is
        said.append(shown_of(refused.with_traceback(None)).encode())
    return b"\0".join(said)
