"""Whole steps of a wallet that also provides liquidity: what counts, what strangers cannot change, what stops a plan."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.positions.holdings import LiquidityReport, read_liquidity_report
from agent.app.start.doctor.checks import doctor
from agent.artifacts import npm_artifact
from agent.chain.pools import own_positions
from agent.errors import ConfigError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.localchain import LocalChain
from agent.localchain.chain import V2_FACTORY_ARTIFACT
from agent.model import Halt, IntentKind
from agent.policy.drift import investable_total
from tests.support import agents, lp_on_chain
from tests.support.agents import FIVE, USD, require_exact_rebalance
from tests.support.lp_worlds import redeemable_amounts
from tests.support.on_chain.liquidity import OTHER, V2, V3, config_with_positions, table
from tests.support.text import mentions


def value(agent: Agent) -> Fraction:
    """The portfolio's total in dollars."""
    return investable_total(agent.status().decision_result.drifts) / USD


def share(liquidity_report: LiquidityReport) -> Fraction:
    """Expected loss per unit of the portfolio."""
    assert liquidity_report.expected_loss.share is not None
    return liquidity_report.expected_loss.share


def test_weights_count_what_burn_and_collect_would_pay(chain: LocalChain, tmp_path: Path) -> None:
    own = [
        lp_on_chain.provide_v2(chain, V2, 3_000),
        lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500),
        lp_on_chain.provide_v3(chain, OTHER, 5, 20, 900),
    ]
    chain.swap(V3, "USDC", 900_000 * USD)
    chain.swap(V3, "WETH", 300 * 10**18)
    paid: dict[str, int] = {}
    for position in lp_on_chain.look(chain, lp_on_chain.refs(chain, own)).positions:
        for token, raw in zip((position.token0, position.token1), redeemable_amounts(position), strict=True):
            paid[token] = paid.get(token, 0) + raw
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own)) as agent:
        status = agent.status()
        drifts = status.decision_result.drifts
        assert status.step_input.snapshot.http_request_count == 2
        assert status.warnings == ()
    for drift in drifts:
        assert drift.raw == chain.balance(drift.symbol)
        # Every pool is within a hundredth of a percent of the reference price, and a range of 36 % holds what follows from that.
        assert drift.raw_at(POSITIONS_PLACE) == pytest.approx(paid.get(drift.token, 0), rel=5e-3)
    assert investable_total(drifts) / USD == pytest.approx(
        10_000 + sum(paid.get(d.token, 0) * float(d.price) / USD for d in drifts), rel=1e-4
    )


def test_strangers_tokens__change_no_total_and_are_ignored(chain: LocalChain, tmp_path: Path) -> None:
    """T11: LP tokens, tokens of the position manager, unknown coins, gifts to our own pair and pool."""
    own = [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)]
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own)) as agent:
        before = agent.status().decision_result
        loss = share(read_liquidity_report(agent))
        pair = lp_on_chain.provide_v2(chain, "v2 WBTC/WETH", 500_000)
        token = lp_on_chain.provide_v3(chain, V3, -50, 50, 500_000)
        usdc = chain.token_contract("USDC").functions
        scam = chain.add_token("FREEUSD", 18, 1)
        chain.send(chain.token_contract(scam.symbol).functions.transfer(chain.wallet.address, 10**24))
        for pool in (V2, V3):
            chain.send(usdc.transfer(chain.address_by_pool[pool], 10**12))
        after = agent.status().decision_result
        liquidity_report = read_liquidity_report(agent)
    assert investable_total(after.drifts) == investable_total(before.drifts)
    assert [d.weight_bps for d in after.drifts] == [d.weight_bps for d in before.drifts]
    assert after.decision == before.decision
    assert share(liquidity_report) == loss
    assert {stray.name for stray in liquidity_report.unsolicited_positions.positions} == {pair.name, token.name}
    assert [report.confirmed.name for report in liquidity_report.position_reports] == [position.name for position in own]


def test_thousands_of_tokens__are_counted_and_the_newest_read(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_positions, "MAX_CHECKED_TOKENS", 2)
    sent = [lp_on_chain.provide_v3(anvil_chain, V3, -n, n, 10) for n in (1, 2, 3, 4, 5)]
    with agents.agent_on(anvil_chain, tmp_path) as agent:
        liquidity_report = read_liquidity_report(agent)
    assert [stray.name for stray in liquidity_report.unsolicited_positions.positions] == [token_id.name for token_id in sent[-2:]]
    assert liquidity_report.unsolicited_positions.unchecked_count == 3


