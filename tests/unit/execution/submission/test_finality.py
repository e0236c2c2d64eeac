"""Finality by a block tag: a transaction stays mined until its block has the tag, trades may follow it, a reorg before that moves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.load import parse_config
from agent.config.tables.chain import ChainTable
from agent.errors import ConfigError, OperatorNeeded
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.model import IntentState
from agent.wiring.transactor import submission_settings
from tests.support.builders import OWNER, step_input
from tests.support.configs.samples import config_text
from tests.support.text import raises_code
from tests.support.transactions import Bench, bench

S = IntentState


def waiting_for(folder: Path, confirmations: int = 1) -> Bench:
    """A bench that waits for the tag "finalized"."""
    setup = bench(folder, confirmations=confirmations)
    setup.settings = replace(setup.settings, finality_tag="finalized")
    return setup


def test_a_transaction_stays_mined_until_its_block_is_finalized(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)
    setup.chain.tagged["finalized"] = 0
    started_s = setup.clock.now_s()

    intent = setup.run()

    assert intent.state is S.MINED
    assert setup.clock.now_s() == started_s, "the wait is left to the next cycles"
    assert "block 1 is not finalized yet; block 0 is" in [event.text for event in setup.events]
    assert intent.receipt.block_number == 1
    assert [intent.state for intent in setup.executor().reconcile()] == [S.MINED]
    setup.chain.tagged["finalized"] = 1
    assert [intent.state for intent in setup.executor().reconcile()] == [S.FINAL]


def test_the_next_transaction_does_not_wait_for_the_base_chain(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)

    setup.chain.tagged["finalized"] = 0

    assert [setup.run(nonce).state for nonce in (0, 1)] == [S.MINED, S.MINED]
    setup.chain.tagged["finalized"] = 1
    assert [intent.state for intent in setup.executor().reconcile()] == [S.FINAL, S.MINED]


def test_a_tag_that_no_node_knows_settles_nothing(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)

    assert setup.run().state is S.MINED
    assert [intent.state for intent in setup.executor().reconcile()] == [S.MINED]
    assert "no block is finalized" in [event.text for event in setup.events]


def test_a_finalized_block_still_needs_its_confirmations(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path, confirmations=3)

    setup.chain.tagged["finalized"] = 100

    assert setup.run().state is S.MINED
    setup.chain.mine()
    setup.chain.mine()
    assert [intent.state for intent in setup.executor().reconcile()] == [S.FINAL]


def test_reorg_before_finality_is_followed(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)
    setup.chain.tagged["finalized"] = 0
    setup.run()
    setup.chain.reorg(1)

    setup.chain.tagged["finalized"] = 1  # another block at that height

    assert [intent.state for intent in setup.executor().reconcile()] == [S.BROADCAST]
    (intent,) = setup.executor().reconcile()
    assert (intent.state, intent.receipt.block_number) == (S.MINED, 2)
    assert (len(setup.chain.sent), len(set(setup.chain.sent))) == (2, 1), "the same bytes"


@pytest.mark.parametrize("tag", ["safe", "finalized"])
def test_a_reorg_below_the_safe_head_takes_back_what_was_final(tmp_path: Path, tag: str) -> None:
    setup = bench(tmp_path, confirmations=1)
    setup.settings = replace(setup.settings, finality_tag=tag)

    setup.chain.tagged[tag] = 1

    assert setup.run().state is S.FINAL
    setup.chain.reorg(1)  # a base chain that reorganised, or a node that lied
    (moved,) = setup.executor().reconcile()
    assert (moved.state, moved.receipt.block_number) == (S.MINED, 2)
    assert (len(setup.chain.sent), len(set(setup.chain.sent))) == (2, 1), "the same bytes"
    setup.chain.tagged[tag] = 2
    assert [intent.state for intent in setup.executor().reconcile()] == [S.FINAL]


def test_reorg_below_the_tag_beyond_the_watch_needs_operator(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)

    setup.chain.tagged["finalized"] = 1

    assert setup.run().state is S.FINAL
    for _ in range(REORG_WATCH_BLOCKS):
        setup.chain.mine()
    setup.chain.reorg(REORG_WATCH_BLOCKS + 1)
    with raises_code(OperatorNeeded, "deep_reorg"):
        setup.executor().reconcile()
    assert len(setup.chain.sent) == 1


def chain(**values: object) -> ChainTable:
    endpoint = {"operator": "a", "url": "http://127.0.0.1:1"}
    defaults = {"chain_id": 1, "confirmations": 2, "wrapped_native": OWNER, "rpc": [endpoint], "single_operator": "a"}
    return ChainTable.model_validate(defaults | values)


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({}, None),
        ({"chain_id": 8453}, "finalized"),
        ({"chain_id": 42161}, "finalized"),
        ({"chain_id": 8453, "fork": True}, None),
        ({"chain_id": 8453, "finality": "safe"}, "safe"),
        ({"chain_id": 8453, "finality": "blocks"}, None),
        ({"chain_id": 137, "finality": "finalized"}, "finalized"),
    ],
)
def test_finality_tag_of_rollups_is_finalized_by_default(values: dict[str, object], tag: str | None) -> None:
    assert chain(**values).finality_tag == tag


def test_submission_settings_have_the_tag_of_the_config() -> None:
    config = parse_config(config_text(('finality = "finalized"', 'finality = "safe"')))

    settings = submission_settings(config, step_input().limits)

    assert (settings.finality_tag, settings.confirmations) == ("safe", 2)


def test_another_word_for_finality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chain\.finality"):
        parse_config(config_text(('finality = "finalized"', 'finality = "soon"')))


def reorg(setup: Bench) -> None:
    setup.chain.reorg(1)


def cut(setup: Bench) -> None:
    """The nodes show no block at that height."""
    del setup.chain.blocks[1:]


def move_up(setup: Bench) -> None:
    """The same transactions one block later."""
    setup.chain.blocks.insert(1, {})
    setup.chain.forks.append((1, 7))


@pytest.mark.parametrize("change", [reorg, cut, move_up])
@pytest.mark.parametrize("tagged", [1, 2])
def test_a_block_replaced_while_the_tag_is_read_is_not_final(tmp_path: Path, change: Callable[[Bench], None], tagged: int) -> None:
    """Its height has the tag, and its hash was canonical a moment before: only the hash read after the tag tells."""
    setup = waiting_for(tmp_path)

    def tagged_height(tag: str) -> int:
        setup.chain.tagged_height = lambda _tag: tagged
        change(setup)
        return tagged

    setup.chain.tagged_height = tagged_height

    intent = setup.run()

    assert intent.state is S.MINED
    assert setup.store.journal.open_intents()


def test_an_unchanged_block_is_final_once_the_tag_is_read(tmp_path: Path) -> None:
    setup = waiting_for(tmp_path)

    setup.chain.tagged["finalized"] = 1

    assert setup.run().state is S.FINAL
