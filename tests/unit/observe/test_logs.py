"""Log lines: one form, one line each, no secret and no control code in any of them (T17, T18)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from agent.observe.logs import HIDDEN_TEXT, Log, Redactor, configure

URL = "https://user:hunter22@node.example/v2/canary7f3a9?key=s3cr3t-k3y"
KEY_DIGITS = "aB" * 32


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    configure(None)


def test_json_lines__are_documents_with_time_level_and_event(stream: io.StringIO) -> None:
    configure("json", stream=stream).info("look", outcome="hold", block=7)
    document = json.loads(stream.getvalue())
    assert {"level": "info", "event": "look", "outcome": "hold", "block": 7}.items() <= document.items()
    assert document["time"].endswith("Z")


def test_text_lines_hold_the_same(stream: io.StringIO) -> None:
    configure("text", stream=stream).warning("paused", reason="lunch break")
    assert stream.getvalue().rstrip().endswith('WARNING paused reason="lunch break"')


@pytest.mark.parametrize("style", ["text", "json"])
def test_foreign_text__splits_no_line_and_steers_no_terminal(stream: io.StringIO, style: str) -> None:
    configure(style, stream=stream).info("look\x1b[2J", reason="a\nb\x1b[31m\u202e\u2028")  # type: ignore[arg-type]  # one of the two
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.isascii()
    assert "\x1b" not in line


@pytest.mark.parametrize("piece", [URL, "canary7f3a9", "hunter22", "s3cr3t-k3y", "key=s3cr3t-k3y"])
@pytest.mark.parametrize("style", ["text", "json"])
def test_no_piece_of_a_secret_url_is_logged(stream: io.StringIO, style: str, piece: str) -> None:
    log = configure(style, Redactor([URL]), stream)  # type: ignore[arg-type]  # one of the two
    log.info(f"event {piece}", why=f"cannot reach {piece}", nested={"deep": [piece]})
    logging.getLogger("urllib3.connectionpool").error("GET %s", piece)
    try:
        raise ValueError(piece)
    except ValueError:
        logging.getLogger("trimtab").exception("failed")
    assert piece not in stream.getvalue()
    assert stream.getvalue().count(HIDDEN_TEXT) >= 4


def test_a_secret_that_json_would_escape_is_found_too(stream: io.StringIO) -> None:
    secret = 'pass"wörd\\x'
    configure("json", Redactor([secret]), stream).info("x", why=secret)
    text = stream.getvalue()
    assert json.dumps(secret)[1:-1] not in text
    assert json.loads(text)["why"] == HIDDEN_TEXT


@pytest.mark.parametrize("digits", [KEY_DIGITS, KEY_DIGITS.lower(), KEY_DIGITS.upper()], ids=["as given", "lower case", "upper case"])
@pytest.mark.parametrize("text_prefix", ["", "0x"], ids=["digits", "0x digits"])
@pytest.mark.parametrize("key_prefix", ["", "0x", "0X"], ids=["key of digits", "key of 0x digits", "key of 0X digits"])
def test_key__is_hidden_in_each_case_with_and_without_0x(key_prefix: str, text_prefix: str, digits: str) -> None:
    text = Redactor([key_prefix + KEY_DIGITS]).redact(f"key {text_prefix}{digits} of one")
    assert text in (f"key {HIDDEN_TEXT} of one", f"key {text_prefix}{HIDDEN_TEXT} of one")


def test_percent_encoded_secret__is_hidden() -> None:
    secret = "pass/word & more"
    assert Redactor([secret]).redact(f"GET /?q={quote(secret, safe='')}") == f"GET /?q={HIDDEN_TEXT}"


def test_pieces_below_six_characters_blot_out_nothing() -> None:
    assert Redactor(["https://node.example/v2/eth"]).redact("eth v2 hold") == "eth v2 hold"
    assert Redactor(["s3cr3", "s3cr3t"]).redact("s3cr3 s3cr3t") == f"s3cr3 {HIDDEN_TEXT}"


def test_without_a_format_nothing_is_written(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    configure(None).error("quiet")
    assert stream.getvalue() == ""


def test_without_a_format__libraries_write_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of pytest
    configure(None, Redactor([URL]))
    logging.getLogger("library").warning("no answer from %s", URL)
    assert capsys.readouterr() == ("", "")


def test_configured_twice_a_line_is_written_once(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    configure("text", stream=stream).info("once")
    assert stream.getvalue().count("once") == 1


class FullStream(io.StringIO):
    """A stream whose disk is full."""

    def write(self, _text: str) -> int:
        raise OSError("no space left")


def test_unwritable_line__ends_nothing_and_shows_nowhere_else(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    del stream
    configure("json", Redactor([URL]), FullStream()).info("x", why=URL)
    assert capsys.readouterr() == ("", "")


def test_portfolio_lines__name_it_and_hide_a_later_secret(stream: io.StringIO) -> None:
    redactor = Redactor()
    configure("json", redactor, stream)
    log = Log(portfolio="savings")
    redactor.add(["a-later-secret"])
    log.warning("paused", reason="a-later-secret is shown")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["portfolio"], line["reason"]) == ("savings", f"{HIDDEN_TEXT} is shown")
