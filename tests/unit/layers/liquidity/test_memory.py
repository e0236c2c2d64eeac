"""Tests of agent/layers/liquidity/memory.py: what the wallet holds of target pools is known before anything is minted."""

from __future__ import annotations

import pytest

from agent.chain.lens import CallStatus, uint_word
from agent.chain.pools.own_positions import MAX_CHECKED_TOKENS
from agent.errors import Retryable
from agent.layers.liquidity.memory import record_unknown_positions
from agent.layers.liquidity.state import LiquidityState
from agent.model import StepInput
from agent.store import Store
from tests.support import lp_worlds
from tests.support.builders import address
from tests.support.chain_reads.lens_pages import Answer, scripted_lens, word_answers
from tests.support.fakes.transport import ScriptedTransport
from tests.support.stores import store_fixture

MANAGER = address("manager")
FAILED = CallStatus.FAILED
POSITIONS_OF_A_PAGE = 63
TARGET = lp_worlds.lp_target(1_000)
STEP = lp_worlds.world(targets=[TARGET])
store = store_fixture("file")


def position(liquidity: int) -> bytes:
    """NonfungiblePositionManager.positions of the target's pair."""
    return b"".join(map(uint_word, [1, 2, int(TARGET.token0, 16), int(TARGET.token1, 16), 5, 6, 7, liquidity, 9, 10, 11, 12]))


def manager_with(*liquidities: int) -> ScriptedTransport:
    """A manager whose tokens of the wallet, numbered from 0, have this liquidity."""
    pages: list[list[Answer]] = [word_answers(len(liquidities))]
    for start in range(0, len(liquidities), MAX_CHECKED_TOKENS):
        token_ids = range(len(liquidities))[start : start + MAX_CHECKED_TOKENS]
        pages.append(word_answers(*token_ids))
        answers = [position(liquidities[token_id]) for token_id in token_ids]
        pages += [list(answers[i : i + POSITIONS_OF_A_PAGE]) for i in range(0, len(answers), POSITIONS_OF_A_PAGE)]
    return scripted_lens(*pages)


def scan(store: Store, node: ScriptedTransport) -> StepInput:
    return record_unknown_positions(STEP, store.positions, store.budgets, node, MANAGER)


@pytest.mark.parametrize(
    ("liquidities", "token_id"),
    [([7], 0), ([0] * 119 + [7], 119), ([7] + [0] * 119, 0), ([0] * 150 + [7] + [0] * 60, 150)],
    ids=["only", "newest of 120", "oldest of 120", "amid 211"],
)
def test_scan__finds_a_position_wherever_it_is(store: Store, liquidities: list[int], token_id: int) -> None:
    step = scan(store, manager_with(*liquidities))
    assert step.layer(LiquidityState).undecided_positions == (f"uniswap_v3 #{token_id}",)
    assert store.positions.is_scanned()


@pytest.mark.parametrize(
    "pages",
    [
        [word_answers(FAILED)],
        [word_answers(2), word_answers(0, FAILED), [position(0)]],
        [word_answers(2), word_answers(0, 1), [position(0), FAILED]],
        [word_answers(2**255), word_answers(*[FAILED] * MAX_CHECKED_TOKENS)],
    ],
    ids=["balance", "number", "position", "endless"],
)
def test_scan__with_an_unread_answer_is_repeated(store: Store, pages: list[list[Answer]]) -> None:
    with pytest.raises(Retryable, match="cannot be read"):
        scan(store, scripted_lens(*pages))
    assert not store.positions.is_scanned()
    assert scan(store, manager_with(7)).layer(LiquidityState).undecided_positions == ("uniswap_v3 #0",)
