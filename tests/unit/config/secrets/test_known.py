"""A secret that a config, its `.env` or the environment names is in no log line, error, document or traceback (T18)."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
from web3.types import RPCEndpoint

from agent import app as api
from agent.chain.providers.endpoint import EndpointProvider
from agent.cli.main import main
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.secrets.known import secrets_of
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.observe.logs import Redactor, configure
from agent.venues.hyperliquid.client import HyperliquidClient
from agent.venues.hyperliquid.connection import HyperliquidConnection
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text
from tests.support.endpoints import Reply, serve

KEY = "0xAb" + "5eed" * 15 + "cD"
SECRETS = {
    "key": ("MY_KEY", KEY, KEY),
    "digits of the key": ("MY_KEY", KEY, KEY[2:]),
    "digits of the key in small letters": ("MY_KEY", KEY, KEY[2:].lower()),
    "key of the venue's agent": ("AGENT_KEY", "22" * 32, "22" * 32),
    "keystore's password": ("TRIMTAB_KEYSTORE_PASSWORD", "correct horse/battery", "correct horse/battery"),
    "agent's password": ("TRIMTAB_AGENT_PASSWORD", "staple-of-the-agent", "staple-of-the-agent"),
    "Telegram's token": ("BOT", "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0", "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"),
    "Telegram's token in an address": ("BOT", "123456789:AAHdqTcvCH1v", "bot123456789%3AAAHdqTcvCH1v/getMe"),
    "webhook's token": ("HOOK", "jsons://hooks.example/services/T0/B0/XXtokenXX", "XXtokenXX"),
    "endpoint's API key": ("RPC_A", "https://a.example/v3?apikey=abcdefghij", "invalid key abcdefghij"),
    "endpoint's encoded key": ("RPC_A", "https://a.example/v3/ab%2Fcdefghij", "ab/cdefghij"),
    "endpoint's password": ("RPC_A", "https://me:hunter2222@a.example", "hunter2222"),
    "heartbeat's address": ("HEART", "https://hc.example/ping/0123-4567-89", "0123-4567-89"),
    "aggregator's key": ("ZERO_X", "zero-x-api-key", "zero-x-api-key"),
    "venue's key": ("VENUE", "https://venue.example/quick-node-key/info", "quick-node-key"),
}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable, _, _ in SECRETS.values():
        monkeypatch.delenv(variable, raising=False)
    yield
    configure(None)


def config_with(folder: Path, variable: str, secret: str, monkeypatch: pytest.MonkeyPatch, *, in_environment: bool) -> Path:
    """A config that names every kind of secret; one of them is set."""
    path = folder / "trimtab.toml"
    env_file = folder / ".env"
    futures_text = HYPERLIQUID.replace('url = "http://127.0.0.1:1"', 'url_env = "VENUE"')
    file_text = config_text(
        ('keystore = "wallet.json"', 'key_env = "MY_KEY"'),
        ("[service]", '[service]\nheartbeat_url_env = "HEART"'),
        ("[alerts]", '[[alerts.targets]]\nname = "phone"\nurl_env = "HOOK"\n[alerts]'),
    )
    tables = '[second_opinions]\nservices = ["0x"]\nzero_x_env = "ZERO_X"\n[telegram]\ntoken_env = "BOT"\nchats = [7]\n'
    path.write_text(file_text + futures_text.replace('agent_keystore = "agent.json"', 'agent_key_env = "AGENT_KEY"') + tables)
    path.chmod(0o600)
    env_file.write_text("" if in_environment else f"{variable}={secret}\n")
    env_file.chmod(0o600)
    if in_environment:
        monkeypatch.setenv(variable, secret)
    return path


def require_hidden(text: str, secret: str, leaked: str) -> None:
    pieces = {secret, leaked, leaked.rpartition(" ")[2], leaked.removeprefix("bot").partition("/")[0]}
    assert not [piece for piece in pieces if len(piece) > 8 and piece in text]
    assert "[hidden]" in text


@pytest.mark.parametrize("in_environment", [True, False], ids=["environment", "file"])
@pytest.mark.parametrize(("variable", "secret", "leaked"), SECRETS.values(), ids=SECRETS)
def test_log_and_report__name_of_a_config__show_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, secret: str, leaked: str, in_environment: bool
) -> None:
    loaded = load_config(config_with(tmp_path, variable, secret, monkeypatch, in_environment=in_environment))
    for style in ("text", "json"):
        stream = io.StringIO()
        configure(style, Redactor(secrets_of(loaded)), stream).error("failed", why=f"the node says: {leaked}")  # type: ignore[arg-type]  # one of the two
        logging.getLogger("library").error("GET %s", leaked)
        require_hidden(stream.getvalue(), secret, leaked)
    require_hidden(Redactor(secrets_of(loaded)).redact(leaked), secret, leaked)


ERRORS = {
    "needs a person": OperatorNeeded("the key is wrong: LEAK", "replace LEAK"),
    "may pass": Retryable("no answer: LEAK", "look at LEAK"),
    "refused": Refused("LEAK", remedy="LEAK"),
    "defect": ValueError("cannot parse LEAK"),
}


@pytest.mark.parametrize(
    ("variable", "secret", "leaked", "error"),
    [
        *(
            pytest.param(*secret, error, id=f"{name}-{kind}")
            for (name, secret), (kind, error) in zip(SECRETS.items(), cycle(ERRORS.items()), strict=False)
        ),
        *(
            pytest.param(*secret, error, id=f"{name}-{kind}-slow", marks=pytest.mark.slow)
            for name, secret in SECRETS.items()
            for kind, error in ERRORS.items()
        ),
    ],
)
def test_command__error_with_a_secret__is_shown_without_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variable: str,
    secret: str,
    leaked: str,
    error: Exception,
) -> None:
    path = config_with(tmp_path, variable, secret, monkeypatch, in_environment=False)

    def fail(config: Any, *_: object) -> NoReturn:
        load_config(config)
        if isinstance(error, TrimtabError):
            remedy = {"remedy": error.remedy.replace("LEAK", leaked)}
            raise type(error)(error.message.replace("LEAK", leaked), **remedy)
        raise type(error)(str(error).replace("LEAK", leaked))

    monkeypatch.setattr(api, "history", fail)
    for form in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["trimtab", "history", "--config", str(path), *form])
        with pytest.raises(SystemExit):
            main()
        printed = capfd.readouterr()
        require_hidden(printed.out + printed.err, secret, leaked)


TOKEN = "k3y-of/the=provider"
ADDRESSES = {
    "path": f"/v3/{quote(TOKEN, safe='')}",
    "decoded path": "/v3/k3y-of%2Fthe%3Dprovider/",
    "value of a query": f"/?apikey={quote(TOKEN, safe='')}",
    "one of several values": f"/rpc?chain=1&auth={quote(TOKEN, safe='')}&x=1",
    "fragment": f"/#{quote(TOKEN, safe='')}",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("form", [TOKEN, quote(TOKEN, safe="")], ids=["decoded", "encoded"])
def test_endpoint__answer_repeats_its_key__message_is_without_it(address: str, form: str) -> None:
    def answer(request: Any) -> Reply:
        return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32_001, "message": f"bad key {form}"}}).encode())

    with serve(answer) as server:
        endpoint = EndpointProvider(server.url + address, "alpha", attempts=1, sleep=lambda _s: None)
        with pytest.raises(TrimtabError) as caught:
            endpoint.make_request(RPCEndpoint("eth_chainId"), [])
    assert "bad key" in str(caught.value)
    assert not [piece for piece in (form, "k3y-of") if piece in str(caught.value)]


VENUE_ANSWERS = {
    "whole action": {"status": "err", "response": f"Invalid key {TOKEN}"},
    "each order": {"status": "ok", "response": {"type": "order", "data": {"statuses": [{"error": f"key {TOKEN} is used up"}] * 2}}},
    "unknown format": {"status": "err", "response": {"why": [TOKEN]}},
}


@pytest.mark.parametrize("answer", VENUE_ANSWERS.values(), ids=VENUE_ANSWERS)
def test_venue__answer_repeats_its_key__reason_is_without_it(answer: dict[str, Any]) -> None:
    with serve(lambda request: Reply(json.dumps(answer).encode())) as server:
        connection = HyperliquidConnection(f"{server.url}/{quote(TOKEN, safe='')}", is_mainnet=False, timeout_s=5)
        client = HyperliquidClient(connection, "0x" + "11" * 20, {}, lambda: 0)
        try:
            text = str(client.post_orders({"action": {"type": "order"}}, 2))
        except TrimtabError as error:
            text = str(error)
    assert "k3y-of" not in text
    assert "secret" in text


def test_paper_reads_no_key_to_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, secret, _ in SECRETS.values():
        monkeypatch.setenv(variable, secret)
    loaded = load_config(config_with(tmp_path, "MY_KEY", KEY, monkeypatch, in_environment=True))
    on_paper = LoadedConfig(loaded.config, loaded.path, loaded.digest, loaded.toml_values, is_paper=True, variables=loaded.variables)
    hidden = {name: secret in secrets_of(on_paper) for name, secret, _ in SECRETS.values()}
    keys = {"MY_KEY", "AGENT_KEY", "TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_AGENT_PASSWORD"}
    assert {name for name, is_hidden in hidden.items() if not is_hidden} == keys
    assert all(secret in secrets_of(loaded) for name, secret, _ in SECRETS.values() if name in keys)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deep copy", "pickle"])
def test_variables_are_in_no_copy_and_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Callable[[Any], object]) -> None:
    loaded = load_config(config_with(tmp_path, "MY_KEY", KEY, monkeypatch, in_environment=False))
    with pytest.raises(TypeError, match="secrets"):
        copied(loaded.variables)
    assert KEY not in repr(loaded.variables) + f"{loaded.variables}"
