"""T15: what the public mempool tells of a rebalance before it is done: nothing by a private endpoint, direction and amount without one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind
from tests.support.agents import ROOMY, agent_on, fund, yes
from tests.support.endpoints import Answerer, Reply, Served, passing_on, serve
from tests.support.markets.mempools import HEAVY, LookedLongEnough, MempoolReader, builder, sends, waiting_mempool

TARGETS = {"WETH": "50%", "USDC": "50%"}


def broken(_asked: Any) -> Reply:
    """A private endpoint that is down."""
    return Reply(b"busy", status=503)


@dataclass
class PredictedStep:
    """One step, what the predictor saw of it, and what either endpoint was asked; no outcome where the predictor had enough."""

    predictor: MempoolReader
    public: Served
    private: Served
    outcome: StepOutcome | None = None

    @property
    def done(self) -> StepOutcome:
        """The outcome of a step that was carried out."""
        assert self.outcome is not None
        assert self.outcome.kind is OutcomeKind.DONE, self.outcome.reason
        assert self.outcome.plan is not None
        return self.outcome


def predicted_step(chain: LocalChain, folder: Path, sold: str, private: Answerer | None, fallback: bool = False) -> PredictedStep:
    """A rebalance that sells `sold`, with a private endpoint or without."""
    assert chain.url is not None
    fund(chain, HEAVY[sold])
    with serve(passing_on(chain.url)) as public, serve(private or broken) as hidden:
        changes = {**ROOMY, "execution.submit_public_fallback": fallback, "execution.submit_url": hidden.url if private else ""}
        watched_step = PredictedStep(MempoolReader(EndpointProvider(public.url, "predictor"), chain.wallet.address), public, hidden)
        opened = agent_on(chain, folder, changes, TARGETS, [EndpointProvider(public.url, "public")])
        with opened as agent, waiting_mempool(chain), contextlib.suppress(LookedLongEnough):
            watched_step.outcome = agent.rebalance(send=True, confirm=yes, progress=watched_step.predictor.look)
        return watched_step


def test_private_directions__look_alike_in_the_mempool(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Who sees the same whichever token is sold can only guess. What a mined approval tells the swap answers by a plan made anew."""
    requests_by_way = {}
    for sold in HEAVY:
        watched_step = predicted_step(anvil_chain, tmp_path / sold, sold, builder(anvil_chain.node))  # type: ignore[arg-type]  # anvil's node
        kinds = [intent.kind for intent in watched_step.done.transactions]
        assert kinds[0] is IntentKind.APPROVE
        assert kinds[-1] is IntentKind.SWAP
        assert (sends(watched_step.public), sends(watched_step.private)) == (0, len(kinds))
        requests_by_way[sold] = watched_step.predictor.seen
        approved = [i.receipt.block_number for i in watched_step.done.transactions if i.receipt and i.kind is IntentKind.APPROVE]
        assert watched_step.done.plan is not None
        assert watched_step.done.plan.block >= max(approved)
    assert requests_by_way["WETH"] == requests_by_way["USDC"] == []


@pytest.mark.parametrize("private", [None, broken], ids=["no private endpoint", "a private one that fails, public permitted by name"])
def test_public_approval__tells_direction_and_amount_first(chain: LocalChain, tmp_path: Path, private: Answerer | None) -> None:
    """The same predictor is right each time: it is not blind."""
    for sold in HEAVY:
        watched_step = predicted_step(chain, tmp_path / sold, sold, private, fallback=private is not None)
        assert watched_step.done.plan is not None
        first, *_ = watched_step.predictor.approvals()
        swap = next(number for number, data in enumerate(watched_step.predictor.seen) if not data.startswith("0x095ea7b3"))
        assert swap > 0, "the approval came first"
        sells = chain.tokens[sold].address
        assert first.raw == sum(leg.amount_in_raw for leg in watched_step.done.plan.legs if leg.token_in == sells)
        assert sends(watched_step.public) == len(watched_step.done.transactions)


def test_failing_private_endpoint__shows_nothing_unpermitted(anvil_chain: LocalChain, tmp_path: Path) -> None:
    watched_step = predicted_step(anvil_chain, tmp_path, "WETH", broken)
    assert watched_step.outcome is None, "its fate is unknown, and it is waited for"
    assert sends(watched_step.private) > 0
    assert sends(watched_step.public) == 0
    assert watched_step.predictor.seen == []
