"""An order to an off-chain venue from intention to outcome: posted once, and nothing follows it before its outcome is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution import SubmissionEvent
from agent.execution.submitter import Submitter
from agent.layers.futures.execution.venue_executor import OUTCOME_POLLS, VenueExecutor, unfilled_receipt
from agent.model import Head, Intent, IntentKind, IntentState, Receipt, SignedTx, UnsignedTx
from agent.model.futures import FuturesAction, FuturesGrant, MarginAccount, OrderCancel, PerpOrderKind, StopOrder
from agent.model.transactions import FIRST_VENUE_NONCE, PerpFill
from agent.ports import Grant, PreparedTransaction
from agent.ports.perpetuals import PerpActionDraft
from tests.support.perpetuals.venue_orders import ACCOUNT, BUY
from tests.support.text import raises_code
from tests.support.transactions import Bench, Killed, ScriptedSigner, bench, grant, tx

S = IntentState


@dataclass
class ScriptedVenue:
    """A venue that answers as the test says: `outcomes` in turn, the last again and again."""

    outcomes: list[Receipt | Exception | None] = field(default_factory=list)
    reply: str | Exception = ""
    agent: Exception | None = None
    posted: list[SignedTx] = field(default_factory=list)
    queries: int = 0
    until_s: int = 0
    are_reductions: list[bool] = field(default_factory=list)

    def require_approved_key(self, until_s: int, *, is_reduction: bool = False) -> None:
        self.until_s = until_s
        self.are_reductions.append(is_reduction)
        if self.agent is not None:
            raise self.agent

    def post(self, signed: SignedTx) -> str:
        self.posted.append(signed)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def post_orders(self, signed: SignedTx, count: int) -> list[str]:
        return [self.post(signed)] * count

    def draft(self, account: MarginAccount, action: OrderCancel, now_s: int) -> PerpActionDraft:
        return PerpActionDraft(ACCOUNT, "0x00", now_s + 90, FIRST_VENUE_NONCE + 101 + 2 * len(self.posted))

    def outcome(self, intent: Intent) -> Receipt | None:
        self.queries += 1
        answer = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else replace(answer, tx_hash=str(intent.tx_hash))


FILLED = Receipt("", 1, 0, "", 0, 0, ())
OPEN = None
DOWN = Retryable("the venue does not answer")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Bench]:
    opened = bench(tmp_path)
    opened.chain.base_nonce = 0
    opened.store.steps.begin("step", opened.clock.now_s(), "{}")
    yield opened
    opened.store.close()


def order_tx(number: int = 0) -> UnsignedTx:
    return replace(tx(FIRST_VENUE_NONCE + number), max_fee_wei=None, max_priority_fee_wei=None)


def executor(world: Bench, venue: ScriptedVenue) -> VenueExecutor:
    def tell(event: SubmissionEvent) -> None:
        world.events.append(event)
        if callable(world.on_event):
            world.on_event(event)

    store = world.store
    sender = world.chain
    parts = (world.signer, sender, world.clock, world.settings, lambda: world.paused, tell, lambda: world.hard)
    return VenueExecutor(world.executor(), Submitter(store.journal, store.budgets, *parts), world.signer, venue)


BOUGHT = FuturesGrant(BUY, ACCOUNT)


def run(world: Bench, venue: ScriptedVenue, number: int = 0, futures: FuturesGrant | None = BOUGHT) -> Intent:
    granted = replace(grant(IntentKind.FUTURES, deadline_s=world.clock.now_s() + 90), layer_grant=futures)
    return executor(world, venue).run("step", IntentKind.FUTURES, order_tx(number), granted, "buy")


def moves(world: Bench) -> list[str]:
    (intent,) = world.store.journal.intents()
    return [move.new_state.value for move in world.store.journal.transitions(intent.id)]


def names(world: Bench) -> list[str]:
    return [event.name for event in world.events]


def test_filled_order__is_final_in_the_newest_block(world: Bench) -> None:
    venue = ScriptedVenue([FILLED])
    states: list[tuple[str, str, int]] = []

    def watch(event: SubmissionEvent) -> None:
        (stored,) = world.store.journal.intents() or [None]
        states.append((event.name, "" if stored is None else stored.state.value, len(venue.posted)))

    world.on_event = watch
    ended = run(world, venue)
    assert ended.state is S.FINAL
    assert ended.receipt is not None
    head = world.chain.head()
    assert (ended.receipt.block_number, ended.receipt.block_hash) == (head.number, head.hash)
    assert moves(world) == ["planned", "signed", "broadcast", "mined", "final"]
    assert ("before:send", "broadcast", 0) in states
    assert ("after:send", "broadcast", 1) in states
    assert "fate-unknown" not in names(world)
    assert venue.until_s == world.clock.now_s() + 90
    assert world.chain.sent == []
    assert [signed.hash for signed in venue.posted] == [ended.tx_hash]


def test_unfilled_or_rejected_order__is_reverted_with_its_reason(world: Bench) -> None:
    nothing = run(world, ScriptedVenue([replace(FILLED, status=0)]))
    assert nothing.state is S.REVERTED
    rejected = run(world, ScriptedVenue([OPEN], reply="not enough margin"), 1)
    assert rejected.state is S.REVERTED
    assert rejected.receipt is not None
    assert rejected.receipt.status == 0
    notes = [[move.note for move in world.store.journal.transitions(intent.id)] for intent in (nothing, rejected)]
    assert "nothing was filled" in notes[0]
    assert "not enough margin" in notes[1]
    assert unfilled_receipt(nothing) == Receipt(str(nothing.tx_hash), 0, 0, "", 0, 0, ())


def test_a_transaction_of_the_chain_goes_to_the_chain(world: Bench) -> None:
    venue = ScriptedVenue([FILLED])
    ended = executor(world, venue).run("step", IntentKind.SWAP, tx(0), grant(), "swap")
    assert ended.state is S.FINAL
    assert len(world.chain.sent) == 1
    assert venue.posted == []
    assert venue.queries == 0


def test_outcome__is_asked_for_a_few_times_then_left_open(world: Bench) -> None:
    venue = ScriptedVenue([OPEN])
    begin = world.clock.now_s()
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue)
    assert venue.queries == OUTCOME_POLLS
    assert len(venue.posted) == 1
    assert world.clock.now_s() - begin == (OUTCOME_POLLS - 1) * world.settings.poll_s
    assert moves(world) == ["planned", "signed", "broadcast"]
    slow = ScriptedVenue([OPEN, OPEN, FILLED])
    assert [intent.state for intent in executor(world, slow).reconcile()] == [S.BROADCAST]
    assert [intent.state for intent in executor(world, slow).reconcile()] == [S.BROADCAST]
    assert [intent.state for intent in executor(world, slow).reconcile()] == [S.FINAL]
    assert executor(world, slow).reconcile() == []
    assert slow.posted == []


def test_open_outcome__lets_no_order_follow_and_is_reported(world: Bench) -> None:
    venue = ScriptedVenue([OPEN])
    with pytest.raises(Retryable):
        run(world, venue)
    assert not executor(world, venue).may_send()
    assert not executor(world, venue).may_send(for_revoking=True)
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION, "buy"):
        run(world, venue, 1)
    assert len(venue.posted) == 1
    assert len(world.store.journal.intents()) == 1
    known = ScriptedVenue([FILLED])
    executor(world, known).cancel_pending("pause")
    assert executor(world, known).may_send()
    assert run(world, known, 1).state is S.FINAL


def test_open_order_without_a_named_action__lets_no_order_follow(world: Bench) -> None:
    venue = ScriptedVenue([OPEN])
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue, futures=None)
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION, "buy"):
        run(world, venue, 1)
    assert len(venue.posted) == 1
    assert len(world.store.journal.intents()) == 1


def test_resting_order__no_other_limit_order_of_its_market_is_posted(world: Bench) -> None:
    """Together they could open twice what is planned."""
    limit = replace(BOUGHT, action=replace(BUY, kind=PerpOrderKind.LIMIT))
    other = replace(limit, action=replace(limit.action, market="BTC"))
    venue = ScriptedVenue([replace(FILLED, is_open=True)])
    assert run(world, venue, 0, limit).is_resting
    with pytest.raises(UnsendableTransaction, match="an order of ETH still rests"):
        run(world, venue, 1, limit)
    assert len(venue.posted) == len(world.store.journal.intents()) == 1
    assert run(world, venue, 1, other).is_resting
    assert len(venue.posted) == 2


def test_resting_order_without_a_market__no_limit_order_is_posted(world: Bench) -> None:
    venue = ScriptedVenue([replace(FILLED, is_open=True)])
    assert run(world, venue, futures=None).is_resting
    with pytest.raises(UnsendableTransaction, match="an order of ETH still rests"):
        run(world, venue, 1, replace(BOUGHT, action=replace(BUY, kind=PerpOrderKind.LIMIT)))
    assert len(venue.posted) == 1


def test_cancelled_resting_order__may_still_arrive__no_second_posted(world: Bench) -> None:
    limit = replace(BOUGHT, action=replace(BUY, kind=PerpOrderKind.LIMIT))
    venue = ScriptedVenue([replace(FILLED, is_open=True)])
    resting = run(world, venue, 0, limit)
    assert resting.is_resting
    venue.reply = DOWN
    venue.outcomes = [OPEN]
    for attempt in range(2):
        executor(world, venue).cancel_resting_orders({str(resting.tx_hash): "stop"})
        assert len(venue.posted) == 2, attempt
    cancel, _ = world.store.journal.intents()
    assert cancel.state is S.BROADCAST
    assert "cancel an order that rests: stop" in cancel.note
    sale = replace(BUY, size_raw=-BUY.size_raw, is_reduce_only=True)
    assert run(world, ScriptedVenue([FILLED]), 1, replace(BOUGHT, action=sale)).state is S.FINAL, "a cancel changes no position"


def test_cancelled_resting_order__is_returned_once_it_has_ended(world: Bench) -> None:
    venue = ScriptedVenue([RESTS])
    resting = run(world, venue, futures=LIMIT)
    venue.outcomes = [FILLED]
    [after] = executor(world, venue).cancel_resting_orders({str(resting.tx_hash): "stop"})
    assert (after.id, after.state) == (resting.id, S.FINAL)


LIMIT = replace(BOUGHT, action=replace(BUY, kind=PerpOrderKind.LIMIT))
RESTS = replace(FILLED, is_open=True)


@pytest.mark.parametrize(
    ("action", "is_reduction"),
    [
        (BUY, False),
        (replace(BUY, is_reduce_only=True), True),
        (StopOrder("ETH", -1, 1, 1), True),
        (OrderCancel("ETH", "0x01"), True),
    ],
    ids=["opening", "reduction", "stop", "cancel"],
)
def test_key__last_known_approval_allows_what_opens_nothing(world: Bench, action: FuturesAction, is_reduction: bool) -> None:
    venue = ScriptedVenue([FILLED])
    run(world, venue, futures=replace(BOUGHT, action=action))
    assert venue.are_reductions == [is_reduction]


@pytest.mark.parametrize(
    ("paused", "may_send", "cancels"),
    [(True, True, 1), (None, True, 1), (False, True, 0), (True, False, 0)],
    ids=["on", "unknown", "off", "on, sending nothing"],
)
def test_kill_switch__cancels_orders_that_rest(world: Bench, paused: bool | None, may_send: bool, cancels: int) -> None:
    venue = ScriptedVenue([RESTS])
    assert run(world, venue, futures=LIMIT).is_resting
    world.paused = paused
    executor(world, venue).reconcile(may_send=may_send)
    assert len(venue.posted) - 1 == cancels
    assert venue.are_reductions[1:] == [True] * cancels


def test_cancelled_resting_order__refused_key_delays_nothing_else(world: Bench) -> None:
    venue = ScriptedVenue([RESTS])
    resting = run(world, venue, futures=LIMIT)
    venue.agent = Refused("the key may not trade")
    [after] = executor(world, venue).cancel_resting_orders({str(resting.tx_hash): "stop"})
    assert after.is_resting
    assert names(world).count("fate-unknown") == 1
    assert len(venue.posted) == 1


def restored_nonce(world: Bench) -> None:
    """The owner has sent a transaction by hand."""
    world.chain.base_nonce = 1


def foreign_pending(world: Bench) -> None:
    world.chain.pool["0x" + "ff" * 32] = 0


def chain_down(world: Bench) -> None:
    world.chain.offline = 1_000


Act = Callable[[VenueExecutor], object]


@pytest.mark.parametrize("act", [lambda it: it.reconcile(), lambda it: it.cancel_pending("stop")], ids=["reconcile", "cancel_pending"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [(restored_nonce, OperatorNeeded), (foreign_pending, PassingFault), (chain_down, Retryable)],
    ids=["nonce used by hand", "foreign transaction pending", "chain down"],
)
def test_resting_order__is_cancelled_although_the_chain_has_a_fault(
    world: Bench, act: Act, fault: Callable[[Bench], None], error: type[TrimtabError]
) -> None:
    venue = ScriptedVenue([RESTS])
    world.store.journal.adopt_nonce(0, world.clock.now_s())
    assert run(world, venue, futures=LIMIT).is_resting
    world.paused = True
    world.hard = True
    fault(world)
    with pytest.raises(error):
        act(executor(world, venue))
    assert len(venue.posted) == 2
    cancel = world.store.journal.intents()[0]
    assert "cancel an order that rests" in cancel.note


def test_filled_order__is_settled_although_the_chain_has_a_fault(world: Bench) -> None:
    world.store.journal.adopt_nonce(0, world.clock.now_s())
    with pytest.raises(Retryable):
        run(world, ScriptedVenue([OPEN]))
    restored_nonce(world)
    with pytest.raises(OperatorNeeded):
        executor(world, ScriptedVenue([FILLED])).reconcile()
    assert moves(world)[-1] == "final"


WEB_PAGE = PassingFault("the endpoint answers with a web page")


@pytest.mark.parametrize("error", [Refused("no key"), DOWN, WEB_PAGE, OperatorNeeded("the key expired")])
def test_cancelled_resting_orders__failure_of_the_first_delays_no_other(world: Bench, error: TrimtabError) -> None:
    venue = ScriptedVenue([RESTS])
    limit_of_btc = replace(LIMIT, action=replace(LIMIT.action, market="BTC"))
    orders = [run(world, venue, 0, LIMIT), run(world, venue, 1, limit_of_btc)]
    venue.agent = error
    assert len(executor(world, venue).cancel_resting_orders({str(order.tx_hash): "stop" for order in orders})) == 2
    assert len(venue.are_reductions) == 4


def test_outcome__is_left_open_while_the_endpoint_has_a_fault(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def head() -> Head:
        raise WEB_PAGE

    monkeypatch.setattr(world.chain, "head", head)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, ScriptedVenue([FILLED]))
    assert moves(world) == ["planned", "signed", "broadcast"]
    assert names(world).count("fate-unknown") == OUTCOME_POLLS


def test_resting_order__is_asked_for_once_and_lets_others_be_sent(world: Bench) -> None:
    venue = ScriptedVenue([RESTS])
    assert run(world, venue, futures=LIMIT).is_resting
    assert venue.queries == 1
    assert executor(world, venue).may_send()


def test_resting_order__reduction_of_its_market_is_posted_too(world: Bench) -> None:
    venue = ScriptedVenue([RESTS])
    assert run(world, venue, futures=LIMIT).is_resting
    venue.outcomes = [FILLED]
    sale = replace(BUY, size_raw=-BUY.size_raw, is_reduce_only=True)
    assert run(world, venue, 1, replace(BOUGHT, action=sale)).state is S.FINAL


def fill(number: int) -> PerpFill:
    return PerpFill("", "", "ETH", 1, -1, 0, 0, str(number))


@pytest.mark.parametrize(
    ("outcome", "state", "fill_count", "moved"),
    [
        (replace(RESTS, fills=(fill(1), fill(2))), S.MINED, 2, 1),
        (replace(RESTS, fills=(fill(1),)), S.MINED, 1, 0),
        (RESTS, S.MINED, 1, 0),
        (replace(FILLED, fills=()), S.MINED, 1, 0),
        (replace(FILLED, fills=(fill(1),)), S.FINAL, 1, 2),
    ],
    ids=["another fill", "nothing new", "lacks a fill", "ended, lacks a fill", "ended"],
)
def test_resting_order__answer_without_a_fill_changes_nothing(
    world: Bench, outcome: Receipt, state: IntentState, fill_count: int, moved: int
) -> None:
    assert run(world, ScriptedVenue([replace(RESTS, fills=(fill(1),))]), futures=LIMIT).is_resting
    before = len(moves(world))
    [after] = executor(world, ScriptedVenue([outcome])).reconcile()
    assert after.receipt is not None
    assert (after.state, len(after.receipt.fills), len(moves(world)) - before) == (state, fill_count, moved)


@pytest.mark.parametrize(
    ("outcome", "reply", "reason"),
    [
        (replace(FILLED, status=0, failure_reason="tickRejected"), "", "tickRejected"),
        (replace(FILLED, status=0, failure_reason="tickRejected"), "no margin", "no margin"),
        (OPEN, "no margin", "no margin"),
        (FILLED, "no margin", ""),
    ],
    ids=["status alone", "answer and status", "answer alone", "filled all the same"],
)
def test_rejected_order__keeps_the_reason_of_answer_or_status(world: Bench, outcome: Receipt | None, reply: str, reason: str) -> None:
    ended = run(world, ScriptedVenue([outcome], reply=reply))
    assert ended.failure_reason == reason
    assert (ended.state is S.REVERTED) is bool(reason)


def test_silent_venue__leaves_the_order_open_and_is_reported(world: Bench) -> None:
    venue = ScriptedVenue([DOWN], reply=DOWN)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run(world, venue)
    assert names(world).count("fate-unknown") == 1 + OUTCOME_POLLS
    assert len(venue.posted) == 1
    (intent,) = executor(world, ScriptedVenue([FILLED])).reconcile()
    assert intent.state is S.FINAL, "a post without an answer may have been filled"


def test_lost_answer_to_a_post__is_found_in_the_same_run(world: Bench) -> None:
    assert run(world, ScriptedVenue([FILLED], reply=DOWN)).state is S.FINAL


def test_key_that_may_not_trade_or_pause__plans_nothing(world: Bench) -> None:
    with pytest.raises(Refused, match="may not trade"):
        run(world, ScriptedVenue([FILLED], agent=Refused("the key may not trade")))
    world.paused = True
    with pytest.raises(Refused, match="kill switch"):
        run(world, ScriptedVenue([FILLED]))
    assert world.store.journal.intents() == ()


def stop(world: Bench) -> None:
    world.paused = True


def expire(world: Bench) -> None:
    world.clock.advance(90)


@pytest.mark.parametrize(("change", "guard"), [(stop, "kill_switch"), (expire, "deadline")])
def test_signed_order__is_dropped_if_trading_stops_or_its_time_ends(world: Bench, change: Callable[[Bench], None], guard: str) -> None:
    venue = ScriptedVenue([FILLED])
    world.on_event = lambda event: change(world) if event.name == "after:signed" else None
    with pytest.raises(Refused) as caught:
        run(world, venue)
    assert caught.value.verdicts[0].guard == guard
    assert venue.posted == []
    assert moves(world)[-1] == "cancelled"
    assert world.store.journal.open_intents() == ()


class OneActionSigner(ScriptedSigner):
    """A signer of several orders as one action."""

    def require_signable(self, unsigned: UnsignedTx, granted: Grant) -> str:
        return self.sign(unsigned, granted).hash

    def sign_orders(self, signed_orders: Sequence[tuple[UnsignedTx, Grant]]) -> SignedTx:
        return self.sign(*signed_orders[0])


@pytest.mark.parametrize(("change", "guard"), [(stop, "kill_switch"), (expire, "deadline"), (None, "")])
def test_orders_of_one_action__are_dropped_together_after_signing(world: Bench, change: Callable[[Bench], None] | None, guard: str) -> None:
    venue = ScriptedVenue([FILLED])
    world.signer = OneActionSigner(world.chain)
    granted = replace(grant(IntentKind.FUTURES, deadline_s=world.clock.now_s() + 90), layer_grant=BOUGHT)
    prepared = [PreparedTransaction(order_tx(number), granted, "buy") for number in range(0, 6, 2)]
    if change is None:
        assert [intent.state for intent in executor(world, venue).run_together("step", prepared)] == [S.FINAL] * 3
        assert len(venue.posted) == 1
        return
    world.on_event = lambda event: change(world) if event.name == "after:signed" else None
    with pytest.raises(Refused) as caught:
        executor(world, venue).run_together("step", prepared)
    assert caught.value.verdicts[0].guard == guard
    assert venue.posted == []
    assert world.store.journal.open_intents() == ()


@pytest.mark.parametrize("order_number", [0, 2])
def test_sent_together__stored_pause_before_the_write_sends_none(world: Bench, order_number: int) -> None:
    """Another machine confirms it at the first or the last order: none is then said to be sent."""
    venue = ScriptedVenue([OPEN])
    world.signer = OneActionSigner(world.chain)
    writes: list[str] = []

    def pause(event: SubmissionEvent) -> None:
        writes.append(event.name)
        if event.name == "before:broadcast" and writes.count(event.name) == order_number + 1:
            world.store.pause_switch.pause("by another process", world.clock.now_s())

    world.on_event = pause
    with pytest.raises(Refused, match="kill switch"):
        run_together(world, venue)
    assert states(world) == [S.CANCELLED] * 3
    assert venue.posted == []


class ChoosySigner(OneActionSigner):
    """A signer that refuses the orders with these nonces."""

    def __init__(self, world: Bench, *refused_numbers: int) -> None:
        super().__init__(world.chain)
        self.refused_nonces = [FIRST_VENUE_NONCE + number for number in refused_numbers]

    def require_signable(self, unsigned: UnsignedTx, granted: Grant) -> str:
        if unsigned.nonce in self.refused_nonces:
            raise Refused("above its bound")
        return super().require_signable(unsigned, granted)


def run_together(world: Bench, venue: ScriptedVenue) -> Sequence[Intent]:
    granted = replace(grant(IntentKind.FUTURES, deadline_s=world.clock.now_s() + 90), layer_grant=BOUGHT)
    prepared = [PreparedTransaction(order_tx(number), granted, "buy") for number in (0, 2, 4)]
    return executor(world, venue).run_together("step", prepared)


def states(world: Bench) -> list[IntentState]:
    """States of all orders, oldest first."""
    return [intent.state for intent in reversed(world.store.journal.intents())]


def test_sent_together__companion_that_is_not_signed_is_left_out(world: Bench) -> None:
    venue = ScriptedVenue([FILLED])
    world.signer = ChoosySigner(world, 2)
    assert [intent.state for intent in run_together(world, venue)] == [S.FINAL] * 2
    assert states(world) == [S.FINAL, S.CANCELLED, S.FINAL]
    assert venue.are_reductions == [True]


def test_sent_together__none_is_posted_if_the_first_is_not_signed(world: Bench) -> None:
    venue = ScriptedVenue([FILLED])
    world.signer = ChoosySigner(world, 0)
    with pytest.raises(Refused, match="above its bound"):
        run_together(world, venue)
    assert states(world) == [S.CANCELLED] * 3
    assert venue.posted == []


def test_sent_together__companion_is_dropped_once_before_a_stop(world: Bench) -> None:
    venue = ScriptedVenue([FILLED])
    world.signer = ChoosySigner(world, 2)
    world.on_event = lambda event: stop(world) if event.name == "after:signed" else None
    with pytest.raises(Refused, match="kill switch"):
        run_together(world, venue)
    assert states(world) == [S.CANCELLED] * 3


def test_sent_together__one_without_an_outcome_is_queried_again(world: Bench) -> None:
    world.signer = OneActionSigner(world.chain)
    with raises_code(Retryable, ErrorCode.NOT_MINED):
        run_together(world, ScriptedVenue([FILLED, FILLED, OPEN]))
    assert states(world) == [S.FINAL, S.FINAL, S.BROADCAST]


def test_sent_together__none_follows_an_order_without_an_outcome(world: Bench) -> None:
    world.signer = OneActionSigner(world.chain)
    with pytest.raises(Retryable):
        run(world, ScriptedVenue([OPEN]), 9)
    venue = ScriptedVenue([FILLED])
    with raises_code(Retryable, ErrorCode.OPEN_TRANSACTION):
        run_together(world, venue)
    assert venue.posted == []


def test_an_order_that_the_signer_refuses_is_dropped(world: Bench) -> None:
    venue, world.signer.refuse = ScriptedVenue([FILLED]), Refused("the signer refuses")
    with pytest.raises(Refused, match="the signer refuses"):
        run(world, venue)
    assert moves(world) == ["planned", "cancelled"]
    assert venue.posted == []


@pytest.mark.parametrize(
    ("moment", "outcome", "state"),
    [
        pytest.param("after:planned", FILLED, S.CANCELLED, id="planned"),
        pytest.param("after:signed", OPEN, S.CANCELLED, id="signed, not seen"),
        pytest.param("after:signed", FILLED, S.FINAL, id="signed, filled"),
        pytest.param("before:send", FILLED, S.FINAL, id="before the send, filled"),
        pytest.param("before:send", OPEN, S.BROADCAST, id="before the send, open"),
        pytest.param("after:send", replace(FILLED, status=0), S.REVERTED, id="sent, rejected"),
        pytest.param("after:mined", OPEN, S.FINAL, id="mined"),
    ],
)
def test_restart__resolves_an_order_by_the_answer_without_posting(
    world: Bench, moment: str, outcome: Receipt | None, state: IntentState
) -> None:
    """A signed order that the venue knows was sent by a copy of this store."""

    def die(event: SubmissionEvent) -> None:
        if event.name == moment:
            raise Killed

    world.on_event, first = die, ScriptedVenue([FILLED])
    with pytest.raises(Killed):
        run(world, first)
    world.restart()
    again = ScriptedVenue([outcome])
    (intent,) = executor(world, again).reconcile()
    assert intent.state is state
    assert again.posted == []
    assert world.store.journal.intents()[0].state is state
