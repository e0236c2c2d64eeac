"""The local chain's socket for market moves, with clients that leave, stay silent or write what is no move."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import ConfigError
from agent.localchain import LocalChain, market
from agent.localchain.contracts import DeployedWorld
from agent.localchain.market import MarketMoveServer, parse_moves, request_move
from tests.support.fakes.clock import FakeClock

PORT = 1
NO_CHAIN = cast("LocalChain", None)
MOVE = b'{"WETH": "11/10"}\n'


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MarketMoveServer]:
    monkeypatch.setattr(market, "move_socket_path", lambda port: tmp_path / f"{port}.sock")
    monkeypatch.setattr(market, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(market, "apply_move", lambda _, factors: {symbol: factor * 100 for symbol, factor in factors.items()})
    with MarketMoveServer(PORT) as served:
        yield served


def connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(market.move_socket_path(PORT)))
    return connection


def require_next_move(server: MarketMoveServer) -> None:
    """The chain still moves for the next client."""
    prices: dict[str, str] = {}
    client = Thread(target=lambda: prices.update(request_move(PORT, {"WETH": Fraction(11, 10)})))
    client.start()
    server.serve_next_move(5, NO_CHAIN)
    client.join(5)
    assert prices == {"WETH": "110.0"}


@pytest.mark.parametrize("sent", [b"", b'{"WETH"', MOVE], ids=["nothing", "half a move", "a move"])
def test_client_that_disconnects__leaves_the_chain_running(server: MarketMoveServer, sent: bytes) -> None:
    with connect() as client:
        client.sendall(sent)
    server.serve_next_move(5, NO_CHAIN)
    require_next_move(server)


def test_client_that_stays_silent__is_left_after_a_moment(server: MarketMoveServer) -> None:
    with connect():
        server.serve_next_move(5, NO_CHAIN)
        require_next_move(server)


@pytest.mark.parametrize("request_line", [b"\xff\n", b"[]\n", b'{"WETH": []}\n', b'{"WETH": "1/0"}\n', b'{"WETH": 1e999}\n'])
def test_request_that_is_no_move__is_answered_with_an_error(server: MarketMoveServer, request_line: bytes) -> None:
    with connect() as client:
        client.sendall(request_line)
        server.serve_next_move(5, NO_CHAIN)
        assert set(json.loads(client.makefile().readline())) == {"error"}
    require_next_move(server)


@pytest.mark.parametrize(("move", "factor"), [("-95%", Fraction(1, 20)), ("+900%", Fraction(10))])
def test_largest_moves_are_read(move: str, factor: Fraction) -> None:
    assert parse_moves([f"WETH={move}"]) == {"WETH": factor}


@pytest.mark.parametrize("move", ["-95.0001%", "+900.0001%"])
def test_larger_moves_are_refused(move: str) -> None:
    with pytest.raises(ConfigError, match="from -95% to"):
        parse_moves([f"WETH={move}"])


@pytest.mark.parametrize(("clock_s", "sleeps_s"), [(1_000.25, [0.75]), (1_001.0, [])])
def test_block_after_a_move_is_later_than_its_last_trade(monkeypatch: pytest.MonkeyPatch, clock_s: float, sleeps_s: list[float]) -> None:
    """The chain's last block is of the second 1,000."""
    clock = FakeClock(clock_s)
    monkeypatch.setattr(market, "time", SimpleNamespace(time=clock, sleep=clock.sleep))
    world = DeployedWorld()
    chain: Any = SimpleNamespace(
        feed_addresses={}, deployed_world=world, perps=None, now_s=lambda: 1_000, move_market=lambda *_, **__: None, mine=lambda: None
    )
    assert market.apply_move(chain, {}) == {}
    assert clock.sleeps == sleeps_s


@pytest.mark.parametrize("moves", [["WETH=+5%", "WETH=+5%"], ["WETH=+5%", "WBTC=-1%", "WETH=-5%"]])
def test_move_of_one_token_twice__is_refused(moves: list[str]) -> None:
    with pytest.raises(ConfigError, match="--move: WETH is given twice"):
        parse_moves(moves)
    assert parse_moves(moves[:1]) == {"WETH": Fraction(21, 20)}