def test_a_pushed_pool_moves_no_weight_and_fires_no_budget(chain: LocalChain, tmp_path: Path) -> None:
    """T3: both of our pools are pushed by 5 % and more; a withdrawal would pay something else, the portfolio is the same."""
    own = [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)]
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own)) as agent:
        before = agent.status().decision_result
        calm = read_liquidity_report(agent)
        chain.swap(V2, "USDC", 1_000_000 * USD)
        chain.swap(V3, "USDC", 6_000_000 * USD)
        after = agent.status().decision_result
        pushed = read_liquidity_report(agent)
    for quiet, moved in zip(calm.position_reports, pushed.position_reports, strict=True):
        assert quiet.pool_deviation is not None
        assert moved.pool_deviation is not None
        assert quiet.pool_deviation < Fraction(1, 1_000) < Fraction(1, 20) < moved.pool_deviation
        assert moved.redeemable_raw != quiet.redeemable_raw
        assert quiet.value <= moved.value <= quiet.value * Fraction(101, 100), "all that a push leaves is its fees"
    assert [d.is_outside_band for d in after.drifts] == [d.is_outside_band for d in before.drifts]
    for quiet_drift, moved_drift in zip(before.drifts, after.drifts, strict=True):
        assert abs(quiet_drift.weight_bps - moved_drift.weight_bps) <= 3
    assert share(pushed) == pytest.approx(share(calm), rel=2e-3)


def test_rebalance__brings_wallet_and_positions_on_target(chain: LocalChain, tmp_path: Path) -> None:
    own = [lp_on_chain.provide_v2(chain, V2, 2_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 800)]
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own)) as agent:
        confirmed_parameters = agent.confirmed_parameters()
        assert confirmed_parameters["liquidity positions"] == ", ".join(position.name for position in own)
        assert mentions(confirmed_parameters["lp"], "60 %", "30 days")
        assert confirmed_parameters["lp_max_weight"] == "90 %"
        outcome = require_exact_rebalance(chain, agent)
        assert outcome.input_after is not None
        reached = agent.weights_at(outcome.input_after)
    assert outcome.plan is not None
    assert {v.guard for v in outcome.plan.verdicts if not v.passed} == set()
    # By the prices before the trade, which the plan's own swaps do not move; our own fees from it are not foreseen.
    assert all(abs(reached[symbol] - int(Fraction(target.rstrip("%")) * 100)) <= 2 for symbol, target in FIVE.items())


@pytest.mark.parametrize(
    ("limit", "guard"), [({"limits.lp_max_weight": "10%"}, "lp_max_weight"), ({"limits.impermanent_loss": "1bps"}, "impermanent_loss")]
)
def test_swap_beside_too_much_liquidity__is_refused_by_name(
    anvil_chain: LocalChain, tmp_path: Path, limit: dict[str, object], guard: str
) -> None:
    own = [lp_on_chain.provide_v2(anvil_chain, V2, 4_000)]
    with agents.agent_on(anvil_chain, tmp_path, config_with_positions(anvil_chain, own, **limit)) as agent:
        swap = agent.swap("WETH", "USDC", "0.1")
        plan = agent.plan()
    assert swap.kind is OutcomeKind.REFUSED
    assert [verdict.guard for verdict in agents.failed_verdicts(swap)] == [guard]
    assert plan.kind is OutcomeKind.PLANNED, plan.reason
    assert plan.plan is not None
    assert plan.plan.legs == ()
    assert [action.name for action in plan.plan.layer_actions] == [own[0].name]


def test_gift_during_an_approval__moves_no_unconfirmed_liquidity(chain: LocalChain, tmp_path: Path) -> None:
    """A stranger's LP tokens raise liquidity above its limit after the owner said yes to a swap: he is asked anew for what goes then."""
    own = [lp_on_chain.provide_v2(chain, V2, 4_000)]
    agents.fund(chain, {"WETH": 40_000, "USDC": 20_000})
    outcomes: list[tuple[int, int]] = []

    def confirm(outcome: StepOutcome) -> bool:
        assert outcome.plan is not None
        outcomes.append((len(outcome.plan.legs), len(outcome.plan.layer_actions)))
        return True

    limited = config_with_positions(chain, own, **{"limits.lp_max_weight": "10%"})
    with agents.agent_on(chain, tmp_path, limited, {"WETH": "50%", "USDC": "50%"}) as agent:
        first = agent.rebalance(send=True, confirm=confirm, progress=agents.at_send(1, lambda: lp_on_chain.provide_v2(chain, V2, 20_000)))
        assert first.kind is OutcomeKind.REFUSED, first.reason
        assert mentions(first.reason, "liquidity", "confirmed")
        assert {intent.kind for intent in first.transactions} == {IntentKind.APPROVE}
        assert set(agents.allowances(chain).values()) == {0}
        agent.rebalance(send=True, confirm=confirm)
    assert [actions for _, actions in outcomes] == [0, 1]


