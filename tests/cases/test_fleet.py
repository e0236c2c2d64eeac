"""Several portfolios in one process: each by its own config, wallet, endpoint and alerts; what fails in one stops no other."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from agent import app as api
from agent.app.agent import Agent, open_agent
from agent.app.money import shutdown
from agent.app.service import StoppableClock
from agent.config.load import load_config
from agent.errors import Retryable, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.fleet.chains import SharedConnections
from agent.fleet.members import FleetMember, FleetOptions
from agent.fleet.metrics import FleetMetrics
from agent.fleet.run import run_fleet
from agent.localchain import LocalChain
from agent.observe.logs import Redactor, configure
from agent.wiring import store_file
from tests.support.alert_receivers import ReceivedMessages, webhook
from tests.support.endpoints import passing_on, serve
from tests.support.fleets import add_portfolio, add_wallet_portfolio, wallet_of
from tests.support.workers import bring_to_present

Result = StepOutcome | TrimtabError


def edit(path: Path, **values: Any) -> None:
    """Write values of a config by table and key, such as policy__cooldown."""
    document = tomlkit.parse(path.read_text())
    for name, value in values.items():
        table, key = name.split("__")
        document[table][key] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    path.write_text(tomlkit.dumps(document))
    load_config(path)


@dataclass
class Fleet:
    """A run of several portfolios in a thread, with what it wrote."""

    clock: StoppableClock
    log: io.StringIO
    results: dict[str, list[Result]] = field(default_factory=dict)

    def lines(self, portfolio: str = "") -> list[dict[str, Any]]:
        """Return the log lines, of one portfolio or of the process."""
        every = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in every if line.get("portfolio", "") == portfolio]

    @property
    def look_count(self) -> int:
        """Looks of all portfolios so far."""
        return sum(map(len, self.results.values()))

    @property
    def failures(self) -> list[str]:
        """Why portfolios back off, in order."""
        every = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line["message"] for line in every if line["event"] == "backing off"]

    def note(self, name: str, _: Agent, result: Result) -> None:
        self.results.setdefault(name, []).append(result)

    def until(self, is_met: Callable[[Fleet], object], within_s: float = 60) -> None:
        """Wait until the condition holds."""
        deadline_s = time.monotonic() + within_s
        while not is_met(self):
            assert time.monotonic() < deadline_s, self.log.getvalue()[-4_000:]
            time.sleep(0.05)


@contextmanager
def running(
    chain: LocalChain,
    paths: Sequence[Path],
    every: str = "1h",
    *,
    sends: bool = True,
    offers: bool = False,
    metrics: FleetMetrics | None = None,
) -> Iterator[Fleet]:
    """Run the portfolios until the end of the context, which waits for their looks."""
    fleet = Fleet(StoppableClock(), io.StringIO())
    redactor = Redactor()
    configure("json", redactor, fleet.log)
    options = FleetOptions(every, sends, offers, look_counter=metrics)
    done: list[BaseException | None] = []

    def run() -> None:
        try:
            run_fleet(paths, options, redactor, fleet.note, fleet.clock, chain.clock, metrics=metrics)
            done.append(None)
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield fleet
    finally:
        fleet.clock.request_stop()
        thread.join(120)
        configure(None)
    assert done == [None], done


BALANCED = {"WETH": 5_000, "USDC": 5_000}
TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}


def kinds(results: object) -> list[OutcomeKind]:
    assert isinstance(results, list)
    return [result.kind for result in results if isinstance(result, StepOutcome)]


def test_each_portfolio_acts_for_its_own_wallet(chain: LocalChain, tmp_path: Path) -> None:
    paths = [
        add_portfolio(chain, tmp_path, "calm", 5, BALANCED),
        add_portfolio(chain, tmp_path, "drifted", 6, TOO_MUCH_WETH),
        add_portfolio(chain, tmp_path, "savings", 7, TOO_MUCH_WETH),
    ]
    nonces = [chain.w3.eth.get_transaction_count(wallet_of(account, chain)) for account in (5, 6, 7)]  # type: ignore[arg-type]  # an address
    with running(chain, paths) as fleet:
        fleet.until(lambda fleet: len(fleet.results) == 3)
    assert kinds(fleet.results["calm"]) == [OutcomeKind.HOLD]
    for number, name in ((6, "drifted"), (7, "savings")):
        (outcome,) = fleet.results[name]
        assert isinstance(outcome, StepOutcome)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        sent = [line["hash"] for line in fleet.lines(name) if line["event"] == "transaction"]
        assert {chain.w3.eth.get_transaction(tx_hash)["from"] for tx_hash in sent} == {wallet_of(number, chain)}
    after = [chain.w3.eth.get_transaction_count(wallet_of(account, chain)) for account in (5, 6, 7)]  # type: ignore[arg-type]  # an address
    assert after[0] == nonces[0], "what holds sends nothing"
    assert all(now > before for now, before in zip(after[1:], nonces[1:], strict=True))
    assert {line["wallet"] for line in fleet.lines("savings") if line["event"] == "started"} == {wallet_of(7, chain)}


def test_mistaken_config__waits_alone_and_looks_once_mended(chain: LocalChain, tmp_path: Path) -> None:
    paths = [add_portfolio(chain, tmp_path, name, account, BALANCED) for name, account in (("good", 5), ("broken", 6))]
    sound = paths[1].read_text()
    paths[1].write_text(sound.replace('operator = "local"', 'operator = "local"\nunknown_key = 1'))
    with running(chain, paths, every="1s") as fleet:
        fleet.until(lambda fleet: len(fleet.results.get("good", [])) >= 3)
        assert "broken" not in fleet.results
        (failure,) = [line for line in fleet.lines("broken") if line["event"] == "backing off"]
        assert "unknown_key" in failure["message"]
        assert failure["next_look"] == "1 min"
        paths[1].write_text(sound)
        fleet.until(lambda fleet: "broken" in fleet.results, 20)
    states = [line["status"] for line in fleet.lines() if line["event"] == "fleet"]
    assert "1 of 2 portfolios run; backing off: broken" in states
    assert states[-1] == "2 of 2 portfolios run"


@pytest.mark.slow
def test_damaged_store_and_config__stop_none_of_the_other_48(chain: LocalChain, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(50)]
    nobody = {"wallet.test_account": None, "wallet.keystore": "wallet.json"}
    paths = [
        add_wallet_portfolio(chain, tmp_path, name, f"0x{0xC11E47 + number:040x}", BALANCED, nobody) for number, name in enumerate(names)
    ]
    paths[7].write_text(paths[7].read_text().replace('operator = "local"', 'operator = "local"\nunknown_key = 1'))
    store_file(load_config(paths[8])).write_bytes(b"no database" * 1_000)
    bring_to_present(chain)
    with running(chain, paths, every="5s", sends=False) as fleet:
        fleet.until(lambda fleet: len(fleet.results) == 48, 300)
        fleet.until(lambda fleet: all(len(results) >= 3 for results in fleet.results.values()), 300)
    assert {kind for results in fleet.results.values() for kind in kinds(results)} == {OutcomeKind.HOLD}
    assert {*names} - {*fleet.results} == {"p7", "p8"}
    failing = {name: [line["message"] for line in fleet.lines(name) if line["event"] == "backing off"] for name in ("p7", "p8")}
    assert "unknown_key" in failing["p7"][0]
    assert "file is not a database" in failing["p8"][0]
    assert max(map(len, failing.values())) <= 5, "each waits by itself, twice as long each time"


def test_two_portfolios__share_no_variable_endpoint_or_alert(chain: LocalChain, tmp_path: Path) -> None:
    boxes = {"left": ReceivedMessages(), "right": ReceivedMessages()}
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(serve(passing_on(chain.url or ""))) for name in boxes}
        paths = []
        for account, name in enumerate(boxes, start=5):
            path = add_portfolio(
                chain, tmp_path, name, account, BALANCED,
                {"alerts": {"targets": [{"name": "hook", "url_env": "HOOK"}]}},
            )  # fmt: skip
            hook = stack.enter_context(webhook(boxes[name]))
            path.with_name(".env").write_text(f"HOOK={hook}\nNODE={nodes[name].url}/secret-of-{name}\n")
            path.with_name(".env").chmod(0o600)
            edit(path, chain__rpc=[{"url_env": "NODE", "operator": name}])
            paths.append(path)
        chain.set_native(10**14, wallet_of(5, chain))
        with running(chain, paths, sends=False) as fleet:
            fleet.until(lambda fleet: len(fleet.results) == 2)
            boxes["left"].until(1)
    for name, node in nodes.items():
        owners = [owner for batch in node.seen for owner in _owners(batch)]
        assert set(owners) == {wallet_of(5 if name == "left" else 6, chain).lower()}
    assert boxes["right"].items == []
    assert "gas" in boxes["left"].texts[0]
    assert "secret-of" not in fleet.log.getvalue()


def _owners(batch: object) -> list[str]:
    calls = batch if isinstance(batch, list) else [batch]
    return [call["params"][0].lower() for call in calls if call["method"] == "eth_getTransactionCount"]


def test_a_round_of_six_holding_portfolios_takes_two_requests(chain: LocalChain, tmp_path: Path) -> None:
    with serve(passing_on(chain.url or "")) as node:
        own_node = {"chain.rpc": [{"url": node.url, "operator": "counted"}]}
        paths = [add_portfolio(chain, tmp_path, f"p{account}", account, BALANCED, own_node) for account in range(4, 10)]
        with running(chain, paths, every="2s", sends=False) as fleet:
            fleet.until(lambda fleet: len(fleet.results) == 6)
            counts = []
            for _ in range(3):
                before = len(node.seen)
                looks = fleet.look_count
                fleet.until(partial(has_looked, looks + 6))
                counts.append(len(node.seen) - before)
    assert min(counts) <= 4, "two rounds may overlap, but six portfolios alone would take twelve"


def has_looked(count: int, fleet: Fleet) -> bool:
    return fleet.look_count >= count


def test_metrics_file__counts_looks_and_names_what_cannot_open(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.fleet.metrics.WRITE_S", 0.2)
    paths = [add_portfolio(anvil_chain, tmp_path, name, account, BALANCED) for account, name in enumerate(("a", "b", "c"), 4)]
    paths[2].write_text("no config")
    file = tmp_path / "trimtab.prom"

    def is_counted(fleet: Fleet) -> bool:
        text = file.read_text()
        return 'trimtab_fleet_portfolios{state="backing off"} 1.0' in text and 'trimtab_fleet_looks_total{outcome="hold"} 2.0' in text

    with running(anvil_chain, paths, sends=False, metrics=FleetMetrics(file)) as fleet:
        fleet.until(is_counted)
    lines = file.read_text().splitlines()
    assert [line for line in lines if line.startswith("trimtab_healthy{")] == [
        'trimtab_healthy{portfolio="a"} 1.0',
        'trimtab_healthy{portfolio="b"} 1.0',
    ]


def test_of_two_configs_of_one_wallet_only_one_acts(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = ReceivedMessages()
    alerts = {"alerts": {"targets": [{"name": "hook", "url_env": "HOOK"}]}}
    with webhook(box) as hook:
        monkeypatch.setenv("HOOK", hook)
        paths = [add_portfolio(chain, tmp_path, name, 5, TOO_MUCH_WETH, alerts) for name in ("first", "second")]
        with running(chain, paths) as fleet:
            fleet.until(lambda fleet: fleet.results and len(fleet.failures) == 1)
            box.until(1)
    assert any("The run has ended" in text for text in box.texts), "the owner hears of the one that cannot be opened"
    (served,) = fleet.results
    assert fleet.failures == [f"wallet.address: {wallet_of(5, chain)} is served by the portfolio {served}"]


def test_owner_s_stop__ends_one_portfolio_and_a_pause_holds_one(chain: LocalChain, tmp_path: Path) -> None:
    paths = {
        name: add_portfolio(chain, tmp_path, name, account, BALANCED) for account, name in enumerate(("stopped", "paused", "going"), 5)
    }
    with running(chain, list(paths.values()), every="1s") as fleet:
        fleet.until(lambda fleet: len(fleet.results) == 3)
        api.pause(paths["paused"], "lunch")
        with open_agent(paths["stopped"], clock=chain.clock) as agent:
            shutdown.stop(agent, send=True, confirm=lambda _: True)
        fleet.until(lambda fleet: any(line["event"] == "stopped" for line in fleet.lines("stopped")))
        fleet.until(lambda fleet: any(line["event"] == "paused" for line in fleet.lines("paused")))
        looks = len(fleet.results["going"])
        fleet.until(lambda fleet: len(fleet.results["going"]) > looks + 1)
        with open_agent(paths["stopped"], clock=chain.clock) as agent:
            assert agent.context.store.requests.active_stop() is not None
        api.resume(paths["stopped"], lambda _: True)
        looks = len(fleet.results["stopped"])
        fleet.until(lambda fleet: len(fleet.results["stopped"]) > looks)
    assert "2 of 3 portfolios run; stopped: stopped" in [line["status"] for line in fleet.lines() if line["event"] == "fleet"]


def test_silent_endpoint__delays_its_own_portfolio_alone(chain: LocalChain, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        paths = [add_portfolio(chain, tmp_path, name, account, BALANCED) for account, name in enumerate(("good", "silent"), 5)]
        edit(paths[1], chain__rpc=[{"url": url, "operator": "silent", "timeout": "2s"}])
        with running(chain, paths, every="1s") as fleet:
            fleet.until(lambda fleet: fleet.lines("silent"))
            fleet.until(lambda fleet: len(fleet.results.get("good", [])) >= 4)
    assert "silent" not in fleet.results
    assert "did not answer within 2 s" in fleet.failures[0]


def test_silent_signer__delays_its_own_portfolio_alone(chain: LocalChain, tmp_path: Path) -> None:
    """Each config names its own signer in its own .env; the wallet behind the silent one sends nothing."""
    remote = {"wallet.test_account": None, "wallet.signer_url_env": "TRIMTAB_SIGNER"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {"good": chain.url, "silent": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        paths = [add_portfolio(chain, tmp_path, name, account, TOO_MUCH_WETH, remote) for account, name in enumerate(urls, 5)]
        for path, url in zip(paths, urls.values(), strict=True):
            variables = path.with_name(".env")
            variables.write_text(f"TRIMTAB_SIGNER={url}\n")
            variables.chmod(0o600)
        nonce = chain.w3.eth.get_transaction_count(wallet_of(6, chain))  # type: ignore[arg-type]  # an address
        with running(chain, paths, every="1s") as fleet:
            fleet.until(lambda fleet: OutcomeKind.DONE in kinds(fleet.results.get("good", [])))
            fleet.until(lambda fleet: len(fleet.results["good"]) >= 3)
            fleet.until(lambda fleet: fleet.results.get("silent"))
    (failure,) = fleet.results["silent"][:1]
    assert isinstance(failure, Retryable)
    assert failure.code == "key_service"
    assert "did not answer within 10 s" in failure.message
    assert chain.w3.eth.get_transaction_count(wallet_of(6, chain)) == nonce  # type: ignore[arg-type]  # an address


class FakeShare:
    """The part of one worker among several: all portfolios."""

    def is_served_elsewhere(self, config_path: Path) -> bool:
        return False


@pytest.mark.parametrize(("sends", "is_refused"), [(True, True), (False, False)], ids=["with --send", "without"])
def test_worker__leaves_out_a_portfolio_with_an_environment_key(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sends: bool, is_refused: bool
) -> None:
    monkeypatch.setenv("CLIENT_KEY", "0x" + "42" * 32)
    key = {"wallet.test_account": None, "wallet.key_env": "CLIENT_KEY"}
    path = add_portfolio(anvil_chain, tmp_path, "client", 5, BALANCED, key)
    log = io.StringIO()
    configure("json", Redactor(), log)
    options = FleetOptions("1h", sends, share=FakeShare())  # type: ignore[arg-type]  # a fake
    member = FleetMember("client", path, options, SharedConnections(anvil_chain.clock), Redactor(), lambda *_: None)
    member.queue()
    member.look()
    member.close()
    configure(None)
    assert ("a worker has no keys of wallets in its environment" in log.getvalue()) is is_refused
