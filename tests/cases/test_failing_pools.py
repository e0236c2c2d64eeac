"""A pool, or an account of ours, that a token refuses: what failed is named and left out, and the rest is done with what works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.money import shutdown
from agent.app.paper import open_paper
from agent.app.start.trust import pin_all
from agent.config.loaded import LoadedConfig
from agent.execution.evaluation import MAX_INEFFECTIVE_APPROVALS
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.world import LiquidityRange
from agent.model import IntentKind, ScreenSubject, TokenFinding
from tests.support.agents import (
    ROOMY,
    agent_config,
    allow,
    allowances,
    fund,
    legs_of,
    off_target,
    purse,
    reopened_agent,
    require_rebalance,
    yes,
)
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import FOUR, replace_token, with_guest
from tests.support.on_chain.refusing_tokens import forgetful_token, refusing_token
from tests.support.samples import slow
from tests.support.text import mentions

TARGETS = {"WETH": "40%", "WBTC": "20%", "USDC": "25%", "USDT": "15%"}
DEEPEST = "v3 WETH/USDC 500"
SECOND = "v3 WETH/USDC 3000"
PAIR = "v2 WETH/USDC"
REVERTS = 1
IS_FALSE = 2
STOP = {"portfolio.assets.0.stop_loss": "2700"}


def pinned(chain: LocalChain, folder: Path, changes: dict[str, object] | None = None) -> LoadedConfig:
    """A config of four tokens whose contracts are pinned as they are now."""
    loaded = agent_config(chain, folder, ROOMY | (changes or {}), TARGETS)
    pin_all(loaded, [chain.transport])
    return loaded


def pools_of(outcome: StepOutcome) -> set[str]:
    return {leg.pool for leg in legs_of(outcome)}


def left_out(outcome: StepOutcome) -> dict[str, str]:
    """Why each pool was left out of the step."""
    pools = {pool.address for pool in outcome.step_input.snapshot.pools}
    return {item.address: item.why for item in outcome.step_input.snapshot.unreadable_items if item.address in pools}


PAYING_FAULTS: dict[str, Callable[[LocalChain, Callable[..., None], str], None]] = {
    "no-money": lambda chain, _, pool: chain.set_balance("USDC", 1, pool),
    "little-money": lambda chain, _, pool: chain.set_balance("USDC", 100 * 10**6, pool),
    "frozen": lambda _, call, pool: call("refuseTransfers", pool, REVERTS, 0),
    "false": lambda _, call, pool: call("refuseTransfers", pool, IS_FALSE, 0),
}


FAULTS = pytest.mark.parametrize("fault", ["no-money", "false", *slow(["little-money", "frozen"])])


def rebalance_beside(chain: LocalChain, folder: Path, name: str, fault: str) -> tuple[str, StepOutcome]:
    """Rebalance while the pool of this name cannot pay; no numeraire is kept for its sake, and nothing is bought above its target."""
    call_usdc = refusing_token(chain, "USDC")
    pool = chain.address_by_pool[name]
    fund(chain, {"WETH": 80_000, "WBTC": 10_000, "USDC": 5_000, "USDT": 5_000})
    PAYING_FAULTS[fault](chain, call_usdc, pool)
    with reopened_agent(chain, pinned(chain, folder)) as agent:
        outcome = require_rebalance(agent)
    assert outcome.step_input.targets.quarantined_tokens == ()
    assert pool not in pools_of(outcome)
    assert max(off_target(chain, TARGETS).values()) < 60
    return pool, outcome


@FAULTS
def test_a_rebalance_names_the_deepest_pool_if_it_cannot_pay(chain: LocalChain, tmp_path: Path, fault: str) -> None:
    pool, outcome = rebalance_beside(chain, tmp_path, DEEPEST, fault)
    assert mentions(left_out(outcome)[pool], "USDC", "the pool")
    assert outcome.plan is not None
    assert any(pool in item.subject and "USDC" in item.why for item in outcome.plan.skipped)


@pytest.mark.slow
@FAULTS
def test_a_rebalance_goes_beside_a_pair_that_cannot_pay(chain: LocalChain, tmp_path: Path, fault: str) -> None:
    rebalance_beside(chain, tmp_path, PAIR, fault)


@pytest.mark.parametrize("how", [REVERTS, *slow([IS_FALSE])])
def test_a_purchase_goes_beside_a_pool_that_cannot_receive(chain: LocalChain, tmp_path: Path, how: int) -> None:
    call_usdc = refusing_token(chain, "USDC")
    pool = chain.address_by_pool[DEEPEST]
    fund(chain, {"WETH": 10_000, "WBTC": 10_000, "USDC": 75_000, "USDT": 5_000})
    call_usdc("refuseTransfers", pool, 0, how)
    with reopened_agent(chain, pinned(chain, tmp_path)) as agent:
        outcome = require_rebalance(agent)
        assert list(left_out(outcome)) == [pool]
        assert pool not in pools_of(outcome)
        assert max(off_target(chain, TARGETS).values()) < 60


def test_an_exit_tries_every_pool_of_the_numeraire(chain: LocalChain, tmp_path: Path) -> None:
    """Two of the three pools of the pair fail, each in its own way: the third sells."""
    call_usdc = refusing_token(chain, "USDC")
    fund(chain, {"WETH": 40_000, "WBTC": 20_000, "USDC": 25_000, "USDT": 15_000})
    loaded = pinned(chain, tmp_path, STOP)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.move_market({"WETH": 2_500})
        chain.set_balance("USDC", 1, chain.address_by_pool[DEEPEST])
        call_usdc("refuseTransfers", chain.address_by_pool[PAIR], IS_FALSE, 0)
        outcome = require_rebalance(agent)
        assert chain.balance("WETH") == 0
        assert not pools_of(outcome) & {chain.address_by_pool[DEEPEST], chain.address_by_pool[PAIR]}


def test_a_stop_names_what_no_pool_pays_and_goes_on_later(chain: LocalChain, tmp_path: Path) -> None:
    """Every pool of the numeraire is frozen: nothing can be sold, the stop says so and goes on once one is free."""
    call_usdc = refusing_token(chain, "USDC")
    fund(chain, {"WETH": 40_000, "WBTC": 20_000, "USDC": 25_000, "USDT": 15_000})
    pools = [pool.address for pool in chain.deployed_world.pool_by_name.values() if "USDC" in (pool.token0.symbol, pool.token1.symbol)]
    for pool in pools:
        call_usdc("refuseTransfers", pool, REVERTS, 0)
    with reopened_agent(chain, pinned(chain, tmp_path)) as agent:
        report = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert report.state == "unfinished", report.reason
        assert mentions(report.unsold_text, "WETH", "WBTC", "USDT")
        assert chain.balance("WETH") > 0
        call_usdc("refuseTransfers", chain.address_by_pool[SECOND], 0, 0)
        call_usdc("refuseTransfers", chain.address_by_pool["v3 WBTC/USDC 3000"], 0, 0)
        report = shutdown.stop(agent, send=True, confirm=lambda _: True)
        assert (report.state, report.unsold_text) == ("stopped", ""), report.reason
        assert [chain.balance(symbol) for symbol in ("WETH", "WBTC", "USDT")] == [0, 0, 0]


def test_a_stop_of_too_many_plans_says_so_and_goes_on_later(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, {"WETH": 40_000, "WBTC": 20_000, "USDC": 25_000, "USDT": 15_000})
    monkeypatch.setattr(shutdown, "MAX_SALES", 1)
    with reopened_agent(chain, pinned(chain, tmp_path)) as agent:
        report = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert report.state == "unfinished", report.reason
        assert mentions(report.reason, "not everything is sold after 1 plans")
        report = shutdown.stop(agent, send=True, confirm=lambda _: True)
        assert (report.state, report.unsold_text) == ("stopped", ""), report.reason


@dataclass(frozen=True)
class RefusedAccount:
    """An account that GUEST refuses as sender or receiver, the wallet's GUEST, and pools added so that the router would receive some."""

    address_of: Callable[[LocalChain], str]
    refusals: tuple[int, int]
    subject: ScreenSubject
    funded_usd: int
    added_pools: tuple[tuple[str, str, int], ...] = ()


