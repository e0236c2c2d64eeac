"""Our V2 swaps against the deployed contracts: Router02's quotes and real swaps in pairs of any size, to the wei."""

from __future__ import annotations

from random import Random

import pytest

from agent.amm import pools
from agent.amm.swap_errors import ContractRevert
from agent.amm.v2 import UINT112_MAX, get_amount_out
from agent.amm.v2_pool import V2Pool
from agent.chain.rpc import RpcFault
from agent.localchain import LocalChain
from agent.localchain.contracts import FAR_FUTURE_S
from tests.differential import pools_on_chain

AMOUNTS_OUT = "getAmountsOut(uint256,address[])"
SWAP_IN = "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"
SYNC_TYPES = ("uint112", "uint112")
RESERVE_BITS = ((30, 60), (60, 90), (90, 111), (11, 20), (11, 111), (109, 111))


def random_pairs(chain: LocalChain, random: Random, number: int) -> list[V2Pool]:
    """Pairs from a handful of base units to the most that a pair can hold, balanced and lopsided."""
    pairs = []
    for i in range(number):
        low, high = RESERVE_BITS[i % len(RESERVE_BITS)]
        reserves = (random.randint(2048, (2 << random.randint(low, high)) - 1) for _ in range(2))
        pairs.append(pools_on_chain.make_v2(chain, pools_on_chain.new_pair(chain, f"V{i}"), *reserves))
    return pairs


def random_amount(random: Random, reserve: int) -> int:
    """Nothing, dust, a share of the reserve, about the reserve, or as large as an integer gets."""
    kind = random.random()
    if kind < 0.02:
        return 0
    if kind < 0.2:
        return random.randint(1, 1000)
    if kind < 0.7:
        return max(1, int(reserve * 10 ** -random.uniform(0, 9)))
    if kind < 0.85:
        return max(1, reserve + random.randint(-3, 3))
    return random.randint(1, 2 << random.randint(0, 255)) % 2**256


def check_quotes(chain: LocalChain, random: Random, pairs: list[V2Pool], number: int) -> int:
    """Router02 answers, or reverts with the same reason; returns how many it answered."""
    calls = []
    ours = []
    for _ in range(number):
        pair = random.choice(pairs)
        token_in = random.choice((pair.token0, pair.token1))
        path = [token_in, pools.token_out(pair, token_in)]
        reserve_in, reserve_out = (pair.reserve0, pair.reserve1) if token_in == pair.token0 else (pair.reserve1, pair.reserve0)
        amount = random_amount(random, reserve_in)
        calls.append((chain.addresses.v2_router, pools_on_chain.calldata(AMOUNTS_OUT, amount, path)))
        try:
            ours.append([amount, get_amount_out(amount, reserve_in, reserve_out)])
        except ContractRevert as refusal:
            ours.append(refusal)
    answered = 0
    for call, expected, answer in zip(calls, ours, pools_on_chain.ask(chain, calls, ["uint256[]"]), strict=True):
        if isinstance(expected, ContractRevert):
            assert isinstance(answer, RpcFault), f"{call}: we say {expected}, the router says {answer}"
            assert expected.reason in answer.message + pools_on_chain.reason_text(answer), call
        else:
            assert not isinstance(answer, RpcFault), f"{call}: we say {expected}, the router {answer}"
            assert list(answer[0]) == expected, call
            answered += 1
    return answered


def check_swaps(chain: LocalChain, random: Random, pairs: list[V2Pool], number: int) -> None:
    """Real swaps one after the other leave exactly our reserves; what we refuse to swap reverts at that very state."""
    current = list(pairs)
    calls = []
    expected = []
    while len(calls) < number:
        i = random.randrange(len(current))
        pair = current[i]
        token_in = random.choice((pair.token0, pair.token1))
        path = [token_in, pools.token_out(pair, token_in)]
        amount = random_amount(random, pair.depth(token_in))
        try:
            done = pair.swap(token_in, amount)
        except ContractRevert:
            continue
        data = pools_on_chain.calldata(SWAP_IN, amount, 0, path, chain.whale.address, FAR_FUTURE_S)
        calls.append((chain.addresses.v2_router, data))
        expected.append((pair, done))
        current[i] = done.pool_after
    for (pair, done), receipt in zip(expected, pools_on_chain.transact(chain, calls), strict=True):
        in0, in1, out0, out1 = pools_on_chain.log_data(receipt, pair.address, ("uint256",) * 4)
        assert (in0 + in1, out0 + out1) == (done.amount_in_raw, done.amount_out_raw), pair
        reserves = pools_on_chain.log_data(receipt, pair.address, SYNC_TYPES, -2)
        assert reserves == (done.pool_after.reserve0, done.pool_after.reserve1), pair


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("number", "quotes", "swaps"),
    [pytest.param(12, 480, 240, id="twelve swaps"), pytest.param(24, 1_800, 1_100, marks=pytest.mark.slow, id="twenty-four swaps")],
)
def test_random_swaps_on_anvil_equal_the_contracts(anvil_chain, number, quotes, swaps):
    random = Random(2_000)
    pairs = random_pairs(anvil_chain, random, number)
    assert max(pair.reserve0 for pair in pairs) > UINT112_MAX // 8
    assert check_quotes(anvil_chain, random, pairs, quotes) > quotes // 2
    check_swaps(anvil_chain, random, pairs, swaps)


@pytest.mark.slow
@pytest.mark.parametrize(("quotes", "swaps"), [(30, 10)])
def test_some_random_swaps_on_eth_tester_equal_the_contracts(tester_chain, quotes, swaps):
    random = Random(3)
    pairs = random_pairs(tester_chain, random, 2)
    check_quotes(tester_chain, random, pairs, quotes)
    check_swaps(tester_chain, random, pairs, swaps)


@pytest.mark.parametrize("amount", [1, UINT112_MAX])
def test_what_the_pair_refuses_we_refuse_with_the_same_words(anvil_chain, amount):
    pair = pools_on_chain.make_v2(anvil_chain, pools_on_chain.new_pair(anvil_chain, "W"), 10**20, 10**10)
    with pytest.raises(ContractRevert) as refusal:
        pair.swap(pair.token0, amount)
    data = pools_on_chain.calldata(SWAP_IN, amount, 0, [pair.token0, pair.token1], anvil_chain.whale.address, FAR_FUTURE_S)
    [answer] = pools_on_chain.ask(anvil_chain, [(anvil_chain.addresses.v2_router, data)], ["uint256[]"])
    assert isinstance(answer, RpcFault)
    assert refusal.value.reason in answer.message + pools_on_chain.reason_text(answer)
    assert refusal.value.reason
