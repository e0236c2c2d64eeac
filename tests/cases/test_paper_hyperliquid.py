"""Hyperliquid on paper beside the live account at the local venue: the same fills, margin and funding, and nothing that is posted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from agent.app.agent import Agent
from agent.app.paper import PaperStart, open_paper
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.requests import Deleverage, MarginAccountRequest
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.margin import account as margin
from agent.model import EntryKind, FuturesReading, IntentState, PerpFill, SignedTx
from agent.model.futures import MarginAccount, MarginDeposit
from agent.paper.order_venue import PaperHyperliquid
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN
from tests.support.hyperliquid import ETH_AND_BTC, server, venue_changes, venue_for
from tests.support.hyperliquid_server import HyperliquidServer

__all__ = ["server"]


def account_of(agent: Agent) -> MarginAccount:
    perp_account = margin_account(agent.step_input().snapshot)
    assert perp_account is not None, agent.step_input().snapshot.layer(FuturesReading).unknown_reason
    return perp_account


def figures(account: MarginAccount) -> tuple[int, dict[str, tuple[int, int]]]:
    position_by_market = {position.market: (position.size_raw, position.open_notional_raw) for position in account.positions}
    return account.collateral_raw + account.realised_raw, position_by_market


def fills_of(agent: Agent) -> list[PerpFill]:
    intents = agent.context.store.journal.intents()
    return [fill for intent in intents if intent.state is IntentState.FINAL and intent.receipt for fill in intent.receipt.fills]


def payments_of(agent: Agent) -> list[tuple[int, str, int]]:
    """Time, market and amount of the ledger's funding entries."""
    entries = [entry for entry in agent.context.store.ledger.entries() if entry.kind is EntryKind.FUTURES and not entry.tx_hash]
    return sorted((entry.chain_s, paid.market, paid.paid_raw) for entry in entries if entry.futures for paid in entry.futures.funding)


def require_equal(paper: Agent, live: Agent, roundings: int) -> None:
    """Equal positions; fees and funding, rounded up on paper, and the cost of a reduced position may differ by a base unit each."""
    cash, positions = figures(account_of(paper))
    real_cash, real_held = figures(account_of(live))
    assert {coin: size for coin, (size, _) in positions.items()} == {coin: size for coin, (size, _) in real_held.items()}
    assert all(abs(opened - real_held[coin][1]) <= 1 for coin, (_, opened) in positions.items())
    assert 0 <= real_cash - cash <= roundings, (real_cash, cash)


def an_hour_later(chain: LocalChain, server: HyperliquidServer, *coins: str) -> None:
    hour_s = (chain.now_s() // 3_600 + 1) * 3_600
    chain.node.mine_at(hour_s)
    for coin in coins:
        server.pay_funding(coin)
    chain.node.mine_at(hour_s + 60)


def test_fills_funding_and_margin_equal_the_live_account(server: HyperliquidServer, chain: LocalChain, tmp_path: Path) -> None:
    """The same steps on paper and live, at the same book, prices and hours."""
    loaded = agents.trusted_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN)
    paper = open_paper(loaded, PaperStart(), clock=chain.clock, transports=[chain.transport])
    with agents.agent_on(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN) as live, paper as agent:
        assert figures(account_of(agent)) == figures(account_of(live)) == (10_000 * 10**6, {})
        require_rebalance(agent)
        assert server.wallet(chain.wallet.address).positions == {}
        assert len(server.bodies) == 1, "nothing but the approval was posted"
        assert live.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert len(fills_of(agent)) == 2
        for mine, real in zip(fills_of(agent), fills_of(live), strict=True):
            assert (mine.market, mine.size_raw, mine.quote_raw) == (real.market, real.size_raw, real.quote_raw)
            assert 0 <= mine.fee_raw - real.fee_raw <= 1
            assert mine.realised_raw == -mine.fee_raw
        require_equal(agent, live, 2)
        for coins in (("ETH", "BTC"), ("ETH",)):
            an_hour_later(chain, server, *coins)
            require_equal(agent, live, 5)
        for bot in (agent, live):
            assert bot.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.HOLD
        mine, real = (payments_of(bot) for bot in (agent, live))
        assert [payment[:2] for payment in mine] == [payment[:2] for payment in real]
        assert len(real) == 3, "each payment has one entry, on paper as live"
        assert all(0 <= paid - live_paid <= 1 for (*_, paid), (*_, live_paid) in zip(mine, real, strict=True))
        server.move("ETH", "-1/10")
        server.seed("ETH", ("1000",) * 3)
        for bot in (agent, live):
            done = bot.adjust_futures(Deleverage(10_000), send=True, confirm=agents.yes)
            assert done.kind is OutcomeKind.DONE, done.reason
            assert len(done.transactions) == 2
            assert len({intent.step_id for intent in done.transactions}) == 1, "both positions in one action"
        require_equal(agent, live, 9)
        leverage = margin.leverage(account_of(agent))
        assert leverage is not None
        assert leverage <= 1
        assert agent.context.store.journal.unbooked_intents() == ()


