"""The paper chain by itself: when a transaction is carried out, at which pools, what it pays, and what a restart finds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent import codec
from agent.amm.v2_pool import V2Pool
from agent.backtest.router import NullSigner, RouterAddresses, decode_unsigned
from agent.chain.tokens import encode_approve
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.model import (
    Allowance,
    DataFeeQuote,
    Evidence,
    FuturesReading,
    Head,
    Holding,
    IntentKind,
    Leg,
    LegPlace,
    PaperWallet,
    PastPrices,
    Plan,
    SignedTx,
    Snapshot,
    StepInput,
    UnsignedTx,
)
from agent.paper.chain import NO_ACCOUNT_ANSWER, PaperChain, PaperEvidence, PaperReader
from agent.policy.minimum import APPROVAL_BYTES, LEG_BYTES
from agent.ports import Grant
from agent.signing.rules import SigningRules
from agent.store import open_store
from agent.store.store import Store
from agent.venues.calldata import encode_multicall
from tests.support import builders
from tests.support.perpetuals.steps import book
from tests.support.plans import sell_weth
from tests.support.text import raises_code
from tests.support.tokens import USDC, WETH

SOLD = 10**18
GWEI = builders.GWEI
PLACE = RouterAddresses(builders.OWNER, builders.ROUTER, WETH.address)
BEGUN = PaperWallet((Holding(USDC.address, 0), Holding(WETH.address, 5 * SOLD)), (), 10**18, 7, 1_000)


@dataclass
class Blocks:
    """A real chain that only time changes: its newest snapshot, and how often it was read."""

    now: Snapshot
    reads: int = 0
    heads: int = 0

    def snapshot(self) -> Snapshot:
        self.reads += 1
        return self.now

    def past_prices(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        raise NotImplementedError

    def head(self) -> Head:
        self.heads += 1
        return self.now.head

    def next(self, pool: V2Pool | None = None, base_fee_wei: int = GWEI) -> V2Pool:
        """A block later, with this pool in the place of the one before."""
        head = self.now.head
        number = head.number + 1
        later = Head(head.chain_id, number, f"0x{number:064x}", head.timestamp_s + 12, base_fee_wei)
        self.now = replace(self.now, head=later, pools=(pool,) if pool else self.now.pools)
        first_pool = self.now.pools[0]
        assert isinstance(first_pool, V2Pool)
        return first_pool


@dataclass
class World:
    """A paper chain over a store on disk."""

    blocks: Blocks
    store: Store
    chain: PaperChain

    def send(self, to: str, data: str, nonce: int = 7, max_fee_wei: int = 3 * GWEI, gas: int = 300_000) -> str:
        tx = UnsignedTx(31_337, nonce, to, 0, data, gas, max_fee_wei, GWEI // 10, None)
        signed = named(tx)
        self.chain.send(signed)
        return signed.hash

    def held(self, symbol: str) -> int:
        return next(balance.raw for balance in self.chain.wallet().balances if balance.token == builders.token(symbol).address)


def named(tx: UnsignedTx) -> SignedTx:
    """What the keyless signer makes of it, its rules left aside."""
    raw = codec.dumps(tx).encode()
    return SignedTx(raw, "0x" + hashlib.sha256(raw).hexdigest())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    step = builders.step_input()
    blocks = Blocks(step.snapshot)
    store = open_store(f"sqlite:///{tmp_path}/paper.db", 31_337, builders.OWNER, WETH.address, "paper")
    store.paper.begin(BEGUN)
    yield World(blocks, store, PaperChain(store.paper, blocks, blocks.head, PLACE))
    store.close()


def sale(pool: V2Pool, least_raw: int = 1, raw: int = SOLD) -> str:
    """Calldata that sells WETH in the pair."""
    ends = LegPlace.WALLET, LegPlace.WALLET
    leg = Leg(pool.address, "uniswap_v2", WETH.address, USDC.address, 3_000, raw, least_raw, least_raw, 0, 0, *ends)
    plan = replace(sell_weth(builders.step_input()), legs=(leg,))
    return encode_multicall(plan, builders.OWNER, builders.NOW_S + 90)


def approve(world: World, nonce: int = 7) -> None:
    world.send(WETH.address, encode_approve(builders.ROUTER, 5 * SOLD), nonce)
    world.blocks.next()
    assert world.chain.nonces(builders.OWNER) == (nonce + 1, nonce + 1)


def test_swap__is_filled_at_the_pools_of_the_next_block(world: World) -> None:
    approve(world)
    pool_seen = world.blocks.next()
    sent = world.send(builders.ROUTER, sale(pool_seen), 8)
    for _ in range(3):
        assert world.chain.status_of(sent).state == "pending"
        assert world.held("USDC") == 0
    moved = replace(pool_seen, reserve1=pool_seen.reserve1 * 9 // 10)
    world.blocks.next(moved)
    receipt = world.chain.status_of(sent).receipt
    paid = moved.swap(WETH.address, SOLD).amount_out_raw
    assert paid != pool_seen.swap(WETH.address, SOLD).amount_out_raw
    assert receipt.status == 1
    head = world.blocks.now.head
    assert (receipt.block_number, receipt.block_hash, receipt.block_time_s) == (head.number, head.hash, head.timestamp_s)
    assert (world.held("USDC"), world.held("WETH")) == (paid, 4 * SOLD)
    assert world.chain.block_hash(receipt.block_number) == receipt.block_hash
    assert world.blocks.now.pools == (moved,), "what it did to the pool is gone with its block"


def test_gas__is_paid_at_the_header_s_fees_also_by_reverts(world: World) -> None:
    approve(world)
    native_wei = world.chain.wallet().native_wei
    assert 10**18 - native_wei == 46_000 * (GWEI + GWEI // 10)
    pool = world.blocks.next()
    sent = world.send(builders.ROUTER, sale(pool, least_raw=10**12), 8)
    world.blocks.next()
    receipt = world.chain.status_of(sent).receipt
    assert (receipt.status, receipt.transfers) == (0, ())
    assert world.chain.wallet().native_wei == native_wei - receipt.gas_cost_wei
    assert (world.held("WETH"), world.chain.wallet().nonce) == (5 * SOLD, 9)


def test_two_swaps_of_a_block__meet_and_a_later_one_waits(world: World) -> None:
    approve(world)
    pool = world.blocks.next()
    sent = [world.send(builders.ROUTER, sale(pool), nonce) for nonce in (8, 9)]
    world.blocks.next()
    late = world.send(builders.ROUTER, sale(pool), 10)
    assert [world.chain.status_of(transaction).state for transaction in (*sent, late)] == ["mined", "mined", "pending"]
    first = pool.swap(WETH.address, SOLD)
    second = first.pool_after.swap(WETH.address, SOLD)
    assert second.amount_out_raw < first.amount_out_raw
    assert world.held("USDC") == first.amount_out_raw + second.amount_out_raw


@pytest.mark.parametrize("short", ["gas", "coin"])
def test_swap_without_gas_or_coin__changes_nothing_and_pays(world: World, short: str) -> None:
    approve(world)
    pool = world.blocks.next()
    if short == "coin":
        world.store.paper.save(replace(world.chain.wallet(), native_wei=10**14))
    native_wei = world.chain.wallet().native_wei
    sent = world.send(builders.ROUTER, sale(pool), 8, gas=50_000 if short == "gas" else 300_000)
    world.blocks.next()
    receipt = world.chain.status_of(sent).receipt
    assert (receipt.status, receipt.gas_used) == (0, 50_000 if short == "gas" else 300_000)
    assert (world.held("WETH"), world.held("USDC")) == (5 * SOLD, 0)
    assert world.chain.wallet().native_wei == max(0, native_wei - receipt.gas_cost_wei)


def test_underpaid_swap__waits_and_makes_way_at_its_nonce(world: World) -> None:
    first = world.send(WETH.address, encode_approve(builders.ROUTER, 1), max_fee_wei=2 * GWEI)
    world.blocks.next(base_fee_wei=5 * GWEI)
    assert world.chain.status_of(first).state == "pending"
    assert world.chain.nonces(builders.OWNER) == (7, 8)
    second = world.send(builders.OWNER, "0x", max_fee_wei=6 * GWEI)
    assert world.chain.status_of(first).state == "unknown"
    world.blocks.next(base_fee_wei=5 * GWEI)
    receipt = world.chain.status_of(second).receipt
    assert receipt.gas_used == 21_000
    assert world.chain.wallet().allowances == ()


def test_swap__needs_its_allowance_and_deadline(world: World) -> None:
    pool = world.blocks.next()
    tx = UnsignedTx(31_337, 7, builders.ROUTER, 0, sale(pool), 300_000, 3 * GWEI, GWEI, None)
    assert world.chain.simulate(tx, builders.OWNER).reason == "STF"
    approve(world)
    assert world.chain.simulate(tx, builders.OWNER).ok
    for _ in range(9):
        world.blocks.next()
    assert world.chain.simulate(tx, builders.OWNER).reason == "Transaction too old"


def test_restart__keeps_waiting_swaps_and_fills_once(world: World, tmp_path: Path) -> None:
    approve(world)
    pool = world.blocks.next()
    sent = world.send(builders.ROUTER, sale(pool), 8)
    store = open_store(f"sqlite:///{tmp_path}/paper.db", 31_337, builders.OWNER, WETH.address, "paper")
    again = PaperChain(store.paper, world.blocks, world.blocks.head, PLACE)
    assert again.status_of(sent).state == "pending"
    world.blocks.next()
    assert again.status_of(sent).state == "mined"
    balance = world.held("USDC")
    assert balance > 0
    world.send(builders.ROUTER, sale(pool), 8)
    world.blocks.next()
    assert world.chain.status_of(sent).state == "mined"
    assert world.held("USDC") == balance, "the same bytes a second time do nothing"
    store.close()


def test_a_used_nonce_is_refused(world: World) -> None:
    approve(world)
    with raises_code(OperatorNeeded, "nonce_used", "nonce 7"):
        world.send(WETH.address, encode_approve(builders.ROUTER, 1), 7)


def test_reading_shows_the_paper_wallet_and_carries_nothing_out(world: World) -> None:
    world.send(WETH.address, encode_approve(builders.ROUTER, 5 * SOLD))
    world.blocks.next()
    snapshot = PaperReader(world.blocks, world.chain).snapshot()
    assert (snapshot.nonce_latest, snapshot.nonce_pending, snapshot.native_wei) == (7, 8, 10**18)
    assert {holding.token: holding.raw for holding in snapshot.holdings} == {WETH.address: 5 * SOLD, USDC.address: 0}
    assert {allowance.raw for allowance in snapshot.allowances} == {0}
    assert world.chain.wallet().pending_txs, "only the one that acts carries out"


def test_tokens__are_tried_with_the_real_wallet_s_holdings(world: World) -> None:
    steps: list[StepInput] = []

    @dataclass
    class Source:
        def gather(self, step: StepInput, plan: Plan) -> Evidence:
            steps.append(step)
            raise Retryable("enough")

    allowed = (Allowance(WETH.address, builders.ROUTER, 5),)
    world.blocks.now = replace(world.blocks.now, allowances=allowed)
    real = world.blocks.now
    real_snapshot = PaperReader(world.blocks, world.chain).snapshot()
    assert (real_snapshot.holdings, real_snapshot.allowances) != (real.holdings, real.allowances)
    with pytest.raises(Retryable, match="enough"):
        step = replace(builders.step_input(), snapshot=real_snapshot)
        PaperEvidence(Source(), world.chain).gather(step, sell_weth(step))
    assert (steps[0].snapshot.holdings, steps[0].snapshot.allowances) == (real.holdings, allowed)


@pytest.mark.parametrize("quote", [DataFeeQuote(10**12, 10**15, 0, 0, 10**12, 4 * 10**12), DataFeeQuote(10**12, 10**15, 7, 7)])
def test_data_fee__is_the_one_that_the_plan_expects(world: World, quote: DataFeeQuote) -> None:
    world.blocks.now = replace(world.blocks.now, data_fee=quote)
    approve(world)
    pool_seen = world.blocks.next()
    sent = world.send(builders.ROUTER, sale(pool_seen), 8)
    world.blocks.next()
    receipt = world.chain.status_of(sent).receipt
    assert receipt.status == 1
    assert receipt.data_fee_wei == quote.expected_fee_beyond_gas_wei(receipt.gas_used, 2 * LEG_BYTES)
    approval = world.store.paper.wallet()
    assert approval.receipts[0].data_fee_wei == quote.expected_fee_beyond_gas_wei(approval.receipts[0].gas_used, APPROVAL_BYTES)


def test_endpoints_behind_the_last_fill_are_waited_for(world: World) -> None:
    behind = world.blocks.now
    approve(world)
    world.blocks.now = behind
    with raises_code(Retryable, "lag") as caught:
        PaperReader(world.blocks, world.chain).snapshot()
    assert "begin a new portfolio" in caught.value.remedy


def test_the_signers_rules_hold_on_paper(world: World) -> None:
    """What was not granted gets no name, and so is never carried out."""
    rules = SigningRules(31_337, builders.OWNER, (builders.ROUTER,), (WETH.address, USDC.address), 90, None, wrapped_native=WETH.address)
    signer = NullSigner(rules, lambda: {7: None})
    stranger = builders.address("stranger")
    grant = Grant(IntentKind.APPROVE, builders.NOW_S, builders.NOW_S + 90, 10**18, approval_terms=(WETH.address, stranger, 1))
    tx = UnsignedTx(31_337, 7, WETH.address, 0, encode_approve(stranger, 1), 60_000, 3 * GWEI, GWEI, None)
    with raises_code(Refused, "signer.spender"):
        signer.sign(tx, grant)
    good = replace(grant, approval_terms=(WETH.address, builders.ROUTER, 1))
    named_tx = replace(tx, data=encode_approve(builders.ROUTER, 1))
    assert signer.sign(named_tx, good) == signer.sign(named_tx, good)
    assert decode_unsigned(signer.sign(named_tx, good)) == named_tx


class FakePaperPerpetualProtocol:
    """A venue whose paper account is never computed."""


def test_wallet_without_margin__does_not_show_the_real_account(world: World) -> None:
    """Futures that a config got later would trade on collateral that the paper wallet does not have."""
    real = builders.step_input().snapshot.with_layer(FuturesReading(book(5_000)))
    chain = PaperChain(world.store.paper, world.blocks, world.blocks.head, PLACE, FakePaperPerpetualProtocol())  # type: ignore[arg-type]  # never called
    reading = chain.with_paper_margin(real).layer(FuturesReading)
    assert (reading.account, reading.unknown_reason) == (None, NO_ACCOUNT_ANSWER)
    assert world.chain.with_paper_margin(real) == real, "without a venue there is no account to replace"
