"""A market that the venue no longer lists: it opens nothing, its position counts, and the other markets are protected all the same."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.model import FuturesReading
from agent.model.futures import StaleReadKind
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import venue_changes
from tests.support.hyperliquid_server import HyperliquidServer
from tests.support.perpetuals.chain_protection import MAX_LEVERAGE, actions, crash, leverage, open_book, server, step

__all__ = ["server"]

BOOK = {"ETH": "80%", "SOL": "20%"}


def unlist(server: HyperliquidServer, coin: str) -> None:
    """Take the last market from the list of markets; positions in it stay."""
    assert server.coins[-1].name == coin
    change_markets(server, lambda meta, contexts: [meta | {"universe": meta["universe"][:-1]}, contexts[:-1]])


def change_markets(server: HyperliquidServer, changed: Callable[[dict[str, Any], list[Any]], list[Any]]) -> None:
    """Change what the venue says of its markets from now on."""
    info = server.info

    def changed_info(body: dict[str, Any]) -> Any:
        answer = info(body)
        return changed(*answer) if body["type"] == "metaAndAssetCtxs" else answer

    server.info = changed_info  # type: ignore[method-assign]


def with_last_entry(meta: dict[str, Any], **changes: object) -> dict[str, Any]:
    *others, last_entry = meta["universe"]
    return meta | {"universe": [*others, last_entry | changes]}


UNREADABLE_MARKETS: dict[str, Callable[[dict[str, Any], list[Any]], list[Any]]] = {
    "no context": lambda meta, contexts: [meta, [*contexts[:-1], None]],
    "no index": lambda meta, contexts: [meta, [*contexts[:-1], contexts[-1] | {"oraclePx": None}]],
    "funding in words": lambda meta, contexts: [meta, [*contexts[:-1], contexts[-1] | {"funding": "high"}]],
    "size decimals": lambda meta, contexts: [with_last_entry(meta, szDecimals=9), contexts],
    "margin table": lambda meta, contexts: [with_last_entry(meta, marginTableId=999), contexts],
}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(changed, id=name, marks=() if name in ("no index", "margin table") else pytest.mark.slow)
        for name, changed in UNREADABLE_MARKETS.items()
    ],
)
def test_unreadable_market_without_position__opens_nothing(
    server: HyperliquidServer,
    anvil_chain: LocalChain,
    tmp_path: Path,
    changed: Callable[[dict[str, Any], list[Any]], list[Any]],
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK | {"ETH": "100%", "SOL": "0%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        change_markets(server, changed)
        crash(server, "-36/100", "ETH")
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert "SOL" in reading.stale_reason(StaleReadKind.MARKETS)
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason


def test_unreadable_market_with_a_position__is_an_unknown_account(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK), EVEN) as agent:
        open_book(agent, anvil_chain)
        change_markets(server, UNREADABLE_MARKETS["no index"])
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert reading.account is None
        assert "the index of SOL" in reading.unknown_reason


def test_configured_market_the_venue_lacks__opens_nothing(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK | {"ETH": "100%", "SOL": "0%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        unlist(server, "SOL")
        crash(server, "-5/100", "ETH")
        action_count = len(actions(server))
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert reading.account is not None, reading.unknown_reason
        assert "Hyperliquid has no market SOL" in reading.stale_reason(StaleReadKind.MARKETS)
        outcome = step(agent)
        assert "Hyperliquid has no market SOL" in outcome.reason
        assert len(actions(server)) == action_count, outcome.reason
        crash(server, "-36/100", "ETH")
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason


def test_position_no_longer_listed__counts_and_others_are_reduced(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK), EVEN) as agent:
        open_book(agent, anvil_chain)
        unlist(server, "SOL")
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        market = account.market("SOL")
        size = Fraction(account.size_raw("SOL"), 10**market.size_decimals)
        assert size == server.wallet(anvil_chain.wallet.address).positions["SOL"].size
        assert market.is_paused
        opening_count = len(actions(server))
        crash(server, "-40/100", "ETH")
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        eth_number = [market.name for market in server.coins].index("ETH")
        numbers = {order["a"] for action in actions(server)[opening_count:] for order in action["orders"]}
        assert numbers == {eth_number}, "no order can be signed in the market that is gone"


def test_a_venue_that_lacks_every_configured_market_is_unknown(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"SOL": "100%"}), EVEN) as agent:
        unlist(server, "SOL")
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert reading.account is None
        assert "Hyperliquid has no market SOL" in reading.unknown_reason
        step(agent)
        assert actions(server) == []
