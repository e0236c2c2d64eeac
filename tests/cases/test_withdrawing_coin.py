"""An asset that is the native coin is paid as native coin: what is wrapped is unwrapped for it, and gas money stays."""

from __future__ import annotations

from pathlib import Path

from agent.app.money import shutdown, transfers
from agent.localchain import LocalChain
from agent.model import IntentKind
from tests.support.agents import agent_on, fund, purse
from tests.support.constants import ETHER, HOME
from tests.support.wallets import native_of

TARGETS = {"WETH": "50%", "USDC": "50%"}
COIN = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH", "wallet.payout_addresses": [HOME]}


def test_native_coin__is_unwrapped_and_paid_to_the_wei(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 6_000, "USDC": 9_000})
    chain.set_native(ETHER)
    with agent_on(chain, tmp_path, COIN, TARGETS) as agent:
        before = purse(chain)
        there = native_of(chain, HOME)
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("1.5", "ETH", to=HOME), send=True, confirm=lambda _: True)
        after = purse(chain)
        assert (done.state, [transaction.kind for transaction in done.transactions]) == ("paid", [IntentKind.UNWRAP, IntentKind.PAYOUT]), (
            done.reason
        )
        assert native_of(chain, HOME) - there == 15 * ETHER // 10
        gas = sum(transaction.receipt.gas_cost_wei for transaction in done.transactions if transaction.receipt is not None)
        assert before.native_wei + before.raw["WETH"] - after.native_wei - after.raw["WETH"] == 15 * ETHER // 10 + gas
        assert after.native_wei > ETHER // 20
        assert agent.step_input().history.cash_flows.unexplained_transfers == ()
        assert agent.step_input().history.budgets.turnover_24h == 0
        assert 0 < agent.step_input().history.budgets.loss_24h < 10**6
        end = shutdown.stop(agent, send_to=HOME, send=True, confirm=lambda _: True)
        balances_after = purse(chain)
        assert end.state == "stopped", end.reason
        assert (balances_after.raw["WETH"], balances_after.raw["USDC"]) == (0, 0)
        assert ETHER // 20 < balances_after.native_wei < ETHER // 4
