"""Money that came is recognised from the chain, taken for a deposit on its owner's word, and spread over what lacks."""

from __future__ import annotations

from pathlib import Path

from agent.app.money import transfers
from agent.app.money.transfers import InvestmentReport
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import ExternalTransferKind, IntentKind
from tests.support.agents import USD, agent_on, allowances, fund, purse, when_approved, yes
from tests.support.tips import GWEI

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_200, "WBTC": 1_900, "USDC": 2_900}


def test_a_deposit_is_told_and_spread_and_nothing_else_is_sold(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, targets=TARGETS) as agent:
        assert transfers.invest(agent, send=True, confirm=yes).deposits == (), "nothing came yet"
        balances = purse(chain)
        chain.set_balance("USDC", balances.raw["USDC"] + 2_000 * USD)
        looked = transfers.invest(agent, confirm=yes)
        assert looked.outcome is not None
        assert looked.outcome.kind is OutcomeKind.PLANNED
        assert not looked.is_recorded
        assert agent.plan().kind is OutcomeKind.HALT, "until it is told nothing else trades"
        assert transfers.invest(agent, send=True, confirm=lambda _: False).outcome.kind is OutcomeKind.DECLINED  # type: ignore[union-attr]
        assert agent.plan().kind is OutcomeKind.HALT
        done = transfers.invest(agent, send=True, confirm=yes)
        assert done.outcome is not None, done.outcome
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        assert done.is_recorded, done.outcome
        after = purse(chain)
        assert after.raw["WETH"] > balances.raw["WETH"]
        assert after.raw["WBTC"] > balances.raw["WBTC"]
        shares = {drift.symbol: drift.drift_bps for drift in agent.status().decision_result.drifts}
        assert all(abs(off) <= 250 for off in shares.values()), shares
        assert abs(after.raw["USDC"] - 3_600 * USD) < 20 * USD
        assert [flow.kind for flow in agent.context.store.balances.transfers()] == [ExternalTransferKind.DEPOSIT]
        assert agent.plan().kind is OutcomeKind.HOLD


def test_in_kind_excess__is_sold_and_dust_is_a_waiting_deposit(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, targets=TARGETS) as agent:
        agent.status()
        transfers.invest(agent, send=True, confirm=yes)
        balances = purse(chain)
        chain.set_balance("WBTC", balances.raw["WBTC"] + balances.raw["WBTC"] // 2)
        done = transfers.invest(agent, send=True, confirm=yes)
        assert done.outcome is not None, done.outcome
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        sold = {leg.token_in for leg in done.outcome.plan.legs if leg.source.value == "wallet"}  # type: ignore[union-attr]
        assert sold == {chain.tokens["WBTC"].address}
        chain.set_balance("USDC", purse(chain).raw["USDC"] + USD)
        dust = transfers.invest(agent, send=True, confirm=yes)
        assert dust.is_recorded
        assert dust.outcome is not None
        assert dust.outcome.kind is OutcomeKind.HOLD
        assert dust.outcome.transactions == ()
        assert {flow.kind for flow in agent.context.store.balances.transfers()} == {ExternalTransferKind.DEPOSIT}


def test_invest__deposit_is_confirmed_once_if_gas_rises_after_its_approval(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    questions: list[InvestmentReport] = []

    def confirm(report: InvestmentReport) -> bool:
        questions.append(report)
        return True

    def raise_gas_price() -> None:
        chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(40 * GWEI))  # type: ignore[attr-defined]  # anvil
        chain.mine()

    with agent_on(chain, tmp_path, targets=TARGETS) as agent:
        transfers.invest(agent, send=True, confirm=yes)
        chain.set_balance("USDC", chain.balance("USDC") + 600 * USD)
        report = transfers.invest(agent, send=True, confirm=confirm, progress=when_approved(raise_gas_price))
        assert report.outcome is not None
        assert (report.outcome.kind, report.is_recorded, len(questions)) == (OutcomeKind.HOLD, True, 1), report.outcome
        assert {intent.kind for intent in report.outcome.transactions} == {IntentKind.APPROVE}
        assert [flow.kind for flow in agent.context.store.balances.transfers()] == [ExternalTransferKind.DEPOSIT]
        assert set(allowances(chain).values()) == {0}
