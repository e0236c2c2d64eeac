"""Data fees against the deployed contracts of the OP Stack: the bound is never below the fee of a transaction, the expected fee is near
it, and whole steps book what the chain takes, and refuse a spike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from random import Random
from statistics import median

import pytest
import rlp
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.artifacts import own_artifact
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE, fee_items, node_quote
from agent.chain.lens import abi_encode
from agent.chain.rpc import Transport, hex_data
from agent.config.networks import BASE
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import DataFeeKind, DataFeeQuote, Leg, LegPlace, UnsignedTx
from agent.model.rollups import MAX_FEE_RISE, OP_STACK_CHAINS, scaled_fee_quote
from agent.planning.approval_gas import legs_bytes
from agent.policy.minimum import APPROVAL_BYTES, LEG_BYTES
from agent.signing.calldata import APPROVE, selector
from agent.venues.calldata import RebalancerTerms, encode_multicall, encode_rebalance
from tests.support.agents import ROOMY, agent_on, fund, meanwhile, purse, require_exact, require_exact_rebalance, yes
from tests.support.op_stack import CONTRACTS, OPERATOR_FEE_CONSTANT, PRICES, install, set_prices
from tests.support.rollups import RollupNode
from tests.support.samples import slow
from tests.support.signing import MAKERS, plan_of


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


TARGETS = {"WETH": "50%", "USDC": "50%"}
OFF = {"WETH": 6_000, "USDC": 4_000}
ROUTERS = ("swap_router_02", "rebalancer")


@pytest.mark.parametrize("number", [120, *slow([10_000])])
def test_no_transaction_pays_more_than_the_bound(anvil_chain: LocalChain, number: int) -> None:
    line = anvil_chain.transport
    random = Random(number)
    install(line)
    below = 0
    for prices in PRICES:
        set_prices(line, *prices)
        read = quote(line)
        for _ in range(number // 40):
            transactions = [any_transaction(random) for _ in range(10)]
            fees = true_fees(line, transactions)
            assert min(fees) >= read.empty_tx_wei > 0
            below += sum(read.max_data_fee_wei(len(tx.data) // 2 - 1) < fee for tx, fee in zip(transactions, fees, strict=True))
    assert below == 0


@pytest.mark.parametrize("router", ROUTERS)
def test_the_expected_fee_of_a_swap_is_near_the_true_one(anvil_chain: LocalChain, router: str) -> None:
    """At most 1.2 times it in the median, for every number of legs; the bound is at least three times it."""
    line = anvil_chain.transport
    random = Random(29)
    install(line)
    ratios: dict[int, list[float]] = defaultdict(list)
    for prices in PRICES:
        set_prices(line, *prices)
        read = quote(line)
        for legs in (1, 2, 3, 4, 6, 8):
            expected_wei, most_wei = (fee(LEG_BYTES * (legs + 1)) for fee in (read.expected_data_fee_wei, read.max_data_fee_wei))
            fees = true_fees(line, [swap_program(random, router, legs) for _ in range(6)])
            ratios[legs] += [expected_wei / fee for fee in fees]
            assert most_wei > 3 * max(fees)
    medians = {legs: round(median(ratios_of_kind), 3) for legs, ratios_of_kind in ratios.items()}
    assert all(0.9 <= ratio <= 1.2 for ratio in medians.values()), medians
    assert all(0.8 <= ratio <= 1.4 for ratios_of_kind in ratios.values() for ratio in ratios_of_kind)


def test_expected_approval_fee__is_at_least_the_true_one(anvil_chain: LocalChain) -> None:
    line = anvil_chain.transport
    random = Random(7)
    install(line)
    set_prices(line, *PRICES[0])
    data = "0x095ea7b3" + bytes(12).hex() + random.randbytes(20).hex() + f"{123_456_789_012_345_678_901:064x}"
    (fee,) = true_fees(line, [transaction("0x" + random.randbytes(20).hex(), data, random)])
    assert fee <= quote(line).expected_data_fee_wei(APPROVAL_BYTES) <= 1.2 * fee


def test_quote_from_one_fee__has_the_contract_s_proportions(anvil_chain: LocalChain) -> None:
    line = anvil_chain.transport
    install(line)
    set_prices(line, *PRICES[1])
    read = quote(line)
    assumed = scaled_fee_quote(read.one_swap_wei)
    assert (read.operator_wei, read.operator_full_wei) == (OPERATOR_FEE_CONSTANT, OPERATOR_FEE_CONSTANT)
    for name in ("empty_tx_wei", "one_swap_wei", "four_swaps_wei", "full_tx_wei"):
        assert getattr(assumed, name) == pytest.approx(getattr(read, name), rel=1e-4)
    assert pytest.approx(read.one_swap_wei, rel=0.05) == BASE.fees.data_fee_wei


@pytest.mark.parametrize("router", ROUTERS)
def test_a_rebalance_pays_about_the_planned_fee(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, router: str) -> None:
    fund(chain, OFF)
    with (
        fjord(chain, monkeypatch) as node,
        agent_on(chain, tmp_path, ROOMY | {"execution.router": router}, TARGETS, [node.transport]) as agent,
    ):
        outcome = require_exact_rebalance(chain, agent)
        (intent,) = [intent for intent in outcome.transactions if agent.context.store.journal.grant(intent.id).plan is not None]
        granted = agent.context.store.journal.grant(intent.id)
        assert granted.plan is not None
        assert intent.receipt is not None
        assert granted.max_data_fee_wei is not None
        paid_wei = intent.receipt.data_fee_wei
        assert node.paid[str(intent.tx_hash)] == paid_wei <= granted.max_data_fee_wei // MAX_FEE_RISE
        planned_wei = quote(chain.transport).expected_fee_beyond_gas_wei(granted.plan.gas_units, legs_bytes(granted.plan.legs))
        assert 0.8 * paid_wei <= planned_wei <= 1.4 * paid_wei


def test_a_fee_100_times_higher_at_sending_is_refused_by_name(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with fjord(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=meanwhile(lambda: node.spike(100)))
        assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
        assert [verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed] == ["data_fee"]
        assert "data fee rose" in outcome.reason
        assert purse(chain) == before
        assert not node.paid
        require_exact(chain, agent.rebalance(send=True, confirm=yes), before)  # the new price is part of the new plan


def test_the_contracts_of_the_op_stack_are_those_of_the_package() -> None:
    """Runtime code of @eth-optimism/contracts-bedrock 0.17.3 (MIT), forge-artifacts."""
    hashes = [keccak(hexstr=own_artifact(name).runtime_code).hex()[:16] for name in CONTRACTS]
    assert hashes == ["a88fa50a2745b15e", "3f5ec6b10ec3d60b"]
