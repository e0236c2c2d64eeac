"""Machines that know nothing of each other serve one wallet: two databases, and clocks that differ by an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import OperatorNeeded, PassingFault, Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.store.postgresql import session
from tests.support.agents import ROOMY, fund, purse, reopened_agent, trusted_config, yes
from tests.support.constants import HOUR_S
from tests.support.fakes.clock import chain_clock
from tests.support.postgresql import Server, running_server, standby_of
from tests.support.text import raises_code

NARROW = {**ROOMY, "policy.trigger": {"kind": "threshold", "absolute": "1%"}}
TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 10_000}


def cluster(chain: LocalChain, server: Server, folder: Path, database: str) -> LoadedConfig:
    """A config whose store is in a database of its own."""
    return trusted_config(chain, folder, {**NARROW, "store.url": server.new_database(database)}, TARGETS)


def swap_count(chain: LocalChain, loaded: LoadedConfig) -> int:
    with reopened_agent(chain, load_config(loaded.path)) as agent:
        intents = agent.context.store.journal.intents()
    return sum(intent.kind is IntentKind.SWAP and intent.state is IntentState.FINAL for intent in intents)


def test_cluster_that_has_sent__stops_once_another_has_too(chain: LocalChain, tmp_path: Path, server: Server, url: str) -> None:
    """A new store takes the chain's nonce as its beginning; one that has sent knows that the next was not its own."""
    fund(chain, HELD)
    first = cluster(chain, server, tmp_path / "first", "first_cluster")
    second = cluster(chain, server, tmp_path / "second", "second_cluster")
    with reopened_agent(chain, first) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    with reopened_agent(chain, second) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.move_market({"WETH": 3_200})
        chain.mine()
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    chain.move_market({"WETH": 2_500})
    chain.mine()
    nonce = purse(chain).nonce
    with reopened_agent(chain, first) as agent:
        for _ in range(2):
            with raises_code(OperatorNeeded, "foreign_nonce", "was used by a transaction that is not in this store"):
                agent.rebalance(send=True, confirm=yes)
        assert purse(chain).nonce == nonce
        agent.resync_nonce()
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


def test_fail_over_that_lost_a_swap__sends_nothing_until_adopted(chain: LocalChain, tmp_path: Path) -> None:
    """The standby is asynchronous and cut off before the swap, which the primary records and the chain mines."""
    fund(chain, HELD)
    with running_server() as primary:
        primary.new_database("store")
        with standby_of(primary) as standby:
            url = f"{primary.url()}&host={standby.folder}&target_session_attrs=read-write"
            loaded = trusted_config(chain, tmp_path, {**NARROW, "store.url": url}, TARGETS)
            with reopened_agent(chain, loaded) as agent:
                assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
            standby.run("ALTER SYSTEM SET primary_conninfo = ''")
            standby.run("SELECT pg_reload_conf()")
            primary.run("ALTER SYSTEM RESET synchronous_standby_names")
            primary.run("SELECT pg_reload_conf()")
            chain.move_market({"WETH": 3_200})
            chain.mine()
            with reopened_agent(chain, loaded) as agent:
                assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
            assert swap_count(chain, loaded) == 2
            primary.control("stop", "-m", "immediate")
            standby.control("promote")
            assert swap_count(chain, loaded) == 1, "the commits of the second are lost"
            chain.move_market({"WETH": 2_500})
            chain.mine()
            nonce = purse(chain).nonce
            with reopened_agent(chain, loaded) as agent:
                for _ in range(2):
                    with raises_code(OperatorNeeded, "foreign_nonce", "was used by a transaction that is not in this store"):
                        agent.rebalance(send=True, confirm=yes)
                assert purse(chain).nonce == nonce
                agent.resync_nonce()
                assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
            assert swap_count(chain, loaded) == 2
            for address in list(session._engines):
                session._engines.pop(address).dispose()


def test_cluster_acting_while_another_asks__is_not_doubled(
    chain: LocalChain, tmp_path: Path, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has planned and waits for its confirmation; the first rebalances meanwhile, on another machine."""
    fund(chain, HELD)
    first = cluster(chain, server, tmp_path / "first", "first_asked")
    second = cluster(chain, server, tmp_path / "second", "second_asked")

    def confirm(outcome: StepOutcome) -> bool:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "machine"))
        with reopened_agent(chain, first) as other:
            assert other.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        return True

    with reopened_agent(chain, second) as agent:
        with pytest.raises((OperatorNeeded, PassingFault, Retryable)):
            agent.rebalance(send=True, confirm=confirm)
        nonce = purse(chain).nonce
        with raises_code(OperatorNeeded, "foreign_nonce"):
            agent.rebalance(send=True, confirm=yes)
        assert purse(chain).nonce == nonce
    assert swap_count(chain, first) == 1
    assert swap_count(chain, second) == 0


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S])
def test_workers_whose_clocks_differ_by_an_hour_swap_once(
    chain: LocalChain, tmp_path: Path, server: Server, url: str, offset_s: int
) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, {**NARROW, "store.url": url}, TARGETS)
    for offset in (offset_s, 0, -offset_s, 0):
        with reopened_agent(chain, load_config(loaded.path), clock=chain_clock(chain, offset)) as agent:
            try:
                outcome = agent.rebalance(send=True, confirm=yes)
            except (PassingFault, Retryable):
                assert offset != 0
                continue
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert swap_count(chain, loaded) == 1
