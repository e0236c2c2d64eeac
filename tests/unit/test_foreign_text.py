"""Failures of libraries and of the system in plain words: no message names a Python class, or repeats what may be a secret."""

from __future__ import annotations

import ast
import http.client
import ssl
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn
from unittest.mock import patch

import keyring.errors
import numpy as np
import pytest
import requests
import urllib3.exceptions

from agent.app.records.published import download
from agent.app.research import offline
from agent.backtest import workers
from agent.errors import TrimtabError, internal_error, kind_words
from agent.foreign_text import failure_text, failure_words, key_like_texts, without_parts_of
from agent.signing.futures import OpenPosition
from agent.signing.keys import load_from_keyring
from agent.signing.remote_key import RemoteKey
from agent.signing.remote_signer import RemoteSigner
from agent.weights.allocators import _fit_weights
from tests.support.signing import CANCEL, WALLET

ROOT = Path(__file__).parent.parent.parent
SCHEDULER = "tcp://10.0.0.7:8786"


class KilledWorker(Exception):
    """An error with the name of Dask's."""


def failing(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def locked_keyring() -> object:
    with (
        patch("agent.signing.keys.require_keyring"),
        patch("keyring.get_password", failing(keyring.errors.KeyringLocked("secret"))),
    ):
        return load_from_keyring(("trimtab", "main"))


def killed_worker() -> NoReturn:
    raise workers._worker_error(
        KilledWorker("Attempted to run task 'run_chunk' on 4 workers, all of which died\nmore"),
        "finished runs are kept if --out names a folder",
    )


def inconsistent_input() -> object:
    with (
        patch.object(offline, "require_possible_input"),
        patch("agent.app.research.offline.evaluation.evaluate_input", failing(KeyError("0xab"))),
    ):
        return offline.plan_step_input(SimpleNamespace(snapshot=None, portfolio=None))  # type: ignore[arg-type]  # not read


def optimiser() -> object:
    return _fit_weights(SimpleNamespace(fit=failing(RuntimeError("Solver 'CLARABEL' failed.\nTry another"))), np.eye(2))


MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "key service": (
        lambda: RemoteKey(WALLET, failing(requests.ConnectionError("https://user:secret@kms.example/"))).sign_transaction(CANCEL),
        "the key service did not sign: it cannot be reached"
        " (nothing was sent; check the service and its permissions, try again)",
    ),
    "remote signer": (
        lambda: RemoteSigner(WALLET, lambda *_: "0x00").sign_transaction(CANCEL),
        f"the remote signer's answer is not this transaction, signed by {WALLET} (it has other bytes)"
        " (check that the service signs with the key of this address and changes no field)",
    ),
    "keyring": (
        locked_keyring,
        "keyring: cannot read trimtab/main: it is locked (unlock the keyring and try again, or"
        " use a keystore file (trimtab wallet create --keystore wallet.json), or install a keyring service)",
    ),
    "scheduler": (
        lambda: workers._connect(SimpleNamespace(Client=failing(OSError(f"Timed out trying to connect to {SCHEDULER}"))), SCHEDULER),
        f"--run scheduler: {SCHEDULER} does not answer: Timed out trying to connect to {SCHEDULER}"
        " (start one with: dask scheduler, dask worker ADDRESS)",
    ),
    "worker": (
        killed_worker,
        "--run scheduler: a worker failed: Attempted to run task 'run_chunk' on 4 workers, all of which died;"
        f" {workers.RESULTS_KEPT_HINT} (see the log of the worker)",
    ),
    "saved input": (
        inconsistent_input,
        "the input is inconsistent: a value is missing: '0xab' (use a file written by plan --save-input)",
    ),
    "download": (
        lambda: download("http://127.0.0.1:1/prices.csv", "data.weth.source", 10, ""),
        "data.weth.source: the download failed: Connection refused (check the address and the connection, then try again)",
    ),
    "optimiser": (
        optimiser,
        "the optimiser found no weights: Solver 'CLARABEL' failed. (check portfolio.weights.limits)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), MESSAGES.values(), ids=MESSAGES)
def test_message__failure_of_a_library__is_plain(act: Callable[[], object], sentence: str) -> None:
    with pytest.raises(TrimtabError) as caught:
        act()
    assert str(caught.value) == sentence


WORDS: dict[str, tuple[Exception, str]] = {
    "no answer": (requests.ConnectTimeout("secret"), "no answer in time"),
    "certificate": (requests.exceptions.SSLError("secret"), "its certificate is not accepted"),
    "certificate in a download": (urllib.error.URLError(ssl.SSLError(1, "secret")), "its certificate is not accepted"),
    "address": (requests.exceptions.InvalidURL("secret"), "its address is not valid"),
    "scheme": (requests.exceptions.MissingSchema("secret"), "its address is not valid"),
    "host": (urllib3.exceptions.LocationParseError("secret"), "its address is not valid"),
    "header": (UnicodeEncodeError("latin-1", "secret", 0, 1, "x"), "its address or key has characters that cannot be sent"),
    "cut off": (http.client.IncompleteRead(b"secret"), "the connection was closed during the answer"),
    "closed": (http.client.RemoteDisconnected("secret"), "the connection was closed during the answer"),
    "system": (PermissionError(13, "Permission denied", "/secret"), "Permission denied"),
    "system without words": (PermissionError("secret"), "access is denied"),
    "text": (UnicodeDecodeError("utf-8", b"secret", 0, 1, "x"), "it is not plain text"),
    "memory": (MemoryError("secret"), "too little memory"),
    "unknown": (ValueError("secret"), "unexpected error"),
}


@pytest.mark.parametrize(("error", "words"), WORDS.values(), ids=WORDS)
def test_failure_words__kind_of_error__is_told_without_its_text(error: Exception, words: str) -> None:
    assert failure_words(error) == words


def test_failure_text__long_lines__is_one_bounded_line() -> None:
    assert failure_text(ValueError("x" * 301 + "\ny")) == "x" * 300
    assert failure_text(ValueError()) == "unexpected error"


def test_internal_error__defect__names_the_place_only() -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        failing(ValueError("secret"))()
    line = failing.__code__.co_firstlineno + 2
    assert str(internal_error(caught.value)) == f"internal error at test_foreign_text.py:{line} (this is a bug; report it)"


def test_kind_words__class_of_a_call__is_words() -> None:
    assert kind_words(OpenPosition) == "open position"


# --- No other place names a class.


NAMES_CLASSES = {
    "agent/app/controls/shown_plans.py": "a part of a hash",
    "agent/calls.py": "arguments of the Python interface",
    "agent/chain/providers/endpoint.py": "a defect, whose traceback would show the URL",
    "agent/cli/display/terminal.py": "`kind` of errors in the documents",
    "agent/layers/liquidity/policy/signals.py": "keys of signals, which nobody sees",
    "agent/model/parts.py": "an order of classes",
    "agent/research/arguments.py": "arguments of the Python interface",
    "agent/research/prices.py": "arguments of the Python interface",
    "agent/research/results.py": "the `repr` of results, which Python writes so",
    "agent/signals/worker.py": "errors of the owner's own Python",
    "agent/signing/keys.py": "the keyring's own names of its backends",
}
"""Modules that name classes outside logs and defects, and why."""
DEFECTS = {"TypeError", "RuntimeError"}


def names_of_classes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that name the class of a value, or quote an error as Python writes it, outside logs and defects."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            is_log = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).rpartition(".")[2].strip("_") == "log"
            if is_log or (isinstance(node.func, ast.Name) and node.func.id in DEFECTS):
                continue
        if isinstance(node, ast.keyword) and node.arg == "kind":
            continue
        is_class = isinstance(node, ast.Attribute) and (
            node.attr == "__class__"
            or (node.attr == "__name__" and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "type")
        )
        is_quote = (isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and ast.unparse(node.value) == "error") or (
            isinstance(node, ast.Call) and ast.unparse(node) == "repr(error)"
        )
        if is_class or is_quote:
            yield node.lineno
        yield from names_of_classes(node)


def test_no_other_message_names_a_class() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py")}
    naming = {
        name: list(names_of_classes(ast.parse(source)))
        for name, source in sources.items()
        if "__name__" in source or "__class__" in source or "error!r" in source or "repr(error)" in source
    }
    assert {name for name, lines in naming.items() if lines} == set(NAMES_CLASSES), naming


@pytest.mark.parametrize(
    ("statement", "is_noticed"),
    [
        ('raise ConfigError(f"it failed ({type(error).__name__})")', True),
        ("return error.__class__", True),
        ('why = f"it failed: {error!r}"', True),
        ("why = repr(error)", True),
        ('self._log.error("failed", why=type(error).__name__)', False),
        ('raise TypeError(f"{type(action).__name__} moves nothing")', False),
        ('fields(kind=type(error).__name__)', False),
        ('why = f"it failed: {failure_words(error)}"', False),
    ],
)  # fmt: skip
def test_a_message_that_names_a_class_is_noticed(statement: str, is_noticed: bool) -> None:
    assert bool(list(names_of_classes(ast.parse(statement)))) is is_noticed


PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.mark.parametrize("text", ["ab" * 32, "0x" + "ab" * 32, "AB" * 30, "ab" * 34, PHRASE, f"{PHRASE} {PHRASE}"])
def test_key_like_texts__key_or_phrase__is_named(text: str) -> None:
    assert key_like_texts(f"keystore={text},") == [text, text]


@pytest.mark.parametrize(
    "text",
    ["0x" + "ab" * 20, "0x" + "ab" * 65, "ab" * 29 + "a", "ab" * 34 + "a", "g" + "ab" * 32, PHRASE.removesuffix(" yellow")],
    ids=["address", "signature", "59 digits", "69 digits", "word", "11 words"],
)
def test_key_like_texts__other_text__is_none(text: str) -> None:
    assert key_like_texts(text) == []


def test_without_parts_of__shortened_secret__keeps_a_part_of_eleven_alone() -> None:
    secret = "0123456789abcdef" * 4
    assert without_parts_of(f"not {secret[:40]!r}, nor …{secret[-12:].upper()}", [secret]) == "not '(hidden)', nor …(hidden)"
    assert without_parts_of(f"…{secret[-11:]}", [secret]) == f"…{secret[-11:]}"