ACCOUNTS = {
    "wallet-sends": RefusedAccount(lambda chain: chain.wallet.address, (REVERTS, 0), ScreenSubject.WALLET, 40_000),
    "wallet-sends-false": RefusedAccount(lambda chain: chain.wallet.address, (IS_FALSE, 0), ScreenSubject.WALLET, 40_000),
    "router-receives": RefusedAccount(
        lambda chain: chain.addresses.swap_router_02, (0, REVERTS), ScreenSubject.SPENDER, 0, (("GUEST", "USDC", 500),)
    ),
    "wallet-receives": RefusedAccount(lambda chain: chain.wallet.address, (0, REVERTS), ScreenSubject.WALLET, 0),
}


@pytest.mark.parametrize("who", ["wallet-sends", *slow(["wallet-receives", "wallet-sends-false", "router-receives"])])
def test_a_refused_account_is_named_and_the_others_trade(chain: LocalChain, tmp_path: Path, who: str) -> None:
    account = ACCOUNTS[who]
    address = replace_token(chain, "GUEST", attack("RefusingToken"), "GUEST", "GUEST", 18)
    for pool in account.added_pools:
        chain.provide_liquidity(chain.add_v3_pool(*pool), 9_000_000, (LiquidityRange(None, None, 10_000),))
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": account.funded_usd})
    token = chain.contract(address, attack("RefusingToken"))
    chain.send(token.functions.refuseTransfers(account.address_of(chain), *account.refusals))
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent)
        (screened,) = outcome.step_input.targets.quarantined_tokens
        assert (screened.token, screened.finding, screened.subject) == (address, TokenFinding.BLOCKLISTED, account.subject)
        assert left_out(outcome) == {}
        assert address not in {token for leg in legs_of(outcome) for token in (leg.token_in, leg.token_out)}


