"""The remedy of a mistake in a config names where it stands: an option, or the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.app.research.edit_backtests import edit_backtest
from agent.app.settings.new_portfolios import check_portfolio
from agent.config.load import FILE_REMEDY, UNSAVED_REMEDY
from agent.errors import ConfigError
from tests.cli.tools import CommandResult
from tests.support.commands.init import RPC, TWO, WALLET

INIT = ("init", "--wallet", WALLET, *RPC)
HALVES = ("--target", "WETH=50%", "--target", "USDC=60%")
TWICE = ("--target", "WETH=50%", "--target", "WETH=20%", "--target", "USDC=30%")
SLIPPAGE = ("edit", "--set", "limits.slippage=0.2%")
STOP = ("orders", "set", "WETH", "--stop-loss", "10%", "--yes")


def refusal_of(bare: Callable[..., CommandResult], config: Path, args: tuple[str, ...]) -> tuple[str, str]:
    """The message and the remedy of a command whose input is wrong, and which writes nothing."""
    text_before = config.read_text() if config.exists() else None
    answer = bare(*args, "--config", str(config), "--json")
    assert answer.code == 2
    assert (config.read_text() if config.exists() else None) == text_before
    return answer.error["message"], answer.error["remedy"]


@pytest.mark.parametrize("args", [(*INIT, *HALVES), (*INIT, *TWICE)], ids=["sum", "twice"])
def test_option_of_a_new_config__is_corrected_as_an_option(
    bare: Callable[..., CommandResult], tmp_path: Path, args: tuple[str, ...]
) -> None:
    message, remedy = refusal_of(bare, tmp_path / "trimtab.toml", args)
    assert message.startswith("the new config: portfolio")
    assert remedy == UNSAVED_REMEDY


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("edit", "--set", "limits.slippage=150%"), "limits.slippage"),
        (("edit", "--set", "limits.nothing=1%"), "limits.nothing"),
        (("edit", "--target", "WETH=90%"), "portfolio.assets"),
        (("orders", "set", "WETH", "--stop-loss", "150%"), "portfolio.assets.WETH.stop_loss"),
        (("orders", "set", "portfolio", "--trailing-stop", "300"), "portfolio.orders.trailing_stop"),
    ],
    ids=["value", "key", "target", "level", "level of the portfolio"],
)
def test_option_of_an_edit__is_corrected_as_an_option(
    bare: Callable[..., CommandResult], tmp_path: Path, args: tuple[str, ...], key: str
) -> None:
    config = tmp_path / "trimtab.toml"
    assert bare(*INIT, *TWO, "--config", str(config)).code == 0
    message, remedy = refusal_of(bare, config, args)
    assert key in message
    assert remedy == UNSAVED_REMEDY


@pytest.mark.parametrize("args", [("status",), SLIPPAGE, STOP], ids=["read", "edit", "level"])
def test_mistake_of_the_file__is_corrected_in_the_file(bare: Callable[..., CommandResult], tmp_path: Path, args: tuple[str, ...]) -> None:
    config = tmp_path / "trimtab.toml"
    assert bare(*INIT, *TWO, "--config", str(config)).code == 0
    config.write_text(config.read_text().replace('"60%"', '"50%"', 1))
    message, remedy = refusal_of(bare, config, args)
    assert message == f"{config}: portfolio.assets: targets sum to 90 %, not 100 %; add 10 %"
    assert remedy == FILE_REMEDY


def test_edit_that_adds_a_mistake__is_corrected_as_an_option(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    assert bare(*INIT, *TWO, "--config", str(config)).code == 0
    config.write_text(config.read_text().replace('"60%"', '"50%"', 1))
    message, remedy = refusal_of(bare, config, ("edit", "--set", "limits.nothing=1%"))
    assert "limits.nothing" in message
    assert remedy == UNSAVED_REMEDY


FORM = {
    "name": "calm",
    "network": "base",
    "wallet": WALLET,
    "endpoints": "RPC_A=alpha RPC_B=beta",
    "basket": "moderate",
    "cash": "500",
}


@pytest.mark.parametrize(
    ("field", "answer", "remedy"),
    [
        pytest.param("cash", "1e9", "Write 1000, or all.", id="cash too large"),
        pytest.param("ceiling", "-5", "Write 1000.", id="negative ceiling"),
        pytest.param("basket", "WETH=70% USDC=40%", "Choose a listed one, or type your own weights.", id="basket above a whole"),
        pytest.param("endpoints", "RPC_A=alpha", "for example RPC_URL_1=alchemy RPC_URL_2=infura.", id="endpoint without a number"),
        pytest.param("wallet", "0x12", "Write 0x and 40 hex digits.", id="short address"),
    ],
)
def test_new_portfolio_answer__is_corrected_in_its_field(
    bare: Callable[..., CommandResult], tmp_path: Path, field: str, answer: str, remedy: str
) -> None:
    source = tmp_path / "mine.toml"
    assert bare(*INIT, *TWO, "--config", str(source)).code == 0
    checked = check_portfolio(str(tmp_path), str(source), is_copy=False, field_texts=FORM | {field: answer}, taken_names=("mine",))
    assert list(checked["errors"]) == [field]
    assert checked["errors"][field].endswith(remedy)


@pytest.mark.parametrize("arguments", [[("target", "WETH=90%")], [("set", "limits.slippage=150%")], [("set", "limits.nothing=1%")]])
def test_answer_in_the_form_of_an_edit__is_corrected_in_the_form(
    bare: Callable[..., CommandResult], tmp_path: Path, arguments: list[tuple[str, str]]
) -> None:
    config = tmp_path / "trimtab.toml"
    assert bare(*INIT, *TWO, "--config", str(config)).code == 0
    with pytest.raises(ConfigError) as caught:
        edit_backtest(config, arguments)
    assert caught.value.remedy == UNSAVED_REMEDY


@pytest.mark.parametrize("form", ["copy", "new", "edit"])
def test_form_over_a_file_with_a_mistake__names_the_file(bare: Callable[..., CommandResult], tmp_path: Path, form: str) -> None:
    source = tmp_path / "mine.toml"
    assert bare(*INIT, *TWO, "--config", str(source)).code == 0
    source.write_text(source.read_text().replace('"60%"', '"50%"', 1))
    with pytest.raises(ConfigError, match="targets sum to 90 %") as caught:
        if form == "edit":
            edit_backtest(source, [("set", "limits.slippage=0.2%")])
        else:
            check_portfolio(str(tmp_path), str(source), form == "copy", {}, ("mine",))
    assert caught.value.message.startswith(str(source))
    assert caught.value.remedy == FILE_REMEDY
