"""The chaos proxy's faults: `TRANSPORT` breaks the way an answer comes, `CONTENT` gives a whole answer that is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.support.endpoints import Reply, methods

SEND = "eth_sendRawTransaction"
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
LATE_S = 0.3
"""A delayed answer comes this late; lines of the suites wait for half of it."""

Ask = Callable[[Any], bytes]
Fault = Callable[[Any, Ask, random.Random], Reply]
"""What is asked, the true node, a source of chance; the reply that the agent gets."""


def as_list(request: Any) -> list[dict[str, Any]]:
    """A request as a batch."""
    return request if isinstance(request, list) else [request]


def _altered(request: Any, ask: Ask, alter: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Reply:
    """The true answers, altered as a list, in the form of the question."""
    document = json.loads(ask(request))
    answers = alter(as_list(document))
    return Reply(json.dumps(answers if isinstance(document, list) or len(answers) != 1 else answers[0]).encode())


# the way an answer comes
def drop(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The connection closes; the node never saw the request."""
    return Reply(b"", cut="close")


def drop_after(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The node did what was asked, and the connection closes without a word."""
    ask(request)
    return Reply(b"", cut="close")


def reset(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The connection is reset; the node never saw the request."""
    return Reply(b"", cut="reset")


def reset_after(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The node accepted it, and the connection is reset."""
    ask(request)
    return Reply(b"", cut="reset")


def delay(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The node did what was asked; the answer comes after the client has given up."""
    return Reply(ask(request), delay_s=LATE_S)


def late_forward(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The client has given up, and only then does the node get the request."""
    import time

    time.sleep(LATE_S)
    return Reply(ask(request))


def ask_twice(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The network delivers the request twice; the second answer is the one that arrives."""
    ask(request)
    return Reply(ask(request))


def answer_twice(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Every answer stands in the batch twice."""
    return _altered(request, ask, lambda answers: [answer for answer in answers for _ in range(2)])


def reorder(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Answers of a batch in another order, which JSON-RPC allows."""
    return _altered(request, ask, lambda answers: draw.sample(answers, len(answers)))


def truncate(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Half of the answer, as if it were all."""
    body = ask(request)
    return Reply(body[: draw.randrange(1, max(2, len(body)))])


def break_off(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The answer breaks off before its announced length."""
    body = ask(request)
    return Reply(body[: draw.randrange(len(body))], claimed_length=len(body) + 100)


def trickle(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The answer comes in drops, and the last of them too late."""
    return Reply(ask(request), parts=4, pause_s=LATE_S / 3)


def html(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """A web page with status 200."""
    return Reply(HTML)


def empty(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Nothing at all with status 200."""
    return Reply(b"")


def noise(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Random bytes."""
    return Reply(draw.randbytes(draw.randrange(1, 2_000)))


def deep(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """JSON nested so deep that a recursive parser dies of it."""
    return Reply(b"[" * 100_000 + b"]" * 100_000)


def no_object(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """JSON, but no answer."""
    return Reply(draw.choice((b"null", b"[]", b"{}", b'"ok"', b"[null]", b"17", b'{"result": 1}', b'[{"id": null, "result": "0x1"}]')))


def wrong_id(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Answers to other questions, by their ids."""
    return _altered(request, ask, lambda answers: [{**answer, "id": answer["id"] + draw.choice((-1, 1, 1_000))} for answer in answers])


def missing(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """A batch lacks an answer; a single one has neither result nor error."""
    if not isinstance(request, list):
        return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"]}).encode())
    return _altered(request, ask, lambda answers: draw.sample(answers, len(answers) - 1))


def storm(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Too many requests, with one of the headers that servers send."""
    patience = draw.choice(("0", "1", "300", "86400", "-1", "soon", "Wed, 21 Oct 2099 07:28:00 GMT", "9" * 80, ""))
    return Reply(b"slow down", status=429, headers={"Retry-After": patience} if patience else {})


def failing(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The server fails, before or after it passed the request on."""
    if draw.random() < 0.5:
        ask(request)
    return Reply(HTML, status=draw.choice((500, 502, 503, 504, 520)))


def refusing(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The server wants no more of us."""
    return Reply(b"no", status=draw.choice((400, 401, 403, 404, 405, 410)))


def redirect(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """Somebody else's address is to be asked."""
    return Reply(b"", status=307, headers={"Location": "http://127.0.0.1:1/"})


def fault_of(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """The node refuses every call, a transaction too, though it took it."""
    code, message = draw.choice(((-32_000, "header not found"), (-32_005, "limit exceeded"), (-32_603, "internal error"), (-32_601, "no")))
    if SEND in methods(request):
        ask(request)
    error = {"code": code, "message": message}
    answers = [{"jsonrpc": "2.0", "id": call["id"], "error": error} for call in as_list(request)]
    return Reply(json.dumps(answers if isinstance(request, list) else answers[0]).encode())


TRANSPORT: dict[str, Fault] = {
    "drop": drop,
    "drop after acting": drop_after,
    "reset": reset,
    "reset after acting": reset_after,
    "delay": delay,
    "late delivery": late_forward,
    "request twice": ask_twice,
    "answer twice": answer_twice,
    "reorder": reorder,
    "truncate": truncate,
    "break off": break_off,
    "trickle": trickle,
    "html page": html,
    "empty": empty,
    "noise": noise,
    "deep json": deep,
    "no answer object": no_object,
    "wrong id": wrong_id,
    "missing answer": missing,
    "429 storm": storm,
    "5xx": failing,
    "4xx": refusing,
    "redirect": redirect,
    "rpc error": fault_of,
}


# a whole answer that is wrong
Lie = Callable[[str, list[Any], Any, random.Random], Any]


def wrong_chain(method: str, params: list[Any], result: Any, draw: random.Random) -> Any:
    """Another chain's id."""
    return hex(draw.choice((1, 5, 10, 31_338))) if method == "eth_chainId" else result


def zero_balances(method: str, params: list[Any], result: Any, draw: random.Random) -> Any:
    """The wallet has nothing, neither native coin nor what the lens reads first."""
    if method == "eth_getBalance":
        return "0x0"
    if method == "eth_call" and "to" not in params[0] and isinstance(result, str):
        page = bytearray.fromhex(result[2:])
        page[4:36] = bytes(32)  # format, status and length, then the first balance
        return "0x" + page.hex()
    return result


def nulls(method: str, params: list[Any], result: Any, draw: random.Random) -> Any:
    """The node knows nothing."""
    return None


def garbled(method: str, params: list[Any], result: Any, draw: random.Random) -> Any:
    """Values of other types than were asked for."""
    return draw.choice((True, -1, 1e300, "0x", "0xzz", "latest", [], {}, "0x" + "f" * 65, {"number": "0x"}))


def lying(alter: Lie) -> Fault:
    """A fault that gives each call another result."""

    def fault(request: Any, ask: Ask, draw: random.Random) -> Reply:
        by_id = {call["id"]: call for call in as_list(request)}

        def change(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [
                {**answer, "result": alter(by_id[answer["id"]]["method"], by_id[answer["id"]]["params"], answer["result"], draw)}
                if "result" in answer
                else answer
                for answer in answers
            ]

        return _altered(request, ask, change)

    return fault


def stale(request: Any, ask: Ask, draw: random.Random) -> Reply:
    """A node that is some blocks behind and knows no newer receipts."""
    back = draw.choice((1, 2, 8))

    def earlier(call: dict[str, Any], height: int) -> dict[str, Any]:
        return {**call, "params": [hex(max(0, height - back)) if param == "latest" else param for param in call["params"]]}

    newest = json.loads(ask({"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []}))
    height = int(newest["result"], 16)
    calls = [earlier(call, height) for call in as_list(request)]
    return Reply(ask(calls if isinstance(request, list) else calls[0]))


CONTENT: dict[str, Fault] = {
    "wrong chain": lying(wrong_chain),
    "stale block": stale,
    "zero balances": lying(zero_balances),
    "nulls": lying(nulls),
    "garbled values": lying(garbled),
}
FAULTS = TRANSPORT | CONTENT
