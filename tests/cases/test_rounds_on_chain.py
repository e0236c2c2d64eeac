"""Corrections in rounds on real pools: cheaper than at once, done exactly once through a restart, ended by name."""

from __future__ import annotations

import os
import signal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from agent.app import history
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.loaded import LoadedConfig
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.gradual.policy import slice_wait_s
from agent.layers.gradual.state import GradualResult, GradualState
from agent.layers.gradual.store import GradualExecutionStore
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind
from tests.faults.rig import in_child
from tests.support.agents import allowances, fund, loss_usd, off_target, purse, reopened_agent, trusted_config, yes
from tests.support.endpoints import passing_on, serve
from tests.support.gradual_execution import LARGE, OFF, ROUNDS, TARGETS, TWAP, part_of_step, recovering_clock
from tests.support.markets.mempools import HEAVY, MempoolReader, builder, sends, waiting_mempool
from tests.support.text import causes, mentions


def swaps(outcome: StepOutcome) -> list[Intent]:
    return [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP and intent.succeeded]


def sold(intent: Intent, chain: LocalChain) -> int:
    assert intent.receipt is not None
    return -intent.receipt.net_transfers(chain.wallet.address)[chain.tokens["WETH"].address]


@pytest.mark.slow
def test_rounds_on_recovering_pools__lose_less_than_one_trade(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF)
    prices = dict(chain.deployed_world.prices_usd)
    before = purse(chain)
    mark = chain.snapshot()
    losses: dict[str, Fraction] = {}
    for name, changes in (("market", LARGE), ("rounds", ROUNDS)):
        loaded = trusted_config(chain, tmp_path / name, changes, TARGETS)
        with reopened_agent(chain, loaded, clock=recovering_clock(chain)) as agent:
            losses_by_way: list[str] = []
            outcome = agent.rebalance(send=True, confirm=yes, progress=losses_by_way.append)
            campaigns = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        losses[name] = loss_usd(chain, before, prices)
        assert max(off_target(chain, TARGETS).values()) <= 10
        if name == "market":
            assert campaigns == ()
            chain.revert(mark)
    (campaign,) = campaigns
    sizes = [sold(swap, chain) for swap in swaps(outcome)]
    assert mentions(campaign.why, f"done in {len(sizes)}")
    assert campaign.progress.parts_done == len(sizes) > 2
    assert len(set(sizes)) == len(sizes), "no two rounds alike"
    fair = sum(sizes) / campaign.progress.execution.rounds
    assert all(0.68 * fair <= size <= 1.32 * fair for size in sizes[:-1])
    assert losses["rounds"] < losses["market"] * Fraction(6, 10)
    assert campaign.progress.execution.max_loss is not None
    assert campaign.progress.lost_value <= campaign.progress.execution.max_loss
    assert abs(float(campaign.progress.lost_value) / 10**6 - float(losses["rounds"])) < 1, "what the store counts is what the wallet lost"
    assert any("due in" in line for line in losses_by_way)
    assert set(allowances(chain).values()) == {0}
    document = history(loaded.path)
    assert [gradual_execution["state"] for gradual_execution in document["gradual_executions"]] == ["ended"]


def one_process(chain: LocalChain, loaded: LoadedConfig, die_after_rounds: int | None, die_at: str = "") -> None:
    """One `trimtab rebalance --send`; SIGKILL while it waits after so many rounds, or at that event of the round after them."""
    rounds = 0

    def progress(text: str) -> None:
        nonlocal rounds
        rounds += text.startswith("slice ")
        if die_after_rounds is not None and rounds == die_after_rounds and (text == die_at or not die_at):
            os.kill(os.getpid(), signal.SIGKILL)

    chain.__dict__.pop("transport", None)  # a connection of its own
    with reopened_agent(chain, loaded, clock=recovering_clock(chain)) as agent:
        outcome = agent.rebalance(send=True, confirm=yes, progress=progress)
        assert outcome.kind in (OutcomeKind.DONE, OutcomeKind.HOLD), outcome.reason


