"""What every futures venue keeps: account, quote, draft and outcome, on Perpetual Protocol v2 and on Hyperliquid alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.chain.sender import QuorumSender
from agent.errors import Refused
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.margin import contract_sizes
from agent.margin.contract_sizes import index_bound_raw
from agent.model import FuturesReading, Intent, IntentState, StepInput
from agent.model.futures import MarginAccount, PerpMarket, PerpOrder, PerpOrderKind
from agent.ports.perpetuals import OrderVenue, PerpVenue
from agent.wiring.futures import chain_venue
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN, futures_config_changes
from tests.support.hyperliquid import AGENT, AGENT_ENV, venue_changes, venue_for


@dataclass
class Desk:
    """An agent with 10,000 of margin at a venue with one targeted market; `can_rest` if its limit orders rest there."""

    agent: Agent
    venue: PerpVenue
    can_rest: bool

    def step(self) -> StepInput:
        return self.agent.step_input()

    def account(self) -> MarginAccount:
        account = margin_account(self.step().snapshot)
        assert account is not None
        return account

    def opened(self) -> Intent:
        """The one order of a step that opens to the target."""
        outcome = require_rebalance(self.agent)
        [intent] = outcome.transactions
        return intent


@pytest.fixture(params=["perpetual_protocol_v2", "hyperliquid"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    if request.param == "hyperliquid":
        anvil_chain: LocalChain = request.getfixturevalue("anvil_chain")
        agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
        monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
        with (
            venue_for(anvil_chain) as server,
            agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent,
        ):
            venue = agent.context.order_venue()
            assert venue is not None
            yield Desk(agent, venue, can_rest=True)
        return
    perps: LocalPerps = request.getfixturevalue("perps_chain")
    agents.fund(perps.chain, {"WETH": 50_000, "USDC": 50_000})
    perps.deposit(perps.chain.wallet.address, 10_000 * 10**6)
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, {"WETH": "100%"}), EVEN) as agent:
        context = agent.context
        sender = QuorumSender(context.endpoints, context.config.chain.chain_id)
        perpetual_protocol = chain_venue(context.config, context.portfolio, context.transport, sender.status_of)
        assert perpetual_protocol is not None
        yield Desk(agent, perpetual_protocol, can_rest=False)


def order_of(market: PerpMarket, notional: int, account: MarginAccount, slippage_bps: int = 200) -> PerpOrder:
    """A market order of so many dollars, negative for a sale, bound from the index."""
    size = contract_sizes.size_for_notional_raw(market, Fraction(notional * account.quote.unit))
    return PerpOrder(market.market, size, PerpOrderKind.MARKET, index_bound_raw(market, size, slippage_bps), False)


def test_the_account_has_its_margin_and_dated_prices(desk: Desk) -> None:
    step = desk.step()
    read = desk.venue.read(step.snapshot)
    account = margin_account(read)
    assert account is not None
    assert read.layer(FuturesReading).unknown_reason == ""
    assert margin.account_value_raw(account) == 10_000 * account.quote.unit == margin.free_margin_raw(account)
    [market] = account.markets
    assert 0 <= step.snapshot.head.timestamp_s - market.index_s < 600
    assert abs(market.mark / market.index - 1) < Fraction(5, 100)
    assert market.lot_raw > 0 < market.fee_ppm


@pytest.mark.parametrize("notional", [1_000, -1_000])
def test_a_quote_fills_within_the_bound(desk: Desk, notional: int) -> None:
    account = desk.account()
    [market] = account.markets
    order = order_of(market, notional, account)
    quote = desk.venue.quote(account, order)
    assert quote.size_raw == abs(order.size_raw)
    within = quote.quote_raw <= order.bound_raw if notional > 0 else quote.quote_raw >= order.bound_raw
    assert within
    assert abs(quote.quote_raw / (abs(order.size_raw) * market.mark) - 1) < Fraction(2, 100)


@pytest.mark.parametrize("notional", [1_000, -1_000])
def test_an_order_that_cannot_keep_its_bound_is_refused(desk: Desk, notional: int) -> None:
    account = desk.account()
    [market] = account.markets
    with pytest.raises(Refused, match=r"(above|below|within) (its|the) bound"):
        desk.venue.quote(account, order_of(market, notional, account, slippage_bps=-500))


def test_draft__ends_soon_and_takes_limits_where_they_can_rest(desk: Desk) -> None:
    step = desk.step()
    account = desk.account()
    [market] = account.markets
    now_s = step.snapshot.head.timestamp_s
    order = order_of(market, 1_000, account)
    drafted = desk.venue.draft(account, order, now_s)
    assert now_s < drafted.deadline_s <= now_s + step.execution.deadline_s + 30
    assert bytes.fromhex(drafted.data.removeprefix("0x"))
    for wrong in (replace(order, size_raw=0), replace(order, bound_raw=0)):
        with pytest.raises(Refused, match="the order has no size"):
            desk.venue.draft(account, wrong, now_s)
    with nullcontext() if desk.can_rest else pytest.raises(Refused, match="has no limit orders"):
        desk.venue.draft(account, replace(order, kind=PerpOrderKind.LIMIT), now_s)


def test_draft_of_companions__nonces__are_even_and_of_their_own(desk: Desk) -> None:
    """Cancels have the odd ones: two actions of one nonce would be one."""
    if not isinstance(desk.venue, OrderVenue):
        pytest.skip("a venue on the chain takes the wallet's nonces")
    account = desk.account()
    [market] = account.markets
    order = order_of(market, 1_000, account)
    first = desk.venue.draft(account, order, desk.step().snapshot.head.timestamp_s)
    companions = [desk.venue.draft_companion(account, order, first, number) for number in range(1, 5)]
    nonces = [draft.nonce or 0 for draft in (first, *companions)]
    assert len(set(nonces)) == len(nonces)
    assert all(nonce % 2 == 0 for nonce in nonces)
    assert {draft.deadline_s for draft in companions} == {first.deadline_s}


def test_an_outcome_is_the_receipt_that_the_journal_has(desk: Desk) -> None:
    intent = desk.opened()
    assert intent.state in (IntentState.MINED, IntentState.FINAL)
    assert intent.receipt is not None
    outcome = desk.venue.outcome(intent)
    assert outcome is not None
    assert (outcome.status, outcome.fills, outcome.tx_hash) == (1, intent.receipt.fills, intent.tx_hash)
    never = replace(intent, state=IntentState.BROADCAST, tx_hash="0x" + "ab" * (len(str(intent.tx_hash)) // 2 - 1))
    assert desk.venue.outcome(never) is None


def test_a_fill_is_the_position_with_its_sign_and_its_cost(desk: Desk) -> None:
    before = desk.account()
    intent = desk.opened()
    assert intent.receipt is not None
    [fill] = intent.receipt.fills
    account = desk.account()
    [position] = account.positions
    assert (position.market, position.size_raw) == (fill.market, fill.size_raw)
    assert fill.size_raw > 0 > fill.quote_raw
    assert fill.fee_raw > 0
    assert position.open_notional_raw < 0
    unit = account.collateral_unit_raw
    at_mark = margin.value_at_mark_raw(account, position)
    paid = margin.account_value_raw(before) - margin.account_value_raw(account) - margin.funding_pending_raw(account)
    assert abs(paid - (fill.fee_raw - fill.quote_raw - at_mark)) <= unit, "the fee, and the fill against the mark"
    history = desk.agent.context.store.budgets.history(desk.step().snapshot.head.timestamp_s)
    assert history.budgets.loss_24h > 0
    assert desk.agent.context.store.journal.unbooked_intents() == ()


def test_a_sale_reduces_what_was_bought(desk: Desk) -> None:
    desk.opened()
    account = desk.account()
    [market] = account.markets
    size_raw = account.size_raw(market.market)
    sale = PerpOrder(market.market, -size_raw, PerpOrderKind.MARKET, index_bound_raw(market, -size_raw, 200), True)
    quote = desk.venue.quote(account, sale)
    assert 0 < quote.size_raw <= size_raw
    assert quote.quote_raw > 0
