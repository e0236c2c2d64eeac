"""Tests of agent/layers/futures/execution/venue_executor.py: an order is posted once; none follows before its outcome is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution import SubmissionEvent
from agent.execution.submission.submitter import Submitter
from agent.layers.futures.execution.venue_executor import OUTCOME_POLLS, VenueExecutor, unfilled_receipt
from agent.model import Intent, IntentKind, IntentState, Receipt, SignedTx, UnsignedTx
from agent.model.futures import FuturesAction, FuturesGrant, MarginAccount, OrderCancel, PerpOrderKind, StopOrder
from agent.model.transactions import FIRST_VENUE_NONCE, PerpFill
from agent.ports import Grant, PreparedTransaction
from agent.ports.perpetuals import PerpActionDraft
from tests.support.perpetuals.venue_orders import ACCOUNT, BUY
from tests.support.text import raises_code
from tests.support.transactions import Bench, Killed, ScriptedChain, ScriptedSigner, bench, grant, tx

S = IntentState
FILLED = Receipt("", 1, 0, "", 0, 0, ())
UNFILLED = replace(FILLED, status=0)
REJECTED = replace(UNFILLED, failure_reason="tickRejected")
RESTS = replace(FILLED, is_open=True)
OPEN = None
DOWN = Retryable("the venue does not answer")
NO_KEY = Refused("the key may not trade")
WEB_PAGE = PassingFault("the endpoint answers with a web page")
BOUGHT = FuturesGrant(BUY, ACCOUNT)
SOLD = replace(BOUGHT, action=replace(BUY, size_raw=-BUY.size_raw, is_reduce_only=True))
LIMIT = replace(BOUGHT, action=replace(BUY, kind=PerpOrderKind.LIMIT))
LIMIT_OF_BTC = replace(LIMIT, action=replace(LIMIT.action, market="BTC"))


class FakeVenue:
    """A venue that answers with these outcomes in turn, with the last again and again."""

    def __init__(self, *outcomes: Receipt | None, reply: str | Exception = "", key_error: Exception | None = None) -> None:
        self.outcomes = list(outcomes)
        self.reply = reply
        self.key_error = key_error
        self.posted: list[SignedTx] = []
        self.query_count = 0
        self.key_queries: list[tuple[int, bool]] = []
        """Of each query for the key's approval: until when, and whether for a reduction."""

    def require_approved_key(self, until_s: int, *, is_reduction: bool = False) -> None:
        self.key_queries.append((until_s, is_reduction))
        if self.key_error is not None:
            raise self.key_error

    def post_orders(self, signed: SignedTx, count: int) -> list[str]:
        self.posted.append(signed)
        if isinstance(self.reply, Exception):
            raise self.reply
        return [self.reply] * count

    def draft(self, account: MarginAccount, action: OrderCancel, now_s: int) -> PerpActionDraft:
        return PerpActionDraft(ACCOUNT, "0x00", now_s + 90, FIRST_VENUE_NONCE + 101 + 2 * len(self.posted))

    def outcome(self, intent: Intent) -> Receipt | None:
        self.query_count += 1
        answer = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else replace(answer, tx_hash=str(intent.tx_hash))


