"""A run that has had one good look outlives what endpoints, key service and disk do for a while, signs nothing meanwhile, and then acts."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from agent import app as api
from agent import wiring
from agent.app import cycles
from agent.app.agent import Agent, open_agent
from agent.app.service import FAULT_ALERT_AFTER_S, StoppableClock, report_run
from agent.config.load import load_config
from agent.errors import ConfigError, PassingFault, Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.localchain.world import WALLET_INDEX, dev_accounts
from agent.model import Control, ControlKind, ControlOrigin
from agent.signing.remote_key import RemoteKey, address_from_public_key
from agent.store import opening
from agent.store.controls import ControlStore
from agent.store.files.secret import ensure_secret
from tests.cli.tools import ForkedCommand, blocks, forked_in, in_process
from tests.support.agents import ROOMY, fund, legs_of, off_target, purse, reopened_agent, trusted_config, yes
from tests.support.alert_receivers import ReceivedMessages, webhook
from tests.support.endpoints import MOODS, SEND, Answerer, EndpointFaults, Reply, Served, altering_answerer, methods, passing_on, serve
from tests.support.fakes.clock import FakeClock, waiting_clock
from tests.support.markets.endpoints import endpoint_of
from tests.support.on_chain.bad_tokens import with_guest
from tests.support.on_chain.newcomers import newcomer
from tests.support.on_chain.refusing_tokens import forgetful_token
from tests.support.records.key_services import KeyService
from tests.support.samples import slow
from tests.support.scenes import without_tips
from tests.support.stores import store_lock
from tests.support.text import mentions

TWO = {"WETH": "50%", "USDC": "50%"}
NARROW = {**ROOMY, "policy.trigger": {"kind": "threshold", "absolute": "1%"}}
PAGE = b"<!doctype html><title>Checking your browser</title>"


def other_chain(method: str, params: list[Any], answer: Any) -> Any:
    return "0x1" if method == "eth_chainId" else answer


def always(reply: Reply) -> Callable[[str], Answerer]:
    return lambda url: lambda request: reply


def one_nonce_more(*tags: str) -> Callable[[str, list[Any], Any], Any]:
    """The wallet's next nonce is too high by one, in the answers for these blocks."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        is_altered = method == "eth_getTransactionCount" and params[1] in tags
        return hex(int(answer, 16) + 1) if is_altered else answer

    return alter


SICK: dict[str, tuple[Callable[[str], Answerer], str]] = {
    "page": (always(Reply(PAGE)), "web page"),
    "page 403": (always(Reply(PAGE, status=403)), "HTTP 403"),
    "page 503": (always(Reply(PAGE, status=503)), "HTTP 503"),
    "access 401": (always(Reply(b"", status=401)), "HTTP 401"),
    "json 404": (always(Reply(b'{"error": "project not found"}', status=404)), "project not found"),
    "redirect": (always(Reply(b"", status=302, headers={"Location": "https://example.org/"})), "HTTP 302"),
    "empty": (always(Reply(b"")), "not JSON"),
    "cut": (always(Reply(b'[{"jsonrpc": "2.0", "id"')), "not JSON"),
    "no answer": (always(Reply(b"", cut="reset")), "cannot be reached"),
    "other chain": (lambda url: altering_answerer(url, other_chain), "is on chain 1"),
    "used nonce": (
        lambda url: altering_answerer(url, one_nonce_more("latest", "pending")),
        "was used by a transaction that is not in this store",
    ),
    "pending nonce": (lambda url: altering_answerer(url, one_nonce_more("pending")), "has a pending transaction that is not in this store"),
}
"""What an endpoint answers for a while, and words by which the failed look tells of it."""


@contextmanager
def switched(url: str, sick: Answerer) -> Iterator[tuple[Served, list[bool]]]:
    """A server in front of the node that is ill while the list says so."""
    is_ill = [False]
    forward = passing_on(url)
    with serve(lambda request: sick(request) if is_ill[0] else forward(request)) as server:
        yield server, is_ill


