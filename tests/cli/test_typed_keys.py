"""A private key or recovery phrase typed where it does not belong: no error of any command repeats it (T18)."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import tomlkit
from typer.main import get_command

from agent.cli.display.terminal import print_error
from agent.cli.main import app
from agent.cli.options import DECLARED_COMMANDS
from agent.config.load import load_config, parse_config
from agent.config.secrets.key_sources import key_source
from agent.errors import ConfigError
from agent.foreign_text import read_toml
from agent.signing.keys import load_key
from tests.cli.tools import in_process
from tests.support.agents import config
from tests.support.commands.options import every_command
from tests.support.commands.sending import WALLET_KEY, shown_part

PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
"""A recovery phrase of BIP-39's test vectors."""
SECRETS = {
    "key": WALLET_KEY,
    "digits": WALLET_KEY[2:],
    "one digit lost": WALLET_KEY[:-1],
    "capitals": WALLET_KEY[2:].upper(),
    "phrase": PHRASE,
}


def uses() -> list[tuple[str, ...]]:
    """Every command with `KEY` as each of its arguments and the value of each of its options, with each name of a grouped one."""
    grouped_options = {command.name: command.grouped_options for command in DECLARED_COMMANDS}
    rows: list[tuple[str, ...]] = []
    for words in every_command():
        command: click.Command = get_command(app)
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]  # a group, by `every_command`
        names = {option.option: option.names for option in grouped_options.get(words[0]) or ()}
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                rows.append((*words, "KEY"))
            elif isinstance(parameter, click.Option) and not parameter.is_flag:
                spelling = parameter.opts[0]
                rows += [(*words, spelling, text) for text in ("KEY", *(f"{name}=KEY" for name in names.get(spelling, ())))]
    return rows


@pytest.mark.parametrize("secret", SECRETS)
def test_key_in_any_place_of_a_command__is_not_repeated(
    secret: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = uses() if secret == "key" else uses()[:: len(SECRETS)]
    assert len(rows) > 60
    repeating_rows = []
    for row in rows:
        result = in_process(capfd, monkeypatch, *(text.replace("KEY", SECRETS[secret]) for text in row))
        if result.code and shown_part(SECRETS[secret], result.out + result.err):
            repeating_rows.append((row, result.why))
    assert repeating_rows == []


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["wallet.address", "wallet.key_env", "wallet.mode", "chain.rpc", "policy.rebalance_if"])
def test_key_in_a_config__is_not_repeated(secret: str, key: str, tmp_path: Path) -> None:
    path = config(tmp_path, comments=False)
    values = read_toml(path.read_text())
    table, _, name = key.partition(".")
    values[table] = {**values[table], name: SECRETS[secret]}
    with pytest.raises(ConfigError) as caught:
        parse_config(tomlkit.dumps(values))
    assert not shown_part(SECRETS[secret], str(caught.value))


def test_keystore__that_is_the_key_is_not_repeated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, comments=False)
    values = read_toml(path.read_text())
    values["wallet"] = {"address": values["wallet"]["address"], "keystore": WALLET_KEY}
    path.write_text(tomlkit.dumps(values))
    with pytest.raises(ConfigError) as caught:
        load_key(key_source(load_config(path)), 1, ask=None)
    assert shown_part(WALLET_KEY, caught.value.message)
    print_error(caught.value, as_json=True)
    captured = capfd.readouterr()
    assert "keystore" in captured.err
    assert not shown_part(WALLET_KEY, captured.out + captured.err)