@pytest.mark.parametrize("moment", [pytest.param("", id="waiting", marks=pytest.mark.slow), pytest.param("after:send", id="sent")])
def test_rounds_killed_midway__are_neither_lost_nor_repeated(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    fund(chain, OFF)
    loaded = trusted_config(chain, tmp_path, ROUNDS, TARGETS)
    assert in_child(lambda: one_process(chain, loaded, 2, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        (before,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
        gradual_execution = status_document(agent.status())["gradual_execution"]
    assert before.state == "open"
    assert (gradual_execution["id"], gradual_execution["parts_done"]) == (before.progress.id, before.progress.parts_done)
    assert in_child(lambda: one_process(chain, loaded, None)) == 0
    with reopened_agent(chain, loaded) as agent:
        store = agent.context.store
        (campaign,) = store.layer_repository(GradualExecutionStore).newest_executions()
        done = [intent for intent in store.journal.intents() if intent.kind is IntentKind.SWAP and intent.succeeded]
        assert store.journal.open_intents() == ()
        rounds = [part_of_step(store, outcome.step_id) for outcome in reversed(done)]
    assert campaign.progress.id == before.progress.id
    assert campaign.progress.execution == before.progress.execution
    assert rounds == [(campaign.progress.id, number) for number in range(1, len(done) + 1)], "each round once"
    assert mentions(campaign.why, f"done in {len(done)}")
    assert max(off_target(chain, TARGETS).values()) <= 10
    if moment == "":
        assert before.progress.parts_done == 2
        assert campaign.progress.parts_done > 2


def test_a_run_does_one_round_per_look_when_it_is_due(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF)
    loaded = trusted_config(chain, tmp_path, TWAP, TARGETS)
    with reopened_agent(chain, loaded, clock=recovering_clock(chain)) as agent:
        outcomes: list[StepOutcome] = []
        for outcome in agent.run(send=True, confirm=yes, every="30s"):
            assert isinstance(outcome, StepOutcome), outcome
            outcomes.append(outcome)
            if outcome.decision_result.layer(GradualResult).end_reason:
                break
        (campaign,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
        standing = agent.status()
    traded = [outcome for outcome in outcomes if swaps(outcome)]
    assert all(len(swaps(outcome)) == 1 for outcome in traded)
    assert len(traded) == campaign.progress.parts_done >= 3
    assert any("due" in outcome.reason for outcome in outcomes if outcome.kind is OutcomeKind.HOLD)
    times = [outcome.step_input.snapshot.head.timestamp_s for outcome in traded]
    rounds = [outcome.step_input.layer(GradualState).progress for outcome in traded[1:]]
    drawn = [(round.execution, round.draw) for round in rounds if round is not None]
    assert len({draw for _, draw in drawn}) == len(drawn) == len(traded) - 1, "each waits for a time of its own"
    assert all(after - before >= slice_wait_s(*draw) for (before, after), draw in zip(pairwise(times), drawn, strict=True))
    assert times[-1] <= campaign.progress.execution.expires_s
    assert max(off_target(chain, TARGETS).values()) <= 10
    assert standing.step_input.layer(GradualState).progress is None


def falling(agent: Agent, chain: LocalChain) -> StepOutcome:
    """Rounds while the price of what is sold falls by one and a half percent in each wait."""

    def confirm(_: StepOutcome) -> bool:
        return True

    def progress(text: str) -> None:
        if text.startswith("slice "):
            price = chain.deployed_world.prices_usd["WETH"] * Fraction(985, 1_000)
            chain.move_market({"WETH": price}, twap_follows=False)

    return agent.rebalance(send=True, confirm=confirm, progress=progress)


def test_budget_against_the_start__ends_it_by_name(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF)
    with reopened_agent(
        chain, trusted_config(chain, tmp_path, ROUNDS | {"execution.budget": "0.7%"}, TARGETS), clock=recovering_clock(chain)
    ) as agent:
        outcome = falling(agent, chain)
        (campaign,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
        resting = agent.rebalance(send=True, confirm=yes)
    under = campaign.progress
    assert campaign.state == "ended"
    assert "budget" in campaign.why
    assert 0 < under.parts_done < under.execution.rounds
    assert under.execution.max_loss is not None
    assert 0 < under.lost_value <= under.execution.max_loss
    assert swaps(outcome)
    assert resting.kind is OutcomeKind.HOLD
    assert causes(resting) == ("policy.cooldown",)


def test_changed_config__ends_it_and_carries_nothing_stale_on(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF)
    loaded = trusted_config(chain, tmp_path / "one", ROUNDS, TARGETS)
    assert in_child(lambda: one_process(chain, loaded, 1)) == -signal.SIGKILL
    balances = purse(chain)
    other = trusted_config(chain, tmp_path / "one", ROUNDS | {"execution.style": "market"}, {"WETH": "60%", "USDC": "40%"})
    with reopened_agent(chain, other) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        (campaign,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
    assert campaign.state == "ended"
    assert mentions(campaign.why, "changed")
    assert outcome.kind is OutcomeKind.HOLD
    assert purse(chain).raw == balances.raw


@pytest.mark.slow
def test_round_and_approval__go_to_the_private_endpoint_alone(chain: LocalChain, tmp_path: Path) -> None:
    """T15: the mempool shows nothing of a round before it is done; what it shows after is no help (test_slices_unforeseen.py)."""
    assert chain.url is not None
    fund(chain, HEAVY["WETH"])
    with serve(passing_on(chain.url)) as public, serve(builder(chain.node)) as hidden:  # type: ignore[arg-type]  # anvil's node
        watcher = MempoolReader(EndpointProvider(public.url, "predictor"), chain.wallet.address, patience=10_000)
        changes = TWAP | {"execution.over": "48s", "execution.submit_url": hidden.url}
        loaded = trusted_config(chain, tmp_path, changes, TARGETS)
        with reopened_agent(chain, loaded, [EndpointProvider(public.url, "public")]) as agent, waiting_mempool(chain):
            outcome = agent.rebalance(send=True, confirm=yes, progress=lambda moment: watcher.look(moment) if "send" in moment else None)
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    kinds = [intent.kind for intent in outcome.transactions]
    assert kinds.count(IntentKind.SWAP) > 2
    assert kinds.count(IntentKind.APPROVE) >= kinds.count(IntentKind.SWAP), [intent.note for intent in outcome.transactions]
    assert (sends(public), sends(hidden)) == (0, len(kinds))
    assert watcher.seen == []
