"""Real positions on the embedded chains: minted for the wallet by the whale, read by our reader, taken out by the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web3.logs import DISCARD

from agent.artifacts import npm_artifact
from agent.chain import positions
from agent.chain.positions import PositionRef
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.localchain import LocalChain, LocalPool
from agent.localchain.chain import FAR_FUTURE_S
from agent.localchain.market import POSITION_MANAGER, V2_FACTORY, V2_PAIR, V2_ROUTER
from agent.model import ConfirmedPosition, LpPosition, Snapshot

UINT128_MAX = 2**128 - 1
MONTH_S = 30 * 86_400


def manager(chain: LocalChain) -> Any:
    """The position manager."""
    return chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER)).functions


def pair_of(chain: LocalChain, pool: str) -> Any:
    """A V2 pair."""
    return chain.contract(chain.pools[pool], npm_artifact(V2_PAIR)).functions


def provide_v2(chain: LocalChain, pool: str, usd: int, owner: str | None = None) -> ConfirmedPosition:
    """LP tokens for the wallet (or `owner`) worth about this much, paid by the whale; the owner confirms them."""
    info = chain.books.pool_info[pool]
    amounts = [int(usd / 2 / chain.books.prices_usd[t.symbol] * 10**t.decimals) for t in (info.token0, info.token1)]
    router = chain.contract(chain.addresses.v2_router, npm_artifact(V2_ROUTER)).functions
    to = owner or chain.wallet.address
    chain.send(router.addLiquidity(info.token0.address, info.token1.address, *amounts, 0, 0, to, FAR_FUTURE_S))
    return confirmed(info, info.address, None, (amounts[0], amounts[1]))


def provide_v3(
    chain: LocalChain, pool: str, lower: int, upper: int, usd: int, owner: str | None = None, around: int | None = None
) -> ConfirmedPosition:
    """A token of the manager for the wallet (or `owner`) with up to this much of each token, paid by the whale; ends in tick
    spacings from the price (or from the tick `around`)."""
    info = chain.books.pool_info[pool]
    spacing = {100: 1, 500: 10, 3_000: 60, 10_000: 200}[info.fee_pips]
    near = (tick(chain, pool) if around is None else around) // spacing
    ends = ((near + lower) * spacing, (near + upper) * spacing)
    amounts = [int(usd / chain.books.prices_usd[t.symbol] * 10**t.decimals) for t in (info.token0, info.token1)]
    to = owner or chain.wallet.address
    mint = (info.token0.address, info.token1.address, info.fee_pips, *ends, *amounts, 0, 0, to, FAR_FUTURE_S)
    receipt = chain.w3.eth.get_transaction_receipt(chain.send(manager(chain).mint(mint)))
    [used] = (
        chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER))
        .events.IncreaseLiquidity()
        .process_receipt(receipt, DISCARD)
    )
    token_id, entry = used["args"]["tokenId"], (used["args"]["amount0"], used["args"]["amount1"])
    return confirmed(info, chain.addresses.position_manager, token_id, entry)


def confirmed(info: LocalPool, contract: str, token_id: int | None, entry_raw: tuple[int, int]) -> ConfirmedPosition:
    """The owner's word for a position."""
    venue = f"uniswap_v{info.version}"
    return ConfirmedPosition(venue, contract, token_id, info.token0.address, info.token1.address, entry_raw, None, 6_000, MONTH_S)


def tick(chain: LocalChain, pool: str) -> int:
    """A V3 pool's tick."""
    from tests.support.world import pool_contract

    return int(pool_contract(chain, chain.books.pool_info[pool]).functions.slot0().call()[1])


def refs(chain: LocalChain, own: Sequence[ConfirmedPosition]) -> tuple[PositionRef, ...]:
    """Where they stand."""
    at = chain.addresses
    return positions.resolve_positions(chain.transport, own, {"uniswap_v2": at.v2_factory, "uniswap_v3": at.v3_factory})


def look(chain: LocalChain, found: Sequence[PositionRef], owner: str | None = None) -> Snapshot:
    """A snapshot of nothing but these positions."""
    watch = SnapshotScope(owner or chain.wallet.address, (), (), (), (), (), 0, 100, tuple(found))
    return ChainReader((chain.transport,), chain.chain_id, watch, chain.clock, 1).snapshot()


def read(chain: LocalChain, own: ConfirmedPosition) -> LpPosition:
    """One position, which must be readable."""
    seen = look(chain, refs(chain, [own]))
    assert seen.quarantined == ()
    assert seen.requests == 2
    [position] = seen.positions
    return position


def set_fee_to(chain: LocalChain, recipient: str) -> None:
    """Switches the V2 protocol fee on, or off for the zero address."""
    chain.send(chain.contract(chain.addresses.v2_factory, npm_artifact(V2_FACTORY)).functions.setFeeTo(recipient))


def balances(chain: LocalChain, own: ConfirmedPosition) -> tuple[int, int]:
    """The wallet's base units of the position's two tokens."""
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    return chain.balance(symbols[own.token0]), chain.balance(symbols[own.token1])


def take_out(chain: LocalChain, own: ConfirmedPosition) -> tuple[int, int]:
    """Base units that the contracts really pay the wallet for everything: burn, or decreaseLiquidity and collect."""
    before = balances(chain, own)
    wallet = chain.wallet.address
    if own.token_id is None:
        pair = chain.contract(own.contract, npm_artifact(V2_PAIR)).functions
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
    """Takes liquidity out, which is then owed."""
    chain.send(manager(chain).decreaseLiquidity((token_id, liquidity, 0, 0, FAR_FUTURE_S)), sender or chain.wallet.address)


def collect(chain: LocalChain, token_id: int, sender: str | None = None) -> None:
    """Takes what is owed."""
    who = sender or chain.wallet.address
    chain.send(manager(chain).collect((token_id, who, UINT128_MAX, UINT128_MAX)), who)
