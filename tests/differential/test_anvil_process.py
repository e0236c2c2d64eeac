"""anvil starts on the port asked for, ends with whoever started it, and `serve` shows its config only when it works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.artifacts import anvil_binary
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.load import parse_config
from agent.errors import ConfigError, Retryable
from agent.files import replace_file
from agent.localchain import LocalChain, nodes, run_anvil
from agent.localchain.market import IDLE_BLOCK_INTERVAL_S
from agent.localchain.nodes import free_port
from tests.support.worlds import missing

REPO = Path(__file__).resolve().parents[2]
BEAT_S = 2
SERVE = f"""
import sys
from pathlib import Path
from agent.localchain import serve
sys.modules[serve.__module__].HEARTBEAT_S = {BEAT_S}
serve(int(sys.argv[1]), Path(sys.argv[2]))
"""
HOLD = "import time; from agent.localchain import run_anvil\nwith run_anvil() as url:\n    print(url, flush=True)\n    time.sleep(600)"


@pytest.fixture(autouse=True)
def _anvil() -> None:
    try:
        anvil_binary()
    except ConfigError as error:
        missing(str(error))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.05)
    return False


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def test_anvil_ends_with_its_context() -> None:
    with run_anvil() as url:
        assert listens(port_of(url))
    assert within(20, lambda: not listens(port_of(url)))


def test_anvil_ends_when_the_context_fails() -> None:
    urls = []
    with pytest.raises(ZeroDivisionError), run_anvil() as url:
        urls.append(url)
        raise ZeroDivisionError
    assert within(20, lambda: not listens(port_of(urls[0])))


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_anvil_does_not_survive_a_killed_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=REPO, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = port_of(parent.stdout.readline().strip())
        assert listens(port)
        parent.send_signal(number)
        parent.wait(timeout=30)
        assert within(20, lambda: not listens(port))


def test_taken_port__is_refused_and_its_owner_not_ours() -> None:
    with run_anvil() as url, pytest.raises(ConfigError, match="Address already in use"), run_anvil(port_of(url)):
        pytest.fail("a second anvil on the same port")


def test_a_fork_is_not_mistaken_for_what_listens_on_its_port(anvil_chain: LocalChain) -> None:
    assert anvil_chain.url is not None
    fork = ["--fork-url", anvil_chain.url]
    with run_anvil() as url, pytest.raises(ConfigError, match="Address already in use"), run_anvil(port_of(url), fork):
        pytest.fail("a fork on the same port")


def test_a_wrong_flag_is_refused_in_anvils_words() -> None:
    with pytest.raises(ConfigError, match="--no-such-flag"), run_anvil(flags=["--no-such-flag"]):
        pytest.fail("anvil took a flag that does not exist")


def test_a_second_anvil_forks_the_first(anvil_chain: LocalChain) -> None:
    assert anvil_chain.url is not None
    with run_anvil(flags=["--fork-url", anvil_chain.url]) as url:
        fork = EndpointProvider(url, "fork", 30)
        parent = anvil_chain.transport
        weth = anvil_chain.addresses.weth
        assert fork.call("eth_chainId", []) == parent.call("eth_chainId", [])
        assert fork.call("eth_getCode", [weth, "latest"]) == parent.call("eth_getCode", [weth, "latest"]) != "0x"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    port = free_port()
    path = tmp_path / "trimtab.toml"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(port), str(path)], cwd=REPO, stderr=subprocess.PIPE, text=True)
    yield process, port, path
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10)


def require_unexpired(transport: EndpointProvider) -> None:
    """One block and another, a heartbeat apart, with nobody's help."""

    def block() -> dict[str, str]:
        result: dict[str, str] = transport.call("eth_getBlockByNumber", ["latest", False])
        return result

    first = int(block()["number"], 16)
    assert within(20 * BEAT_S, lambda: int(block()["number"], 16) >= first + 2), "no two blocks came"
    assert abs(time.time() - int(block()["timestamp"], 16)) < BEAT_S + 15


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_serve__writes_a_config_keeps_its_head_and_stops(served: tuple[subprocess.Popen[str], int, Path], number: signal.Signals) -> None:
    """Agents take a head of the age that an idle chain's gets."""
    process, port, path = served
    assert within(60, path.exists)
    config = parse_config(path.read_text())
    assert path.stat().st_mode & 0o077 == 0
    transport = EndpointProvider(config.chain.rpc[0].read_url(), "local", 30)
    assert int(transport.call("eth_chainId", []), 16) == config.chain.chain_id
    assert transport.call("eth_getCode", [config.portfolio.assets[0].address, "latest"]) != "0x"
    assert (config.limits.head_age or 0) > IDLE_BLOCK_INTERVAL_S
    require_unexpired(transport)
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    assert within(20, lambda: not listens(port))


def test_serve_stopped_in_deployment__leaves_nothing(served: tuple[subprocess.Popen[str], int, Path]) -> None:
    process, port, path = served
    assert within(60, lambda: listens(port))
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert within(20, lambda: not listens(port))
    assert not path.exists()


def test_a_config_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text("old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    replace_file(path, b"new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("script", "error_type", "message"),
    [
        ("echo invalid value for --fork-url; exit 1", ConfigError, "invalid value for --fork-url"),
        ("echo a warning; exec sleep 60", Retryable, "did not answer"),
        ("head -c 300000 /dev/zero; touch wrote-all; exec sleep 60", Retryable, "did not answer"),
    ],
    ids=["ends", "warns", "writes more than a pipe takes"],
)
def test_anvil_that_writes__is_read_and_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error_type: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "anvil"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(nodes, "anvil_binary", lambda: program)
    monkeypatch.setattr(nodes, "READY_TIMEOUT_S", 1)
    began_s = time.monotonic()
    with pytest.raises(error_type, match=message) as caught, run_anvil():
        pass
    assert time.monotonic() - began_s < 30
    assert "port" not in getattr(caught.value, "remedy", "")
    assert (tmp_path / "wrote-all").exists() is ("wrote-all" in script)
