"""Random pools in the deployed contracts, and calls and swaps sent to them in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from eth_abi import decode, encode
from eth_utils import function_signature_to_4byte_selector, to_checksum_address

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, MIN_TICK, get_sqrt_ratio_at_tick, get_tick_at_sqrt_ratio
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.artifacts import npm_artifact
from agent.chain.rpc import RpcFault
from agent.localchain import LocalChain, LocalPool
from agent.localchain.chain import V2_FACTORY_ARTIFACT, V2_PAIR_ARTIFACT, V3_FACTORY_ARTIFACT
from agent.units import Token

CALL_GAS = hex(90_000_000)
SEND_GAS = hex(30_000_000)
CHUNK = 250
ERROR_STRING = bytes.fromhex("08c379a0")
RICH = 2**250
SWAP_EVENT_TYPES = ("int256", "int256", "uint160", "uint128", "int24")

Positions = Sequence[tuple[int, int, int]]


def calldata(signature: str, *arguments: object) -> str:
    """0x-hex of a call; the signature is as Solidity writes it, structs as tuples."""
    body = encode(_types(signature), arguments)
    return "0x" + (function_signature_to_4byte_selector(signature) + body).hex()


def _types(signature: str) -> list[str]:
    inner = signature[signature.index("(") + 1 : -1]
    parts = [""]
    level = 0
    for letter in inner:
        level += (letter == "(") - (letter == ")")
        if letter == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def ask(chain: LocalChain, calls: Sequence[tuple[str, str]], types: Sequence[str]) -> list[tuple[Any, ...] | RpcFault]:
    """Answers of (to, calldata) to the whale at the newest block, decoded; a reverting call is an RpcFault in its place."""
    base = {"from": chain.whale.address, "gas": CALL_GAS}
    answers: list[tuple[Any, ...] | RpcFault] = []
    for start in range(0, len(calls), CHUNK):
        calls_of_chunk = [("eth_call", [{**base, "to": to, "data": data}, "latest"]) for to, data in calls[start : start + CHUNK]]
        for raw in chain.transport.batch(calls_of_chunk):
            answers.append(raw if isinstance(raw, RpcFault) else decode(types, bytes.fromhex(raw[2:])))
    return answers


def transact(chain: LocalChain, calls: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Sends (to, calldata) in order from the whale; their receipts. Fails the test on the first that reverts."""
    receipts: list[dict[str, Any]] = []
    base = {"from": chain.whale.address, "gas": SEND_GAS, "maxFeePerGas": hex(100 * 10**9), "maxPriorityFeePerGas": hex(10**9)}
    nonce = chain.w3.eth.get_transaction_count(chain.whale.address)  # a node may take the calls of a batch in any order
    for start in range(0, len(calls), CHUNK):
        part = list(enumerate(calls[start : start + CHUNK], nonce + start))
        sends = [("eth_sendTransaction", [{**base, "to": to, "data": data, "nonce": hex(number)}]) for number, (to, data) in part]
        with mined_by_hand(chain):
            hashes = chain.transport.batch(sends)
            refused = [sent for sent in hashes if isinstance(sent, RpcFault)]
            assert not refused, refused[0]
            receipts += mined(chain, hashes)
    for i, receipt in enumerate(receipts):
        assert int(receipt["status"], 16) == 1, f"transaction {i} of {len(calls)} reverted: {receipt}"
    return receipts


@contextmanager
def mined_by_hand(chain: LocalChain) -> Iterator[None]:
    """anvil stops mining each transaction by itself: it may lose one that comes while it mines another. eth-tester has no such race."""
    if chain.url is None:
        yield
        return
    chain.transport.call("evm_setAutomine", [False])
    try:
        yield
    finally:
        chain.transport.call("evm_setAutomine", [True])


