"""Parts of a snapshot: each answer is of the item that was asked, and what was not read is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent.amm.v3.pool import V3Pool
from agent.chain.lens import CallStatus, LensAnswer, V3Answer, uint_word
from agent.chain.pools.positions import PositionRange, PositionRef
from agent.chain.pools.reading import PoolRef, V3Reader
from agent.chain.watch import MIN_WINDOW_BPS, LensQuestion, SnapshotScope, snapshot_parts, snapshot_questions
from agent.model import Allowance, DataFeeKind, LayerReading, TickMean, TokenSupply, UnreadableItem
from agent.model.rollups import DATA_FEE_ITEM
from tests.support import lp_worlds
from tests.support.builders import address
from tests.support.lp_worlds import USDC, WETH

SPENDER = address("spender")
TOKEN0, TOKEN1 = sorted((address("token a"), address("token b")))
POOL = PoolRef(address("pool"), "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, 10)
POOL_ANSWER = V3Answer(2**96, 3, 10**18, -60, 50, (), None, (8, 9))
SCOPE = SnapshotScope(address("wallet"), (), (), (), (), (), 0, 100)
V2_POSITION = PositionRef(lp_worlds.confirmed_position(lp_worlds.v2()), address("factory"))
V3_POSITION = PositionRef(lp_worlds.confirmed_position(lp_worlds.v3()), address("factory"), PositionRange(POOL.address, 3_000, -600, 1_200))


def questions_of(scope: SnapshotScope) -> list[str]:
    return [question.name for question in snapshot_questions(scope)]


@pytest.mark.parametrize("impact_bps", [1, MIN_WINDOW_BPS - 1])
def test_ticks__are_read_as_far_as_the_depth_reaches(impact_bps: int) -> None:
    scope = replace(SCOPE, pools=(POOL,), impact_bps=MIN_WINDOW_BPS)
    assert snapshot_questions(replace(scope, impact_bps=impact_bps)) == snapshot_questions(scope)


def test_holding__of_a_token_without_decimals_is_unread() -> None:
    parts = snapshot_parts(replace(SCOPE, tokens=(WETH,)), [uint_word(5), CallStatus.FAILED])
    assert parts.holdings == ()
    assert [(item.subject, item.address) for item in parts.unreadable_items] == [("decimals of WETH", WETH.address)]


def test_feed__that_was_not_read_is_named() -> None:
    feed = address("feed")
    parts = snapshot_parts(replace(SCOPE, feeds=(feed,)), [CallStatus.FAILED] * 4)
    assert [(item.subject, item.address) for item in parts.unreadable_items] == [("decimals of feed", feed), ("round of feed", feed)]


def test_data_fee__that_was_not_read_is_named() -> None:
    scope = replace(SCOPE, data_fee_kind=DataFeeKind.OP_STACK)
    parts = snapshot_parts(scope, [CallStatus.FAILED] * len(snapshot_questions(scope)))
    assert parts.data_fee_quote is None
    assert [item.subject for item in parts.unreadable_items] == [DATA_FEE_ITEM]


def test_supply__that_was_not_read_leaves_its_token_in_use() -> None:
    scope = replace(SCOPE, supply_tokens=(WETH.address, USDC.address))
    parts = snapshot_parts(scope, [CallStatus.FAILED, uint_word(9)])
    assert (parts.supplies, parts.unreadable_items) == ((TokenSupply(USDC.address, 9),), ())


@pytest.mark.parametrize(
    ("answers", "slots"),
    [
        ((uint_word(0), uint_word(7)), (True, False)),
        ((uint_word(7), uint_word(0)), (False, True)),
        ((CallStatus.UNREAD, CallStatus.FAILED), (False, False)),
    ],
    ids=["token0", "token1", "unread"],
)
def test_unwritten_slots__are_those_of_each_token(answers: tuple[LensAnswer, LensAnswer], slots: tuple[bool, bool]) -> None:
    (pool,) = snapshot_parts(replace(SCOPE, pools=(POOL,)), [POOL_ANSWER, *answers]).pools
    assert pool.unwritten_slots == slots


def test_short_mean__is_of_its_own_window() -> None:
    scope = replace(SCOPE, pools=(POOL,), twap_window_s=1_800, short_window_s=300)
    observed = b"".join(uint_word(word) for word in (64, 160, 2, 0, 300, 2, 0, 2**64))
    (pool,) = snapshot_parts(scope, [POOL_ANSWER, uint_word(1), uint_word(1), observed]).pools
    assert isinstance(pool, V3Pool)
    assert pool.short_mean == TickMean(300, 1, 300 * (2**160 - 1) // 2**96)


def test_lp_tokens__have_an_allowance_unlike_the_manager_s() -> None:
    scope = replace(SCOPE, positions=(V2_POSITION, V3_POSITION), pair_token_spender=SPENDER)
    assert [name for name in questions_of(scope) if "allowance" in name] == [f"allowance of LP tokens to {SPENDER}"]


@dataclass(frozen=True)
class FakeLayer:
    """A layer with one question and one allowance, which reads nothing."""

    address: str

    @property
    def allowances(self) -> list[tuple[str, str, str]]:
        return [("margin", self.address, SPENDER)]

    def questions(self) -> list[LensQuestion]:
        return []

    def read(self, answers: Sequence[LensAnswer]) -> tuple[LayerReading, list[UnreadableItem]]:
        return LayerReading(), [UnreadableItem("account", self.address, "unread")]

    def wider_scope(self, answers: Sequence[LensAnswer], ask: Any) -> FakeLayer:
        return self


def test_layers__each_add_allowance_reading_and_unread_items() -> None:
    parts = snapshot_parts(replace(SCOPE, layer_scopes=(FakeLayer(WETH.address), FakeLayer(USDC.address))), [uint_word(5), uint_word(6)])
    assert parts.allowances == (Allowance(WETH.address, SPENDER, 5), Allowance(USDC.address, SPENDER, 6))
    assert len(parts.layer_readings) == 2
    assert [item.address for item in parts.unreadable_items] == [WETH.address, USDC.address]
