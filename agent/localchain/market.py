"""Serve the embedded chain on anvil, and accept market moves from other processes."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

from platformdirs import user_state_path

from agent.artifacts import npm_artifact
from agent.errors import ConfigError, Retryable
from agent.files import replace_file
from agent.localchain.chain import FEED_DECIMALS, V3_POOL_ARTIFACT, LocalChain
from agent.localchain.deployment import open_anvil

ANSWER_TIMEOUT_S = 120.0
REQUEST_TIMEOUT_S = 5.0
"""Longest wait for the request of a client that has connected."""
MIN_FACTOR = Fraction(1, 20)
MAX_FACTOR = Fraction(10)
"""Bounds of a move, as factors of the price."""
OBSERVATIONS_SLOT = 8
"""Storage slot of UniswapV3Pool.observations. Each is one word: 32 bits of time, 56 of
tickCumulative, and 168 that are not rewritten."""
_MOVE_ERRORS = (
    ConfigError,
    ArithmeticError,
    AttributeError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MOVE_PATTERN = re.compile(r"([A-Za-z0-9._-]{1,16})=([+-][0-9]{1,3}(?:\.[0-9]{1,4})?)%")


def parse_moves(move_texts: list[str]) -> dict[str, Fraction]:
    """Parse factors by symbol from texts such as WBTC=+30%. Raises ConfigError."""
    factor_by_symbol: dict[str, Fraction] = {}
    for move_text in move_texts:
        move_match = _MOVE_PATTERN.fullmatch(move_text)
        factor = Fraction(0) if move_match is None else 1 + Fraction(move_match[2]) / 100
        if move_match is None or not MIN_FACTOR <= factor <= MAX_FACTOR:
            raise ConfigError(
                f"--move: {move_text[:40]!r}",
                "write for example WBTC=+30% or WETH=-20%, from -95% to +900%",
            )
        if move_match[1] in factor_by_symbol:
            raise ConfigError(f"--move: {move_match[1]} is given twice", "give each token once")
        factor_by_symbol[move_match[1]] = factor
    return factor_by_symbol


def move_socket_path(port: int) -> Path:
    """Return the socket, private to the user, on which the chain served at `port` accepts moves."""
    return user_state_path("trimtab", ensure_exists=True) / f"localchain-{port}.sock"


class MarketMoveServer:
    """Listens for market moves while a chain is served."""

    def __init__(self, port: int) -> None:
        self._path = move_socket_path(port)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen()

    def __enter__(self) -> MarketMoveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def serve_next_move(self, timeout_s: float, chain: LocalChain) -> None:
        """Wait for a requested move and carry it out; return after the timeout."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return
        connection, _ = self._socket.accept()
        connection.settimeout(REQUEST_TIMEOUT_S)
        with (
            suppress(OSError),  # the client has gone
            connection,
            connection.makefile("rw", encoding="utf-8") as stream,
        ):
            try:
                request = json.loads(stream.readline())
                factor_by_symbol = {symbol: Fraction(factor) for symbol, factor in request.items()}
                price_by_symbol = apply_move(chain, factor_by_symbol)
                answer: dict[str, Any] = {
                    "prices_usd": {
                        token_symbol: str(float(price))
                        for token_symbol, price in price_by_symbol.items()
                    }
                }
            except _MOVE_ERRORS as error:
                answer = {"error": str(error)}
            stream.write(json.dumps(answer) + "\n")


def request_move(port: int, factor_by_symbol: Mapping[str, Fraction]) -> dict[str, str]:
    """Move the market of the chain served at `port`; return the new prices in USD. Raises
    ConfigError if no chain is served there or it refuses the move, Retryable without an answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(str(move_socket_path(port)))
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(
                    json.dumps({symbol: str(factor) for symbol, factor in factor_by_symbol.items()})
                    + "\n"
                )
                stream.flush()
                answer = json.loads(stream.readline() or "{}")
    except (FileNotFoundError, ConnectionRefusedError):
        raise ConfigError(
            f"--move: no local chain is served on port {port}",
            "start one: trimtab localchain, or name its --port",
        ) from None
    except (OSError, ValueError):
        raise Retryable(
            f"--move: the local chain on port {port} gave no answer", "try again"
        ) from None
    if "prices_usd" not in answer:
        raise ConfigError(
            f"--move: {answer.get('error', 'the chain has ended')}",
            "trimtab status shows the symbols",
        )
    return dict(answer["prices_usd"])


def apply_move(chain: LocalChain, factor_by_symbol: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Multiply the feeds' current prices by these factors, trade the pools to them as the whale,
    and return the new USD prices. The observations of V3 pools and of futures indexes are rewritten
    as if the new price had always held, so that TWAPs follow at once without blocks in the future,
    and no funding comes from their delay. Raises ConfigError for an unknown symbol.
    """
    if unknown_symbols := sorted(set(factor_by_symbol) - set(chain.feed_addresses)):
        raise ConfigError(
            f"{unknown_symbols[0]!r} is not a token of this chain: {', '.join(chain.feed_addresses)}"
        )
    feed_prices = {
        symbol: Fraction(
            chain.feed_contract(symbol).functions.latestRoundData().call()[1], 10**FEED_DECIMALS
        )
        for symbol in chain.feed_addresses
    }
    new_prices = {
        symbol: feed_prices[symbol] * factor for symbol, factor in factor_by_symbol.items()
    }
    chain.deployed_world = replace(
        chain.deployed_world, prices_usd={**chain.deployed_world.prices_usd, **feed_prices}
    )
    chain.move_market(new_prices, twap_follows=False)
    for pool in chain.deployed_world.pool_by_name.values():
        if pool.version == 3:
            _rewrite_observations(chain, pool.address)
    if chain.perps is not None:
        index_prices = {
            symbol: new_prices[symbol] for symbol in chain.perps.markets if symbol in new_prices
        }
        chain.perps.move_pools(index_prices)
        for symbol in index_prices:
            _rewrite_observations(chain, chain.perps.markets[symbol].pool)
            _rewrite_index(chain, chain.perps.markets[symbol].feed)
    # The chain's clock is ahead if blocks came faster than one a second. An index caches its mean for
    # one timestamp, so the next block needs a later one than the last trade.
    while (clock_lead_s := chain.now_s() + 1 - time.time()) > 0:
        time.sleep(clock_lead_s)
    chain.mine()
    return new_prices


