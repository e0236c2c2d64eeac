"""SIGKILL around every durable write of a mint, and around its send: restarted, there is one position, and the agent knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState, LpV3Position
from tests.support import lp_on_chain
from tests.support.agents import WalletBalances, fund, purse, reopened_agent, trusted_config
from tests.support.lp_on_chain import EVEN
from tests.support.markets.step_kills import ENDS, StepWorld, every_run
from tests.support.on_chain.lp_actions import V3, config_with_targets
from tests.support.worlds import one_case

LAST_WRITE = 50
"""Nonce adopted; openings, positions, books, their first valuation and prices; step, two approvals in five states each, its end,
both booked, openings, entries, a valuation; step, the mint likewise; a last look. The cycle before each transaction and after each step."""
MOMENTS = ["before:send 3", "after:send 3", *(f"write {number}" for number in (35, 36, 37, 38, 39, 40, 41, 44, LAST_WRITE))]
OFTEN = {"before:send 3", "after:send 3", "write 41"}
"""Around the send, and before the mint is booked; the others are slow."""


@pytest.fixture(scope="module")
def furnished(anvil_session: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepWorld]:
    """The wallet and its store, made once."""
    with one_case(anvil_session):
        fund(anvil_session, {"WETH": 5_000, "USDC": 5_000})
        loaded = trusted_config(anvil_session, tmp_path_factory.mktemp("made"), config_with_targets(anvil_session, V3), EVEN)
        yield StepWorld(anvil_session, loaded, purse(anvil_session))


@pytest.fixture
def world(furnished: StepWorld, tmp_path: Path) -> Iterator[StepWorld]:
    """The same for each case: the chain goes back after it, the store is a copy."""
    with one_case(furnished.chain):
        yield furnished.copied(tmp_path / "case")


def require_exactly_one_position(world: StepWorld) -> None:
    """One token of the manager, known to the store by its number and liquidity; every intent at an end, all gas booked."""
    chain = world.chain
    before = world.before
    after = purse(world.chain)
    wallet = chain.wallet.address
    manager = lp_on_chain.manager(chain)
    assert manager.balanceOf(wallet).call() == 1
    token_id = manager.tokenOfOwnerByIndex(wallet, 0).call()
    with reopened_agent(chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == ()
        assert store.journal.unbooked_intents() == ()
        intents = store.journal.intents()
        [move] = store.positions.changes()
        [position] = agent.step_input().snapshot.positions
        history = store.budgets.history(chain.now_s())
    assert {intent.state for intent in intents} <= ENDS
    mined = [intent for intent in intents if intent.receipt is not None]
    [mint] = [intent for intent in mined if intent.kind is IntentKind.LIQUIDITY]
    assert mint.state is IntentState.FINAL
    assert after.nonce - before.nonce == len(mined)
    assert (move.token_id, move.liquidity_delta) == (token_id, manager.positions(token_id).call()[7])
    assert isinstance(position, LpV3Position)
    assert (position.token_id, position.liquidity) == (token_id, move.liquidity_delta)
    assert balance_changes_of(chain, before, after) == dict(
        zip((move.token0, move.token1), (-raw for raw in move.amounts_raw), strict=True)
    )
    gas_wei = sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
    assert before.native_wei - after.native_wei == gas_wei == history.budgets.gas_24h_wei
    assert history.budgets.turnover_24h == 0
    for symbol in EVEN:
        for spender in (chain.addresses.position_manager, chain.addresses.v2_router, chain.addresses.swap_router_02):
            assert chain.token_contract(symbol).functions.allowance(wallet, spender).call() == 0


def balance_changes_of(chain: LocalChain, before: WalletBalances, after: WalletBalances) -> dict[str, int]:
    """Change of each balance that changed, by address."""
    return {chain.tokens[symbol].address: raw - before.raw[symbol] for symbol, raw in after.raw.items() if raw != before.raw[symbol]}


@pytest.mark.parametrize("moment", every_run(MOMENTS, OFTEN))
def test_mint_killed_anywhere__happens_once_after_a_restart(world: StepWorld, moment: str) -> None:
    assert world.killed(moment), f"{moment} was never reached"
    world.restarted()
    world.restarted()
    require_exactly_one_position(world)


def test_the_moments_cover_a_whole_step(world: StepWorld) -> None:
    """One write more than the last of them is never reached."""
    assert not world.killed(f"write {LAST_WRITE + 1}")
    require_exactly_one_position(world)


def test_a_restart_that_is_killed_too_still_provides_once(world: StepWorld) -> None:
    for moment in ("after:send 3", "write 2", "write 4"):
        world.killed(moment)
    world.restarted()
    world.restarted()
    require_exactly_one_position(world)
