"""An asset leaves by one command: target 0 %, sold to the last base unit, taken out of the config; broken off anywhere it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.app.settings import editing
from agent.app.settings.editing import EditReport
from agent.config.load import load_config
from agent.config.writing.edits import ConfigChanges, apply_changes, parse_changes
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import explain_balances, reopened_agent, yes
from tests.support.on_chain.editing import EditedRun
from tests.support.text import mentions

GONE = ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),))


class ProcessKilled(Exception):
    """The process ends here."""


def remove(
    bot: EditedRun, changes: ConfigChanges = GONE, send: bool = True, dies_at: str = "", change_by_hand: Callable[[], object] | None = None
) -> EditReport:
    def progress(event: str) -> None:
        if dies_at and event == dies_at:
            raise ProcessKilled
        if event == "after:send" and change_by_hand is not None:
            change_by_hand()

    return editing.remove_assets(
        bot.file,
        changes,
        confirm=lambda _edit, _agent: True,
        sale=editing.RemovalSale(lambda _agent, _outcome: True, progress) if send else None,
        transports=[bot.chain.transport],
        clock=bot.chain.clock,
    )


def symbols(bot: EditedRun) -> list[str]:
    return [asset.symbol for asset in load_config(bot.file).config.portfolio.assets]


def test_one_command_sells_to_the_last_base_unit_and_takes_away(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path, turnover="1%", daily_turnover="1%")
    edit_report = remove(bot)
    assert (edit_report.state, edit_report.reason, symbols(bot)) == ("removed", "", ["WETH", "USDC"])
    assert chain.balance("WBTC") == 0
    assert [transaction.succeeded for transaction in edit_report.transactions] == [True] * len(edit_report.transactions)
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.context.store.configs.confirmed_digest() == load_config(bot.file).digest, "a run takes it up"
        assert agent.plan().kind is not OutcomeKind.HALT


def test_without_send_nothing_leaves_and_its_target_is_zero(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    balance = chain.balance("WBTC")
    edit_report = remove(bot, send=False)
    assert (edit_report.state, edit_report.transactions, chain.balance("WBTC")) == ("written", (), balance)
    assert [asset.target for asset in load_config(bot.file).config.portfolio.assets] == [7_000, 0, 3_000]


@pytest.mark.parametrize("moment", ["before:send", "after:send"])
def test_broken_off_anywhere_the_same_command_goes_on(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    bot = EditedRun(chain, tmp_path)
    with pytest.raises(ProcessKilled):
        remove(bot, dies_at=moment)
    assert [asset.target for asset in load_config(bot.file).config.portfolio.assets] == [7_000, 0, 3_000]
    edit_report = remove(bot)
    assert (edit_report.state, symbols(bot), chain.balance("WBTC")) == ("removed", ["WETH", "USDC"], 0)


@pytest.mark.parametrize(
    "edit_text",
    [
        lambda text: apply_changes(text, parse_changes(["limits.turnover=60%"], [], (), [])),
        lambda text: apply_changes(text, parse_changes([], ["WETH=60%", "USDC=40%"], (), [])),
        lambda text: text + "\n# by hand\n",
    ],
    ids=["limit", "targets", "comment"],
)
def test_change_by_hand_during_the_sale__stays_unconfirmed(chain: LocalChain, tmp_path: Path, edit_text: Callable[[str], str]) -> None:
    bot = EditedRun(chain, tmp_path, turnover="30%")
    texts = list[str]()

    def change_by_hand() -> None:
        if not texts:
            texts.append(edit_text(bot.file.read_text()))
            bot.file.write_text(texts[0])

    edit_report = remove(bot, change_by_hand=change_by_hand)
    assert (edit_report.state, bot.file.read_text(), chain.balance("WBTC")) == ("unfinished", texts[0], 0)
    assert edit_report.transactions
    assert mentions(edit_report.reason, "trimtab edit --confirm", "trimtab edit --remove WBTC --send")
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.context.store.configs.confirmed_digest() != load_config(bot.file).digest


def test_what_cannot_be_sold_stays_at_zero_and_says_how_to_go_on(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path, gas_price="1 gwei")
    edit_report = remove(bot)
    assert edit_report.state == "unfinished", edit_report
    assert symbols(bot) == ["WETH", "WBTC", "USDC"], edit_report
    assert mentions(edit_report.reason, "target", "0 %")
    assert "trimtab edit --remove WBTC --send" in edit_report.reason


def test_what_was_kept_in_reserve_is_sold_too(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    bot.edit(ConfigChanges(key_settings=(("portfolio.assets.WBTC.reserve", "0.01"),)))
    assert remove(bot).state == "removed"
    assert chain.balance("WBTC") == 0


def test_dust_that_came_meanwhile_is_named_and_asks_nobody(chain: LocalChain, tmp_path: Path) -> None:
    """It was seen by a look, so that the books asked what it was; the asset is gone, and so is the question."""
    bot = EditedRun(chain, tmp_path)
    remove(bot, send=False)
    with reopened_agent(chain, load_config(bot.file)) as agent:
        explain_balances(agent)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        chain.set_balance("WBTC", 3)
        chain.mine()
        assert agent.rebalance(send=True, confirm=yes).step_input.history.cash_flows.unexplained_transfers, (
            "it was asked what these three units are"
        )
    edit_report = remove(bot, ConfigChanges(removed_symbols=("WBTC",)))
    assert edit_report.state == "removed"
    assert any(mentions(warning, "0.00000003 WBTC", "gas") for warning in edit_report.warnings)
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.step_input().history.cash_flows.unexplained_transfers == ()
        assert not [external_transfer for external_transfer in agent.context.store.balances.transfers() if external_transfer.is_open]
