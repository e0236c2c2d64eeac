"""What a question is about stands above it on stderr, with --json too, where stdout has the document alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from agent.cli import setup, weights
from agent.cli.display import terminal

CONFIG = Path("trimtab.toml")
DEPLOYMENT = {
    "address": "0xAb",
    "chain_id": 1,
    "most_gas_native": "0.0123",
    "most_data_fee_native": "0",
    "outcome": "declined",
    "transactions": [],
    "reason": "",
    "deployed": False,
}
EXTENSION = {
    "pool": "0xAb",
    "tokens": ["WETH", "USDC"],
    "observations_next": 64,
    "to": 80,
    "cost_native": "0.0123",
    "cost": None,
    "most_native": None,
    "gas_units": 4_000,
    "increase": 16,
    "outcome": "declined",
    "transactions": [],
}
CHOICE = {
    "kind": "hrp",
    "strategy": "",
    "assets": [],
    "correlations": {},
    "chosen": None,
    "now": None,
    "waiting": None,
    "accepted": False,
    "turnover_bps": 123,
    "fault": "",
}


@contextmanager
def no_agent(*_: object, **__: object) -> Iterator[None]:
    yield None


QUESTIONS: dict[str, tuple[Any, str, dict[str, Any], Callable[[bool], object], str]] = {
    "deploy": (setup, "deploy_rebalancer", DEPLOYMENT, lambda as_json: setup.deploy(CONFIG, send=True, as_json=as_json), "0.0123"),
    "oracle": (
        weights,
        "raise_observations",
        EXTENSION,
        lambda as_json: weights.oracle("0xAb", 80, CONFIG, send=True, as_json=as_json),
        "0.0123",
    ),
    "weights": (weights, "weights", CHOICE, lambda as_json: weights.weights(accept=True, config=CONFIG, as_json=as_json), "1.23 %"),
}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("module", "name", "document", "command", "figure"), QUESTIONS.values(), ids=QUESTIONS)
def test_question__is_asked_below_its_figures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: Any,
    name: str,
    document: dict[str, Any],
    command: Callable[[bool], object],
    figure: str,
    as_json: bool,
) -> None:
    previews: list[str] = []

    def answer(_: str) -> bool:
        captured = capsys.readouterr()
        previews.append(captured.err + ("" if as_json else captured.out))
        if as_json:
            assert captured.out == ""
        return False

    def asking(*_: object, **arguments: Any) -> dict[str, Any]:
        assert not (arguments.get("confirm") or arguments["accept"])(document)
        return document

    monkeypatch.setattr(module.api, "open_agent", no_agent)
    monkeypatch.setattr(module.api, name, asking, raising=False)
    monkeypatch.setattr(module, "require_answerable", lambda _: None)
    monkeypatch.setattr(module, "ask", answer)
    monkeypatch.setattr(terminal, "ask", answer)
    with pytest.raises(typer.Exit):
        command(as_json)
    assert [figure in text for text in previews] == [True]
    if as_json:
        assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize("is_accepted", [True, False])
def test_accepted_first_choice__is_not_said_to_be_missing(capsys: pytest.CaptureFixture[str], is_accepted: bool) -> None:
    weights._show_weights(Console(), CHOICE | {"accepted": is_accepted})
    text = capsys.readouterr().out
    assert ("Accepted" in text, "Nothing chosen yet" in text) == (is_accepted, not is_accepted)


SENT = {"kind": "deploy", "status": "final", "block": 7, "hash": "0xcd"}


@pytest.mark.parametrize(
    ("transactions", "text"), [([], "declined: nothing changed"), ([SENT], "failed: at most gas was spent")], ids=["declined", "reverted"]
)
@pytest.mark.parametrize(
    ("show", "document"),
    [(setup._show_deployment, DEPLOYMENT), (lambda document: weights._show_extension(document, True), EXTENSION)],
    ids=["deploy", "oracle"],
)
def test_command__that_failed_tells_of_its_gas(
    capsys: pytest.CaptureFixture[str],
    show: Callable[[dict[str, Any]], None],
    document: dict[str, Any],
    transactions: list[dict[str, Any]],
    text: str,
) -> None:
    show({**document, "transactions": transactions, "outcome": text.partition(":")[0]})
    assert capsys.readouterr().err.splitlines()[-1] == text
