"""A stop whose token refuses the router only when it is really asked: it stays and is named, and all else is sold in the same step."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import app as api
from agent.app.money import shutdown
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from tests.support.agents import allowances, fund, purse, reopened_agent
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import replace_token
from tests.support.on_chain.stops import FALL, with_stops
from tests.support.text import blocked, mentions


@pytest.mark.slow
def test_token_that_refuses_the_router__leaves_the_other_stop(chain: LocalChain, tmp_path: Path) -> None:
    address = replace_token(chain, "GUEST", attack("BlocklistToken"), "GUEST", "GUEST", 18)
    fund(chain, {"WETH": 30_000, "WBTC": 25_000, "USDC": 20_000, "USDT": 15_000, "GUEST": 10_000})
    asked_tokens: list[tuple[str, ...]] = []

    def yes(outcome: StepOutcome) -> bool:
        asked_tokens.append(outcome.exits_tried)
        return True

    with reopened_agent(chain, with_stops(chain, tmp_path, address)) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is not OutcomeKind.REFUSED
        chain.move_market(FALL)
        token = chain.contract(address, attack("BlocklistToken"))
        router = agent.context.execution.router
        chain.send(token.functions.setBlacklisted(router, True))
        before = purse(chain)
        asked_tokens.clear()
        done = agent.rebalance(send=True, confirm=yes)
        weth = chain.tokens["WETH"].address
        assert asked_tokens == [(), (weth,), (weth, address)], "each exit is confirmed by itself, and the rebalance that follows them"
        assert done.kind is OutcomeKind.DONE
        assert mentions(done.reason, "exits", "WETH")
        assert blocked(done) == [address]
        assert mentions(done.reason, "GUEST", "simulation")
        after = purse(chain)
        assert after.raw["GUEST"] == before.raw["GUEST"]
        assert after.raw["WETH"] * 2_100 < 10 * 10**18
        assert set(allowances(chain).values()) == {0}, "nobody may take anything of what was refused either"
        store = agent.context.store
        (known,) = store.budgets.history(chain.clock.now_s()).failures.submission_refusals
        assert (known.token, known.refusal_count) == (address, 1)
        next_outcome = agent.rebalance(send=True, confirm=yes)
        assert [blocked_exit.token for blocked_exit in next_outcome.decision_result.blocked_exits] == [address], next_outcome.reason
        assert next_outcome.kind is not OutcomeKind.REFUSED, next_outcome.reason
        history = store.budgets.history(chain.clock.now_s())
        assert [submission_refusal.refusal_count for submission_refusal in history.failures.submission_refusals] == [2]
        assert history.failures.approval_cycles_in_row == 0, "its approvals stop nothing else"
        assert ["2 times" in line for line in api.standing_orders(agent)["blocked_exits"]] == [True]
        chain.send(token.functions.setBlacklisted(router, False))
        sold = agent.rebalance(send=True, confirm=yes)
        assert sold.plan is not None
        assert sold.plan.is_exit
        assert chain.balance("GUEST") < before.raw["GUEST"]
        assert store.budgets.history(chain.clock.now_s()).failures.submission_refusals == ()
        chain.send(token.functions.setBlacklisted(router, True))
        chain.move_market(FALL)  # its own first sale has pushed it as far as one may
        balance_after = chain.balance("GUEST")
        ended = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert ended.state == "unfinished"
        assert mentions(ended.reason, "GUEST", "refused")
        assert chain.balance("GUEST") == balance_after
        assert chain.balance("WBTC") < 10**4, "it holds up no other sale"
        assert set(allowances(chain).values()) == {0}