def test_a_position_that_was_given_away_stops_everything_by_name(chain: LocalChain, tmp_path: Path) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    loaded = agents.trusted_config(chain, tmp_path, config_with_positions(chain, [own]))
    with agents.reopened_agent(chain, loaded) as agent:
        assert not isinstance(agent.status().decision_result.decision, Halt)
        move = lp_on_chain.manager(chain).transferFrom(chain.wallet.address, chain.whale.address, own.token_id)
        chain.send(move, chain.wallet.address)
        decision = agent.status().decision_result.decision
        liquidity_report = read_liquidity_report(agent)
        assert isinstance(decision, Halt)
        assert mentions(decision.reason, f"{own.name}", "belongs", f"{chain.whale.address}")
        assert agent.plan().kind is OutcomeKind.HALT
    assert liquidity_report.position_reports == ()
    assert f"belongs to {chain.whale.address}" in liquidity_report.unreadable[0]
    assert (liquidity_report.portfolio_value, liquidity_report.weight.is_within_limit) == (None, None)
    rows = {row["check"]: row for row in doctor(loaded, [chain.transport], chain.clock.now_s)["checks"]}
    assert rows[f"position {own.name}"]["state"] == "fail"
    assert chain.whale.address in rows[f"position {own.name}"]["finding"]


def test_a_burned_position_is_told_and_the_rest_goes_on(chain: LocalChain, tmp_path: Path) -> None:
    own = [lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500), lp_on_chain.provide_v2(chain, V2, 2_000)]
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own)) as agent:
        whole = value(agent)
        lp_on_chain.take_out(chain, own[0])
        chain.send(lp_on_chain.manager(chain).burn(own[0].token_id), chain.wallet.address)
        status = agent.status()
        assert len(status.warnings) == 1
        assert mentions(status.warnings[0], own[0].name, "not exist", "portfolio.positions")
        assert not isinstance(status.decision_result.decision, Halt)
        assert value(agent) == pytest.approx(whole, rel=1e-4), "what was taken out is in the wallet now"
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, config_with_positions(chain, own))) as agent:
        assert value(agent) == pytest.approx(whole, rel=1e-4), "and a new start finds the same"


def test_a_new_position_manager_is_trusted_first(chain: LocalChain, tmp_path: Path) -> None:
    agents.trusted_config(chain, tmp_path)
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, config_with_positions(chain, [own]))) as agent:
        outcome = agent.plan()
    assert outcome.kind is OutcomeKind.REFUSED
    assert mentions(outcome.reason, f"{chain.addresses.position_manager}", "not pinned")


def test_misdescribed_position__is_refused_by_name(chain: LocalChain, tmp_path: Path) -> None:
    token = table(chain, lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500))
    pair = table(chain, lp_on_chain.provide_v2(chain, V2, 1_000))
    foreign = chain.deploy(npm_artifact(V2_FACTORY_ARTIFACT), chain.whale.address)
    factory = chain.contract(foreign, npm_artifact(V2_FACTORY_ARTIFACT)).functions
    tokens = chain.tokens["WETH"].address, chain.tokens["USDC"].address
    chain.send(factory.createPair(*tokens), gas=5_000_000)
    trap = factory.getPair(*tokens).call()
    manager = "venues.uniswap_v3.position_manager"
    wrong: list[tuple[dict[str, object], dict[str, object], str]] = [
        ({**token, "entry": {"WETH": "1", "LINK": "1"}}, {}, "its entry names"),
        ({**pair, "entry": {"WETH": "1", "LINK": "1"}}, {}, "its entry names"),
        ({**pair, "pair": chain.tokens["USDC"].address}, {}, "is it a Uniswap V2 pair"),
        ({**pair, "pair": chain.wallet.address}, {}, "no contract"),
        ({**pair, "pair": trap}, {}, "was not created by the factory"),
        (token, {manager: chain.addresses.swap_router_02}, "not a position manager"),
        (token, {manager: chain.tokens["USDC"].address}, "not a position manager"),
        (token, {manager: chain.wallet.address}, "not a position manager"),
    ]
    for position, changes, reason in wrong:
        loaded = agents.agent_config(chain, tmp_path, {"portfolio.positions": [position], "limits.lp_max_weight": "90%", **changes})
        with pytest.raises(ConfigError, match=reason), agents.reopened_agent(chain, loaded):
            pass
