"""Which portfolios of a process serve one wallet of a local chain, however its endpoint is written."""

from __future__ import annotations

import pytest

from agent.config.load import parse_config
from agent.config.schema import Config
from agent.errors import ConfigError
from agent.fleet.chains import SharedConnections
from agent.wiring import SystemClock
from tests.support.configs.samples import config_text

URL = "http://127.0.0.1:8701"


def local_config(first_url: str, second_url: str = URL, operator: str = "one", chain_id: int = 31337, limits: str = "") -> Config:
    return parse_config(
        config_text(
            ("chain_id = 1\n", f"chain_id = {chain_id}\n"),
            ('url_env = "RPC_A"', f'url = "{first_url}"\n{limits}'),
            ('\noperator = "one"', f'\noperator = "{operator}"'),
            ('url_env = "RPC_B"', f'url = "{second_url}"'),
        )
    )


def are_served_together(first: Config, second: Config) -> bool:
    connections = SharedConnections(SystemClock())
    with connections.serving(first, "first"):
        try:
            with connections.serving(second, "second"):
                return True
        except ConfigError as error:
            assert error.message.endswith("is served by the portfolio first")
            return False


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(local_config(URL), id="same"),
        pytest.param(local_config(URL, limits='timeout = "11s"'), id="timeout"),
        pytest.param(local_config(URL, operator="mine"), id="operator"),
        pytest.param(local_config(URL + "/"), id="slash"),
        pytest.param(local_config("http://localhost:8701", "http://[::1]:8701"), id="names of this machine"),
        pytest.param(local_config("http://127.0.0.1:8702"), id="one node of two"),
    ],
)
def test_wallet_of_a_local_chain__is_served_once(second: Config) -> None:
    assert not are_served_together(local_config(URL), second)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(local_config("http://127.0.0.1:8702", "http://127.0.0.1:8702"), id="other port"),
        pytest.param(local_config("http://fork.example:8701", "http://fork.example:8701"), id="other host"),
        pytest.param(local_config(URL, chain_id=1337), id="other chain id"),
    ],
)
def test_wallet_of_another_chain__is_served_beside_it(second: Config) -> None:
    assert are_served_together(local_config(URL), second)


def test_wallet__is_free_once_it_is_no_longer_served() -> None:
    connections = SharedConnections(SystemClock())
    for name in ("first", "second"):
        with connections.serving(local_config(URL), name):
            pass