@pytest.fixture
def newcomer(anvil_chain: LocalChain) -> Iterator[HyperliquidServer]:
    """A venue that has never heard of the wallet."""
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        server.wallets.pop(anvil_chain.wallet.address.lower())
        server.agents = []
        server.transfers = []
        yield server


def test_paper_needs_no_account_at_the_venue_no_agent_and_no_key(newcomer: HyperliquidServer, chain: LocalChain, tmp_path: Path) -> None:
    server = newcomer
    loaded = agents.trusted_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN)
    begin = PaperStart(margin="500")
    with open_paper(loaded, begin, clock=chain.clock, transports=[chain.transport]) as agent:
        require_rebalance(agent)
        assert margin.leverage(account_of(agent)) == pytest.approx(2, abs=0.05)
        sizes = figures(account_of(agent))
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as agent:
        assert figures(account_of(agent)) == sizes, "the positions are in the store"
    assert len(server.bodies) == 1
    assert chain.wallet.address.lower() not in server.wallets


def test_paper_whose_venue_is_down__trades_nothing(newcomer: HyperliquidServer, chain: LocalChain, tmp_path: Path) -> None:
    loaded = agents.trusted_config(chain, tmp_path, venue_changes(newcomer, ETH_AND_BTC), EVEN)
    with open_paper(loaded, PaperStart(margin="500"), clock=chain.clock, transports=[chain.transport]) as agent:
        newcomer.read_faults["*"] = 503
        down = agent.rebalance(send=True, confirm=agents.yes)
        assert down.transactions == ()
        assert "HTTP 503" in down.step_input.snapshot.layer(FuturesReading).unknown_reason


def test_paper_margin__takes_no_deposit(newcomer: HyperliquidServer, chain: LocalChain, tmp_path: Path) -> None:
    loaded = agents.trusted_config(chain, tmp_path, venue_changes(newcomer, ETH_AND_BTC), EVEN)
    with open_paper(loaded, PaperStart(margin="500"), clock=chain.clock, transports=[chain.transport]) as agent:
        moved = agent.adjust_futures(MarginAccountRequest(MarginDeposit(10**6)), send=True, confirm=agents.yes)
        assert moved.kind is OutcomeKind.REFUSED, moved.reason


def test_a_thin_book_fills_a_part_and_an_empty_one_nothing(newcomer: HyperliquidServer, chain: LocalChain, tmp_path: Path) -> None:
    server = newcomer
    server.move("ETH", "0")
    server.seed("ETH", ("0.1",), "0.001")
    changes = venue_changes(server, {"ETH": "100%"}) | {"futures.leverage_band": "2%"}
    loaded = agents.trusted_config(chain, tmp_path, changes, EVEN)
    begin = PaperStart(margin="500")
    with open_paper(loaded, begin, clock=chain.clock, transports=[chain.transport]) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert max(fill.size_raw for fill in fills_of(agent)) == 10**3 < account_of(agent).size_raw("ETH"), "0.1 an order"
        before = figures(account_of(agent))
        server.move("ETH", "1/10")
        empty = agent.rebalance(send=True, confirm=agents.yes)
        assert (empty.kind, figures(account_of(agent))) == (OutcomeKind.REFUSED, before), empty.reason


PostOrders = Callable[[PaperHyperliquid, SignedTx, int], list[str]]
POST_ORDERS = PaperHyperliquid.post_orders


def die_before_the_fill(_paper: PaperHyperliquid, _signed: SignedTx, _count: int) -> NoReturn:
    raise KeyboardInterrupt


def die_after_the_fill(paper: PaperHyperliquid, signed: SignedTx, count: int) -> NoReturn:
    POST_ORDERS(paper, signed, count)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("dying", "kind", "states"),
    [
        pytest.param(die_before_the_fill, OutcomeKind.DONE, [IntentState.FINAL, IntentState.REVERTED], id="before"),
        pytest.param(die_after_the_fill, OutcomeKind.HOLD, [IntentState.FINAL], id="after"),
    ],
)
def test_process_dead_around_the_fill__loses_and_repeats_none(
    newcomer: HyperliquidServer,
    chain: LocalChain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dying: PostOrders,
    kind: OutcomeKind,
    states: list[IntentState],
) -> None:
    loaded = agents.trusted_config(chain, tmp_path, venue_changes(newcomer, {"ETH": "100%"}), EVEN)
    begin = PaperStart(margin="500")
    with open_paper(loaded, begin, clock=chain.clock, transports=[chain.transport]) as agent, monkeypatch.context() as patch:
        patch.setattr(PaperHyperliquid, "post_orders", dying)
        with pytest.raises(KeyboardInterrupt):
            agent.rebalance(send=True, confirm=agents.yes)
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert outcome.kind is kind, outcome.reason
        assert [intent.state for intent in agent.context.store.journal.intents()] == states
        assert [fill.size_raw for fill in fills_of(agent)] == [account_of(agent).size_raw("ETH")]
