"""A margin account as part of a snapshot: two round trips, by quorum, and never empty where it is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.chain.perpetuals import perp_questions
from agent.chain.providers.endpoint import EndpointProvider
from agent.errors import Refused
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.model import FuturesReading, UnreadableItem
from agent.model.futures import MARGIN_ACCOUNT_ITEM
from tests.support import agents
from tests.support.endpoints import passing_on, pools, reader, serve
from tests.support.fakes.transport import RecordingTransport
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import WAD, account_of, scope_of
from tests.support.text import raises_code


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    wallet = perps_chain.chain.wallet.address
    perps_chain.deposit(wallet, 12_345_678_901)
    perps_chain.trade(wallet, "WETH", 3 * WAD)
    perps_chain.trade(wallet, "WBTC", -WAD // 10)
    return perps_chain


def test_two_pools_and_two_markets__take_two_round_trips(perps: LocalPerps) -> None:
    chain = perps.chain
    who = chain.wallet.address
    snapshot = reader(chain, pools=pools(chain)[:2], layer_scopes=(scope_of(perps, who),)).snapshot()
    assert snapshot.http_request_count == 2
    assert (len(snapshot.pools), snapshot.unreadable_items, snapshot.layer(FuturesReading).unknown_reason) == (2, (), "")
    assert margin_account(snapshot) is not None
    views = account_of(perps, who)
    assert (margin_account(snapshot).collateral_raw, margin_account(snapshot).positions) == (views.collateral_raw, views.positions)
    assert [market.mark for market in margin_account(snapshot).markets] == [market.mark for market in views.markets]


@pytest.mark.parametrize(("weth_usd", "kind"), [(30_000, OutcomeKind.HOLD), (45_000, OutcomeKind.PLANNED)])
def test_whole_step__reads_pools_and_markets_in_two_trips(perps: LocalPerps, tmp_path: Path, weth_usd: int, kind: OutcomeKind) -> None:
    """From the config to the decision, counted by a server in between; only the guards of a plan ask more."""
    chain = perps.chain
    agents.fund(chain, {"WETH": weth_usd, "USDC": 17_500})  # with 12,345 of margin on its targets, or off them
    changes = futures_config_changes(perps, {"WETH": "60%", "WBTC": "-40%"}) | {"venues.uniswap_v2": None}
    loaded = agents.trusted_config(chain, tmp_path, changes, EVEN)
    with (
        serve(passing_on(chain.url or "")) as server,
        agents.reopened_agent(chain, loaded, [EndpointProvider(server.url, "counted", 10)]) as agent,
    ):
        before = len(server.seen)
        outcome = agent.rebalance(send=False)
        snapshot = outcome.step_input.snapshot
        assert margin_account(snapshot) is not None, outcome.reason
        assert outcome.kind is kind, outcome.reason
        assert (len(snapshot.pools), len(margin_account(snapshot).markets), len(margin_account(snapshot).positions)) == (2, 2, 2)
        assert snapshot.http_request_count == 2
        assert (len(server.seen) - before == 2) is (kind is OutcomeKind.HOLD)


def test_a_snapshot_without_a_margin_account_has_no_futures(perps: LocalPerps) -> None:
    snapshot = reader(perps.chain).snapshot()
    assert (margin_account(snapshot), snapshot.layer(FuturesReading).unknown_reason) == (None, "")


def test_unknown_margin__is_quarantined_and_never_empty(perps: LocalPerps) -> None:
    """The whale provides liquidity, whose value is not counted."""
    chain = perps.chain
    scope = scope_of(perps, chain.whale.address)
    snapshot = reader(chain, layer_scopes=(scope,)).snapshot()
    why = "the account provides liquidity, whose value is not counted"
    assert (margin_account(snapshot), snapshot.layer(FuturesReading).unknown_reason) == (None, why)
    assert UnreadableItem(MARGIN_ACCOUNT_ITEM, scope.trader, why) in snapshot.unreadable_items


def test_unnamed_market__is_read_at_once_then_in_two_trips(perps: LocalPerps) -> None:
    chain = perps.chain
    scope = scope_of(perps, chain.wallet.address)
    alone = reader(chain, layer_scopes=(replace(scope, markets=scope.markets[:1]),))
    first = alone.snapshot()
    second = alone.snapshot()
    whole = margin_account(reader(chain, layer_scopes=(scope,)).snapshot())
    assert whole is not None
    assert margin_account(first) is not None
    assert first.layer(FuturesReading).unknown_reason == ""
    assert margin_account(first).positions == whole.positions
    assert margin_account(first).collateral_raw == whole.collateral_raw
    [named, strange] = margin_account(first).markets
    assert named == whole.markets[0]
    assert strange == replace(whole.markets[1], symbol="vWBTC", asset="", is_configured=False)
    assert (second.http_request_count, margin_account(second)) == (2, margin_account(first))


def test_unreadable_unnamed_market__leaves_the_account_unknown(perps: LocalPerps) -> None:
    chain = perps.chain
    scope = scope_of(perps, chain.wallet.address)
    narrow = replace(scope, markets=scope.markets[:1])
    read_count = 0

    def fails(method: str, _: list[Any], answer: Any) -> Any:
        nonlocal read_count
        read_count += method == "eth_call"
        return "0x" if method == "eth_call" and read_count > 1 else answer

    snapshot = reader(chain, RecordingTransport(honest(chain, "broken"), "broken", change=fails), layer_scopes=(narrow,)).snapshot()
    why = f"the account has positions in markets not configured: {scope.markets[1].base.lower()}"
    assert (margin_account(snapshot), snapshot.layer(FuturesReading).unknown_reason) == (None, why)


def honest(chain: LocalChain, operator: str) -> EndpointProvider:
    return EndpointProvider(chain.url or "", operator, 10, attempts=1)


def lies(perps: LocalPerps) -> list[tuple[str, bytes]]:
    """Every answer about the margin account, as it stands in the page of the lens."""
    scope = scope_of(perps, perps.chain.wallet.address)
    line = perps.chain.transport
    return [
        (
            perp_question.name,
            bytes.fromhex(
                line.call("eth_call", [{"to": perp_question.address, "data": "0x" + perp_question.item.calldata.hex()}, "latest"])[2:]
            ),
        )
        for perp_question in perp_questions(scope)
    ]


FIGURES = ("collateral", "account value", "maintenance margin", "free margin", "position in WETH", "open notional in WBTC", "mark of WETH")


@pytest.mark.parametrize("figure", FIGURES)
def test_a_lie_about_any_margin_figure_is_refused_and_named(perps: LocalPerps, figure: str) -> None:
    chain = perps.chain
    scope = scope_of(perps, chain.wallet.address)
    word = next(answer for name, answer in lies(perps) if name == figure)[:32]

    def lie(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call":
            return answer
        assert word.hex() in answer
        return answer.replace(word.hex(), (int.from_bytes(word, "big") ^ 1).to_bytes(32, "big").hex())

    liar = RecordingTransport(honest(chain, "liar"), "liar", change=lie)
    with raises_code(Refused, "quorum", "liar"):
        reader(chain, honest(chain, "alpha"), liar, min_operators=2, layer_scopes=(scope,)).snapshot()
    alpha = honest(chain, "alpha")
    beta = honest(chain, "beta")
    snapshot = reader(chain, liar, alpha, beta, min_operators=2, layer_scopes=(scope,)).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert margin_account(snapshot) is not None
    assert [(unreadable_item.subject, unreadable_item.address) for unreadable_item in snapshot.unreadable_items] == [("endpoint", "liar")]
    assert f"futures: {figure}" in snapshot.unreadable_items[0].why
