"""Hyperliquid as the venue of a step: readings with their time, nonces, quotes, outcomes and approvals, at exact figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import pytest

from agent.errors import OperatorNeeded, Refused, Retryable, UnsendableTransaction
from agent.model import Intent, IntentKind, IntentState, Receipt, StaleRead, StaleReadKind
from agent.model.futures import FuturesReading, MarginAccount, OrderCancel, PerpOrder, PerpOrderKind
from agent.ports.perpetuals import PerpActionDraft
from agent.signing.agent_approval import LONGEST_APPROVAL_MS, AgentApproval
from agent.signing.futures import LIMIT_TAG
from agent.venues.hyperliquid.client import AccountReading, HyperliquidAgent
from agent.venues.hyperliquid.kept_reads import KeptValue
from agent.venues.hyperliquid.orders import OrderFill, OrderState, VenueOrderStage
from agent.venues.hyperliquid.venue import MAX_CLOCK_SKEW_S, HyperliquidPerps, new_approval, post_approval, with_chain_times
from tests.support.builders import OWNER, address
from tests.support.fakes.clock import FakeClock
from tests.support.perpetuals.steps import EMPTY, step_of
from tests.support.perpetuals.stops import book
from tests.support.text import raises_field
from tests.support.transactions import tx

AGENT = HyperliquidAgent("trimtab", address("agent"), 10**15)
VALID_S = 90
SNAPSHOT = step_of(EMPTY).snapshot
NOW_S = SNAPSHOT.now_s
HEAD_S = SNAPSHOT.head.timestamp_s
CLOID = "0x" + "11" * 16
LIMIT_CLOID = "0x" + LIMIT_TAG.hex() + "11" * 12


def dated(at_s: int = NOW_S, eth: int = 10_000) -> MarginAccount:
    """An account that the venue read at a time of its own: coins of ETH, in ten-thousandths, at 3,000."""
    account = book(eth=eth)
    return replace(account, markets=tuple(replace(perp, index_s=at_s) for perp in account.markets))


class FakeClient:
    """The client of an account with an approved agent."""

    account_address = OWNER
    agent_address = AGENT.address

    def __init__(self) -> None:
        self.account = dated()
        self.stale_reads: tuple[StaleRead, ...] = ()
        self.agents_value: KeptValue[tuple[HyperliquidAgent, ...]] = KeptValue((AGENT,))
        self.unpinned: tuple[str, ...] = ()
        self.state = OrderState(CLOID, VenueOrderStage.UNKNOWN)
        self.now_ms = NOW_S * 1000
        self.levels: list[tuple[Fraction, Fraction]] = []
        self.mode_fault: Exception | None = None
        self.calls: list[object] = []

    def read_account(self) -> AccountReading:
        return AccountReading(self.account, self.stale_reads)

    def known_agents(self) -> KeptValue[tuple[HyperliquidAgent, ...]]:
        return self.agents_value

    agents_for_reduction = known_agents

    def agents(self) -> tuple[HyperliquidAgent, ...]:
        return self.agents_value.value or ()

    def unpinned_markets(self) -> tuple[str, ...]:
        return self.unpinned

    def market_number(self, coin: str) -> int:
        return {"ETH": 1, "BTC": 0}[coin]

    def order_book_side(self, coin: str, *, asks: bool, may_wait: bool) -> list[tuple[Fraction, Fraction]]:
        self.calls.append((coin, asks, may_wait))
        return self.levels

    def state_of(self, cloid: str) -> OrderState:
        return replace(self.state, cloid=cloid)

    def is_past(self, time_ms: int) -> bool:
        return self.now_ms > time_ms

    def is_order_dead(self, cloid: str, expires_ms: int) -> bool:
        return self.is_past(expires_ms)

    def require_own_mode(self) -> None:
        self.calls.append("mode")
        if self.mode_fault is not None:
            raise self.mode_fault

    def require_agent(self, until_ms: int, agents: Sequence[HyperliquidAgent] | None = None) -> HyperliquidAgent:
        self.calls.append(agents)
        for agent in self.agents() if agents is None else agents:
            if agent.address == AGENT.address and agent.valid_until_ms > until_ms:
                return agent
        raise OperatorNeeded("no agent")


class FakeExpiryStore:
    """The record of an approval, zero for none."""

    def __init__(self) -> None:
        self.until_ms = 0

    def agent_expiry_ms(self, _address: str) -> int:
        return self.until_ms

    def record_agent_expiry(self, _address: str, until_ms: int) -> int:
        self.until_ms = self.until_ms or until_ms
        return self.until_ms


class World:
    """A venue with its client, clock and records."""

    def __init__(self, newest_nonce: int = 0, no_key_reason: str = "") -> None:
        self.client = FakeClient()
        self.clock = FakeClock()
        self.expiries = FakeExpiryStore()
        parts = (cast(Any, self.client), self.clock, VALID_S, lambda: newest_nonce, "trimtab", self.expiries)
        self.venue = HyperliquidPerps(*parts, no_key_reason=no_key_reason)

    def reading(self) -> FuturesReading:
        return self.venue.read(SNAPSHOT).layer(FuturesReading)


@pytest.fixture
def world() -> World:
    return World()


# Readings


@pytest.mark.parametrize("late_s", [0, -1, -MAX_CLOCK_SKEW_S, MAX_CLOCK_SKEW_S])
def test_index__has_chain_time_less_the_answer_s_age(late_s: int) -> None:
    account = with_chain_times(dated(NOW_S + late_s), SNAPSHOT)
    assert {perp.index_s for perp in account.markets} == {HEAD_S + min(0, late_s)}


@pytest.mark.parametrize(
    ("venue_s", "head_s", "words"),
    [
        pytest.param(MAX_CLOCK_SKEW_S + 1, 0, "this machine's clock is 31 s behind", id="clock behind"),
        pytest.param(-MAX_CLOCK_SKEW_S - 1, 0, "its server lags", id="server behind"),
        pytest.param(-MAX_CLOCK_SKEW_S - 1, -MAX_CLOCK_SKEW_S, "its server lags", id="server behind an old block"),
        pytest.param(-MAX_CLOCK_SKEW_S - 1, -MAX_CLOCK_SKEW_S - 1, "by this machine's clock", id="clock ahead of an old block"),
    ],
)
def test_index__clock_that_differs_by_more_is_named(venue_s: int, head_s: int, words: str) -> None:
    snapshot = replace(SNAPSHOT, head=replace(SNAPSHOT.head, timestamp_s=NOW_S + head_s))
    with pytest.raises(Retryable, match=words):
        with_chain_times(dated(NOW_S + venue_s), snapshot)


ENDS_S = NOW_S + VALID_S

BLOCKED: dict[str, tuple[dict[str, Any], int, str]] = {
    "approved": ({}, 0, ""),
    "approved once": ({}, AGENT.valid_until_ms, ""),
    "approved twice": ({}, AGENT.valid_until_ms - 1, "approved a second time"),
    "no agent": ({"agents_value": KeptValue(())}, 0, "no agent named trimtab"),
    "another's name": ({"agents_value": KeptValue((replace(AGENT, name="other"),))}, 0, "no agent named trimtab"),
    "ends with an order": ({"agents_value": KeptValue((replace(AGENT, valid_until_ms=ENDS_S * 1000),))}, 0, "ends at"),
    "ends after an order": ({"agents_value": KeptValue((replace(AGENT, valid_until_ms=(ENDS_S + 1) * 1000),))}, 0, ""),
    "not pinned": ({"unpinned": ("ETH",)}, 0, "no number is pinned for the market ETH"),
    "not read": ({"agents_value": KeptValue(None, "HTTP 503")}, 0, ""),
    "old list without ours": ({"agents_value": KeptValue((), "HTTP 503")}, 0, ""),
    "old list with ours": ({"agents_value": KeptValue((AGENT,), "HTTP 503")}, 1, "approved a second time"),
}


@pytest.mark.parametrize(("changes", "recorded_ms", "words"), BLOCKED.values(), ids=BLOCKED)
def test_reading__says_why_the_venue_would_take_no_order(world: World, changes: dict[str, Any], recorded_ms: int, words: str) -> None:
    for name, value in changes.items():
        setattr(world.client, name, value)
    world.expiries.until_ms = recorded_ms
    reading = world.reading()
    assert words in reading.blocked_reason
    assert bool(reading.blocked_reason) is bool(words)
    has_fault = bool(world.client.agents_value.fault)
    assert [stale.kind for stale in reading.stale_reads] == ([StaleReadKind.AGENTS] if has_fault else [])


def test_reading__without_a_key_is_blocked_and_read() -> None:
    reading = World(no_key_reason="no agent key").reading()
    assert (reading.blocked_reason, reading.key_approval_expires_s) == ("no agent key", 0)
    assert reading.account is not None


def test_reading__keeps_the_parts_of_the_client_that_are_old(world: World) -> None:
    world.client.stale_reads = (StaleRead(StaleReadKind.FEES, "HTTP 503"),)
    world.client.agents_value = KeptValue((AGENT,), "HTTP 503")
    assert [stale.kind for stale in world.reading().stale_reads] == [StaleReadKind.FEES, StaleReadKind.AGENTS]


# Drafts


def sale(size: int = -10_000, bound: int = 2_900 * 10**6, reduce: bool = True) -> PerpOrder:
    return PerpOrder("ETH", size, PerpOrderKind.MARKET, bound, reduce)


@pytest.mark.parametrize(
    ("ahead_ms", "nonce_ms"),
    [(-1_000, 0), (-2, 0), (0, 2), (5_000, 5_002)],
    ids=["older", "older by 2", "of this second", "clock set back"],
)
def test_nonce__is_the_time_or_above_the_newest(ahead_ms: int, nonce_ms: int) -> None:
    now_ms = FakeClock().now_s() * 1000
    world = World(newest_nonce=now_ms + ahead_ms)
    draft = world.venue.draft(world.client.account, sale(), now_ms // 1000 - 20)
    assert (draft.nonce, draft.deadline_s) == (now_ms + nonce_ms, now_ms // 1000 + VALID_S), "by this machine's clock"


def test_nonce__companions_have_even_ones_of_their_own(world: World) -> None:
    first = PerpActionDraft(OWNER, "0x", 500, 1_000)
    drafts = [world.venue.draft_companion(world.client.account, sale(), first, number) for number in (1, 2)]
    assert [(draft.nonce, draft.deadline_s) for draft in drafts] == [(1_002, 500), (1_004, 500)]
    assert len({draft.data for draft in drafts}) == 2


def test_draft__a_close_of_the_whole_position_may_be_small(world: World) -> None:
    """20 of ten thousand at 3,000 are 6 dollars."""
    assert world.venue.draft(dated(eth=20), sale(-20, 20 * 290_000, True), 0).nonce


@pytest.mark.parametrize(("size", "reduce"), [(-19, True), (-20, False)], ids=["part", "opening of its size"])
def test_draft__of_another_small_order_is_refused(world: World, size: int, reduce: bool) -> None:
    with pytest.raises(Refused, match="below the venue's minimum"):
        world.venue.draft(dated(eth=20), sale(size, abs(size) * 290_000, reduce), 0)


# Quotes


@pytest.mark.parametrize(
    ("order", "levels", "filled", "quote"),
    [
        (sale(), [(3_000, 1)], 10_000, 3_000),
        (sale(), [(3_000, "0.5"), (2_900, "0.5")], 10_000, 2_950),
        (sale(), [(3_000, "0.5"), (2_899, "0.5")], 5_000, 1_500),
        (sale(), [(3_000, "0.50005")], 5_000, 1_500),
        (sale(10_000, 3_100 * 10**6, reduce=False), [(3_000, "0.5"), (3_100, 9)], 10_000, 3_050),
        (sale(10_000, 3_100 * 10**6, reduce=False), [(3_000, "0.5"), (3_101, 9)], 5_000, 1_500),
    ],
    ids=["whole", "at the bound", "beyond it", "part of a lot", "bought at the bound", "bought beyond it"],
)
def test_quote__is_what_the_book_fills_within_the_bound(
    world: World, order: PerpOrder, levels: list[tuple[int, object]], filled: int, quote: int
) -> None:
    world.client.levels = [(Fraction(price), Fraction(cast(Any, size))) for price, size in levels]
    quoted = world.venue.quote(world.client.account, order)
    assert (quoted.size_raw, quoted.quote_raw // 10**6) == (filled, quote)
    assert world.client.calls == [("ETH", order.size_raw > 0, not order.is_reduce_only)]


def test_quote__less_than_a_lot_is_no_fill(world: World) -> None:
    world.client.levels = [(Fraction(3_000), Fraction(1, 20_000))]
    with pytest.raises(UnsendableTransaction):
        world.venue.quote(world.client.account, sale())


# Outcomes

DEADLINE_S = NOW_S + VALID_S
ORDER = {"type": "order", "orders": [{"t": {"limit": {"tif": "Ioc"}}}]}
STOP = {"type": "order", "orders": [{"t": {"trigger": {}}}]}
CANCEL = {"type": "cancelByCloid", "cancels": [{"asset": 1, "cloid": LIMIT_CLOID}]}
STAGES = VenueOrderStage


def outcome(
    world: World,
    state: OrderState,
    *,
    action: object = ORDER,
    intent_state: IntentState = IntentState.BROADCAST,
    cloid: str = CLOID,
    late_ms: int = 0,
    deadline_s: int | None = DEADLINE_S,
) -> Receipt | None:
    world.client.state = state
    world.client.now_ms = DEADLINE_S * 1000 + late_ms
    data = "0x" + json.dumps(action).encode().hex()
    unsigned = replace(tx(0), data=data)
    return world.venue.outcome(Intent("i", "s", IntentKind.FUTURES, intent_state, unsigned, "", 0, deadline_s, cloid, None))


def state(stage: VenueOrderStage, *fills: OrderFill, word: str = "") -> OrderState:
    size_raw = sum(fill.size_raw for fill in fills)
    fee_raw = sum(fill.fee_raw for fill in fills)
    profit_raw = sum(fill.realised_profit_raw for fill in fills)
    quote_raw = sum(fill.quote_change_raw for fill in fills)
    return OrderState(CLOID, stage, 7, size_raw, quote_raw, fee_raw, word, "ETH", profit_raw, fills)


FILL = OrderFill("9", -10, 30, 3, 11)


@pytest.mark.parametrize(
    ("late_ms", "intent_state", "deadline_s", "has_ended"),
    [
        (0, IntentState.BROADCAST, DEADLINE_S, False),
        (1, IntentState.BROADCAST, DEADLINE_S, True),
        (1, IntentState.SIGNED, DEADLINE_S, False),
        (1, IntentState.BROADCAST, None, False),
    ],
    ids=["may arrive", "past its time", "never sent", "without an end"],
)
def test_unknown_order__has_ended_once_it_cannot_arrive(
    world: World, late_ms: int, intent_state: IntentState, deadline_s: int | None, has_ended: bool
) -> None:
    receipt = outcome(world, state(STAGES.UNKNOWN), late_ms=late_ms, intent_state=intent_state, deadline_s=deadline_s)
    assert (receipt is not None and receipt.status == 0) is has_ended


@pytest.mark.parametrize(
    ("order_state", "status"),
    [
        (state(STAGES.OPEN), None),
        (state(STAGES.OPEN, FILL), None),
        (state(STAGES.CANCELED, FILL), 1),
        (state(STAGES.FILLED, FILL), 1),
        (state(STAGES.CANCELED, word="iocCancel"), 0),
        (state(STAGES.REJECTED, word="tickRejected"), 0),
    ],
    ids=["open", "open, part", "part", "filled", "cancelled", "rejected"],
)
def test_market_order__has_a_receipt_once_it_is_final(world: World, order_state: OrderState, status: int | None) -> None:
    receipt = outcome(world, order_state)
    assert (None if receipt is None else receipt.status) == status
    if receipt is not None:
        assert receipt.failure_reason == order_state.venue_status
        assert [(fill.size_raw, fill.quote_raw, fill.fee_raw, fill.realised_raw) for fill in receipt.fills] == (
            [(-10, 30, 3, 8)] if status else []
        )


@pytest.mark.parametrize(
    ("order_state", "status", "is_open", "reason"),
    [
        (state(STAGES.OPEN), 1, True, ""),
        (state(STAGES.OPEN, FILL), 1, True, ""),
        (state(STAGES.FILLED, FILL), 1, False, ""),
        (state(STAGES.CANCELED, word="canceled"), 1, False, ""),
        (state(STAGES.REJECTED, word="badAloPxRejected"), 0, False, "badAloPxRejected"),
        (state(STAGES.REJECTED, FILL, word="rejected"), 1, False, ""),
    ],
    ids=["rests", "rests, part", "filled", "cancelled", "rejected", "rejected, part"],
)
def test_limit_order__fails_only_if_it_was_rejected(world: World, order_state: OrderState, status: int, is_open: bool, reason: str) -> None:
    receipt = outcome(world, order_state, cloid=LIMIT_CLOID)
    assert (receipt.status, receipt.is_open, receipt.failure_reason) == (status, is_open, reason)
    assert [(fill.fill_id, fill.realised_raw) for fill in receipt.fills] == [("9", 8)] * len(order_state.fills)


def test_stop__that_rests_is_done(world: World) -> None:
    receipt = outcome(world, state(STAGES.OPEN), action=STOP)
    assert (receipt.status, receipt.is_open) == (1, False)


@pytest.mark.parametrize(
    ("stage", "intent_state", "late_ms", "status"),
    [
        (STAGES.CANCELED, IntentState.BROADCAST, 0, 1),
        (STAGES.FILLED, IntentState.BROADCAST, 0, 1),
        (STAGES.OPEN, IntentState.BROADCAST, 0, None),
        (STAGES.OPEN, IntentState.BROADCAST, 1, 0),
        (STAGES.CANCELED, IntentState.SIGNED, 0, None),
    ],
    ids=["done", "filled before", "may arrive", "past its time", "never sent"],
)
def test_cancel__is_done_once_its_order_rests_no_more(
    world: World, stage: VenueOrderStage, intent_state: IntentState, late_ms: int, status: int | None
) -> None:
    receipt = outcome(world, state(stage), action=CANCEL, intent_state=intent_state, late_ms=late_ms)
    assert (None if receipt is None else receipt.status) == status


# Approvals


def test_key__mode_is_not_asked_for_before_a_reduction(world: World) -> None:
    world.client.mode_fault = OperatorNeeded("unified account")
    world.venue.require_approved_key(ENDS_S, is_reduction=True)
    assert world.client.calls == [(AGENT,)], "of the known agents"


def test_key__mode_is_asked_for_before_an_opening(world: World) -> None:
    world.client.mode_fault = OperatorNeeded("unified account")
    with pytest.raises(Refused, match="unified account"):
        world.venue.require_approved_key(ENDS_S)


def test_key__opening_asks_for_the_agents_anew(world: World) -> None:
    world.venue.require_approved_key(ENDS_S)
    assert world.client.calls == ["mode", None]
    assert world.expiries.until_ms == AGENT.valid_until_ms


@pytest.mark.parametrize(
    ("agent", "recorded_ms", "words"),
    [
        (replace(AGENT, name="other"), 0, "is named 'other'"),
        (AGENT, AGENT.valid_until_ms - 1, "approved a second time"),
        (replace(AGENT, address=address("new")), 0, "not the key in use"),
        (replace(AGENT, address=address("new"), valid_until_ms=ENDS_S * 1000), 0, "no agent"),
    ],
    ids=["another name", "approved twice", "another key", "another key that ends"],
)
def test_key__that_may_not_trade_is_refused(world: World, agent: HyperliquidAgent, recorded_ms: int, words: str) -> None:
    world.client.agents_value = KeptValue((agent,))
    world.expiries.until_ms = recorded_ms
    with pytest.raises(Refused, match=words) as caught:
        world.venue.require_approved_key(ENDS_S)
    assert [verdict.guard for verdict in caught.value.verdicts] == ["agent_key"]


class FakeConnection:
    """A venue that knows the role of every key."""

    is_mainnet = False

    def __init__(self, role: object = "missing", answer: object = None) -> None:
        self.role = role
        self.answer = answer

    def info(self, **_fields: object) -> object:
        return {"role": self.role}

    def exchange(self, _body: object) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("role", "former"),
    [("missing", (AGENT.address.lower(),)), ("agent", ()), (None, ())],
    ids=["former", "known", "no answer"],
)
def test_approval__key_must_be_new_to_venue_and_records(role: object, former: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="posted for approval before"):
        approval_of(1, role, former)


def approval_of(until_ms: int, role: object = "missing", former: tuple[str, ...] = ()) -> AgentApproval:
    agent = replace(AGENT, valid_until_ms=until_ms)
    return new_approval(cast(Any, FakeConnection(role)), OWNER, agent, 0, former)


@pytest.mark.parametrize("until_ms", [1, LONGEST_APPROVAL_MS])
def test_approval__ends_within_the_longest_time(until_ms: int) -> None:
    approval = approval_of(until_ms)
    assert approval.valid_until_ms == until_ms
    assert approval.agent_address == AGENT.address


@pytest.mark.parametrize("until_ms", [0, LONGEST_APPROVAL_MS + 1])
def test_approval__of_no_time_or_too_long_is_refused(until_ms: int) -> None:
    with raises_field("hyperliquid"):
        approval_of(until_ms)


@pytest.mark.parametrize("answer", [{"status": "err", "response": "no"}, {}, None, "ok"])
def test_approval__any_answer_but_ok_is_a_refusal(answer: object) -> None:
    with pytest.raises(Refused, match="refuses the agent"):
        post_approval(cast(Any, FakeConnection(answer=answer)), {"nonce": 1}, {})
    post_approval(cast(Any, FakeConnection(answer={"status": "ok"})), {"nonce": 1}, {})


def test_cancel__names_the_order_and_its_market(world: World) -> None:
    draft = world.venue.draft(world.client.account, OrderCancel("ETH", LIMIT_CLOID), 0)
    assert json.loads(bytes.fromhex(draft.data[2:])) == CANCEL