class FakeOrderSigner(ScriptedSigner):
    """A signer of several orders as one action, that refuses the orders of these numbers."""

    def __init__(self, chain: ScriptedChain, refused_numbers: Sequence[int] = ()) -> None:
        super().__init__(chain)
        self.refused_nonces = [FIRST_VENUE_NONCE + number for number in refused_numbers]

    def sign(self, unsigned: UnsignedTx, granted: Grant) -> SignedTx:
        if unsigned.nonce in self.refused_nonces:
            raise Refused("above its bound")
        return super().sign(unsigned, granted)

    def require_signable(self, unsigned: UnsignedTx, granted: Grant) -> str:
        return self.sign(unsigned, granted).hash

    def sign_orders(self, signed_orders: Sequence[tuple[UnsignedTx, Grant]]) -> SignedTx:
        return self.sign(*signed_orders[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Bench]:
    opened = bench(tmp_path)
    opened.chain.base_nonce = 0
    opened.store.steps.begin("step", opened.clock.now_s(), "{}")
    yield opened
    opened.store.close()


def executor(world: Bench, venue: FakeVenue) -> VenueExecutor:
    def on_event(event: SubmissionEvent) -> None:
        world.events.append(event)
        if callable(world.on_event):
            world.on_event(event)

    parts = (world.signer, world.chain, world.clock, world.settings, lambda: world.paused, on_event, lambda: world.hard)
    return VenueExecutor(world.executor(), Submitter(world.store.journal, world.store.budgets, *parts), world.signer, venue)


def prepared(world: Bench, number: int, futures: FuturesGrant | None = BOUGHT) -> PreparedTransaction:
    """Return the order with this number after the first nonce of the venue."""
    granted = replace(grant(IntentKind.FUTURES, deadline_s=world.clock.now_s() + 90), layer_grant=futures)
    unsigned = replace(tx(FIRST_VENUE_NONCE + number), max_fee_wei=None, max_priority_fee_wei=None)
    return PreparedTransaction(unsigned, granted, "buy")


def run(world: Bench, venue: FakeVenue, number: int = 0, futures: FuturesGrant | None = BOUGHT) -> Intent:
    order = prepared(world, number, futures)
    return executor(world, venue).run("step", order.tx, order.grant, order.note)


def run_together(world: Bench, venue: FakeVenue) -> Sequence[Intent]:
    """Run three orders as one action."""
    return executor(world, venue).run_together("step", [prepared(world, number) for number in (0, 2, 4)])


def rest(world: Bench, venue: FakeVenue, number: int = 0, futures: FuturesGrant | None = LIMIT) -> Intent:
    """Run an order that rests."""
    intent = run(world, venue, number, futures)
    assert intent.is_resting
    return intent


def cancel(world: Bench, venue: FakeVenue, *orders: Intent) -> list[Intent]:
    return executor(world, venue).cancel_resting_orders({str(order.tx_hash): "stop" for order in orders})


def states(world: Bench) -> list[IntentState]:
    """Return the states of all orders, oldest first."""
    return [intent.state for intent in reversed(world.store.journal.intents())]


def moves(world: Bench) -> list[list[str]]:
    """Return the states of each order one after the other, oldest order first."""
    journal = world.store.journal
    return [[move.new_state.value for move in journal.transitions(intent.id)] for intent in reversed(journal.intents())]


def unknown_fates(world: Bench) -> int:
    return [event.name for event in world.events].count("fate-unknown")


def at_event(name: str, act: Callable[[], object]) -> Callable[[SubmissionEvent], None]:
    """Return an observer that acts at each event of this name."""
    return lambda event: act() if event.name == name else None


def stop(world: Bench) -> None:
    world.paused = True


def expire(world: Bench) -> None:
    world.clock.advance(90)


# --- From post to outcome


def test_filled_order__is_final_in_the_newest_block(world: Bench) -> None:
    venue = FakeVenue(FILLED)
    events: list[tuple[str, list[IntentState], int]] = []
    world.on_event = lambda event: events.append((event.name, states(world), len(venue.posted)))
    ended = run(world, venue)
    head = world.chain.head()
    assert (ended.state, ended.receipt.block_number, ended.receipt.block_hash) == (S.FINAL, head.number, head.hash)
    assert moves(world) == [["planned", "signed", "broadcast", "mined", "final"]]
    assert ("before:send", [S.BROADCAST], 0) in events
    assert ("after:send", [S.BROADCAST], 1) in events
    assert unknown_fates(world) == 0
    assert venue.key_queries == [(world.clock.now_s() + 90, False)]
    assert world.chain.sent == []
    assert [signed.hash for signed in venue.posted] == [ended.tx_hash]


@pytest.mark.parametrize(
    ("outcome", "reply", "reason"),
    [
        pytest.param(UNFILLED, "", "", id="nothing filled"),
        pytest.param(REJECTED, "", "tickRejected", id="status alone"),
        pytest.param(REJECTED, "no margin", "no margin", id="answer and status"),
        pytest.param(OPEN, "no margin", "no margin", id="answer alone"),
    ],
)
def test_unfilled_order__is_reverted_with_its_reason(world: Bench, outcome: Receipt | None, reply: str, reason: str) -> None:
    ended = run(world, FakeVenue(outcome, reply=reply))
    assert (ended.state, ended.receipt.status, ended.failure_reason) == (S.REVERTED, 0, reason)
    assert (reason or "nothing was filled") in [move.note for move in world.store.journal.transitions(ended.id)]
    assert unfilled_receipt(ended) == Receipt(str(ended.tx_hash), 0, 0, "", 0, 0, ())


@pytest.mark.parametrize("reply", ["no margin", DOWN], ids=["a rejection", "none"])
def test_filled_order__is_final_whatever_the_answer_to_its_post(world: Bench, reply: str | Exception) -> None:
    ended = run(world, FakeVenue(FILLED, reply=reply))
    assert (ended.state, ended.failure_reason) == (S.FINAL, "")


def test_transaction_of_the_chain__goes_to_the_chain(world: Bench) -> None:
    venue = FakeVenue(FILLED)
    assert executor(world, venue).run("step", tx(0), grant(), "swap").state is S.FINAL
    assert (len(world.chain.sent), venue.posted, venue.query_count) == (1, [], 0)


def test_outcome__is_asked_for_a_few_times_then_left_open(world: Bench) -> None:
    venue = FakeVenue(OPEN)
    begin_s = world.clock.now_s()
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue)
    assert (venue.query_count, len(venue.posted)) == (OUTCOME_POLLS, 1)
    assert world.clock.now_s() - begin_s == (OUTCOME_POLLS - 1) * world.settings.poll_s
    assert moves(world) == [["planned", "signed", "broadcast"]]
    slow = FakeVenue(OPEN, OPEN, FILLED)
    looks = [[intent.state for intent in executor(world, slow).reconcile()] for _ in range(4)]
    assert looks == [[S.BROADCAST], [S.BROADCAST], [S.FINAL], []]
    assert slow.posted == []


