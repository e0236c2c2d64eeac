"""`trimtab init` reads the past prices that its rules need, or names them; an endpoint that does not answer costs no config."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.app.start import past_prices
from agent.config.load import load_config
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from tests.cli.tools import CommandResult
from tests.support.commands.init import init

VOLATILITY = {
    "kind": "inverse_volatility", "every": "7d", "window": "90d", "step": "1d", "min_history": "30d", "max_age": "2d", "keep": "14d",
    "churn": "1%", "until_chosen": "wait", "fixed": ["USDC"],
}  # fmt: skip
LONGEST_S = 10


@pytest.fixture
def by_volatility(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template 60/40 with weights by volatility."""
    template = replace(PORTFOLIO_TEMPLATES["60/40"], allocator_values=VOLATILITY)
    monkeypatch.setitem(PORTFOLIO_TEMPLATES, "60/40", template)


@pytest.mark.usefixtures("by_volatility")
@pytest.mark.parametrize("endpoint", ["none", "closed", "silent"])
def test_new_config_without_an_endpoint__names_what_is_needed(
    bare: Callable[..., CommandResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(past_prices, "NEW_CONFIG_TIMEOUT_S", 0.2)
    config = tmp_path / "trimtab.toml"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if endpoint == "silent":
            listener.listen()
        if endpoint != "none":
            for variable in ("RPC_A", "RPC_B"):
                monkeypatch.setenv(variable, f"http://127.0.0.1:{listener.getsockname()[1]}")
        start_s = time.monotonic()
        answer = init(bare, config, "--template", "60/40")
        assert time.monotonic() - start_s < LONGEST_S
    assert answer.code == 0
    assert load_config(config).config.portfolio.weights is not None
    (line,) = answer.json["past_prices"]
    assert line.startswith("91 days of past prices of WETH")
    assert f"trimtab trust --config {config} reads them (not read yet: " in line


def test_new_config_without_past_prices__asks_no_endpoint(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    answer = init(bare, tmp_path / "trimtab.toml", "--template", "60/40")
    assert answer.code == 0
    assert "past_prices" not in answer.json
    assert {path.name for path in tmp_path.iterdir()} == {"trimtab.toml"}
