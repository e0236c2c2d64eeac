"""Variables of a config: of the environment, and of `.env` beside it, which is refused where others can read it. Of two configs in one
process each has its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from eth_account import Account
from eth_keyfile import create_keyfile_json

from agent.app.config_versions import fixed_tables_changed
from agent.app.settings.new_portfolios import next_commands
from agent.app.start.wallet import PasswordSource, new_password
from agent.config.load import load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.secrets.env_file import read_variables, referenced_env_variables
from agent.config.secrets.key_sources import agent_key_source, key_source
from agent.config.secrets.known import read_unset_variables, secrets_of, without_known_secrets
from agent.config.tables.futures import HyperliquidTable
from agent.errors import ConfigError
from agent.signing.keys import load_key
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text

CANARY = "canary7f3a"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    with mock.patch.dict(os.environ):
        for name in ("RPC_A", "RPC_B", "TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_AGENT_PASSWORD", "MY_KEY", "HOOK", "HEART", "ZERO_X"):
            os.environ.pop(name, None)
        yield


def beside(folder: Path, content: str, mode: int = 0o600) -> Path:
    """A config with a .env beside it."""
    path = folder / "trimtab.toml"
    env = folder / ".env"
    path.write_text(config_text())
    path.chmod(0o600)
    env.write_text(content)
    env.chmod(mode)
    return path


def test_what_the_config_names_is_taken_from_the_file_beside_it(tmp_path: Path) -> None:
    path = beside(tmp_path, f'# endpoints\nRPC_A=https://a.example/{CANARY}\nexport RPC_B="https://b.example/x y"\n\n')
    rpc = load_config(path).config.chain.rpc
    assert [endpoint.read_url() for endpoint in rpc] == [f"https://a.example/{CANARY}", "https://b.example/x y"]


def test_variable_that_was_not_set__is_read_again(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    loaded_config = load_config(path)
    read_unset_variables(loaded_config, ["RPC_B"])
    assert loaded_config.variables == {"RPC_A": "https://a.example"}
    beside(tmp_path, f"RPC_A=https://other.example\nRPC_B=https://{CANARY}.example\nTRIMTAB_KEYSTORE_PASSWORD=p\n")
    read_unset_variables(loaded_config, ["RPC_A", "RPC_B"])
    assert [endpoint.read_url() for endpoint in loaded_config.config.chain.rpc] == ["https://a.example", f"https://{CANARY}.example"]
    assert "TRIMTAB_KEYSTORE_PASSWORD" not in loaded_config.variables
    assert CANARY not in without_known_secrets(f"https://{CANARY}.example")


def test_variable_that_was_not_set__is_not_read_from_an_open_file(tmp_path: Path) -> None:
    loaded_config = load_config(beside(tmp_path, "RPC_A=https://a.example\n"))
    beside(tmp_path, "RPC_B=https://b.example\n", mode=0o644)
    with pytest.raises(ConfigError, match=r"\.env"):
        read_unset_variables(loaded_config, ["RPC_B"])
    assert "RPC_B" not in loaded_config.variables


def test_the_environment_wins(tmp_path: Path) -> None:
    os.environ["RPC_A"] = "https://outside.example"
    rpc = load_config(beside(tmp_path, "RPC_A=https://a.example\nRPC_B=https://b.example\n")).config.chain.rpc
    assert [endpoint.read_url() for endpoint in rpc] == ["https://outside.example", "https://b.example"]


def test_nothing_is_taken_that_no_config_names_but_our_own(tmp_path: Path) -> None:
    before = dict(os.environ)
    loaded = load_config(beside(tmp_path, "RPC_A=a\nLD_PRELOAD=evil.so\nPATH=/evil\nTRIMTAB_KEYSTORE_PASSWORD=pw\n"))
    assert loaded.variables == {"RPC_A": "a", "TRIMTAB_KEYSTORE_PASSWORD": "pw"}
    assert dict(os.environ) == before, "nothing is taken into the process"


def test_a_dollar_sign_in_a_password_is_one(tmp_path: Path) -> None:
    loaded = load_config(beside(tmp_path, "TRIMTAB_KEYSTORE_PASSWORD=a${HOME}b\n"))
    assert loaded.variables["TRIMTAB_KEYSTORE_PASSWORD"] == "a${HOME}b"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_file_others_can_read_or_change__is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = beside(tmp_path, f"RPC_A=https://a.example/{CANARY}\n", mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
        load_config(path)
    assert caught.value.remedy == f"run: chmod 600 {path.with_name('.env')}"
    assert CANARY not in str(caught.value)
    paused = load_config(path, checks_permissions=False)  # a pause has to work whatever lies there
    assert "RPC_A" not in paused.variables


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    os.chown(path.with_name(".env"), 4_711, 4_711)
    with pytest.raises(ConfigError, match="another user"):
        load_config(path)


def test_the_file_of_another_program_is_nothing_to_us(tmp_path: Path) -> None:
    assert load_config(beside(tmp_path, "DATABASE_URL=postgres://x\n", 0o644)).variables == {}


@pytest.mark.parametrize("line", ["RPC_A", "= x", "A B", f"{CANARY} {CANARY}"])
def test_line_that_is_no_assignment__is_named_by_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"\.env.*line 2.*NAME=VALUE") as caught:
        load_config(beside(tmp_path, f"# first\n{line}\n"))
    assert CANARY not in str(caught.value)


def test_missing_file__does_nothing_and_non_text_is_named(tmp_path: Path) -> None:
    read_variables(tmp_path, ["RPC_A"])
    read_variables(tmp_path / "nowhere", ["RPC_A"])
    file_in_place_of_a_folder = tmp_path / "file"
    file_in_place_of_a_folder.touch()
    read_variables(file_in_place_of_a_folder, ["RPC_A"])
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read: it is not plain text"):
        read_variables(tmp_path, ["RPC_A"])


def test_a_config_names_variables_by_keys_that_end_in_env() -> None:
    table = {"url_env": "A", "rpc": [{"key_env": "B"}, {"env": "C"}], "x_env_y": "D", "n_env": 5, "deep": {"deeper": {"z_env": "E"}}}
    assert list(referenced_env_variables(table)) == ["A", "B", "E"]


def test_a_text_that_is_not_in_its_file_yet_takes_it_too(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    assert load_config_text(config_text(), path, "edited").config.chain.rpc[0].read_url() == "https://a.example"


# Several portfolios in one process.
KEYS = {"one": "11" * 32, "two": "22" * 32}


def portfolio(folder: Path, name: str, env: str) -> LoadedConfig:
    """Load a config in a folder of its own; both configs name the same variables."""
    (folder / name).mkdir()
    path = beside(folder / name, env)
    file_text = config_text(
        ('keystore = "wallet.json"', 'key_env = "MY_KEY"'), ("[service]", '[service]\nheartbeat_url_env = "HEART"'), ("[alerts]", ALERTS)
    )
    path.write_text(f'{file_text}\n[second_opinions]\nservices = ["0x"]\nzero_x_env = "ZERO_X"\n')
    return load_config(path)


ALERTS = '[[alerts.targets]]\nname = "phone"\nurl_env = "HOOK"\n[alerts]'


def values_of(loaded: LoadedConfig) -> dict[str, object]:
    """What the tables of a config give for each kind of variable; None for one that is not set."""
    config = loaded.config
    opinions = loaded.config.second_opinions
    assert opinions is not None
    readers: dict[str, Callable[[], object]] = {
        "endpoint": config.chain.rpc[0].read_url,
        "key": lambda: load_key(key_source(loaded), 1, ask=None).address,
        "alert": config.alerts.targets[0].read_url,
        "heartbeat": config.service.read_heartbeat_url,
        "aggregator": lambda: opinions.variable(opinions.zero_x_env) or None,
        "secrets of the log": lambda: sorted(secrets_of(loaded)) or None,
    }
    values: dict[str, object] = {}
    for name, read in readers.items():
        try:
            values[name] = read()
        except ConfigError as error:
            assert "not set" in str(error)
            values[name] = None
    return values


def env_of(name: str) -> str:
    return (
        f"RPC_A=https://{name}.example\nMY_KEY={KEYS[name]}\nHOOK=json://{name}.example/hook\n"
        f"HEART=https://heart.example/{name}\nZERO_X={name}-0x\n"
    )


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")], ids=["first then second", "second then first"])
def test_two_configs_in_one_process_share_no_variable(tmp_path: Path, order: tuple[str, str]) -> None:
    before = dict(os.environ)
    loaded = {name: portfolio(tmp_path, name, env_of(name)) for name in order}
    values = {name: values_of(loaded[name]) for name in order}
    for name in order:
        assert values[name]["endpoint"] == f"https://{name}.example"
        assert values[name]["key"] == Account.from_key(KEYS[name]).address
        assert values[name]["alert"] == f"json://{name}.example/hook"
        assert values[name]["heartbeat"] == f"https://heart.example/{name}"
        assert values[name]["aggregator"] == f"{name}-0x"
    assert not {*map(str, values["one"].values())} & {*map(str, values["two"].values())}
    other = {"one": "two", "two": "one"}
    for name in order:
        assert KEYS[name] in secrets_of(loaded[name]), "its own key is taken out of log lines"
        assert not any(other[name] in secret or KEYS[other[name]] in secret for secret in secrets_of(loaded[name]))
    assert dict(os.environ) == before


AGENT_SOURCES = ['agent_keystore = "agent.json"', 'agent_key_env = "AGENT_KEY"']


@pytest.mark.parametrize("agent_source", AGENT_SOURCES, ids=["agent's keystore", "agent's key"])
def test_two_configs_share_no_venue_and_no_password(tmp_path: Path, agent_source: str) -> None:
    futures_text = HYPERLIQUID.replace('url = "http://127.0.0.1:1"', 'url_env = "VENUE"').replace(AGENT_SOURCES[0], agent_source)
    loaded = {}
    for name, key in KEYS.items():
        (tmp_path / name).mkdir()
        passwords = f"TRIMTAB_KEYSTORE_PASSWORD={name}-password\nTRIMTAB_AGENT_PASSWORD={name}-agent\n"
        path = beside(tmp_path / name, f"VENUE=https://{name}.example\nAGENT_KEY={key}\n{passwords}")
        path.write_text(config_text() + futures_text)
        for file, password in (("wallet.json", f"{name}-password"), ("agent.json", f"{name}-agent")):
            keystore = create_keyfile_json(bytes.fromhex(key), password.encode(), kdf="pbkdf2", iterations=10)
            path.with_name(file).write_text(json.dumps(keystore))
            path.with_name(file).chmod(0o600)
        loaded[name] = load_config(path)
    for name, key in KEYS.items():
        futures_table = loaded[name].config.futures
        assert isinstance(futures_table, HyperliquidTable)
        assert futures_table.api_url == f"https://{name}.example"
        for source in (key_source(loaded[name]), agent_key_source(loaded[name])):
            assert load_key(source, 1, ask=None).address == Account.from_key(key).address


def test_new_portfolio__names_endpoints_found_nowhere(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    assert [line for line in next_commands(str(path))["next"] if line.startswith("export")] == ["export RPC_B=…"]


def test_a_new_keystore_gets_the_password_of_its_config(tmp_path: Path) -> None:
    loaded = load_config(beside(tmp_path, "TRIMTAB_AGENT_PASSWORD=a long password of the agent\n"))
    source = PasswordSource("TRIMTAB_AGENT_PASSWORD", variables=loaded.variables)
    assert new_password(source, None).reveal() == "a long password of the agent"
    with pytest.raises(ConfigError, match="TRIMTAB_AGENT_PASSWORD is not set"):
        new_password(PasswordSource("TRIMTAB_AGENT_PASSWORD"), None)


def test_a_config_without_variables_gets_none_of_another(tmp_path: Path) -> None:
    portfolio(tmp_path, "one", env_of("one"))
    bare = portfolio(tmp_path, "two", "")
    assert {value for name, value in values_of(bare).items() if name != "secrets of the log"} == {None}
    assert bare.variables == {}


def test_a_config_keeps_the_variables_of_its_loading(tmp_path: Path) -> None:
    loaded = portfolio(tmp_path, "one", env_of("one"))
    before = values_of(loaded)
    os.environ["RPC_A"] = "https://later.example"
    assert values_of(loaded) == before
    assert load_config(loaded.path).config.chain.rpc[0].read_url() == "https://later.example"


def test_other_variables_are_no_edit_of_a_config(tmp_path: Path) -> None:
    """A run ends if a table that it reads at its start was edited."""
    loaded = portfolio(tmp_path, "one", env_of("one"))
    env_file = loaded.path.with_name(".env")
    env_file.write_text(env_of("two") + "TRIMTAB_AGENT_PASSWORD=later\n")
    later = load_config(loaded.path)
    assert later.variables != loaded.variables
    assert fixed_tables_changed(loaded.config, later.config) == []
    assert later.config == loaded.config
    loaded.path.write_text(loaded.path.read_text().replace('url_env = "HEART"', 'url_env = "HOOK"'))
    assert fixed_tables_changed(loaded.config, load_config(loaded.path).config) == ["[service]"]


def test_no_text_shows_the_variables_of_a_config(tmp_path: Path) -> None:
    loaded = portfolio(tmp_path, "one", env_of("one"))
    text = f"{loaded!r} {loaded.variables!r} {loaded.variables} {loaded.config!r} {key_source(loaded)!r}"
    assert not any(secret in text for secret in (KEYS["one"], "one.example", "one-0x", "heart.example"))
