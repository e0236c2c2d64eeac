"""TOML and JSON of others: bounded before a parser sees them, in every place that reads them. The texts are
so long that a search which starts over would end with the time-out of a test.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.chain.rpc import scrub
from agent.config.load import load_config
from agent.config.redaction import is_secret
from agent.config.writing import edits, futures_template, order_levels, token_lists
from agent.config.writing.profile import read_profile
from agent.errors import ConfigError
from agent.foreign_text import MAX_KEY_PARTS, MAX_NESTING, MAX_TOML_LENGTH, MAX_WORD_LENGTH, bounded_toml, read_json, read_toml
from agent.price_files.read import read_closes
from agent.signing.keys import open_keystore
from agent.signing.secret import Secret
from tests.support.agents import config

ROOT = Path(__file__).parents[4]
BEYOND = {
    "a key of many parts": "a." * 30_000 + "a = 1",
    "a header of many parts": "[" + "a." * 30_000 + "a]",
    "quoted parts": '"a".' * 30_000 + "a = 1",
    "parts in an inline table": "x = {" + "a." * 30_000 + "a = 1}",
    "nested lists": "x = " + "[" * 100_000,
    "nested tables": "x = " + "{a = " * 100_000,
    "a number of many digits": "x = " + "9" * 5_000,
    "nested lists behind a string that ends in four quotes": 'a = ["""x"""",' + "[" * 100_000,
    "nested lists behind a literal that ends in four quotes": "a = ['''x''''," + "[" * 100_000,
    "a key behind a string that ends in four quotes": 'x = {b = """x"""",' + "a." * 5_000 + "a = 1}",
    "a long name": "a" * 30_000 + " = 1",
    "more than a config ever has": "# \n" * MAX_TOML_LENGTH,
}
WITHIN = {
    "dots in strings and comments": f'x = "{"a." * 1000}" # {"a." * 1000}\ny = """{"[" * 100}"""\nz = \'{"[." * 100}\'',
    "as many parts as allowed": ".".join("a" * MAX_KEY_PARTS) + " = 1.5",
    "as deep as allowed": "x = " + "[" * MAX_NESTING + "1.5" + "]" * MAX_NESTING,
    "brackets in strings that end in four and five quotes": 'x = ["""[."""", """[."""""]' + f"\ny = ['''{'[' * 100}'''']",
    "many lists": "x = [" + "[1.5, 2.5], " * 1000 + "]",
    "a byte order mark": "\ufeffx = 1",
    "as long a word as allowed": "x" * MAX_WORD_LENGTH + " = 1",
}


@pytest.mark.parametrize("case", BEYOND)
def test_toml_beyond_the_bounds_is_refused(case: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        read_toml(BEYOND[case])


@pytest.mark.parametrize("case", WITHIN)
def test_toml_within_the_bounds_is_read(case: str) -> None:
    assert read_toml(WITHIN[case])


@pytest.mark.parametrize("opening", ['"""', "'''", '"', "'", '"\\"', '""" \\"', "#", "[", "{a=", "\"\"\"'''", "a.b=", '"""\n\\'])
def test_no_text_makes_the_search_start_over(opening: str) -> None:
    with contextlib.suppress(tomllib.TOMLDecodeError):
        bounded_toml(opening * (200_000 // len(opening)))


@pytest.mark.parametrize("opening", ['\\"', '"\\"', "\\", '"', '"[', '"\\\\', "{"])
def test_no_json_makes_the_search_for_brackets_start_over(opening: str) -> None:
    text = "[" + "[]," * (MAX_NESTING + 1) + '"' + opening * (400_000 // len(opening))
    with pytest.raises(ValueError, match=r".+"):
        read_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": 1, "b": 2, "a": 3}',
        "9" * 5_000,
        "",
        "\ufeff",
        "[NaN]",
        '{"a": Infinity}',
        "-Infinity",
        "1e999",
        '{"a": -1e400}',
    ],
)
def test_json_beyond_the_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_json(text)


@pytest.mark.parametrize("word", ["z", "zZ", "z+", "z ", "1z", "z."])
def test_no_long_text_makes_the_search_for_secrets_start_over(word: str) -> None:
    text = word * (2_000_000 // len(word))
    assert len(scrub(text)) == 200
    assert is_secret(text) == (word == "z ")


@pytest.mark.parametrize(
    ("text", "has_secret"),
    [
        pytest.param("wss://h", True, id="a URL"),
        pytest.param("1svn+ssh://h", True, id="a URL behind a digit"),
        pytest.param("://h", False, id="no scheme"),
        pytest.param("a" * 40 + "://h", True, id="a long scheme"),
        pytest.param("a b c d e f g h i j k l", True, id="twelve words"),
        pytest.param("1a b\n c d e f g h i j k l", True, id="twelve words behind a digit"),
        pytest.param("a b c d e f g h i j k", False, id="eleven words"),
        pytest.param("a b c d e f 1 g h i j k l", False, id="a number among words"),
    ],
)
def test_secret__url_or_recovery_phrase__is_noticed(text: str, has_secret: bool) -> None:
    assert is_secret(text) == has_secret


def test_a_repeated_key_among_many_is_found() -> None:
    with pytest.raises(ValueError, match="'x' appears twice"):
        read_json("{" + ", ".join(f'"{number}": 1' for number in range(50_000)) + ', "x": 1, "x": 2}')


def test_json_of_texts__keeps_words_for_no_number() -> None:
    assert read_json("[1.50, NaN, -Infinity]", number_type=str) == ["1.50", "NaN", "-Infinity"]


def test_json_with_a_byte_order_mark_is_read() -> None:
    assert read_json('\ufeff{"a": [1]}') == {"a": [1]}


def _config(path: Path, text: str) -> object:
    path.write_text(text)
    path.chmod(0o600)
    return load_config(path)


def _profile(path: Path, text: str) -> object:
    return read_profile(text.encode(), "profile.toml", load_config(config(path.parent)))


def _edit(_: Path, text: str) -> object:
    return edits.apply_changes(text, edits.parse_changes((), ("WETH=50%",), (), ()))


def _order_levels(path: Path, text: str) -> object:
    path.write_text(text)
    return order_levels.edit_order_levels(path, "WETH", {"stop_loss": "10%"})


def _futures_venue(path: Path, text: str) -> object:
    path.write_text(text)
    return futures_template.read_venue(path)


def _token_list(path: Path, text: str) -> object:
    path.write_text('{"tokens": ' + "[" * 100_000 if text else "")
    return token_lists.read_token_list(path, 1)


def _keystore(path: Path, _: str) -> object:
    error = open_keystore(b'{"version": 3, "crypto": ' + b"[" * 9_000, Secret("x"), path)
    assert isinstance(error, ConfigError)
    raise error


def _price_file(path: Path, text: str) -> object:
    candles_path = path.with_suffix(".json")
    candles_path.write_text('{"data": ' + "[" * 100_000 if text else "")
    return read_closes(candles_path)


READERS: dict[str, Callable[[Path, str], object]] = {
    "config": _config,
    "profile": _profile,
    "edit": _edit,
    "order levels": _order_levels,
    "futures venue": _futures_venue,
    "token list": _token_list,
    "keystore": _keystore,
    "price file": _price_file,
}


@pytest.mark.parametrize("case", ["a key of many parts", "nested lists", "a number of many digits"])
@pytest.mark.parametrize("reader", READERS)
def test_each_reader_of_files_refuses_them_as_a_config_error(tmp_path: Path, reader: str, case: str) -> None:
    with pytest.raises(ConfigError):
        READERS[reader](tmp_path / "file.toml", BEYOND[case])


def test_no_other_place_parses_toml() -> None:
    """What a file or a person gives passes the bounds first."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py")}
    parsing = re.compile(r"tomllib\.loads?\(|tomlkit\.(?:parse|loads?)\((?!bounded_toml\()")
    assert [str(path.relative_to(ROOT)) for path, source in sources.items() if parsing.search(source)] == ["agent/foreign_text.py"]


READERS_OF_OWN_JSON = {
    "agent/app/start/past_results.py",
    "agent/artifacts.py",
    "agent/figures.py",
    "agent/signals/worker.py",
    "agent/web/api/routes.py",
}
"""Modules that read JSON of the package, or of a process of trimtab."""


def test_no_other_place_parses_json_of_files() -> None:
    """A module that reads a file leaves its JSON to the bounded reader."""
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py")}
    parsing = re.compile(r"json\.loads?\(|from json import [^\n]*\bload")
    reading = re.compile(r"\.read_(?:text|bytes)\(|\bopen\(")
    readers = {name for name, source in sources.items() if "json" in source and parsing.search(source) and reading.search(source)}
    assert readers == READERS_OF_OWN_JSON