def _rewrite_observations(chain: LocalChain, pool_address: str) -> None:
    """Rewrite the pool's observations so that its mean tick over any window is the current tick."""
    rpc = chain.node.rpc  # type: ignore[attr-defined]  # served chains run on anvil
    slot0 = chain.contract(pool_address, npm_artifact(V3_POOL_ARTIFACT)).functions.slot0().call()
    tick = int(slot0[1])
    newest_index = int(slot0[2])
    observation_count = int(slot0[3])
    observation_words = [
        int(
            rpc(
                "eth_getStorageAt",
                pool_address,
                hex(OBSERVATIONS_SLOT + observation_index),
                "latest",
            ),
            16,
        )
        for observation_index in range(observation_count)
    ]
    newest_observation_s = observation_words[newest_index] & 0xFFFFFFFF
    newest_tick_cumulative = observation_words[newest_index] >> 32 & (1 << 56) - 1
    for observation_index, observation_word in enumerate(observation_words):
        if observation_index == newest_index or not observation_word >> 248:
            continue
        tick_cumulative = (
            newest_tick_cumulative - tick * (newest_observation_s - (observation_word & 0xFFFFFFFF))
            & (1 << 56) - 1
        )
        new_word = observation_word & ~(((1 << 56) - 1) << 32) | tick_cumulative << 32
        rpc(
            "anvil_setStorageAt",
            pool_address,
            hex(OBSERVATIONS_SLOT + observation_index),
            f"0x{new_word:064x}",
        )


def _rewrite_index(chain: LocalChain, feed_address: str) -> None:
    """Rewrite the observations of a futures index so that its mean over any window is its newest
    price. Storage of CumulativeTwap: the newest index, then (price, priceCumulative, timestamp).
    """
    rpc = chain.node.rpc  # type: ignore[attr-defined]  # served chains run on anvil

    def read_word(slot: int) -> int:
        return int(rpc("eth_getStorageAt", feed_address, hex(slot), "latest"), 16)

    newest_index = read_word(0) & 0xFFFF
    price = read_word(1 + 3 * newest_index)
    for slot in range(1, 3 * newest_index + 4, 3):
        for target_slot, slot_word in ((slot, price), (slot + 1, price * read_word(slot + 2))):
            rpc("anvil_setStorageAt", feed_address, hex(target_slot), f"0x{slot_word:064x}")


IDLE_BLOCK_INTERVAL_S = 10
"""Interval of blocks on an idle chain: agents refuse to act on an old head. Paused while automine
is off.
"""


def serve(
    port: int,
    config_path: Path | None = None,
    on_ready: Callable[[LocalChain], None] | None = None,
    build_history: Callable[[LocalChain], None] | None = None,
    *,
    open_chain: Callable[[int], AbstractContextManager[LocalChain]] | None = None,
    mine: Callable[[LocalChain], None] = LocalChain.mine,
) -> None:
    """Start anvil on `port`, deploy the world, write its trimtab.toml, and run until SIGINT or
    SIGTERM. `build_history` is called to deploy further contracts in blocks dated before now.
    `open_chain` opens another chain on the port, `mine` mines the blocks of an idle one.

    The file is written atomically once the chain is ready. Raises ConfigError if the port is taken.
    Call from the main thread.
    """
    is_stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        # Exit through the contexts, which end anvil, during deployment too.
        raise KeyboardInterrupt

    previous_handlers = {
        signal_number: signal.signal(signal_number, stop)
        for signal_number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with (
            open_chain(port)
            if open_chain is not None
            else open_anvil(port, build_history=build_history) as chain,
            MarketMoveServer(port) as move_server,
        ):
            if config_path is not None:
                replace_file(config_path, chain.config_text().encode())  # it may hold secrets
            if on_ready is not None:
                on_ready(chain)
            while not is_stopped:
                move_server.serve_next_move(IDLE_BLOCK_INTERVAL_S, chain)
                _mine_if_idle(chain, mine)
    except KeyboardInterrupt:
        if not is_stopped:
            raise
    finally:
        for signal_number, handler in previous_handlers.items():
            signal.signal(signal_number, handler)


def _mine_if_idle(chain: LocalChain, mine: Callable[[LocalChain], None] = LocalChain.mine) -> None:
    try:
        if time.time() - chain.now_s() >= IDLE_BLOCK_INTERVAL_S and chain.transport.call(
            "anvil_getAutomine", []
        ):
            mine(chain)
    except OSError:
        raise Retryable(
            f"the chain at {chain.url} no longer answers; another program may have ended it",
            "start it again",
        ) from None