def require_outlived(
    chain: LocalChain, agent: Agent, clock: FakeClock, fault: Callable[[], AbstractContextManager[object]], words: str, every: str = "10m"
) -> None:
    """A look, the market moves, five looks during the fault, and one that trades. Nothing of a look stays in memory: no frames of an
    error, no variable in the thread's context.
    """
    looks = agent.run(send=True, confirm=yes, every=every)
    first = next(looks)
    variable_count = len(copy_context())
    assert isinstance(first, StepOutcome)
    assert first.kind is OutcomeKind.HOLD
    chain.move_market({"WETH": 3_200})
    chain.mine()
    before = purse(chain)
    pauses = list[float]()
    with fault():
        for _ in range(5):
            clock.sleeps.clear()
            failed = next(looks)
            pauses.append(sum(clock.sleeps))
            assert isinstance(failed, Retryable), failed
            assert words in failed.message
            assert (failed.__traceback__, failed.__context__, failed.__cause__) == (None, None, None)
        assert chain.node.ask([("eth_getTransactionCount", [chain.wallet.address, "latest"])]) == [hex(before.nonce)]
    if every == "10m":  # the first pause is the interval's; each may be up to a tenth longer, in whole seconds
        assert 600 <= pauses[0] <= 660
        assert all(low <= pause < low * 1.1 + 1 for pause, low in zip(pauses[1:], (5, 10, 20, 40), strict=True)), pauses
    traded = next(looks)
    assert isinstance(traded, StepOutcome), traded
    assert traded.kind is OutcomeKind.DONE, traded.reason
    assert len(copy_context()) == variable_count
    assert max(off_target(chain, TWO).values()) < 50
    recorded = agent.context.store.steps.get(first.step_id)
    assert recorded is not None
    assert recorded.summary.outcome == "hold", "the fault began before what this look left was written"
    intents = agent.context.store.journal.intents()
    assert len({intent.tx.nonce for intent in intents if intent.receipt is not None}) == purse(chain).nonce - before.nonce
    looks.close()


@pytest.fixture
def level(anvil_chain: LocalChain) -> LocalChain:
    """A wallet at its targets."""
    fund(anvil_chain, {"WETH": 40_000, "USDC": 40_000})
    anvil_chain.mine(3)
    return anvil_chain


@contextmanager
def ill(flags: list[bool]) -> Iterator[None]:
    flags[0] = True
    try:
        yield
    finally:
        flags[0] = False


QUICK = ("page", "used nonce")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SICK])
def test_run__endpoint_answers_otherwise_a_while__trades_later(level: LocalChain, tmp_path: Path, name: str) -> None:
    sick, words = SICK[name]
    clock = waiting_clock(level)
    loaded = trusted_config(level, tmp_path, NARROW, TWO)
    with switched(level.url or "", sick(level.url or "")) as (server, is_ill):

        @contextmanager
        def fault() -> Iterator[None]:
            seen_before = len(server.seen)
            with ill(is_ill):
                yield
            assert not any(SEND in methods(request) for request in server.seen[seen_before:])

        with open_agent(loaded, transports=[endpoint_of(server.url, "one")], clock=clock) as agent:
            require_outlived(level, agent, clock, fault, words)


@pytest.mark.parametrize("how", ["ignores", *slow(["halves", "hides", "delays"])])
def test_run__token_ignores_its_approvals__goes_on_without_it(chain: LocalChain, tmp_path: Path, how: str) -> None:
    """After a good look: two approvals, the others traded in the same look, and looks that pay nothing; then it is sold."""
    forget = forgetful_token(chain, how)
    guest = chain.tokens["GUEST"].address
    fund(chain, {"WETH": 15_000, "WBTC": 12_500, "USDC": 10_000, "USDT": 7_500, "GUEST": 5_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, guest)) as agent:
        looks = agent.run(send=True, confirm=yes, every="12s")
        first = next(looks)
        assert isinstance(first, StepOutcome)
        assert first.kind is OutcomeKind.HOLD, first.reason
        chain.move_market(dict.fromkeys(("LINK", "GUEST"), 3 * chain.deployed_world.prices_usd["LINK"]))
        traded = next(looks)
        assert isinstance(traded, StepOutcome), traded
        assert [item.token for item in traded.step_input.targets.quarantined_tokens] == [guest], traded.reason
        nonce = purse(chain).nonce
        for _ in range(3):
            calm = next(looks)
            assert isinstance(calm, StepOutcome), calm
            assert calm.transactions == ()
        assert purse(chain).nonce == nonce
        forget("as usual")
        chain.warp(601)
        sold = next(looks)
        assert isinstance(sold, StepOutcome), sold
        assert sold.kind is OutcomeKind.DONE, sold.reason
        assert guest in {leg.token_in for leg in legs_of(sold)}
        looks.close()


QUICK_LIES = ("a nonce too many", "nonsense")


