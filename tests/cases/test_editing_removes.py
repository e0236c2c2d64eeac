"""A token leaves a running bot: sold to the last base unit first, or named and left where its sale costs more than it brings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from agent.app.settings import editing
from agent.app.settings.editing import EditReport
from agent.config.load import load_config
from agent.config.writing.edits import ConfigChanges, apply_changes, removals_as_sales
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import reopened_agent, yes
from tests.support.on_chain.editing import EditedRun
from tests.support.text import mentions

GONE = ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),))


def remove(bot: EditedRun, changes: ConfigChanges = GONE) -> EditReport:
    return editing.edit(
        bot.file,
        editing.TextEdit(lambda text: apply_changes(text, changes), partial(apply_changes, changes=removals_as_sales(changes))),
        confirm=lambda _edit, _agent: True,
        transports=[bot.chain.transport],
        clock=bot.chain.clock,
    )


def test_removed_token__is_sold_to_the_last_unit_then_gone(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    first = remove(bot)
    assert first.state == "written"
    assert mentions(first.warnings[0], "WBTC", "next rebalance")
    assert [asset.target for asset in load_config(bot.file).config.portfolio.assets] == [7_000, 0, 3_000]
    waits = remove(bot)
    assert waits.state == "unchanged"
    assert "next rebalance" in waits.warnings[0]
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    assert chain.balance("WBTC") == 0
    assert remove(bot, ConfigChanges(removed_symbols=("WBTC",))).state == "written"
    assert [asset.symbol for asset in load_config(bot.file).config.portfolio.assets] == ["WETH", "USDC"]


def test_dust_of_a_removed_token__is_named_and_halts_nothing(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    remove(bot)
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    chain.set_balance("WBTC", 3)
    done = remove(bot, ConfigChanges(removed_symbols=("WBTC",)))
    assert done.state == "written"
    assert mentions(done.warnings[0], "0.00000003 WBTC", "gas")
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.step_input().history.cash_flows.unexplained_transfers == ()
        assert agent.plan().kind is OutcomeKind.HOLD
    back = ConfigChanges(added_assets=(("WBTC", chain.tokens["WBTC"].address, "10%"),), targets=(("WETH", "60%"),))
    assert bot.edit(back, pins_new=True).state == "written"
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert not any(flow.exceeds_jump_limit for flow in agent.step_input().history.cash_flows.unexplained_transfers)
        assert agent.plan().kind is not OutcomeKind.HALT