def test_a_swap_by_hand_and_paper_go_beside_it_too(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 80_000, "WBTC": 10_000, "USDC": 5_000, "USDT": 5_000})
    pool = chain.address_by_pool[DEEPEST]
    chain.set_balance("USDC", 1, pool)
    loaded = pinned(chain, tmp_path)
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as paper:
        traded = require_rebalance(paper)
        assert pool not in pools_of(traded)
    with reopened_agent(chain, loaded) as agent:
        swapped = agent.swap("WETH", "USDC", "1", send=True, confirm=yes)
        assert swapped.kind is OutcomeKind.DONE, swapped.reason
        assert pool not in pools_of(swapped)


# --- Approvals that a token refuses.


def approved_raw(agent: Agent, outcome: StepOutcome, token: str) -> list[int]:
    """Base units of each approval of the token that was sent."""
    terms = [agent.context.store.journal.grant(intent.id).approval_terms for intent in outcome.transactions]
    return [approval[2] for approval in terms if approval is not None and approval[0] == token]


@pytest.mark.parametrize("zero", [REVERTS, *slow([IS_FALSE])])
def test_a_token_that_refuses_a_reset_is_approved_directly(chain: LocalChain, tmp_path: Path, zero: int) -> None:
    """Five base units are left over: its sale, the rebalance and a stop go on, and none of it stays."""
    call_wbtc = refusing_token(chain, "WBTC")
    fund(chain, {"WETH": 30_000, "WBTC": 40_000, "USDC": 15_000, "USDT": 15_000})
    allow(chain, "WBTC", raw=5)
    call_wbtc("refuseApprovals", zero, 0)
    with reopened_agent(chain, pinned(chain, tmp_path)) as agent:
        outcome = require_rebalance(agent)
        assert outcome.step_input.targets.quarantined_tokens == ()
        assert all(raw > 5 for raw in approved_raw(agent, outcome, chain.tokens["WBTC"].address))
        assert max(off_target(chain, TARGETS).values()) < 60
        assert allowances(chain)["WBTC"] == 0
        allow(chain, "WBTC", raw=5)
        agent.resync_nonce()
        report = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert (report.state, report.unsold_text, report.unrevoked_text) == ("stopped", "", ""), report.reason
        assert (chain.balance("WBTC"), allowances(chain)["WBTC"]) == (0, 0)