@pytest.mark.parametrize(
    "mood", [mood if mood in QUICK_LIES else pytest.param(mood, marks=pytest.mark.slow) for mood in MOODS if mood != "honest"]
)
def test_run__only_endpoint_lies_for_a_while__goes_on(level: LocalChain, tmp_path: Path, mood: str) -> None:
    """Whatever it answers: no look raises, and the first ones after it act again."""
    faults = EndpointFaults(level.transport, "one")
    with open_agent(trusted_config(level, tmp_path, NARROW, TWO), transports=[faults.transport], clock=waiting_clock(level)) as agent:
        looks = agent.run(send=True, confirm=yes)
        assert isinstance(next(looks), StepOutcome)
        level.move_market({"WETH": 3_200})
        level.mine()
        faults.mood = mood
        lied = [next(looks) for _ in range(3)]
        assert None not in lied
        faults.mood = "honest"
        later = [next(looks) for _ in range(3)]
        assert isinstance(later[-1], StepOutcome), later
        looks.close()


def test_run__all_of_two_operators_show_a_page__trades_later(level: LocalChain, tmp_path: Path) -> None:
    clock = waiting_clock(level)
    rpc = [{"url": "http://127.0.0.1:1", "operator": operator} for operator in ("one", "two")]
    with ExitStack() as stack:
        servers = [stack.enter_context(switched(level.url or "", lambda request: Reply(PAGE, status=403))) for _ in rpc]
        loaded = trusted_config(level, tmp_path, {**NARROW, "chain.rpc": rpc, "chain.quorum": 2}, TWO)
        lines = [endpoint_of(server.url, operator) for (server, _), operator in zip(servers, ("one", "two"), strict=True)]

        @contextmanager
        def fault() -> Iterator[None]:
            with ExitStack() as illnesses:
                for _, is_ill in servers:
                    illnesses.enter_context(ill(is_ill))
                yield

        with open_agent(loaded, transports=lines, clock=clock) as agent:
            require_outlived(level, agent, clock, fault, "0 of 2 operators answered")


def test_run__page_answers_an_accepted_broadcast__trades_once(level: LocalChain, tmp_path: Path) -> None:
    """From the first broadcast on there are pages: the transaction is on its way, and nobody says so."""
    clock = waiting_clock(level)
    forward = passing_on(level.url or "")
    is_ill = [False]
    broadcasts = list[str]()

    def answer(request: Any) -> Reply:
        reply = forward(request) if SEND in methods(request) or not is_ill[0] else Reply(PAGE)
        if SEND not in methods(request):
            return reply
        broadcasts.append(request["params"][0])
        is_ill[0] = len(broadcasts) == 1 or is_ill[0]
        return Reply(PAGE) if is_ill[0] else reply

    with serve(answer) as server:
        agent_context = open_agent(trusted_config(level, tmp_path, NARROW, TWO), transports=[endpoint_of(server.url, "one")], clock=clock)
        with agent_context as agent:
            looks = agent.run(send=True, confirm=yes)
            assert isinstance(next(looks), StepOutcome)
            level.move_market({"WETH": 3_200})
            level.mine()
            before = purse(level)
            assert isinstance(next(looks), Retryable)
            assert isinstance(next(looks), Retryable)
            is_ill[0] = False
            traded = next(looks)
            assert isinstance(traded, StepOutcome), traded
            assert traded.kind is OutcomeKind.DONE, traded.reason
            looks.close()
    assert max(off_target(level, TWO).values()) < 50
    assert len(set(broadcasts)) == len(broadcasts) == purse(level).nonce - before.nonce == 2, "an approval and a swap, each once"


@contextmanager
def at_each_transaction(during: str, afterwards: str) -> Iterator[None]:
    """Each transaction begins with this statement, and later with the other, since connections are kept."""
    statements = [during]

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statements[-1])

    event.listen(Engine, "begin", begin)
    LISTENERS.append(begin)
    try:
        yield
    finally:
        statements.append(afterwards)


LISTENERS: list[Callable[[Connection], None]] = []


def full(store_file: Path) -> AbstractContextManager[None]:
    """SQLite finds no more room."""
    return at_each_transaction("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1073741823")


def read_only(store_file: Path) -> AbstractContextManager[None]:
    """SQLite may not write, as on a disk that was mounted again read-only."""
    return at_each_transaction("PRAGMA query_only = ON", "PRAGMA query_only = OFF")


