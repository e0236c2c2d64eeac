"""The fee contracts of the OP Stack as deployed (@eth-optimism/contracts-bedrock 0.17.3, Fjord), on a local chain, and transactions
like ours for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from random import Random

import pytest
import rlp
from eth_utils.address import to_checksum_address

from agent.artifacts import own_artifact
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE, fee_items, node_quote
from agent.chain.lens import abi_encode, uint_word
from agent.chain.rpc import Transport, hex_data
from agent.localchain import LocalChain
from agent.localchain.op_stack import BASE_FEE_SCALAR, BLOB_FEE_SCALAR, L1_BLOCK, ORACLE_IMPLEMENTATION, oracle_proxy_code
from agent.model import DataFeeKind, DataFeeQuote, Leg, LegPlace, UnsignedTx
from agent.model.rollups import OP_STACK_CHAINS
from agent.signing.calldata import APPROVE, selector
from agent.venues.calldata import RebalancerTerms, encode_multicall, encode_rebalance
from tests.support.constants import GWEI
from tests.support.rollups import RollupNode
from tests.support.signing import MAKERS, plan_of

DEPOSITOR = "0xDeaDDEaDDeAdDeAdDEAdDEaddeAddEAdDEAd0001"
CONTRACTS = ("op_stack/GasPriceOracle", "op_stack/L1Block")
PRICES = ((GWEI, 1), (10 * GWEI, GWEI), (50 * GWEI, 30 * GWEI), (GWEI // 10, GWEI // 100))
"""Base fee and blob base fee of the base chain, in wei: quiet, busy, a spike, very quiet."""
OPERATOR_FEE_CONSTANT = 7_000


def install(line: Transport) -> None:
    """Put the contracts at their predeploys, with Fjord active."""
    oracle, block = (own_artifact(name).runtime_code for name in CONTRACTS)
    for address, code in (
        (ORACLE_IMPLEMENTATION, oracle),
        (GAS_PRICE_ORACLE, oracle_proxy_code(OPERATOR_FEE_CONSTANT)),
        (L1_BLOCK, block),
    ):
        line.call("anvil_setCode", [address, code])
    line.call("anvil_setBalance", [DEPOSITOR, hex(10**20)])
    for function in ("setEcotone()", "setFjord()"):
        _run(line, GAS_PRICE_ORACLE, selector(function))


def set_prices(line: Transport, base_fee_wei: int, blob_fee_wei: int) -> None:
    """Tell the chain these prices of the base chain, under Base's scalars of Fjord (L1Block.setL1BlockValuesEcotone)."""
    data = selector("setL1BlockValuesEcotone()") + BASE_FEE_SCALAR.to_bytes(4, "big") + BLOB_FEE_SCALAR.to_bytes(4, "big")
    data += bytes(7) + b"\1" + (1_700_000_000).to_bytes(8, "big") + (20_000_000).to_bytes(8, "big")
    data += uint_word(base_fee_wei) + uint_word(blob_fee_wei) + b"\1" * 32 + bytes(32)
    _run(line, L1_BLOCK, data)


def _run(line: Transport, to: str, data: bytes) -> None:
    line.call("anvil_impersonateAccount", [DEPOSITOR])
    line.call("eth_sendTransaction", [{"from": DEPOSITOR, "to": to, "data": hex_data(data), "gas": hex(1_000_000)}])
    line.call("evm_mine", [])


def true_fees(line: Transport, transactions: Sequence[UnsignedTx]) -> list[int]:
    """Return the data fee of each exact transaction, in wei (GasPriceOracle.getL1Fee)."""
    return _true_fees(line, [unsigned_bytes(tx) for tx in transactions])


def _true_fees(line: Transport, unsigned: Sequence[bytes]) -> list[int]:
    function = selector("getL1Fee(bytes)")
    answers = _ask(line, [function + abi_encode(["bytes"], [body]) for body in unsigned])
    return [int(str(answer), 16) for answer in answers]


def quote(line: Transport) -> DataFeeQuote:
    """Return the fees as a snapshot reads them."""
    read = node_quote("anvil", DataFeeKind.OP_STACK, _ask(line, [item.calldata for item in fee_items(DataFeeKind.OP_STACK)]))
    assert read is not None
    return read


def _ask(line: Transport, calls: Sequence[bytes]) -> list[object]:
    return line.batch([("eth_call", [{"to": GAS_PRICE_ORACLE, "data": hex_data(data)}, "latest"]) for data in calls])