@pytest.mark.parametrize("futures", [BOUGHT, None], ids=["of an order", "of no named action"])
def test_open_outcome__lets_no_order_follow_and_is_reported(world: Bench, futures: FuturesGrant | None) -> None:
    venue = FakeVenue(OPEN)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue, futures=futures)
    assert not executor(world, venue).may_send()
    assert not executor(world, venue).may_send(for_revoking=True)
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION, "buy"):
        run(world, venue, 1)
    assert len(venue.posted) == len(states(world)) == 1
    known = FakeVenue(FILLED)
    executor(world, known).cancel_pending("pause")
    assert executor(world, known).may_send()
    assert run(world, known, 1).state is S.FINAL


def test_outcome__is_left_open_while_the_endpoint_has_a_fault(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_fault() -> None:
        raise WEB_PAGE

    monkeypatch.setattr(world.chain, "head", raise_fault)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, FakeVenue(FILLED))
    assert moves(world) == [["planned", "signed", "broadcast"]]
    assert unknown_fates(world) == OUTCOME_POLLS


def test_silent_venue__leaves_the_order_open_and_is_reported(world: Bench) -> None:
    venue = FakeVenue(DOWN, reply=DOWN)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue)
    assert (unknown_fates(world), len(venue.posted)) == (1 + OUTCOME_POLLS, 1)
    (intent,) = executor(world, FakeVenue(FILLED)).reconcile()
    assert intent.state is S.FINAL, "a post without an answer may have been filled"


def test_filled_order__is_settled_although_the_chain_has_a_fault(world: Bench) -> None:
    world.store.journal.adopt_nonce(0, world.clock.now_s())
    with raises_code(Retryable, "not_mined"):
        run(world, FakeVenue(OPEN))
    use_nonce_by_hand(world)
    with raises_code(OperatorNeeded, "foreign_nonce"):
        executor(world, FakeVenue(FILLED)).reconcile()
    assert states(world) == [S.FINAL]