@contextmanager
def unreadable(store_file: Path) -> Iterator[None]:
    """The disk fails: nothing can be read either, not even between two looks."""
    is_failing = [True]

    def begin(connection: Connection) -> None:
        if is_failing:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error

    event.listen(Engine, "begin", begin)
    LISTENERS.append(begin)
    try:
        yield
    finally:
        is_failing.clear()


@pytest.fixture
def quiet_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store waits for milliseconds instead of seconds; what was listened for ends."""
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_MS", 60)
    yield
    while LISTENERS:
        event.remove(Engine, "begin", LISTENERS.pop())


@pytest.mark.usefixtures("quiet_store")
@pytest.mark.parametrize(
    ("hold", "words"),
    [
        pytest.param(store_lock, "locked", id="locked"),
        pytest.param(full, "disk is full", id="full", marks=pytest.mark.slow),
        pytest.param(read_only, "readonly", id="read-only", marks=pytest.mark.slow),
        pytest.param(unreadable, "I/O error", id="unreadable", marks=pytest.mark.slow),
    ],
)
def test_run__store_cannot_be_used_for_a_while__trades_later(
    level: LocalChain, tmp_path: Path, hold: Callable[[Path], AbstractContextManager[None]], words: str
) -> None:
    clock = waiting_clock(level)
    loaded = trusted_config(level, tmp_path, NARROW, TWO)
    with open_agent(loaded, transports=[level.transport], clock=clock) as agent:
        require_outlived(level, agent, clock, lambda: hold(wiring.store_file(loaded)), words)


def test_run__protection_stays_due__looks_soon(level: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles, "needs_prompt_look", lambda _step: True)
    clock = waiting_clock(level)
    pauses = list[float]()
    with open_agent(trusted_config(level, tmp_path, NARROW, TWO), transports=[level.transport], clock=clock) as agent:
        looks = agent.run(send=True, confirm=yes, every="12s")
        for _ in range(5):
            clock.sleeps.clear()
            assert isinstance(next(looks), StepOutcome)
            pauses.append(sum(clock.sleeps))
        looks.close()
    assert pauses == [0, 5, 10, 12, 12]


@pytest.mark.parametrize("count", [1, 3])
def test_run__a_calm_look_in_between__pauses_begin_anew(
    level: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    due = [True] * count + [False] + [True] * 2
    monkeypatch.setattr(cycles, "needs_prompt_look", lambda _step: due.pop(0))
    clock = waiting_clock(level)
    pauses = list[float]()
    with open_agent(trusted_config(level, tmp_path, NARROW, TWO), transports=[level.transport], clock=clock) as agent:
        looks = agent.run(send=True, confirm=yes, every="10m")
        while due:
            clock.sleeps.clear()
            assert isinstance(next(looks), StepOutcome)
            pauses.append(sum(clock.sleeps))
        looks.close()
    assert pauses[1 : count + 1] == [5, 10, 20][:count]
    assert pauses[count + 1] >= 600
    assert pauses[count + 2] == 5


class KeyServiceDown(Exception):
    """Raised by the adapter of a key service."""


def garbage(der: bytes) -> bytes:
    return b"<html>token expired</html>"


def another_key(der: bytes) -> bytes:
    return der[:-1] + bytes([der[-1] ^ 1])


def no_service(der: bytes) -> bytes:
    raise KeyServiceDown("503")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(no_service, "did not sign: unexpected error", id="503", marks=pytest.mark.slow),
        pytest.param(garbage, "not a signature", id="page", marks=pytest.mark.slow),
        pytest.param(another_key, "not a signature", id="another key"),
    ],
)
def test_run__key_service_fails_for_a_while__trades_later(
    level: LocalChain, tmp_path: Path, spoil: Callable[[bytes], bytes], words: str
) -> None:
    clock = waiting_clock(level)
    service = KeyService(int(dev_accounts()[WALLET_INDEX].private_key, 16))
    loaded = trusted_config(level, tmp_path, NARROW | {"wallet.test_account": None}, TWO)
    key = RemoteKey(address_from_public_key(service.public_key()), service.sign)

    @contextmanager
    def fault() -> Iterator[None]:
        service.spoil = spoil
        yield
        service.spoil = lambda der: der

    try:
        with open_agent(loaded, transports=[level.transport], clock=clock, key=key) as agent:
            require_outlived(level, agent, clock, fault, words)
    finally:
        service.close()


@pytest.mark.parametrize("when", ["first look", "one look"])
def test_run__endpoint_shows_a_page_before_the_first_look__ends(level: LocalChain, tmp_path: Path, when: str) -> None:
    loaded = trusted_config(level, tmp_path, NARROW, TWO)
    clock = waiting_clock(level)
    with ExitStack() as stack:
        server, is_ill = stack.enter_context(switched(level.url or "", lambda request: Reply(PAGE)))
        agent = stack.enter_context(open_agent(loaded, transports=[endpoint_of(server.url, "one")], clock=clock))
        if when == "one look":
            assert isinstance(next(iter(agent.run(send=True, confirm=yes))), StepOutcome)
        is_ill[0] = True
        with pytest.raises(PassingFault, match="web page"):
            next(iter(agent.run(send=True, confirm=yes, once=when == "one look")))


def with_stop_loss(path: Path, url: str, price: str) -> None:
    """The config sells WETH below a price."""
    config: Any = tomlkit.parse(path.read_text())
    weth = next(asset for asset in config["portfolio"]["assets"] if asset["symbol"] == "WETH")
    weth["stop_loss"] = price
    config["chain"]["rpc"][0]["url"] = url
    path.write_text(tomlkit.dumps(config))


def events(child: ForkedCommand) -> list[dict[str, Any]]:
    """Lines of the log so far that are whole."""
    text = child.err.read_text() if child.err.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]


def until(child: ForkedCommand, has_happened: Callable[[], bool], within_s: float = 120) -> None:
    end_s = time.monotonic() + within_s
    while not has_happened():
        assert time.monotonic() < end_s, child.err.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(("status", "failed_looks"), [(200, 2), *slow([(403, 4)])])
def test_scene__crash_while_the_endpoint_shows_a_page__sells_later(
    chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    failed_looks: int,
) -> None:
    """From trimtab init: a run with a stop loss of 2,500 sees WETH at 3,000, then a page, then WETH at 2,300."""
    assert isinstance(chain.node, AnvilNode)
    fund(chain, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})
    chain.mine(5)
    now_s = chain.clock.now_s

    def on_the_chains_clock() -> None:
        wiring.SystemClock.now_s = lambda _: now_s()  # type: ignore[method-assign]

    with without_tips(chain) as node_url, switched(node_url, lambda request: Reply(PAGE, status=status)) as (server, is_ill):
        path = newcomer(chain, node_url, tmp_path, lambda *args: in_process(capfd, monkeypatch, *args))
        with_stop_loss(path, server.url, "2500")
        assert in_process(capfd, monkeypatch, "trust", "--yes", "--config", str(path)).code == 0
        command = ("run", "--send", "--yes", "--every", "1s", "--log-format", "json", "--config", str(path))
        child = forked_in(tmp_path, *command, first=on_the_chains_clock)
        try:
            until(child, lambda: any(line["event"] == "look" for line in events(child)))
            assert chain.balance("WETH") > 0
            with ill(is_ill):
                chain.move_market({"WETH": 2_300})
                chain.mine(5)
                until(child, lambda: sum(line["event"] == "look failed" for line in events(child)) >= failed_looks)
            with blocks(chain.url or ""):
                until(child, lambda: chain.balance("WETH") * 2_300 < 10 * 10**18)
                until(child, lambda: events(child)[-1]["event"] == "look")
            child.told(signal.SIGTERM)
            output = child.ended(60)
        except BaseException:
            child.told(signal.SIGKILL)
            raise
    assert output.code == 0, output.err
    names = [line["event"] for line in events(child)]
    assert "ended" not in names
    [sold] = [line for line in events(child) if line["event"] == "transaction" and line["kind"] == "swap"]
    assert sold["state"] == "final"
    assert sold["what"].startswith("stop_loss of WETH")
    assert "closest is WBTC" in events(child)[-2]["reason"], "the stop alone: WBTC, at 34 of 30 %, is within its range"
    assert in_process(capfd, monkeypatch, "health", "--config", str(path)).code == 15, "it was stopped"


@pytest.mark.usefixtures("quiet_store")
@pytest.mark.parametrize("hold", [lambda _: nullcontext(), full, read_only, store_lock], ids=["works", "full", "read-only", "locked"])
def test_alert__looks_fail_for_five_minutes__is_sent_once(
    level: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """Also if the store, which would note it, is what fails."""
    box = ReceivedMessages()
    clock = FakeClock(level.now_s())
    down = Retryable("endpoint 'one' answers with a web page, not JSON-RPC", "check its url", code="not_json")
    with ExitStack() as stack:
        monkeypatch.setenv("HOOK", stack.enter_context(webhook(box)))
        alerts = {"targets": [{"name": "hook", "url_env": "HOOK"}]}
        loaded = trusted_config(level, tmp_path, {**NARROW, "alerts": alerts}, TWO)
        agent = stack.enter_context(open_agent(loaded, transports=[level.transport], clock=clock))
        service = stack.enter_context(report_run(agent, StoppableClock(clock), "1h"))
        service.on_cycle(agent.plan())
        fault = stack.enter_context(ExitStack())
        fault.enter_context(hold(wiring.store_file(loaded)))
        clock.advance(3_000)
        service.on_cycle(down)
        clock.advance(FAULT_ALERT_AFTER_S - 1)
        service.on_cycle(down)
        assert box.items == []
        clock.advance(1)
        for _ in range(3):
            service.on_cycle(down)
            clock.advance(60)
        box.until(1)
        assert len(box.texts) == 1, "the fault began when looks began to fail, not at the last good one"
        assert mentions(box.texts[0], "each look has failed for 5 min", "goes on trying")
        assert "web page" not in box.texts[0], "a message quotes no endpoint"
        fault.close()
        service.on_cycle(agent.plan())
        clock.advance(10)
        service.on_cycle(down)
        assert len(box.texts) == 1, "a new fault counts anew"
        if hold not in (read_only, store_lock):  # the store notes the first, and repeats it later
            return
        fault.enter_context(hold(wiring.store_file(loaded)))
        clock.advance(FAULT_ALERT_AFTER_S)
        service.on_cycle(down)
        box.until(2)
    assert len(box.texts) == 2, "and is told of like the first"


def test_run__endpoint_contradicts_the_config__adopts_it_later(level: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner confirmed it after a check against the chain, so that "no such token" is the endpoint's fault."""
    loaded = trusted_config(level, tmp_path, NARROW, TWO)
    with open_agent(loaded, transports=[level.transport], clock=waiting_clock(level)) as agent:
        looks = agent.run(send=True, confirm=yes)
        assert isinstance(next(looks), StepOutcome)
        edited = loaded.path.read_text().replace('"1%"', '"2%"', 1)
        assert edited != loaded.path.read_text()
        loaded.path.write_text(edited)
        digest = load_config(loaded.path).digest
        agent.context.store.configs.record(digest, level.now_s(), edited, "confirmed")
        with monkeypatch.context() as patched:
            patched.setattr(wiring, "reopen_context", no_token)
            for _ in range(2):
                failed = next(looks)
                assert isinstance(failed, Retryable)
                assert "is not a token" in failed.message
        assert isinstance(next(looks), StepOutcome)
        assert agent.context.loaded_config.digest == digest
        looks.close()


