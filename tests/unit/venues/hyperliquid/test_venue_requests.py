"""Requests to Hyperliquid: their weight, the budget of a minute, answers that are kept, and actions of several orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest

from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError
from agent.signing.futures import batch_action
from agent.venues.hyperliquid import connection as connection_module
from agent.venues.hyperliquid.budget import RESERVED_WEIGHT, WEIGHT_PER_MINUTE, WINDOW_S, RequestBudget, answer_weight, request_weight
from agent.venues.hyperliquid.client import HyperliquidAgent
from agent.venues.hyperliquid.connection import SIDE_READS_S, HyperliquidConnection
from agent.venues.hyperliquid.kept_reads import MAX_KEPT_S, KeptReads, KeptValue
from agent.venues.hyperliquid.orders import parse_refusals
from agent.venues.hyperliquid.venue import HyperliquidPerps, unknown_reading
from tests.support.fakes.clock import FakeClock
from tests.support.text import raises_code


@pytest.mark.parametrize(
    ("path", "body", "weight"),
    [
        pytest.param("info", {"type": "clearinghouseState"}, 2, id="account"),
        pytest.param("info", {"type": "l2Book"}, 2, id="book"),
        pytest.param("info", {"type": "orderStatus"}, 2, id="order"),
        pytest.param("info", {"type": "userRole"}, 60, id="role"),
        pytest.param("info", {"type": "userFees"}, 20, id="fees"),
        pytest.param("info", {"type": "somethingNew"}, 20, id="unknown read"),
        pytest.param("exchange", {"action": {"orders": [{}] * 39}}, 1, id="39 orders"),
        pytest.param("exchange", {"action": {"orders": [{}] * 40}}, 2, id="40 orders"),
        pytest.param("exchange", {"action": {"cancels": [{}]}}, 1, id="cancel"),
    ],
)
def test_weight__is_that_of_the_documentation(path: str, body: dict[str, object], weight: int) -> None:
    assert request_weight(path, body) == weight


@pytest.mark.parametrize(
    ("kind", "rows", "weight"),
    [
        pytest.param("userFunding", 19, 0, id="few rows"),
        pytest.param("userFunding", 500, 25, id="many rows"),
        pytest.param("userFees", 500, 0, id="rows of another read"),
    ],
)
def test_weight__rows_of_an_answer_add_to_it(kind: str, rows: int, weight: int) -> None:
    assert answer_weight({"type": kind}, [{}] * rows) == weight


@pytest.mark.parametrize(("weight", "waited_s"), [(200, 0), (201, WINDOW_S)])
def test_budget__request_that_does_not_fit_waits_for_the_oldest(weight: int, waited_s: int) -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    began_s = clock.now_s()
    budget.spend(WEIGHT_PER_MINUTE - 200)
    budget.wait_for(weight)
    assert clock.now_s() - began_s == waited_s


def test_budget__a_request_counts_for_a_minute() -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    budget.spend(500)
    clock.sleep(WINDOW_S - 1)
    assert budget.left() == WEIGHT_PER_MINUTE - 500
    clock.sleep(1)
    assert budget.left() == WEIGHT_PER_MINUTE


def test_budget__a_clock_that_is_set_back_ends_no_budget() -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    budget.spend(WEIGHT_PER_MINUTE)
    clock.sleep(-3_600)
    assert budget.left() == WEIGHT_PER_MINUTE


class FakeAnswer:
    """A read that returns the number of its call, or raises while `is_down`."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_down = False

    def __call__(self) -> int:
        if self.is_down:
            raise Retryable("the venue is down")
        self.calls += 1
        return self.calls


def fee_reads(keeps_fresh: bool = True) -> tuple[FakeClock, KeptReads, FakeAnswer]:
    clock = FakeClock()
    return clock, KeptReads(clock.now_s, keeps_fresh=keeps_fresh), FakeAnswer()


