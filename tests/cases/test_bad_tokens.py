"""Tokens that harm whoever looks at them, in the portfolio itself: they are named and stop the agent, and blind it to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import codec
from agent.artifacts import own_artifact
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.policy.quarantine import UNREADABLE_WAIT_S
from tests.support.agents import FIVE, fund, purse, reopened_agent, require_rebalance, yes
from tests.support.on_chain.bad_tokens import FOUR, replace_token, with_guest
from tests.support.text import mentions

ESCAPES = "\x1b[31mUSDC\x1b[0m"


@pytest.mark.parametrize("contract", ["GasBurner", "MegabyteToken"])
def test_token_that_burns_gas_or_floods__halts_and_is_named(chain: LocalChain, tmp_path: Path, contract: str) -> None:
    fund(chain, dict.fromkeys(FOUR, 20_000))
    before = purse(chain)
    with reopened_agent(chain, with_guest(chain, tmp_path, replace_token(chain, "GUEST", contract))) as agent:
        outcome = require_rebalance(agent, OutcomeKind.HALT)
        assert mentions(outcome.reason, "GUEST", "quarantine")
        assert outcome.transactions == ()
        snapshot = outcome.step_input.snapshot
        assert {h.token: h.raw for h in snapshot.holdings} == {chain.tokens[s].address: before.raw[s] for s in FOUR}
        others = {p.address for p in chain.deployed_world.pool_by_name.values() if {p.token0.symbol, p.token1.symbol} <= set(FOUR)}
        assert {pool.address for pool in snapshot.pools} >= others
        assert len(snapshot.feeds) == len(FIVE)
        assert chain.w3.eth.get_transaction_count(chain.wallet.address) == before.nonce


def test_token_frozen_for_an_hour__is_left_alone_and_others_trade(chain: LocalChain, tmp_path: Path) -> None:
    """Nobody's token may keep an owner from his exits for good (T10)."""
    fund(chain, {"WETH": 60_000, "USDC": 10_000, "WBTC": 10_000, "DAI": 10_000})
    guest = with_guest(chain, tmp_path, replace_token(chain, "GUEST", "GasBurner"))
    with reopened_agent(chain, guest) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HALT
        chain.warp(UNREADABLE_WAIT_S - 60)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HALT, "not yet an hour"
    chain.warp(120)
    with reopened_agent(chain, guest) as agent:
        outcome = require_rebalance(agent)
        assert mentions(outcome.reason, "GUEST", "quarantine", "balances")
        assert max(abs(bps) for bps in agent.drifts(outcome.input_after or outcome.step_input).values()) < 100
        touched = {token for leg in outcome.plan.legs for token in (leg.token_in, leg.token_out)} if outcome.plan else set()
        assert chain.tokens["GUEST"].address not in touched


@pytest.mark.slow
def test_a_token_whose_symbol_steers_terminals_shows_it_nowhere(chain: LocalChain, tmp_path: Path) -> None:
    """The owner's symbol stands everywhere; what the contract calls itself is neither shown nor stored (T17)."""
    fund(chain, dict.fromkeys(FOUR, 20_000))
    assert isinstance(chain.node, AnvilNode)
    evil = replace_token(chain, "GUEST", "TestToken", "", "", 18)
    name = ESCAPES.encode()
    for slot in ("0x0", "0x1"):  # name and symbol, as Solidity stores short strings
        chain.node.rpc("anvil_setStorageAt", evil, slot, "0x" + (name.ljust(31, b"\0") + bytes([2 * len(name)])).hex())
    assert chain.contract(evil, own_artifact("TestToken")).functions.symbol().call() == ESCAPES
    with reopened_agent(chain, with_guest(chain, tmp_path, evil)) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        assert "GUEST" in outcome.reason
        shown_text = (
            outcome.reason + codec.dumps(outcome.step_input) + str(agent.confirmed_parameters()) + str(agent.weights_at(outcome.step_input))
        )
        assert "\x1b" not in shown_text
        assert "[31m" not in shown_text
    assert b"[31m" not in (tmp_path / "trimtab.db").read_bytes()


@pytest.mark.parametrize("router", ["swap_router_02", pytest.param("rebalancer", marks=pytest.mark.slow)])
def test_token_that_taxes_transfers__never_passes_the_simulation(chain: LocalChain, tmp_path: Path, router: str) -> None:
    """Without the screen: the pools pay less than any quote of theirs says, nothing is sent, and nothing but an approval was."""
    taxed = replace_token(chain, "TAX", "FeeOnTransfer", "TAX", "TAX", 18, 500)
    fund(chain, {**dict.fromkeys(FOUR, 10_000), "TAX": 40_000})
    with reopened_agent(chain, with_guest(chain, tmp_path, taxed, "TAX", router, screen="off")) as agent:
        before = purse(chain)
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "simulation" in outcome.reason
        assert purse(chain).raw == before.raw