def no_token(*_: object) -> object:
    raise ConfigError("portfolio.assets: 0x… is not a token", "check the address")


@pytest.mark.usefixtures("quiet_store")
def test_control__store_fails_during_it__ends_as_interrupted(level: LocalChain, tmp_path: Path) -> None:
    """It was taken, and its end could not be written: the next look ends it, and it is never repeated."""
    clock = waiting_clock(level)
    loaded = trusted_config(level, tmp_path, NARROW, TWO)
    with open_agent(loaded, transports=[level.transport], clock=clock) as agent:
        runner = api.ControlRunner(agent)
        looks = agent.run(send=True, confirm=yes, controls=runner)
        assert isinstance(next(looks), StepOutcome)
        secret = ensure_secret(wiring.store_file(loaded))
        now_s = clock.now_s()
        control = Control("a" * 32, ControlKind.RESUME, (), "", "owner", ControlOrigin.API, now_s, now_s + 300)
        agent.context.store.controls.queue(control.sealed(secret))
        finish = ControlStore.finish

        def fails(store: ControlStore, control_ends: Any, at_s: int) -> None:
            if control_ends:
                raise PassingFault("store: cannot write: disk is full")
            finish(store, control_ends, at_s)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ControlStore, "finish", fails)
            assert isinstance(next(looks), Retryable)
            assert isinstance(next(looks), Retryable), "nothing is traded while its end is not written"
        assert isinstance(next(looks), StepOutcome)
        (ended,) = [line for line in agent.context.store.controls.events(after=0) if line.state not in ("queued", "taken")]
        assert (ended.state, ended.code) == ("failed", "interrupted")
        looks.close()
