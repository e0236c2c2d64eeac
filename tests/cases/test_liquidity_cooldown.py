"""The cooldown and liquidity: a step ends what it began, the next one rests, and an exit never waits."""

from __future__ import annotations

from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support import agents, lp_on_chain
from tests.support.agents import require_rebalance
from tests.support.on_chain.liquidity import V3, config_with_positions
from tests.support.on_chain.lp_actions import config_with_targets

EVEN = {"WETH": "50%", "USDC": "50%"}
HOUR = {"policy.cooldown": "1h"}


def kinds(outcome: object) -> list[str]:
    return [intent.kind.value for intent in outcome.transactions]  # type: ignore[attr-defined]  # an Outcome


def test_range__is_re_centred_in_one_step_and_then_rests(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, 20, 40, 1_500)
    with agents.agent_on(chain, tmp_path, {**config_with_targets(chain, V3, [own]), **HOUR}, EVEN) as agent:
        outcome = require_rebalance(agent)
        assert kinds(outcome) == ["liquidity", "approve", "approve", "liquidity"]
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ())
        chain.swap(V3, "USDC", 10**9)
    wants = config_with_targets(chain, V3, [own], share="40%")
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, {**wants, **HOUR}, EVEN)) as agent:
        resting = agent.rebalance(send=True, confirm=agents.yes)
        assert (resting.kind, resting.transactions) == (OutcomeKind.HOLD, ())
        assert "cooldown" in resting.reason


def test_an_exit_waits_for_no_cooldown_and_the_swaps_after_it_do(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 9_000, "USDC": 1_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    with agents.agent_on(chain, tmp_path, {**config_with_positions(chain, [own]), **HOUR}, EVEN) as agent:
        assert kinds(agent.rebalance(send=True, confirm=agents.yes))[-1] == "swap"
    agents.fund(chain, {"WETH": 9_000, "USDC": 1_000})
    tight = {**config_with_positions(chain, [own], **{"limits.lp_max_weight": "5%"}), **HOUR}
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, tight, EVEN)) as agent:
        agents.explain_balances(agent)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert kinds(outcome) == ["liquidity"], outcome.reason
        assert "cooldown" in outcome.reason


def test_swaps__follow_an_exit_once_the_last_rebalance_is_old(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 9_000, "USDC": 1_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    tight = {**config_with_positions(chain, [own], **{"limits.lp_max_weight": "5%"}), **HOUR}
    with agents.agent_on(chain, tmp_path, tight, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert [kinds(outcome)[0], kinds(outcome)[-1]] == ["liquidity", "swap"], outcome.reason


def test_gas_price_above_its_limit__keeps_liquidity_where_it_is(chain: LocalChain, tmp_path: Path) -> None:
    """docs/liquidity.md: a withdrawal waits for no cooldown and no size, but for gas."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    dear = config_with_positions(chain, [own], **{"limits.lp_max_weight": "5%", "limits.gas_price": "0.000001 gwei"})
    with agents.agent_on(chain, tmp_path, dear, EVEN) as agent:
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert [verdict.guard for verdict in agents.failed_verdicts(outcome)] == ["gas_price"]
        assert outcome.transactions == ()
    cheap = config_with_positions(chain, [own], **{"limits.lp_max_weight": "5%"})
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, cheap, EVEN)) as agent:
        assert kinds(agent.rebalance(send=True, confirm=agents.yes))[0] == "liquidity"
