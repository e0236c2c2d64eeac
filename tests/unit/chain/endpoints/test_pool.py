"""Endpoints asked together: who is asked, who is left to rest, who is not waited for, and what is raised when too few are left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.chain.endpoints import FAILURES_BEFORE_REST, FIRST_REST_S, Circuit, Endpoint, EndpointPool, EndpointResting, operators_of
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import EndpointOverloaded, RpcFault
from agent.errors import OperatorNeeded, Retryable
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.text import raises_code

DOWN = Retryable("it cannot be reached")
GAS_PRICE: list[tuple[str, list[object]]] = [("eth_gasPrice", [])]


def node(operator: str, answer: object = "0x1", clock: Callable[[], float] = time.monotonic) -> Endpoint:
    return Endpoint(ScriptedTransport(operator, eth_gasPrice=answer), clock)


def price(endpoint: Endpoint) -> object:
    return endpoint.call("eth_gasPrice", [])


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets go of what hangs when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_calls__go_out_at_once_and_failures_are_returned() -> None:
    meet = threading.Barrier(3, timeout=5)

    def together(params: list[object]) -> str:
        meet.wait()
        return "0x1"

    down = node("down", DOWN)
    heard = EndpointPool([node("a", together), node("b", together), node("c", together), down], 2).ask(price)
    assert (heard.operators, heard.failures) == ({"a", "b", "c"}, {down: DOWN})


def test_one_that_hangs_is_not_waited_for_once_enough_agree(release: threading.Event) -> None:
    slow = node("slow", lambda params: release.wait(20) and "0x1")
    panel = EndpointPool([slow, node("a"), node("b")], 2, grace_s=0.02)
    heard = panel.ask(price, is_enough=lambda answers: len(answers) >= 2)
    assert heard.operators == {"a", "b"}
    assert "not answered" in heard.failures[slow].message
    again = panel.ask(price)
    assert (again.operators, isinstance(again.failures[slow], EndpointResting)) == ({"a", "b"}, True)
    assert "earlier request" in again.failures[slow].message


def test_an_answer_within_the_grace_period_still_counts() -> None:
    agreed = threading.Event()

    def enough(answers: object) -> bool:
        agreed.set()
        return True

    late = node("late", lambda params: agreed.wait(20) and "0x2")
    heard = EndpointPool([late, node("a")], 1, grace_s=20).ask(price, is_enough=enough)
    assert (heard.operators, heard.failures) == ({"a", "late"}, {})


def test_without_a_grace_period_nothing_more_is_waited_for(release: threading.Event) -> None:
    slow = node("slow", lambda params: release.wait(20) and "0x1")
    heard = EndpointPool([slow, node("a")], 1, grace_s=0).ask(price, is_enough=bool)
    assert (heard.operators, list(heard.failures)) == ({"a"}, [slow])


def test_failing_endpoint__rests_is_named_and_is_tried_again() -> None:
    clock = FakeClock(0)
    answers: list[object] = [DOWN] * FAILURES_BEFORE_REST + ["0x1"]
    sick = node("sick", lambda params: answers.pop(0), clock)
    panel = EndpointPool([sick, node("a"), node("b")], 2)
    for _ in range(FAILURES_BEFORE_REST):
        assert panel.ask(price).failures == {sick: DOWN}
    heard = panel.ask(price)
    assert "resting" in heard.failures[sick].message
    assert "be reached" in heard.failures[sick].message
    assert len(answers) == 1, "it was left alone"
    clock.advance(FIRST_REST_S)
    assert panel.ask(price).operators == {"sick", "a", "b"}
    assert sick.health.circuit is Circuit.CLOSED


def test_resting_endpoints__are_tried_where_too_few_are_left() -> None:
    clock = FakeClock(0)
    answers: list[object] = [DOWN] * FAILURES_BEFORE_REST + ["0x1"]
    sick = node("sick", lambda params: answers.pop(0), clock)
    panel = EndpointPool([sick, node("a")], 2)
    for _ in range(FAILURES_BEFORE_REST):
        panel.ask(price)
    assert sick.health.circuit is Circuit.OPEN
    assert panel.ask(price).operators == {"sick", "a"}


def test_endpoint_that_told_us_to_wait__is_left_alone() -> None:
    clock = FakeClock(0)
    answers: list[object] = [EndpointOverloaded("too many requests", retry_after_s=30), "0x1"]
    busy = node("busy", lambda params: answers.pop(0), clock)
    panel = EndpointPool([busy, node("a")], 2)
    panel.ask(price)
    heard = panel.ask(price)
    with raises_code(Retryable, "operators", "1 of 2", "30 s"):
        panel.require_quorum(heard)
    with raises_code(EndpointResting, "rate_limit", "30 s more"):
        busy.batch(GAS_PRICE)
    clock.advance(30)
    assert panel.ask(price).operators == {"busy", "a"}


def test_too_few_answers__raise_every_reason_and_a_remedy() -> None:
    panel = EndpointPool([node("a"), node("b", Retryable("b is down", "check it")), node("c", OperatorNeeded("c refuses"))], 2)
    with raises_code(Retryable, "operators", "1 of 2", "b is down", "c refuses") as caught:
        panel.require_quorum(panel.ask(price))
    assert caught.value.remedy == "check it"
    refusing = EndpointPool([node("b", OperatorNeeded("b refuses")), node("c", OperatorNeeded("c refuses"))], 2)
    with raises_code(OperatorNeeded, "operators", "0 of 2"):
        refusing.require_quorum(refusing.ask(price))


def test_endpoints_of_one_operator__count_once_and_stand_in() -> None:
    panel = EndpointPool([node("a"), node("a"), node("b", DOWN)], 2)
    heard = panel.ask(price)
    assert operators_of(heard.answers) == {"a"}
    with raises_code(Retryable, "operators", "1 of 2"):
        panel.require_quorum(heard)
    spare = EndpointPool([node("a", DOWN), node("a"), node("b")], 2)
    spare.require_quorum(spare.ask(price))


def test_a_bug_is_no_trouble_of_an_endpoint() -> None:
    with pytest.raises(ZeroDivisionError):
        EndpointPool([node("a"), node("b")], 2).ask(lambda endpoint: 1 // 0)


def test_the_healthiest_come_first() -> None:
    good = node("good")
    liar = node("liar")
    liar.health.blame("differs in a receipt")
    assert EndpointPool([liar, good], 1).ranked_endpoints == [good, liar]


# what is read outside of a snapshot
def agreed(*answers: object, minimum: int = 2) -> QuorumProvider:
    lines = [ScriptedTransport(f"n{n}", eth_call=answer) for n, answer in enumerate(answers)]
    return QuorumProvider(EndpointPool(lines, minimum, grace_s=0.02))


CALL: list[object] = [{"data": "0x00"}, "latest"]


def test_an_answer_counts_when_enough_give_it() -> None:
    assert agreed("0xaa", "0xbb", "0xAA").call("eth_call", CALL) == "0xaa"
    assert agreed("0xaa", minimum=1).call("eth_call", CALL) == "0xaa"
    for lies in (("0xaa", "0xbb"), ("0xaa", "0xbb", "0xcc"), ("0xaa", RpcFault(3, "no"))):
        with raises_code(NoQuorum, "quorum", "eth_call"):
            agreed(*lies).call("eth_call", CALL)


def test_nobody_alone_says_why_a_call_failed() -> None:
    """Three say that it failed; one of them that it was asked too much, which would end a step."""
    faults = RpcFault(-32005, "limit exceeded"), RpcFault(3, "execution reverted"), RpcFault(3, "VM error")
    for turn in range(3):
        (reply,) = agreed(*faults[turn:], *faults[:turn]).batch([("eth_call", CALL)])
        assert reply.code == 3


def test_error__counts_like_any_answer_whatever_its_words() -> None:
    line = agreed(RpcFault(3, "execution reverted"), RpcFault(-32000, "VM error"), "0xaa")
    assert isinstance(line.batch([("eth_call", CALL)])[0], RpcFault)


def test_the_newest_block_is_one_and_the_same_for_all() -> None:
    def at(params: list[object]) -> str:
        assert params[1] == {"blockHash": HEAD_JSON["hash"], "requireCanonical": True}
        return "0xaa"

    assert agreed(at, at).call("eth_call", CALL) == "0xaa"


def test_a_dead_first_endpoint_does_not_matter() -> None:
    assert agreed(DOWN, "0xaa", "0xaa").call("eth_call", CALL) == "0xaa"


def test_block_far_behind__is_no_block_to_read_at() -> None:
    """One that lies about the newest block's height would else have contracts looked for before they were deployed."""

    def ahead(params: list[object]) -> object:
        return HEAD_JSON if params[0] == "0x10" else {**HEAD_JSON, "number": "0x20", "hash": "0x" + "22" * 32}

    lines = [ScriptedTransport("low", eth_call="0xaa"), ScriptedTransport("high", eth_call="0xaa", eth_getBlockByNumber=ahead)]
    with raises_code(NoQuorum, "lag", "16 blocks", "low is at block 16", "high is at block 32"):
        QuorumProvider(EndpointPool(lines, 2, grace_s=0.02)).call("eth_call", CALL)
    far = QuorumProvider(EndpointPool(lines, 2, grace_s=0.02, max_lag_blocks=16))
    assert far.call("eth_call", CALL) == "0xaa"
