"""A margin account as part of a snapshot: two round trips, by quorum, and never empty where it is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.chain.perpetuals import perp_questions
from agent.chain.rpc import HttpTransport
from agent.chain.watch import FUTURES
from agent.errors import Refused
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.model import QuarantinedItem
from tests.support.endpoints import Through, pools, reader
from tests.support.perps import WAD, account_of, perps_on, scope_of
from tests.support.text import raises_code


@pytest.fixture
def perps(anvil_chain: LocalChain) -> LocalPerps:
    perps = perps_on(anvil_chain)
    perps.deposit(anvil_chain.wallet.address, 12_345_678_901)
    perps.trade(anvil_chain.wallet.address, "WETH", 3 * WAD)
    perps.trade(anvil_chain.wallet.address, "WBTC", -WAD // 10)
    return perps


def test_two_pools_and_two_perpetual_markets_take_two_round_trips(perps: LocalPerps) -> None:
    chain = perps.chain
    who = chain.wallet.address
    seen = reader(chain, pools=pools(chain)[:2], perps=scope_of(perps, who)).snapshot()
    assert seen.requests == 2
    assert (len(seen.pools), seen.quarantined, seen.futures_unknown) == (2, (), "")
    assert seen.futures is not None
    views = account_of(perps, who)
    assert (seen.futures.collateral_raw, seen.futures.positions) == (views.collateral_raw, views.positions)
    assert [market.mark for market in seen.futures.markets] == [market.mark for market in views.markets]


def test_a_snapshot_without_a_margin_account_has_no_futures(perps: LocalPerps) -> None:
    seen = reader(perps.chain).snapshot()
    assert (seen.futures, seen.futures_unknown) == (None, "")


def test_an_unknown_margin_account_is_quarantined_and_never_empty(perps: LocalPerps) -> None:
    chain = perps.chain
    scope = scope_of(perps, chain.wallet.address)
    seen = reader(chain, perps=replace(scope, markets=scope.markets[:1])).snapshot()
    why = f"the account has positions in markets not configured: {scope.markets[1].base.lower()}"
    assert (seen.futures, seen.futures_unknown) == (None, why)
    assert QuarantinedItem(FUTURES, scope.trader, why) in seen.quarantined


def honest(chain: LocalChain, operator: str) -> HttpTransport:
    return HttpTransport(chain.url or "", operator, 10, attempts=1)


def lies(perps: LocalPerps) -> list[tuple[str, bytes]]:
    """Every answer about the margin account, as it stands in the page of the lens."""
    scope = scope_of(perps, perps.chain.wallet.address)
    line = perps.chain.transport
    return [
        (one.name, bytes.fromhex(line.call("eth_call", [{"to": one.address, "data": "0x" + one.item.data.hex()}, "latest"])[2:]))
        for one in perp_questions(scope)
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

    liar = Through(honest(chain, "liar"), "liar", change=lie)
    with raises_code(Refused, "quorum", "liar"):
        reader(chain, honest(chain, "alpha"), liar, min_operators=2, perps=scope).snapshot()
    alpha, beta = honest(chain, "alpha"), honest(chain, "beta")
    seen = reader(chain, liar, alpha, beta, min_operators=2, perps=scope).snapshot()
    assert seen.operators == ("alpha", "beta")
    assert seen.futures is not None
    assert [(one.item, one.address) for one in seen.quarantined] == [("endpoint", "liar")]
    assert f"futures: {figure}" in seen.quarantined[0].why
