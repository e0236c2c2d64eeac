"""A seeded sample of every faults suite, and that the suites see what they look for: `make faults` runs them whole."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from tests.faults.futures_scene import futures_scene, known
from tests.faults.invariants import violations
from tests.faults.probe import dying, process
from tests.faults.scene import Scene, scene
from tests.faults.suite import Folders, Only, Result, every, parsed
from tests.faults.suite_power import wal
from tests.faults.suites import SUITES
from tests.support.perps import WAD
from tests.support.text import mentions

ONE_OF = {"kill": 27, "power": 9, "disk": 9, "store": 4, "chain": 8, "chaos": 24}
"""Of so many cases of one seed the slow sample takes one, and that of every run one of twice as many."""


FUTURES_CASES = {
    "futures-kill": (5, 40), "futures-power": (1, 12), "futures-disk": (4, 9), "futures-store": (2, 4), "futures-chain": (3, 9),
    "futures-chaos": (10, 30), "futures-lies": (0, 2),
}  # fmt: skip
"""Seed, and number of the case, of the one that the sample takes of each suite over futures: a kind of scene each."""


def sampled(suites: Iterable[str], *in_every_run: str) -> list[Any]:
    """The suites as parameters, of which those that are not in every run are slow."""
    return [name if name in in_every_run else pytest.param(name, marks=pytest.mark.slow) for name in suites]


def every_nth(many: int) -> Only:
    """The first case, and every one so many later."""
    numbers = itertools.count()
    return lambda _fault, _where: next(numbers) % many == 0


@pytest.mark.parametrize("part", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sampled(ONE_OF, "chaos"))
def test_every_sampled_fault__ends_with_one_rebalance(
    anvil_session: LocalChain, folders: Folders, name: str, part: int, record_property: Callable[[str, object], None]
) -> None:
    run, _ = SUITES[name]
    injected: Counter[str] = Counter()
    results: list[Result] = []
    for result in run(anvil_session, folders, 1, every_nth(ONE_OF[name] * part)):
        assert not result.violations, f"{result.case}: {result.violations} after {result.ends}"
        injected.update(result.injected)
        results.append(result)
    record_property("injected", dict(injected))
    assert sum(injected.values()) >= 1
    assert all(parsed(str(result.case)) == result.case for result in results)


@pytest.fixture
def venue(perps_chain: LocalPerps) -> LocalChain:
    """The chain with the futures venue."""
    known(perps_chain)
    return perps_chain.chain


@pytest.mark.parametrize("name", sampled(FUTURES_CASES, "futures-chaos", "futures-lies"))
def test_faults__fill_every_futures_order_once_or_never(venue: LocalChain, folders: Folders, name: str) -> None:
    seed, number = FUTURES_CASES[name]
    numbers = itertools.count()
    run, _ = SUITES[name]
    [case_results] = run(venue, folders, seed, lambda _fault, _where: next(numbers) == number)
    assert not case_results.violations, f"{case_results.case}: {case_results.violations} after {case_results.ends}"
    assert (case_results.case.suite, parsed(str(case_results.case))) == (name, case_results.case)


def test_an_order_beside_the_agents_own_is_a_violation(venue: LocalChain, tmp_path: Path) -> None:
    with futures_scene(venue, tmp_path, 0) as order_scene:
        assert process(order_scene).end.startswith("done")
        assert [*order_scene.recovered(), *violations(order_scene)] == []
        layer = order_scene.futures
        assert layer is not None
        order_scene.rpc("evm_setAutomine", True)
        layer.perps.trade(venue.wallet.address, "WETH", 3 * WAD)
        text = "; ".join(violations(order_scene))
    assert all(words in text for words in ("in no journal", "the journal filled", "took the leverage to", "in the end", "ends at")), text


@pytest.mark.slow
def test_a_case_can_be_run_again_by_its_name(anvil_session: LocalChain, folders: Folders) -> None:
    run, _ = SUITES["power"]
    [first] = itertools.islice(run(anvil_session, folders, 2, every), 1)
    case = parsed(str(first.case))
    [second] = run(anvil_session, folders, case.seed, lambda fault, where: (fault, where) == (case.fault, case.where))
    assert (second.case, second.injected, second.violations) == (first.case, first.injected, [])


def test_a_journal_that_lost_what_was_committed_is_a_violation(anvil_session: LocalChain, tmp_path: Path) -> None:
    """What a disk that lies about fsync would do: the log is cut to before the last commits."""
    with scene(anvil_session, tmp_path, 4) as lossy_scene:
        died = process(lossy_scene, dying("after:send#1"))
        assert died.killed
        log = wal(lossy_scene)
        log.write_bytes(log.read_bytes()[:32])
        lossy_scene.store_file.with_name(lossy_scene.store_file.name + "-shm").unlink()
        assert [*lossy_scene.recovered(), *violations(lossy_scene)] != []


@pytest.fixture(scope="module")
def done_once(anvil_session: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene whose rebalance is done."""
    with scene(anvil_session, tmp_path_factory.mktemp("done"), 4) as done_scene:
        assert process(done_scene).end.startswith("done")
        assert done_scene.recovered() == []
        assert violations(done_scene) == []
        yield done_scene


@pytest.fixture
def done(done_once: Scene) -> Iterator[Scene]:
    """The same for each test; what one does to the chain the next does not see."""
    mark = done_once.chain.snapshot()
    yield done_once
    done_once.chain.revert(mark)


def test_a_transaction_that_no_journal_knows_is_a_violation(done: Scene) -> None:
    wallet = done.chain.wallet.address
    done.rpc("eth_sendTransaction", {"from": wallet, "to": wallet, "value": "0x0"})
    done.rpc("evm_mine")
    problems = violations(done)
    assert any("no journal" in problem for problem in problems)
    assert any("wei" in problem for problem in problems), "its gas is not in the books"


def test_second_trade_lost_value_or_allowance__is_a_violation(done: Scene) -> None:
    symbol = min(done.drawn.targets)
    done.chain.set_balance(symbol, done.chain.balance(symbol) * 9 // 10)
    chain = done.chain
    wallet = done.chain.wallet.address
    chain.send(chain.token_contract("USDC").functions.approve(done.router, 5), wallet, gas=100_000)
    text = "; ".join(violations(done))
    assert "lost" in text
    assert "off target" in text
    assert "5 of USDC" in text
    assert "books say" in text
    again = violations(done, swaps=2)
    assert any(mentions(problem, "1 swaps", "2") for problem in again)


def test_what_is_signed_outside_the_policy_is_a_violation(done: Scene) -> None:
    chain = done.chain
    thief = done.chain.accounts[5].address
    chain.send(chain.token_contract("USDC").functions.approve(thief, 1), chain.wallet.address, gas=100_000)
    assert any("outside the" in violation for violation in violations(done))