# --- Orders that rest


@pytest.mark.parametrize("resting", [LIMIT, None], ids=["of its market", "of no named market"])
def test_resting_order__no_other_limit_order_of_its_market_is_posted(world: Bench, resting: FuturesGrant | None) -> None:
    """Together they could open twice what is planned."""
    venue = FakeVenue(RESTS)
    rest(world, venue, 0, resting)
    with pytest.raises(UnsendableTransaction, match="an order of ETH still rests"):
        run(world, venue, 1, LIMIT)
    assert len(venue.posted) == len(states(world)) == 1


def test_resting_order__is_asked_for_once_and_lets_others_be_sent(world: Bench) -> None:
    venue = FakeVenue(RESTS)
    rest(world, venue)
    assert venue.query_count == 1
    assert executor(world, venue).may_send()
    rest(world, venue, 1, LIMIT_OF_BTC)
    venue.outcomes = [FILLED]
    assert run(world, venue, 2, SOLD).state is S.FINAL, "a reduction of its market"
    assert len(venue.posted) == 3


def test_cancelled_resting_order__may_still_arrive__no_second_posted(world: Bench) -> None:
    venue = FakeVenue(RESTS)
    resting = rest(world, venue)
    venue.reply = DOWN
    venue.outcomes = [OPEN]
    for attempt in range(2):
        cancel(world, venue, resting)
        assert len(venue.posted) == 2, attempt
    newest, _ = world.store.journal.intents()
    assert (newest.state, newest.note) == (S.BROADCAST, "cancel an order that rests: stop")
    assert run(world, FakeVenue(FILLED), 1, SOLD).state is S.FINAL, "a cancel changes no position"


def test_cancelled_resting_order__is_returned_once_it_has_ended(world: Bench) -> None:
    venue = FakeVenue(RESTS)
    resting = rest(world, venue)
    venue.outcomes = [FILLED]
    assert [(after.id, after.state) for after in cancel(world, venue, resting)] == [(resting.id, S.FINAL)]


@pytest.mark.parametrize("error", [NO_KEY, DOWN, WEB_PAGE, OperatorNeeded("the key expired")])
def test_cancelled_resting_orders__failure_of_the_first_delays_no_other(world: Bench, error: TrimtabError) -> None:
    venue = FakeVenue(RESTS)
    orders = [rest(world, venue), rest(world, venue, 1, LIMIT_OF_BTC)]
    venue.key_error = error
    assert [after.is_resting for after in cancel(world, venue, *orders)] == [True, True]
    assert unknown_fates(world) == len(venue.posted) == 2
    assert len(venue.key_queries) == 4


@pytest.mark.parametrize(
    ("paused", "may_send", "cancels"),
    [(True, True, 1), (None, True, 1), (False, True, 0), (True, False, 0)],
    ids=["on", "unknown", "off", "on, sending nothing"],
)
def test_kill_switch__cancels_orders_that_rest(world: Bench, paused: bool | None, may_send: bool, cancels: int) -> None:
    venue = FakeVenue(RESTS)
    rest(world, venue)
    world.paused = paused
    executor(world, venue).reconcile(may_send=may_send)
    assert len(venue.posted) - 1 == cancels
    assert [is_reduction for _, is_reduction in venue.key_queries[1:]] == [True] * cancels


def use_nonce_by_hand(world: Bench) -> None:
    world.chain.base_nonce = 1


def foreign_pending(world: Bench) -> None:
    world.chain.pool["0x" + "ff" * 32] = 0


def chain_down(world: Bench) -> None:
    world.chain.offline = 1_000