def mined(chain: LocalChain, hashes: Sequence[str]) -> list[dict[str, Any]]:
    """Receipts; mines until there is one for every hash. As many swaps as fit share a block."""
    for _ in hashes:
        if chain.url is not None:
            chain.transport.call("evm_mine", [])
        if isinstance(chain.transport.call("eth_getTransactionReceipt", [hashes[-1]]), dict):
            break
    receipts = chain.transport.batch([("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes])
    missing = [i for i, receipt in enumerate(receipts) if not isinstance(receipt, dict)]
    assert not missing, f"transactions {missing} are not mined"
    return receipts


def reason_text(fault: RpcFault) -> str:
    """The string of Error(string) in a fault's return data; "" when there is none."""
    data = bytes.fromhex(fault.revert_data.removeprefix("0x"))
    return str(decode(["string"], data[4:])[0]) if data[:4] == ERROR_STRING else ""


def log_data(receipt: dict[str, Any], address: str, types: Sequence[str], which: int = -1) -> tuple[Any, ...]:
    """The data of the last event (or another) that `address` emitted in the receipt."""
    logs = [log for log in receipt["logs"] if to_checksum_address(log["address"]) == address]
    return decode(types, bytes.fromhex(logs[which]["data"][2:]))


def new_pair(chain: LocalChain, name: str) -> tuple[Token, Token]:
    """Two new tokens in the order of their addresses, of which the whale has more than any pool can hold."""
    tokens = [chain.add_token(f"{name}{side}", 18, 1) for side in "AB"]
    for token in tokens:
        chain.set_balance(token.symbol, RICH, owner=chain.whale.address)
    low, high = sorted(tokens, key=lambda token: int(token.address, 16))
    return low, high


def enable_fee(chain: LocalChain, fee_pips: int, tick_spacing: int) -> None:
    """A fee tier beside the standard ones; the whale deployed the factory and owns it."""
    factory = chain.contract(chain.addresses.v3_factory, npm_artifact(V3_FACTORY_ARTIFACT))
    chain.send(factory.functions.enableFeeAmount(fee_pips, tick_spacing))


def make_v3(chain: LocalChain, pair: tuple[Token, Token], fee_pips: int, spacing: int, price_x96: int, positions: Positions) -> V3Pool:
    """A V3 pool at exactly this sqrt price with these positions (lower tick, upper tick, liquidity)."""
    low, high = pair
    create = "createAndInitializePoolIfNecessary(address,address,uint24,uint160)"
    transact(chain, [(chain.addresses.position_manager, calldata(create, low.address, high.address, fee_pips, price_x96))])
    [(address,)] = ask(
        chain,
        [(chain.addresses.v3_factory, calldata("getPool(address,address,uint24)", low.address, high.address, fee_pips))],
        ["address"],
    )
    address = to_checksum_address(address)
    chain.mint_positions(LocalPool("random", address, 3, low, high, fee_pips), positions)
    tick = get_tick_at_sqrt_ratio(price_x96)
    nets: dict[int, int] = {}
    for lower, upper, liquidity in positions:
        nets[lower] = nets.get(lower, 0) + liquidity
        nets[upper] = nets.get(upper, 0) - liquidity
    pool = V3Pool(
        address=address,
        venue="uniswap_v3",
        token0=low.address,
        token1=high.address,
        fee_pips=fee_pips,
        tick_spacing=spacing,
        sqrt_price_x96=price_x96,
        tick=tick,
        liquidity=sum(liquidity for lower, upper, liquidity in positions if lower <= tick < upper),
        ticks=tuple(TickLiquidity(index, nets[index]) for index in sorted(nets)),
        known_from_tick=MIN_TICK,
        known_to_tick=MAX_TICK,
    )
    assert v3_on_chain(chain, [pool]) == [(price_x96, tick, pool.liquidity)]
    return pool


def v3_on_chain(chain: LocalChain, pools: Sequence[V3Pool]) -> list[tuple[int, int, int]]:
    """(sqrt price, tick, liquidity) that the contracts hold."""
    slots = ask(chain, [(pool.address, calldata("slot0()")) for pool in pools], ["uint160", "int24"])
    depths = ask(chain, [(pool.address, calldata("liquidity()")) for pool in pools], ["uint128"])
    return [(slot[0], slot[1], depth[0]) for slot, depth in zip(slots, depths, strict=True)]


def make_v2(chain: LocalChain, pair: tuple[Token, Token], reserve0: int, reserve1: int) -> V2Pool:
    """A V2 pair with exactly these reserves."""
    low, high = pair
    factory = chain.contract(chain.addresses.v2_factory, npm_artifact(V2_FACTORY_ARTIFACT))
    chain.send(factory.functions.createPair(low.address, high.address))
    address = to_checksum_address(factory.functions.getPair(low.address, high.address).call())
    transact(
        chain,
        [
            (low.address, calldata("transfer(address,uint256)", address, reserve0)),
            (high.address, calldata("transfer(address,uint256)", address, reserve1)),
            (address, calldata("mint(address)", chain.whale.address)),
        ],
    )
    assert chain.contract(address, npm_artifact(V2_PAIR_ARTIFACT)).functions.getReserves().call()[:2] == [reserve0, reserve1]
    return V2Pool(address, "uniswap_v2", low.address, high.address, reserve0, reserve1)


def random_positions(random: Random, spacing: int, tick: int, bits: tuple[int, int], count: int) -> Positions:
    """Positions far and near, overlapping and apart, within the liquidity that the contract allows per tick."""
    usable = MAX_TICK // spacing
    per_tick = (2**128 - 1) // (2 * usable + 1)
    gross: dict[int, int] = {}
    positions = []
    for _ in range(count):
        reach = random.choice((3, 40, 600, 2 * usable))
        edges = [max(-usable, min(usable, tick // spacing + random.randint(-reach, reach))) * spacing for _ in range(2)]
        lower = min(edges)
        upper = max(edges)
        room = per_tick - max(gross.get(lower, 0), gross.get(upper, 0))
        liquidity = min(room, random.randint(1, 2 << random.randint(*bits)))
        if lower < upper and liquidity > 0:
            positions.append((lower, upper, liquidity))
            gross[lower] = gross.get(lower, 0) + liquidity
            gross[upper] = gross.get(upper, 0) + liquidity
    return positions


def random_price(random: Random, where: str) -> int:
    """A sqrt price in the middle, anywhere, at either end of the range, or exactly on a tick."""
    match where:
        case "low end":
            return random.randint(MIN_SQRT_RATIO + 2, MIN_SQRT_RATIO * 2)
        case "high end":
            return random.randint(MAX_SQRT_RATIO // 2, MAX_SQRT_RATIO - 3)
        case "anywhere":
            return get_sqrt_ratio_at_tick(random.randint(MIN_TICK + 1000, MAX_TICK - 1000)) + random.randint(0, 1000)
        case "on a tick":
            return get_sqrt_ratio_at_tick(random.randint(-100, 100) * 600)
        case _:
            return get_sqrt_ratio_at_tick(random.randint(-20_000, 20_000)) + random.randint(0, 2**60)
