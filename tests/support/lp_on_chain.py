"""Real positions on the embedded chains: minted for the wallet by the whale, read by the agent's reader, withdrawn by the contracts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from web3.logs import DISCARD

from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.chain.pools import positions as chain_positions
from agent.chain.pools.positions import PositionRef
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain, LocalPool
from agent.localchain.chain import POSITION_MANAGER_ARTIFACT, V2_FACTORY_ARTIFACT, V2_PAIR_ARTIFACT, V2_ROUTER_ARTIFACT
from agent.localchain.contracts import FAR_FUTURE_S
from agent.model import Collect, ConfirmedPosition, IntentState, LpAction, LpPosition, Provide, Snapshot, Withdraw
from tests.support import agents
from tests.support.constants import MONTH_S

UINT128_MAX = 2**128 - 1


def manager(chain: LocalChain) -> Any:
    """Return the functions of the position manager."""
    return chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER_ARTIFACT)).functions


def pair_of(chain: LocalChain, pool: str) -> Any:
    """Return the functions of a V2 pair."""
    return chain.contract(chain.address_by_pool[pool], npm_artifact(V2_PAIR_ARTIFACT)).functions


def provide_v2(chain: LocalChain, pool: str, usd: int, owner: str | None = None) -> ConfirmedPosition:
    """Provide about this value of LP tokens to the wallet (or `owner`), paid by the whale; return the confirmed position."""
    info = chain.deployed_world.pool_by_name[pool]
    amounts = [int(usd / 2 / chain.deployed_world.prices_usd[t.symbol] * 10**t.decimals) for t in (info.token0, info.token1)]
    router = chain.contract(chain.addresses.v2_router, npm_artifact(V2_ROUTER_ARTIFACT)).functions
    to = owner or chain.wallet.address
    chain.send(router.addLiquidity(info.token0.address, info.token1.address, *amounts, 0, 0, to, FAR_FUTURE_S))
    return confirmed_position(info, info.address, None, (amounts[0], amounts[1]))


def provide_v3(
    chain: LocalChain, pool: str, lower: int, upper: int, usd: int, owner: str | None = None, around: int | None = None
) -> ConfirmedPosition:
    """Mint a V3 position for the wallet (or `owner`) with up to this value of each token, paid by the whale. `lower` and `upper` are tick
    spacings from the price (or from the tick `around`).
    """
    info = chain.deployed_world.pool_by_name[pool]
    spacing = {100: 1, 500: 10, 3_000: 60, 10_000: 200}[info.fee_pips]
    near = (tick(chain, pool) if around is None else around) // spacing
    ends = ((near + lower) * spacing, (near + upper) * spacing)
    amounts = [int(usd / chain.deployed_world.prices_usd[t.symbol] * 10**t.decimals) for t in (info.token0, info.token1)]
    to = owner or chain.wallet.address
    mint = (info.token0.address, info.token1.address, info.fee_pips, *ends, *amounts, 0, 0, to, FAR_FUTURE_S)
    receipt = chain.w3.eth.get_transaction_receipt(chain.send(manager(chain).mint(mint)))
    [used] = (
        chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER_ARTIFACT))
        .events.IncreaseLiquidity()
        .process_receipt(receipt, DISCARD)
    )
    token_id = used["args"]["tokenId"]
    entry = (used["args"]["amount0"], used["args"]["amount1"])
    return confirmed_position(info, chain.addresses.position_manager, token_id, entry)


def confirmed_position(info: LocalPool, contract: str, token_id: int | None, entry_raw: tuple[int, int]) -> ConfirmedPosition:
    """Return a position as the owner confirms it in the config."""
    venue = f"uniswap_v{info.version}"
    return ConfirmedPosition(venue, contract, token_id, info.token0.address, info.token1.address, entry_raw, None, 6_000, MONTH_S)


def tick(chain: LocalChain, pool: str) -> int:
    """Return the tick of a V3 pool."""
    from tests.support.worlds import pool_contract

    return int(pool_contract(chain, chain.deployed_world.pool_by_name[pool]).functions.slot0().call()[1])


def refs(chain: LocalChain, own: Sequence[ConfirmedPosition]) -> tuple[PositionRef, ...]:
    """Resolve the positions on the chain."""
    at = chain.addresses
    return chain_positions.resolve_positions(chain.transport, own, {"uniswap_v2": at.v2_factory, "uniswap_v3": at.v3_factory})


def look(chain: LocalChain, position_refs: Sequence[PositionRef], owner: str | None = None) -> Snapshot:
    """Return a snapshot of these positions only."""
    watch = SnapshotScope(owner or chain.wallet.address, (), (), (), (), (), 0, 100, tuple(position_refs))
    return ChainReader((chain.transport,), chain.chain_id, watch, chain.clock, 1).snapshot()


def read(chain: LocalChain, own: ConfirmedPosition) -> LpPosition:
    """Read one position, which must be readable."""
    snapshot = look(chain, refs(chain, [own]))
    assert snapshot.unreadable_items == ()
    assert snapshot.http_request_count == 2
    [position] = snapshot.positions
    return position


def set_fee_to(chain: LocalChain, recipient: str) -> None:
    """Switch the V2 protocol fee on, or off for the zero address."""
    chain.send(chain.contract(chain.addresses.v2_factory, npm_artifact(V2_FACTORY_ARTIFACT)).functions.setFeeTo(recipient))


def balances(chain: LocalChain, own: ConfirmedPosition) -> tuple[int, int]:
    """Return the wallet's base units of the position's two tokens."""
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    return chain.balance(symbols[own.token0]), chain.balance(symbols[own.token1])


def take_out(chain: LocalChain, own: ConfirmedPosition) -> tuple[int, int]:
    """Withdraw everything through the contracts (burn, or decreaseLiquidity and collect), and return the base units paid."""
    before = balances(chain, own)
    wallet = chain.wallet.address
    if own.token_id is None:
        pair = chain.contract(own.contract, npm_artifact(V2_PAIR_ARTIFACT)).functions
        chain.send(pair.transfer(own.contract, pair.balanceOf(wallet).call()), wallet)
        chain.send(pair.burn(wallet), wallet)
    else:
        liquidity = manager(chain).positions(own.token_id).call()[7]
        if liquidity:
            decrease(chain, own.token_id, liquidity)
        collect(chain, own.token_id)
    after = balances(chain, own)
    return after[0] - before[0], after[1] - before[1]


def decrease(chain: LocalChain, token_id: int, liquidity: int, sender: str | None = None) -> None:
    """Remove liquidity from a position, which then owes the tokens."""
    chain.send(manager(chain).decreaseLiquidity((token_id, liquidity, 0, 0, FAR_FUTURE_S)), sender or chain.wallet.address)


def collect(chain: LocalChain, token_id: int, sender: str | None = None) -> None:
    """Collect the tokens owed."""
    who = sender or chain.wallet.address
    chain.send(manager(chain).collect((token_id, who, UINT128_MAX, UINT128_MAX)), who)


# --- Independent execution of a plan's actions by direct contract calls, with the amounts moved.


@dataclass(frozen=True, slots=True)
class LiquidityMove:
    """Base units of (token0, token1) that the wallet received (negative: paid), liquidity by the events, gas of all transactions."""

    moved: tuple[int, int]
    liquidity: int
    gas: int
    token_id: int | None


def act(chain: LocalChain, action: LpAction) -> LiquidityMove:
    """Approve the tokens needed and carry out the action with its own minimums."""
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    tokens = [chain.token_contract(symbols[address]) for address in (action.token0, action.token1)]
    spender = chain.addresses.v2_router if action.venue == "uniswap_v2" else action.contract
    if isinstance(action, Provide):
        for token, raw in zip(tokens, action.desired_raw, strict=True):
            _send(chain, token.functions.approve(spender, raw))
    before = _balances(chain, tokens)
    match action:
        case Provide(token_id=None, ticks=None):
            liquidity, gas, token_id = _add_v2(chain, action)
        case Provide():
            liquidity, gas, token_id = _add_v3(chain, action)
        case Withdraw(token_id=None):
            pair = chain.contract(action.pool, npm_artifact(V2_PAIR_ARTIFACT)).functions
            _send(chain, pair.approve(spender, action.liquidity))
            router = chain.contract(spender, npm_artifact(V2_ROUTER_ARTIFACT)).functions
            call = router.removeLiquidity(
                action.token0, action.token1, action.liquidity, *action.min_raw, chain.wallet.address, FAR_FUTURE_S
            )
            liquidity = action.liquidity
            gas = _send(chain, call)
            token_id = None
        case Withdraw():
            take = manager(chain).decreaseLiquidity((action.token_id, action.liquidity, *action.min_raw, FAR_FUTURE_S))
            liquidity = action.liquidity
            gas = _multicall(chain, [take, _all_of(chain, action.token_id)])
            token_id = action.token_id
        case Collect():
            liquidity = 0
            gas = _multicall(chain, [_all_of(chain, action.token_id)])
            token_id = action.token_id
    after = _balances(chain, tokens)
    return LiquidityMove((after[0] - before[0], after[1] - before[1]), liquidity, gas, token_id)


def expected_receipt(action: LpAction) -> tuple[int, int]:
    """Return the amounts that the wallet receives by the action (negative: pays)."""
    match action:
        case Provide():
            return -action.amounts_raw[0], -action.amounts_raw[1]
        case Withdraw():
            return action.amounts_raw[0] + action.fees_raw[0], action.amounts_raw[1] + action.fees_raw[1]
        case Collect():
            return action.fees_raw


def _add_v2(chain: LocalChain, action: Provide) -> tuple[int, int, None]:
    pair = chain.contract(action.pool, npm_artifact(V2_PAIR_ARTIFACT)).functions
    router = chain.contract(chain.addresses.v2_router, npm_artifact(V2_ROUTER_ARTIFACT)).functions
    before = pair.balanceOf(chain.wallet.address).call()
    amounts = (*action.desired_raw, *action.min_raw)
    gas = _send(chain, router.addLiquidity(action.token0, action.token1, *amounts, chain.wallet.address, FAR_FUTURE_S))
    return pair.balanceOf(chain.wallet.address).call() - before, gas, None


def _add_v3(chain: LocalChain, action: Provide) -> tuple[int, int, int]:
    if action.token_id is None:
        assert action.ticks is not None
        head = (action.token0, action.token1, action.fee_pips, *action.ticks)
        call = manager(chain).mint((*head, *action.desired_raw, *action.min_raw, chain.wallet.address, FAR_FUTURE_S))
    else:
        call = manager(chain).increaseLiquidity((action.token_id, *action.desired_raw, *action.min_raw, FAR_FUTURE_S))
    receipt = chain.w3.eth.get_transaction_receipt(chain.send(call, chain.wallet.address, gas=1_000_000))
    events = (
        chain.contract(action.contract, npm_artifact(POSITION_MANAGER_ARTIFACT))
        .events.IncreaseLiquidity()
        .process_receipt(receipt, DISCARD)
    )
    [event_arguments] = [event["args"] for event in events]
    return int(event_arguments["liquidity"]), int(receipt["gasUsed"]), int(event_arguments["tokenId"])


def _all_of(chain: LocalChain, token_id: int | None) -> Any:
    return manager(chain).collect((token_id, chain.wallet.address, UINT128_MAX, UINT128_MAX))


def _multicall(chain: LocalChain, calls: list[Any]) -> int:
    return _send(chain, manager(chain).multicall([bytes.fromhex(call._encode_transaction_data()[2:]) for call in calls]))


def _send(chain: LocalChain, call: Any) -> int:
    return int(chain.w3.eth.get_transaction_receipt(chain.send(call, chain.wallet.address, gas=1_000_000))["gasUsed"])


def _balances(chain: LocalChain, tokens: list[Any]) -> tuple[int, int]:
    amount0, two = (token.functions.balanceOf(chain.wallet.address).call() for token in tokens)
    return int(amount0), int(two)


# --- Whole steps that move liquidity, with independent checks of their effects.


EVEN = {"WETH": "50%", "USDC": "50%"}


def allowances(chain: LocalChain) -> set[int]:
    """Return all distinct allowances granted to the contracts that move liquidity, LP tokens of every pair included."""
    at = chain.addresses
    wallet = chain.wallet.address
    spenders = (at.swap_router_02, at.v2_router, at.position_manager)
    allowance_amounts = {
        int(chain.token_contract(symbol).functions.allowance(wallet, spender).call()) for symbol in chain.tokens for spender in spenders
    }
    pairs = [info.address for info in chain.deployed_world.pool_by_name.values() if info.version == 2]
    return allowance_amounts | {
        int(chain.contract(pair, npm_artifact(V2_PAIR_ARTIFACT)).functions.allowance(wallet, at.v2_router).call()) for pair in pairs
    }


@contextmanager
def stepping(agent: Agent, chain: LocalChain) -> Iterator[list[StepOutcome]]:
    """Check after the block that its effects are known, paid and booked, and that no allowance is left."""
    before = agents.purse(chain)
    done = []
    yield done
    after = agents.purse(chain)
    mined = [intent for outcome in done for intent in outcome.transactions if intent.receipt is not None]
    assert after.nonce - before.nonce == len(mined)
    assert before.native_wei - after.native_wei == sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
    assert {intent.state for intent in mined} <= {IntentState.FINAL, IntentState.REVERTED}
    assert agent.context.store.journal.open_intents() == ()
    assert agent.context.store.journal.unbooked_intents() == ()
    assert allowances(chain) == {0}


def send(agent: Agent, chain: LocalChain) -> StepOutcome:
    with stepping(agent, chain) as done:
        done.append(agent.rebalance(send=True, confirm=agents.yes))
    return done[0]