@pytest.mark.parametrize("act", [VenueExecutor.reconcile, lambda it: it.cancel_pending("stop")], ids=["reconcile", "cancel_pending"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [(use_nonce_by_hand, OperatorNeeded), (foreign_pending, PassingFault), (chain_down, Retryable)],
    ids=["nonce used by hand", "foreign transaction pending", "chain down"],
)
def test_resting_order__is_cancelled_although_the_chain_has_a_fault(
    world: Bench, act: Callable[[VenueExecutor], object], fault: Callable[[Bench], None], error: type[TrimtabError]
) -> None:
    venue = FakeVenue(RESTS)
    world.store.journal.adopt_nonce(0, world.clock.now_s())
    rest(world, venue)
    world.paused = world.hard = True
    fault(world)
    with pytest.raises(error):
        act(executor(world, venue))
    assert len(venue.posted) == 2
    assert "cancel an order that rests" in world.store.journal.intents()[0].note


def fill(number: int) -> PerpFill:
    return PerpFill("", "", "ETH", 1, -1, 0, 0, str(number))


@pytest.mark.parametrize(
    ("outcome", "state", "fill_count", "moved"),
    [
        (replace(RESTS, fills=(fill(1), fill(2))), S.MINED, 2, 1),
        (replace(RESTS, fills=(fill(1),)), S.MINED, 1, 0),
        (RESTS, S.MINED, 1, 0),
        (FILLED, S.MINED, 1, 0),
        (replace(FILLED, fills=(fill(1),)), S.FINAL, 1, 2),
    ],
    ids=["another fill", "nothing new", "lacks a fill", "ended, lacks a fill", "ended"],
)
def test_resting_order__answer_without_a_fill_changes_nothing(
    world: Bench, outcome: Receipt, state: IntentState, fill_count: int, moved: int
) -> None:
    rest(world, FakeVenue(replace(RESTS, fills=(fill(1),))))
    moves_before = len(moves(world)[0])
    (after,) = executor(world, FakeVenue(outcome)).reconcile()
    assert (after.state, len(after.receipt.fills), len(moves(world)[0]) - moves_before) == (state, fill_count, moved)


# --- What may be sent


@pytest.mark.parametrize(
    ("action", "is_reduction"),
    [(BUY, False), (replace(BUY, is_reduce_only=True), True), (StopOrder("ETH", -1, 1, 1), True), (OrderCancel("ETH", "0x01"), True)],
    ids=["opening", "reduction", "stop", "cancel"],
)
def test_key__last_known_approval_allows_what_opens_nothing(world: Bench, action: FuturesAction, is_reduction: bool) -> None:
    venue = FakeVenue(FILLED)
    run(world, venue, futures=replace(BOUGHT, action=action))
    assert [for_reduction for _, for_reduction in venue.key_queries] == [is_reduction]


@pytest.mark.parametrize(
    ("key_error", "paused", "reason"), [(NO_KEY, False, "may not trade"), (None, True, "kill switch")], ids=["key", "pause"]
)
def test_key_that_may_not_trade_or_pause__plans_nothing(world: Bench, key_error: Refused | None, paused: bool, reason: str) -> None:
    world.paused = paused
    with pytest.raises(Refused, match=reason):
        run(world, FakeVenue(FILLED, key_error=key_error))
    assert states(world) == []


SENDS = [pytest.param(run, id="alone"), pytest.param(run_together, id="together")]
Send = Callable[[Bench, FakeVenue], object]


@pytest.mark.parametrize(("change", "guard"), [(stop, "kill_switch"), (expire, "deadline")], ids=["stop", "time ends"])
@pytest.mark.parametrize(
    ("send", "refused_numbers"), [(run, ()), (run_together, ()), (run_together, (2,))], ids=["alone", "together", "less a companion"]
)
def test_signed_orders__are_dropped_if_trading_stops_or_time_ends(
    world: Bench, send: Send, refused_numbers: Sequence[int], change: Callable[[Bench], None], guard: str
) -> None:
    venue = FakeVenue(FILLED)
    world.signer = FakeOrderSigner(world.chain, refused_numbers)
    world.on_event = at_event("after:signed", partial(change, world))
    with pytest.raises(Refused) as raised:
        send(world, venue)
    assert raised.value.verdicts[0].guard == guard
    assert {*states(world)} == {S.CANCELLED}
    assert venue.posted == []


@pytest.mark.parametrize("send", SENDS)
def test_orders_whose_first_the_signer_refuses__are_dropped(world: Bench, send: Send) -> None:
    venue = FakeVenue(FILLED)
    world.signer = FakeOrderSigner(world.chain, (0,))
    with pytest.raises(Refused, match="above its bound"):
        send(world, venue)
    assert {*map(tuple, moves(world))} == {("planned", "cancelled")}
    assert venue.posted == []


# --- Orders sent as one action


@pytest.mark.parametrize(
    ("refused_numbers", "all_states"),
    [((), [S.FINAL] * 3), ((2,), [S.FINAL, S.CANCELLED, S.FINAL])],
    ids=["all signed", "companion that is not signed"],
)
def test_sent_together__companion_that_is_not_signed_is_left_out(
    world: Bench, refused_numbers: Sequence[int], all_states: list[IntentState]
) -> None:
    venue = FakeVenue(FILLED)
    world.signer = FakeOrderSigner(world.chain, refused_numbers)
    assert [intent.state for intent in run_together(world, venue)] == [S.FINAL] * all_states.count(S.FINAL)
    assert states(world) == all_states
    assert len(venue.posted) == 1
    assert venue.key_queries == [(world.clock.now_s() + 90, True)]


@pytest.mark.parametrize("order_number", [1, 3], ids=["at the first order", "at the last order"])
def test_sent_together__stored_pause_before_the_write_sends_none(world: Bench, order_number: int) -> None:
    """Another machine confirms it meanwhile: none is then said to be sent."""
    venue = FakeVenue(OPEN)
    world.signer = FakeOrderSigner(world.chain)
    writes = iter(range(1, 4))

    def pause() -> None:
        if next(writes) == order_number:
            world.store.pause_switch.pause("by another process", world.clock.now_s())

    world.on_event = at_event("before:broadcast", pause)
    with pytest.raises(Refused, match="kill switch"):
        run_together(world, venue)
    assert states(world) == [S.CANCELLED] * 3
    assert venue.posted == []


def test_sent_together__one_without_an_outcome_is_queried_again(world: Bench) -> None:
    world.signer = FakeOrderSigner(world.chain)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run_together(world, FakeVenue(FILLED, FILLED, OPEN))
    assert states(world) == [S.FINAL, S.FINAL, S.BROADCAST]


def test_sent_together__none_follows_an_order_without_an_outcome(world: Bench) -> None:
    world.signer = FakeOrderSigner(world.chain)
    with raises_code(Retryable, "not_mined"):
        run(world, FakeVenue(OPEN), 9)
    venue = FakeVenue(FILLED)
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION):
        run_together(world, venue)
    assert venue.posted == []


# --- Restarts


@pytest.mark.parametrize(
    ("moment", "outcome", "state"),
    [
        pytest.param("after:planned", FILLED, S.CANCELLED, id="planned"),
        pytest.param("after:signed", OPEN, S.CANCELLED, id="signed, not seen"),
        pytest.param("after:signed", FILLED, S.FINAL, id="signed, filled"),
        pytest.param("before:send", FILLED, S.FINAL, id="before the send, filled"),
        pytest.param("before:send", OPEN, S.BROADCAST, id="before the send, open"),
        pytest.param("after:send", UNFILLED, S.REVERTED, id="sent, rejected"),
        pytest.param("after:mined", OPEN, S.FINAL, id="mined"),
    ],
)
def test_restart__resolves_an_order_by_the_answer_without_posting(
    world: Bench, moment: str, outcome: Receipt | None, state: IntentState
) -> None:
    """A signed order that the venue knows was sent by a copy of this store."""

    def die() -> None:
        raise Killed

    world.on_event = at_event(moment, die)
    with pytest.raises(Killed):
        run(world, FakeVenue(FILLED))
    world.restart()
    venue = FakeVenue(outcome)
    assert [intent.state for intent in executor(world, venue).reconcile()] == states(world) == [state]
    assert venue.posted == []