@pytest.mark.parametrize("refusals", [(REVERTS, REVERTS), *slow([((IS_FALSE, IS_FALSE),), ((REVERTS, IS_FALSE),)])])
@pytest.mark.parametrize("held_usd", [40_000, *slow([0])], ids=lambda usd: f"held-{usd}")
def test_a_token_that_refuses_approvals_is_left_alone(chain: LocalChain, tmp_path: Path, refusals: tuple[int, int], held_usd: int) -> None:
    address = replace_token(chain, "GUEST", attack("RefusingToken"), "GUEST", "GUEST", 18)
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": held_usd})
    allow(chain, "GUEST", "WETH", raw=5)
    chain.send(chain.contract(address, attack("RefusingToken")).functions.refuseApprovals(*refusals))
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent)
        assert [screened.token for screened in outcome.step_input.targets.quarantined_tokens] == [address]
        assert mentions(outcome.reason, "GUEST", "quarantine", "approve")
        assert allowances(chain)["WETH"] == 0, "one token's refusal keeps no other's allowance open"
        report = shutdown.stop(agent, send=True, confirm=lambda _: True)
        assert report.state == "stopped", report.reason
        assert mentions(report.unrevoked_text, "GUEST")
        assert {intent.kind for intent in report.transactions} <= {IntentKind.APPROVE}


@pytest.mark.parametrize("how", ["ignores", *slow(["halves", "hides", "delays"])])
def test_a_token_that_ignores_approvals_is_left_out(chain: LocalChain, tmp_path: Path, how: str) -> None:
    """It is approved twice, then the others trade; later looks pay nothing for it until its wait is over."""
    forget = forgetful_token(chain, how)
    guest = chain.tokens["GUEST"].address
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, guest)) as agent:
        outcome = require_rebalance(agent)
        assert [item.finding for item in outcome.step_input.targets.quarantined_tokens] == [TokenFinding.APPROVAL_IGNORED]
        assert mentions(outcome.reason, "GUEST", "quarantine", "approvals", "once")
        assert len([raw for raw in approved_raw(agent, outcome, guest) if raw]) == MAX_INEFFECTIVE_APPROVALS
        assert set(allowances(chain).values()) == {0}
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.failures.approval_cycles_in_row == 0, "its approvals stop nothing else"
        before = purse(chain)
        assert agent.rebalance(send=True, confirm=yes).transactions == ()
        assert purse(chain).nonce == before.nonce
        chain.warp(601)
        assert approved_raw(agent, agent.rebalance(send=True, confirm=yes), guest)
        chain.warp(601)
        forget("as usual")
        assert not any(approved_raw(agent, agent.rebalance(send=True, confirm=yes), guest)), "the wait doubles"
        chain.warp(600)
        assert guest in {leg.token_in for leg in legs_of(agent.rebalance(send=True, confirm=yes))}


def test_a_token_that_ignores_approvals_delays_no_stop(chain: LocalChain, tmp_path: Path) -> None:
    """A rebalance left it out a moment ago; the owner's stop tries it at once."""
    forget = forgetful_token(chain, "ignores")
    guest = chain.tokens["GUEST"].address
    fund(chain, {**dict.fromkeys(FOUR, 1_250), "GUEST": 5_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, guest)) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        forget("as usual")
        funded_raw = chain.balance("GUEST")
        report = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert "quarantine" not in report.reason + report.unsold_text
        assert chain.balance("GUEST") < funded_raw, report.reason