class FjordNode(RollupNode):
    """A node of the rollup that takes what the deployed oracle says the exact transaction pays."""

    def fee_wei(self, raw: str) -> int:
        fields = rlp.decode(bytes.fromhex(raw[4:]))[:9]
        return _true_fees(self.inner, [b"\x02" + bytes(rlp.encode(fields))])[0]

    def spike(self, factor: int) -> None:
        base_fee_wei, blob_fee_wei = PRICES[1]
        set_prices(self.inner, factor * base_fee_wei, factor * blob_fee_wei)


@contextmanager
def fjord(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[FjordNode]:
    """The local chain counts as one of the OP Stack, with its deployed contracts."""
    monkeypatch.setitem(OP_STACK_CHAINS, chain.chain_id, "test")
    install(chain.transport)
    set_prices(chain.transport, *PRICES[1])
    yield FjordNode(chain)


def unsigned_bytes(tx: UnsignedTx) -> bytes:
    """Return the serialised transaction without its signature."""
    fees = (tx.max_priority_fee_wei, tx.max_fee_wei)
    body = [tx.chain_id, tx.nonce, *fees, tx.gas, bytes.fromhex(tx.to[2:]), tx.value_wei, bytes.fromhex(tx.data[2:]), []]
    return b"\x02" + bytes(rlp.encode(body))


def transaction(to: str, data: str, random: Random) -> UnsignedTx:
    """Return a transaction like those of an agent on Base: fees of some hundredths of a gwei."""
    tip = random.randrange(10**5, 10**7)
    base = random.randrange(10**6, 10**8)
    return UnsignedTx(8453, random.randrange(2_000), to, 0, data, random.randrange(150_000, 900_000), 2 * base + tip, tip, None)


def swap_program(random: Random, router_kind: str, leg_count: int) -> UnsignedTx:
    """Return a swap of so many legs, random tokens, pools and amounts of their usual size, as one of the routers takes it."""
    tokens = [(_address(random), random.choice((6, 8, 18, 18))) for _ in range(leg_count + 1)]
    legs = []
    for number in range(leg_count):
        (token_in, decimals_in), (token_out, decimals_out) = random.sample(tokens, 2)
        amount_in_raw, out_raw = (int(random.uniform(1, 5_000) * 10**decimals) for decimals in (decimals_in, decimals_out))
        fee_pips = random.choice((100, 500, 3_000, 10_000))
        min_raw = out_raw * random.randrange(9_900, 9_990) // 10_000
        venue = random.choice(("uniswap_v3", "uniswap_v3", "uniswap_v2"))
        from_wallet = LegPlace.WALLET
        to_wallet = LegPlace.WALLET
        legs.append(
            Leg(_address(random), venue, token_in, token_out, fee_pips, amount_in_raw, out_raw, min_raw, 0, number, from_wallet, to_wallet)
        )
    plan = plan_of(*legs)
    deadline_s = random.randrange(1_700_000_000, 1_800_000_000)
    if router_kind == "rebalancer":
        prices = {token: Fraction(random.randrange(1, 10**9), 10 ** (3 + decimals)) for token, decimals in tokens}
        data = encode_rebalance(plan, deadline_s, RebalancerTerms(prices, -random.randrange(10**9)), MAKERS, {})
    else:
        data = encode_multicall(plan, _address(random), deadline_s)
    return transaction(_address(random), data, random)


def any_transaction(random: Random) -> UnsignedTx:
    """Return a swap, an approval, or calldata that compresses worst or best or in parts."""
    size = random.choice((4, 68, 388, 740, 1_200, 2_000, 4_000, 9_000)) + random.randrange(32)
    word = random.randbytes(random.choice((1, 8, 20, 32)))
    match random.randrange(5):
        case 0:
            data = random.randbytes(size)
        case 1:
            data = word * (size // len(word))
        case 2:
            data = b"".join(random.choice((bytes(32), bytes(12) + word[:20], random.randbytes(32))) for _ in range(size // 32))
        case 3:
            data = APPROVE + bytes(12) + random.randbytes(20) + random.randrange(10**24).to_bytes(32, "big")
        case _:
            return swap_program(random, random.choice(("swap_router_02", "rebalancer")), random.randrange(1, 13))
    return transaction(_address(random), hex_data(data), random)


def _address(random: Random) -> str:
    return to_checksum_address(random.randbytes(20))
