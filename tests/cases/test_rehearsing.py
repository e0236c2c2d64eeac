"""A rehearsal trades the least that the limits let through, there and back; and what may be taken is taken back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import engine
from agent.app.money import rehearsal, revocation
from agent.app.money.rehearsal import Rehearsal
from agent.chain.tokens import PERMIT2
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.units import decimal_text
from tests.support.agents import USD, agent_on, allow, allowances, fund, purse, yes
from tests.support.text import mentions, raises_field

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_600, "WBTC": 1_700, "USDC": 2_700}


def test_smallest_trade__goes_there_and_back_as_predicted(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, targets=TARGETS) as agent:
        before = purse(chain)
        looked = rehearsal.rehearse_trade(agent, confirm=yes)
        assert (looked.state, purse(chain)) == ("planned", before), looked.verdict
        assert rehearsal.rehearse_trade(agent, send=True, confirm=lambda _: False).state == "declined"
        assert purse(chain) == before
        done: Rehearsal = rehearsal.rehearse_trade(agent, send=True, confirm=yes)
        assert (done.state, done.verdict) == ("done", "as predicted")
        there, back = done.legs
        assert (there.token_in.label, there.token_out.label, back.token_in.label, back.token_out.label) == ("USDC", "WETH", "WETH", "USDC")
        assert there.received_raw == there.predicted_raw == back.amount_in_raw
        assert back.received_raw == back.predicted_raw
        after = purse(chain)
        assert after.raw["WETH"] == before.raw["WETH"]
        assert before.raw["USDC"] - after.raw["USDC"] == there.amount_in_raw - back.received_raw > 0
        assert 10 * USD <= there.amount_in_raw < 10_000 * USD
        assert 0 < done.cost < done.predicted_cost * 3
        assert all(0 < way.gas_used < way.gas_predicted * 2 for way in done.legs)
        plans = [
            agent.context.store.journal.grant(i.id).plan for i in agent.context.store.journal.intents(limit=50) if i.kind is IntentKind.SWAP
        ]
        assert len(plans) == 2
        assert all(plan is not None and plan.decision.by_hand for plan in plans)
        assert set(allowances(chain).values()) == {0}
        with raises_field("--token", "numeraire"):
            rehearsal.rehearse_trade(agent, "USDC", confirm=yes)


@pytest.mark.parametrize("is_raised", [True, False], ids=["error", "refusal"])
def test_return_swap_that_fails__leaves_the_first_in_the_result(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_raised: bool
) -> None:
    outcomes: list[StepOutcome] = []

    def run_first_cycle(*arguments: Any) -> StepOutcome:
        if not outcomes:
            outcomes.append(run_cycle(*arguments))
            return outcomes[0]
        if is_raised:
            raise Retryable("endpoints disagree")
        return replace(outcomes[0], kind=OutcomeKind.REFUSED, reason="endpoints disagree", transactions=())

    run_cycle = engine.run_cycle
    monkeypatch.setattr(engine, "run_cycle", run_first_cycle)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, targets=TARGETS) as agent:
        before = purse(anvil_chain)
        report = rehearsal.rehearse_trade(agent, send=True, confirm=yes)
    assert report.state == "failed"
    (leg,) = report.legs
    bought_raw = purse(anvil_chain).raw["WETH"] - before.raw["WETH"]
    assert leg.received_raw == bought_raw > 0
    amount_text = decimal_text(bought_raw, 18)
    command = f"trimtab swap --in WETH --out USDC --amount {amount_text}"
    assert mentions(report.verdict, f"{amount_text} WETH were bought and not sold back", "endpoints disagree", "trimtab history", command)


@pytest.mark.parametrize(
    ("failing_swap_number", "is_raised"),
    [
        pytest.param(1, True, id="error after the first swap"),
        pytest.param(1, False, id="first swap brings less than its minimum"),
        pytest.param(2, True, id="error after the return swap"),
    ],
)
def test_mined_swap_whose_cycle_fails__counts_in_the_result(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_swap_number: int, is_raised: bool
) -> None:
    outcomes: list[StepOutcome] = []

    def run_failing_cycle(*arguments: Any) -> StepOutcome:
        outcomes.append(run_cycle(*arguments))
        if len(outcomes) < failing_swap_number:
            return outcomes[-1]
        if is_raised:
            raise Retryable("endpoints disagree")
        return replace(outcomes[-1], kind=OutcomeKind.FAILED, reason="WETH: less than its minimum")

    run_cycle = engine.run_cycle
    monkeypatch.setattr(engine, "run_cycle", run_failing_cycle)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, targets=TARGETS) as agent:
        before = purse(anvil_chain)
        report = rehearsal.rehearse_trade(agent, send=True, confirm=yes)
    after = purse(anvil_chain)
    assert (report.state, len(report.legs), len(outcomes)) == ("failed", failing_swap_number, failing_swap_number)
    assert all(leg.received_raw == leg.predicted_raw > 0 for leg in report.legs)
    assert report.cost < report.legs[0].amount_in_raw // 10, "what was bought counts"
    assert report.predicted_cost > 0
    unsold_raw = after.raw["WETH"] - before.raw["WETH"]
    assert mentions(report.verdict, "endpoints disagree" if is_raised else "less than its minimum")
    if failing_swap_number == 1:
        assert mentions(report.verdict, f"{decimal_text(unsold_raw, 18)} WETH were bought and not sold back")
    else:
        assert unsold_raw == 0
        assert "not sold back" not in report.verdict


def test_allowance_to_a_known_contract__is_shown_and_zeroed(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    at = chain.addresses
    with agent_on(chain, tmp_path, targets=TARGETS) as agent:
        assert revocation.revoke(agent, send=True, confirm=yes).state == "clear"
        allow(chain, "WETH", raw=7)
        for spender in (PERMIT2, at.v2_router, at.position_manager):
            chain.send(chain.token_contract("USDC").functions.approve(spender, 2**256 - 1), chain.wallet.address, gas=100_000)
        agent.context.store.journal.adopt_nonce(purse(chain).nonce, 0)
        report = revocation.revoke(agent, confirm=yes)
        raw_by_allowance = {(allowance.token_label, allowance.spender_role): allowance.raw for allowance in report.allowances}
        most = 2**256 - 1
        assert (report.state, report.transactions) == ("planned", ())
        assert raw_by_allowance == {
            ("WETH", "router"): 7,
            ("USDC", "Permit2"): most,
            ("USDC", "uniswap_v2 router"): most,
            ("USDC", "position manager"): most,
        }
        for tokens in (["WETH"], ["WETH", "weth", "WETH", chain.tokens["WETH"].address]):
            assert [allowance.token_label for allowance in revocation.revoke(agent, tokens, confirm=yes).allowances] == ["WETH"]
        assert revocation.revoke(agent, send=True, confirm=lambda _: False).state == "declined"
        done = revocation.revoke(agent, send=True, confirm=yes)
        assert done.state == "revoked", done.reason
        assert {(transaction.kind, transaction.state) for transaction in done.transactions} == {(IntentKind.APPROVE, IntentState.FINAL)}
        assert revocation.revoke(agent, confirm=yes).state == "clear"
        with raises_field("TOKEN"):
            revocation.revoke(agent, ["DOGE"], confirm=yes)