@pytest.mark.parametrize(("age_s", "calls"), [(59, 1), (60, 2)])
def test_kept_value__is_read_again_at_its_age(age_s: int, calls: int) -> None:
    clock, reads, answer = fee_reads()
    assert reads.read("fees", answer, 60).is_new
    clock.sleep(age_s)
    fees = reads.read("fees", answer, 60)
    assert (fees.value, fees.is_new, fees.fault) == (calls, calls == 2, "")


CHANGES: dict[str, Callable[[KeptReads], object]] = {
    "another basis": lambda reads: "other",
    "forgotten": lambda reads: reads.forget("fees") or "cash",
    "dropped": lambda reads: reads.drop("fees") or "cash",
    "restored": lambda reads: reads.restore("fees", 9, 0) or "cash",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_kept_value__is_read_again_once_its_source_changes(change: Callable[[KeptReads], object]) -> None:
    _, reads, answer = fee_reads()
    reads.read("fees", answer, 60, "cash")
    assert reads.read("fees", answer, 60, "cash").value == 1
    assert reads.read("fees", answer, 60, change(reads)).value == 2


def test_kept_value__is_read_in_each_look_unless_kept_fresh() -> None:
    _, reads, answer = fee_reads(keeps_fresh=False)
    assert [reads.read("fees", answer, 60).value for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(("age_s", "value"), [(120, 1), (MAX_KEPT_S, 1), (MAX_KEPT_S + 1, None)])
def test_kept_value__stands_in_with_its_age_for_a_day(age_s: int, value: int | None) -> None:
    clock, reads, answer = fee_reads()
    reads.read("fees", answer, 60, "cash")
    clock.sleep(age_s)
    answer.is_down = True
    fees = reads.read("fees", answer, 60, "cash")
    assert (fees.value, fees.is_new, fees.is_of_basis) == (value, False, value is not None)
    assert "the venue is down" in fees.fault
    assert ("2 min old" in fees.fault) is (age_s == 120)
    assert not reads.read("fees", answer, 60, "other cash").is_of_basis


def statuses(*rows: object) -> dict[str, Any]:
    return {"status": "ok", "response": {"data": {"statuses": list(rows)}}}


def reasons(answer: object, count: int) -> list[str]:
    return ["" if refusal is None else refusal.reason for refusal in parse_refusals(answer, count)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (statuses({"filled": {}}, {"error": "thin"}, "success"), ["", "thin", ""]),
        (statuses({"error": "thin"}), ["thin"] * 3),
        ({"status": "err", "response": "no agent"}, ["no agent"] * 3),
    ],
    ids=["each", "one for all", "the whole action"],
)
def test_refusals__each_order_gets_its_own(answer: object, expected: list[str]) -> None:
    assert reasons(answer, 3) == expected


@pytest.mark.parametrize("answer", [statuses({"filled": {}}), statuses(*["success"] * 2), statuses(7, 7, 7), {}, None])
def test_refusals__answer_for_another_count_is_not_believed(answer: object) -> None:
    with raises_code(Retryable, "answer"):
        parse_refusals(answer, 3)


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        (Retryable("down"), True),
        (PassingFault("the store is locked"), True),
        (OperatorNeeded("mode"), False),
        (Refused("no market"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unknown_account__is_looked_at_in_seconds_if_it_passes(error: TrimtabError, is_passing: bool) -> None:
    assert unknown_reading(error).is_passing is is_passing


class FakeAgentlessClient:
    """A client whose list of approved agents was never read."""

    agent_address = "0x" + "a" * 40

    def agents_for_reduction(self) -> KeptValue[tuple[HyperliquidAgent, ...]]:
        return KeptValue(None, "HTTP 503")


class FakeAgentExpiryStore:
    def __init__(self, until_ms: int) -> None:
        self.until_ms = until_ms

    def agent_expiry_ms(self, address: str) -> int:
        return self.until_ms


@pytest.mark.parametrize(("recorded_ms", "is_approved"), [(0, True), (100_000, False), (100_001, True)])
def test_approval__recorded_one_allows_a_reduction_until_it_ends(recorded_ms: int, is_approved: bool) -> None:
    client: Any = FakeAgentlessClient()
    record: Any = FakeAgentExpiryStore(recorded_ms)
    venue = HyperliquidPerps(client, FakeClock(), 90, lambda: 0, "trimtab", record, no_key_reason="")
    with nullcontext() if is_approved else pytest.raises(Refused, match="approval of the agent trimtab ends"):
        venue.require_approved_key(100, is_reduction=True)


def order(number: int, reduce: bool = True, kind: str = "limit") -> dict[str, Any]:
    return {"type": "order", "orders": [{"a": number, "r": reduce, "t": {kind: {}}}], "grouping": "na"}


def test_action_of_several_orders__has_them_in_their_order() -> None:
    assert [wire["a"] for wire in batch_action([order(3), order(1)])["orders"]] == [3, 1]


@pytest.mark.parametrize(
    ("actions", "rule"),
    [
        pytest.param([order(1), order(2, reduce=False)], "signer.reduce_only", id="opening"),
        pytest.param([order(1), order(1)], "signer.call", id="one market twice"),
        pytest.param([order(1), order(2, kind="trigger")], "signer.reduce_only", id="stop"),
        pytest.param([order(1), {"type": "cancelByCloid"}], "signer.call", id="cancel"),
    ],
)
def test_action_of_several_orders__has_one_reduction_a_market(actions: list[dict[str, Any]], rule: str) -> None:
    with raises_code(Refused, rule):
        batch_action(actions)


@pytest.mark.parametrize(
    ("kind", "weight_left", "is_held_back"),
    [
        pytest.param("userFees", RESERVED_WEIGHT + 19, True, id="fees, reserve touched"),
        pytest.param("userFees", RESERVED_WEIGHT + 20, False, id="fees, reserve left"),
        pytest.param("l2Book", RESERVED_WEIGHT + 1, True, id="book, reserve touched"),
        pytest.param("l2Book", RESERVED_WEIGHT + 2, False, id="book, reserve left"),
    ],
)
def test_side_reads__leave_the_reserve_to_account_and_orders(kind: str, weight_left: int, is_held_back: bool) -> None:
    budget = RequestBudget(FakeClock())
    budget.spend(WEIGHT_PER_MINUTE - weight_left)
    connection = HyperliquidConnection("http://127.0.0.1:1", is_mainnet=False, timeout_s=1, budget=budget)
    connection.begin_side_reads()
    with pytest.raises(Retryable) as caught:  # nothing listens there
        connection.side_info(type=kind)
    assert ("budget of requests is used up" in caught.value.message) is is_held_back
    assert (budget.left() == weight_left) is is_held_back


@pytest.mark.parametrize(("after_s", "limit_s"), [(0.0, 2.0), (SIDE_READS_S - 2.5, 2.0), (SIDE_READS_S - 0.25, 0.25)])
def test_side_reads__one_may_take_what_is_left_of_their_time(monkeypatch: pytest.MonkeyPatch, after_s: float, limit_s: float) -> None:
    now_s = 100.0
    monkeypatch.setattr(connection_module.time, "monotonic", lambda: now_s)
    connection = HyperliquidConnection("http://127.0.0.1:1", is_mainnet=False, timeout_s=2)
    limits_s: list[float] = []

    def answer(endpoint_path: str, request_fields: Mapping[str, object], timeout_s: float) -> object:
        limits_s.append(timeout_s)
        return {}

    monkeypatch.setattr(connection, "_request_answer", answer)
    connection.begin_side_reads()
    now_s += after_s
    connection.side_info(type="userFees")
    assert limits_s == [limit_s]


def test_side_reads__none_is_asked_once_their_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(connection_module.time, "monotonic", lambda: now_s)
    connection = HyperliquidConnection("http://127.0.0.1:1", is_mainnet=False, timeout_s=5)
    connection.begin_side_reads()
    now_s += SIDE_READS_S
    with pytest.raises(Retryable, match="took too long"):
        connection.side_info(type="userFees")


def test_kept_value__is_read_again_if_the_clock_was_set_back() -> None:
    now_s = 1_000
    reads = KeptReads(lambda: now_s, keeps_fresh=True)
    answers = iter(("first", "second"))
    assert reads.read("fees", lambda: next(answers), 60).value == "first"
    now_s = 999
    assert reads.read("fees", lambda: next(answers), 60).value == "second"


class FakePosts:
    """The statuses of posts in turn, 200 for those after them; each answer is an empty object."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.count = 0
        self.answer = b"{}"

    def __call__(self, _url: str, _body: object, _timeout_s: float) -> tuple[int, bytes]:
        self.count += 1
        return (self.statuses.pop(0) if self.statuses else 200), self.answer


def connected(
    monkeypatch: pytest.MonkeyPatch, *statuses: int, left: int = WEIGHT_PER_MINUTE
) -> tuple[HyperliquidConnection, FakePosts, FakeClock]:
    clock = FakeClock()
    budget = RequestBudget(clock)
    if left < WEIGHT_PER_MINUTE:
        budget.spend(WEIGHT_PER_MINUTE - left)
    connection = HyperliquidConnection("http://127.0.0.1:1", is_mainnet=False, timeout_s=1, budget=budget)
    posts = FakePosts(*statuses)
    monkeypatch.setattr(connection, "_post", posts)
    return connection, posts, clock


@pytest.mark.parametrize(
    ("statuses", "posts", "waited_s"),
    [((), 1, 0), ((429,) * 6, 7, 61), ((429,) * 7, 7, 61), ((503,) * 2, 3, 3), ((503,) * 3, 3, 3), ((404,), 1, 0), ((201,), 1, 0)],
    ids=["answered", "limited for a minute", "limited for longer", "down for seconds", "down for longer", "unknown", "no answer"],
)
def test_read__is_repeated_for_a_minute_or_some_seconds(
    monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], posts: int, waited_s: int
) -> None:
    connection, made_posts, clock = connected(monkeypatch, *statuses)
    began_s = clock.now_s()
    with nullcontext() if posts == len(statuses) + 1 else pytest.raises(Retryable):
        connection.info(type="allMids")
    assert (made_posts.count, clock.now_s() - began_s) == (posts, waited_s)


@pytest.mark.parametrize(("statuses", "weight_left"), [((429,), WEIGHT_PER_MINUTE), ((503,), WEIGHT_PER_MINUTE), ((), 1)])
def test_read__prompt_one_is_left_out_instead(monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], weight_left: int) -> None:
    connection, posts, clock = connected(monkeypatch, *statuses, left=weight_left)
    began_s = clock.now_s()
    with connection.prompt_reads(), raises_code(Retryable, "endpoint"):
        connection.info(type="allMids")
    assert (posts.count, clock.now_s() - began_s, connection.has_left_out_reads) == (len(statuses), 0, True)
    connection.begin_side_reads()
    assert not connection.has_left_out_reads


@pytest.mark.parametrize(("weight_left", "is_read"), [(2, True), (1, False)])
def test_read__prompt_one_uses_the_last_of_the_budget(monkeypatch: pytest.MonkeyPatch, weight_left: int, is_read: bool) -> None:
    connection, posts, _ = connected(monkeypatch, left=weight_left)
    with connection.prompt_reads(), nullcontext() if is_read else pytest.raises(Retryable):
        connection.info(type="allMids")
    assert posts.count == is_read


@pytest.mark.parametrize(
    ("statuses", "left", "problem", "is_left_out"),
    [
        pytest.param((), RESERVED_WEIGHT, "used up", True, id="left out"),
        pytest.param((429,), WEIGHT_PER_MINUTE, "HTTP 429", False, id="too many requests"),
        pytest.param((503,), WEIGHT_PER_MINUTE, "HTTP 503", False, id="unavailable"),
    ],
)
def test_side_reads__left_out_ones_are_remembered_not_failed_ones(
    monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], left: int, problem: str, is_left_out: bool
) -> None:
    connection, posts, _ = connected(monkeypatch, *statuses, left=left)
    connection.begin_side_reads()
    with pytest.raises(Retryable, match=problem):
        connection.side_info(type="userFees")
    assert (posts.count, connection.has_left_out_reads) == (len(statuses), is_left_out)


@pytest.mark.parametrize(
    ("statuses", "posts", "waited_s"),
    [
        pytest.param((), 1, 0, id="taken"),
        pytest.param((429,) * 6, 7, 61, id="limited six times"),
        pytest.param((429,) * 7, 7, 61, id="limited for ever"),
        pytest.param((503,), 1, 0, id="unavailable"),
        pytest.param((400,), 1, 0, id="refused"),
        pytest.param((302,), 1, 0, id="redirected"),
    ],
)
def test_action__same_bytes_are_reposted_only_if_not_taken(
    monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], posts: int, waited_s: int
) -> None:
    connection, made_posts, clock = connected(monkeypatch, *statuses)
    began_s = clock.now_s()
    with nullcontext() if posts == len(statuses) + 1 else raises_code(Retryable, ErrorCode.UNKNOWN_IF_SENT):
        connection.exchange({"action": {}})
    assert (made_posts.count, clock.now_s() - began_s) == (posts, waited_s)


@pytest.mark.parametrize("answer", [b"<html>", b"", b"\xff", b"null"], ids=["web page", "empty", "no text", "null"])
def test_action__without_an_answer_in_json__may_have_been_sent(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    connection, posts, _ = connected(monkeypatch)
    posts.answer = answer
    with raises_code(Retryable, ErrorCode.UNKNOWN_IF_SENT):
        connection.exchange({"action": {}})
    assert posts.count == 1


def test_reads__without_an_answer_in_json__are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, posts, _ = connected(monkeypatch)
    posts.answer = b"<html>"
    connection.begin_side_reads()
    for read in (connection.info, connection.side_info):
        with pytest.raises(Retryable, match="did not answer allMids: the answer is not JSON"):
            read(type="allMids")
    assert posts.count == 2


@pytest.mark.parametrize(("weight_left", "waited_s"), [(600, 0), (599, WINDOW_S)])
def test_look__waits_until_its_reads_and_the_reserve_fit(monkeypatch: pytest.MonkeyPatch, weight_left: int, waited_s: int) -> None:
    connection, _, clock = connected(monkeypatch, left=weight_left)
    began_s = clock.now_s()
    connection.wait_for_look()
    assert clock.now_s() - began_s == waited_s


def test_budget__waits_for_as_many_requests_as_it_needs() -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    began_s = clock.now_s()
    for weight in (100, 100, WEIGHT_PER_MINUTE - 200):
        budget.spend(weight)
        clock.sleep(1)
    budget.wait_for(150)
    assert clock.now_s() - began_s == WINDOW_S + 1


def test_weight__many_cancels_count_like_orders() -> None:
    assert request_weight("exchange", {"action": {"cancels": [{}] * 80}}) == 3


def test_kept_value__forgotten_one_stands_in_as_of_another_basis() -> None:
    _, reads, answer = fee_reads()
    reads.read("fees", answer, 60)
    reads.forget("fees")
    answer.is_down = True
    fees = reads.read("fees", answer, 60)
    assert (fees.value, fees.is_of_basis) == (1, False)


def test_kept_value__of_a_later_time_does_not_stand_in() -> None:
    clock, reads, answer = fee_reads()
    reads.read("fees", answer, 60)
    clock.sleep(-1)
    answer.is_down = True
    assert reads.read("fees", answer, 60).value is None


def test_budget__rows_of_an_answer_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, posts, _ = connected(monkeypatch)
    posts.answer = b"[" + b",".join([b"{}"] * 40) + b"]"
    connection.info(type="userFunding")
    assert connection._budget.left() == WEIGHT_PER_MINUTE - 20 - 2


def test_kept_value__new_one_is_kept_from_its_own_time() -> None:
    clock, reads, answer = fee_reads()
    values = []
    for pause_s in (60, 59, 1):
        values.append(reads.read("fees", answer, 60).value)
        clock.sleep(pause_s)
    assert [*values, reads.read("fees", answer, 60).value] == [1, 2, 2, 3]


def test_kept_value__of_an_earlier_process_is_read_again() -> None:
    clock, reads, answer = fee_reads()
    reads.restore("fees", 9, clock.now_s())
    assert reads.read("fees", answer, 60).value == 1
