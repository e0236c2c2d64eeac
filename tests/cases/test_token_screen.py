"""A token with a bad habit in the portfolio: it is named and left as it is, nothing is lost, and the others still trade."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.app.agent import Agent
from agent.app.start.trust import pin_all
from agent.artifacts import own_artifact
from agent.chain.screening.traits import BLOCKS_BACK
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.model import IntentKind, StepInput, TokenFinding
from agent.units import BPS
from tests.support.agents import allowances, at_send, fund, legs_of, loss_usd, purse, reopened_agent, require_rebalance, weights, yes
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import FOUR, replace_token, with_guest
from tests.support.on_chain.screened_tokens import listed_token
from tests.support.samples import slow
from tests.support.text import mentions

OTHERS = {symbol: int(share.rstrip("%")) for symbol, share in FOUR.items()}


def shut_out(agent: Agent, outcome: StepOutcome, finding: TokenFinding) -> None:
    """The guest alone is in quarantine, by name; the legs do not touch it; the step as written down says so too."""
    guest = agent.token("GUEST", "")
    (quarantined_token,) = outcome.step_input.targets.quarantined_tokens
    assert (quarantined_token.token, quarantined_token.finding) == (guest.address, finding), quarantined_token
    assert mentions(outcome.reason, "GUEST", "quarantine", f"{finding.description}")
    assert finding.remedy
    assert guest.address not in {token for leg in legs_of(outcome) for token in (leg.token_in, leg.token_out)}
    record = agent.context.store.steps.get(outcome.step_id)
    assert record is not None
    assert codec.loads(StepInput, record.input_json).targets.quarantined_tokens == (quarantined_token,)


def others_stand(chain: LocalChain) -> None:
    """Those that may be traded stand to each other as their targets say."""
    chosen_weights = weights(chain, FOUR)
    for symbol, share in OTHERS.items():
        assert abs(chosen_weights[symbol] - Fraction(share * BPS, sum(OTHERS.values()))) < 40, symbol


def rebalanced_without(chain: LocalChain, folder: Path, address: str, finding: TokenFinding, usd: int = 40_000) -> str:
    """One whole step of the agent with a guest of that habit; the reason it gives."""
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": usd})
    before = purse(chain)
    prices = dict(chain.deployed_world.prices_usd)
    with reopened_agent(chain, with_guest(chain, folder, address)) as agent:
        outcome = require_rebalance(agent)
        shut_out(agent, outcome, finding)
        others_stand(chain)
        assert purse(chain).raw["GUEST"] == before.raw["GUEST"]
        assert loss_usd(chain, before, prices) < 200
        again_now = agent.rebalance(send=True, confirm=yes)
        assert again_now.transactions == (), "the others stand as they should: nothing more is traded for the guest's sake"
        return outcome.reason


EXTRA = 12_345_678_901_234_567
"""An index of 1.2 % more: shares and balances round differently."""
HABITS: dict[str, tuple[str, tuple[tuple[object, ...], ...], TokenFinding]] = {
    "false": ("FalseToken", (), TokenFinding.FALSE_RETURNING),
    "paused": ("PausableToken", (("setPaused", True),), TokenFinding.PAUSED),
    "callback": ("CallbackToken", (), TokenFinding.CALLBACK),
    "rebasing": ("RebasingToken", (("setExtra", EXTRA),), TokenFinding.REBASING),
}


@pytest.mark.parametrize("habit", ["false", *slow(["callback", "rebasing", "paused"])])
def test_bad_token__is_left_alone_and_the_others_trade(anvil_chain: LocalChain, tmp_path: Path, habit: str) -> None:
    contract, calls, finding = HABITS[habit]
    address, tell = listed_token(anvil_chain, contract)
    for name, *arguments in calls:
        tell(str(name), *arguments)
    rebalanced_without(anvil_chain, tmp_path, address, finding)


def test_taxing_token__is_left_alone_and_the_others_trade(anvil_chain: LocalChain, tmp_path: Path) -> None:
    address = replace_token(anvil_chain, "GUEST", "FeeOnTransfer", "GUEST", "GUEST", 18, 500)
    assert "500 bps less" in rebalanced_without(anvil_chain, tmp_path, address, TokenFinding.FEE_ON_TRANSFER)


@pytest.mark.parametrize("who", ["wallet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("router", "pool"))])
@pytest.mark.slow
def test_a_token_that_shuts_one_of_ours_out_says_whom(chain: LocalChain, tmp_path: Path, who: str) -> None:
    address, tell = listed_token(chain, "BlocklistToken")
    pool = next(pool.address for pool in chain.deployed_world.pool_by_name.values() if "GUEST" in (pool.token0.symbol, pool.token1.symbol))
    at = {"wallet": chain.wallet.address, "router": chain.addresses.swap_router_02, "pool": pool}[who]
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    tell("setBlacklisted", at, True)
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent)
        shut_out(agent, outcome, TokenFinding.BLOCKLISTED)
        assert mentions(outcome.reason, f"{'pool ' + pool if who == 'pool' else 'the ' + who} is on")
        others_stand(chain)
        tell("setBlacklisted", at, False)
        healed = require_rebalance(agent)
        assert healed.step_input.targets.quarantined_tokens == (), "what is tried out again and moves is traded again"


def test_token_stopped_after_confirmation__makes_no_other_plan(chain: LocalChain, tmp_path: Path) -> None:
    """Whoever can stop a token must not have the others traded by a plan that its owner never saw."""
    address, tell = listed_token(chain, "PausableToken")
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent, OutcomeKind.REFUSED, progress=at_send(1, lambda: tell("setPaused", True)))
        assert mentions(outcome.reason, "GUEST", "quarantine")
        assert {intent.kind for intent in outcome.transactions} == {IntentKind.APPROVE}
        assert set(allowances(chain).values()) == {0}
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE, "the next step tells of it, and asks"


@pytest.mark.slow
def test_token_sold_in_crumbs_only__is_never_bought(chain: LocalChain, tmp_path: Path) -> None:
    """What a pool pays out goes, and one whole coin goes back: only the amount of the plan shows the trap."""
    address, tell = listed_token(chain, "HoneypotToken")
    pool = next(pool.address for pool in chain.deployed_world.pool_by_name.values() if "GUEST" in (pool.token0.symbol, pool.token1.symbol))
    tell("close", pool, 10**18)
    rebalanced_without(chain, tmp_path, address, TokenFinding.HONEYPOT, usd=0)
    assert chain.balance("GUEST") == 0


def test_balance_changed_without_a_transfer__betrays_a_token(chain: LocalChain, tmp_path: Path) -> None:
    """Its index doubled: single transfers are exact, balances between blocks are not."""
    address, tell = listed_token(chain, "RebasingToken")
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 0})
    chain.set_balance("GUEST", 2000 * 10**18)
    assert isinstance(chain.node, AnvilNode)
    chain.node.rpc("anvil_mine", hex(BLOCKS_BACK))
    tell("setExtra", 10**18)
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent)
        shut_out(agent, outcome, TokenFinding.REBASING)
        assert f"{2000 * 10**18} base" in outcome.reason


def test_a_token_that_returns_nothing_is_traded(chain: LocalChain, tmp_path: Path) -> None:
    address = replace_token(chain, "GUEST", "TetherLike", "GUEST", "GUEST", 18)
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        outcome = require_rebalance(agent)
        assert outcome.step_input.targets.quarantined_tokens == ()
        assert any(leg.token_in == address for leg in legs_of(outcome))


def test_manual_swap_of_such_a_token__is_refused_by_name(chain: LocalChain, tmp_path: Path) -> None:
    address, tell = listed_token(chain, "PausableToken")
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 10_000})
    tell("setPaused", True)
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        refused = agent.swap("GUEST", "USDC", "100", send=True, confirm=yes)
        assert refused.kind is OutcomeKind.REFUSED
        assert mentions(refused.reason, "GUEST", "quarantine", "paused()")
        assert [verdict.guard for verdict in refused.refusal_verdicts if not verdict.passed] == ["token_screen"]
        assert agent.swap("USDC", "WETH", "200", send=True, confirm=yes).kind is OutcomeKind.DONE


SLOTS = {
    "eip1967": "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc",
    "eip1822": "0xc5f16f0fcc639fa48a6947836d9850f504798523bf8c9a3a87d5876cf622bcf7",
    "zeppelinos": "0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3",
    "beacon": "0xa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6cb3582b35133d50",
}


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("eip1967", "eip1822", "zeppelinos")), "beacon"])
def test_a_token_whose_implementation_changed_waits_for_trust(chain: LocalChain, tmp_path: Path, kind: str) -> None:
    """The new one is the old one's twin: nothing but the pin tells them apart."""
    assert isinstance(chain.node, AnvilNode)
    first, second = (chain.deploy(own_artifact("TestToken"), "GUEST", "GUEST", 18) for _ in range(2))
    beacon = chain.deploy(attack("TokenBeacon"), first) if kind == "beacon" else None
    address = replace_token(chain, "GUEST", "TestToken", "GUEST", "GUEST", 18)
    proxy = chain.deploy(attack("TokenProxy"), bytes.fromhex(SLOTS[kind][2:]), beacon is not None, beacon or first)
    chain.node.rpc("anvil_setCode", address, chain.node.rpc("eth_getCode", proxy, "latest"))
    chain.node.rpc("anvil_setStorageAt", address, SLOTS[kind], "0x" + (beacon or first)[2:].rjust(64, "0"))
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    loaded = with_guest(chain, tmp_path, address)
    with reopened_agent(chain, loaded) as agent:
        assert agent.plan().step_input.targets.quarantined_tokens == ()
        if beacon is None:
            chain.node.rpc("anvil_setStorageAt", address, SLOTS[kind], "0x" + second[2:].rjust(64, "0"))
        else:
            chain.send(chain.contract(beacon, attack("TokenBeacon")).functions.upgradeTo(second))
        chain.node.mine_at(chain.now_s() + 1)
        outcome = require_rebalance(agent)
        shut_out(agent, outcome, TokenFinding.IMPLEMENTATION_CHANGED)
        assert f"{second} instead of {first}" in outcome.reason
        others_stand(chain)
    document = pin_all(loaded, [chain.transport])
    (row,) = [row for row in document["contracts"] if row["role"] == "implementation of GUEST"]
    assert (row["address"], row["state"]) == (second, "CHANGED")
    with reopened_agent(chain, loaded) as agent:
        assert agent.plan().step_input.targets.quarantined_tokens == ()


def test_a_token_whose_code_changed_waits_for_trust(chain: LocalChain, tmp_path: Path) -> None:
    assert isinstance(chain.node, AnvilNode)
    address = replace_token(chain, "GUEST", "TestToken", "GUEST", "GUEST", 18)
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "GUEST": 40_000})
    loaded = with_guest(chain, tmp_path, address)
    other = chain.deploy(own_artifact("TetherLike"), "GUEST", "GUEST", 18)
    chain.node.rpc("anvil_setCode", address, chain.node.rpc("eth_getCode", other, "latest"))
    chain.node.mine_at(chain.now_s() + 1)
    with reopened_agent(chain, loaded) as agent:
        outcome = require_rebalance(agent)
        shut_out(agent, outcome, TokenFinding.CODE_CHANGED)
        others_stand(chain)
