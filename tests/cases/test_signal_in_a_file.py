"""A function in a file beside the config: backtested from Python, then traded from the same file on a chain."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent import app as api
from agent import research
from agent.app.alerting import RunFacts, cycle_alerts
from agent.config.load import load_config
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.signals.worker import load_file
from agent.units import BPS
from tests.support.agents import ROOMY, agent_on, fund, reopened_agent, require_rebalance, trusted_config, weights, yes
from tests.support.on_chain.weights import closes
from tests.support.text import mentions

TARGETS = {"WETH": "30%", "WBTC": "30%", "LINK": "20%", "USDC": "20%"}
SOURCE = '''"""Half in what rose most, half in cash."""


def best(view):
    growths = {symbol: bars[-1].close / bars[0].close for symbol, bars in view.prices.items()}
    return {max(growths, key=growths.get): 0.5}
'''
SHA256 = hashlib.sha256(SOURCE.encode()).hexdigest()
SETTINGS = {
    "kind": "signal",
    "signal": "best",
    "every": "1d",
    "window": "30d",
    "step": "1d",
    "min_history": "10d",
    "max_age": "2d",
    "keep": "3d",
    "churn": "0%",
    "until_chosen": "wait",
}


CHANGES = ROOMY | {"portfolio.weights": SETTINGS, "signals": {"best": {"timeout": "10s", "file": "best.py:best", "sha256": SHA256}}}


def rebalance(chain: LocalChain, folder: Path, source: str) -> StepOutcome:
    """The outcome of a new portfolio whose signal's file has this text."""
    folder.mkdir()
    (folder / "best.py").write_text(source)
    with agent_on(chain, folder, CHANGES, TARGETS) as agent:
        fund(chain, {"WETH": 30_000, "WBTC": 30_000, "LINK": 20_000, "USDC": 20_000})
        api.import_prices(agent, closes(chain, folder / "closes.csv"))
        return agent.rebalance(send=True, confirm=yes)


def test_a_file_trades_as_it_was_backtested(anvil_chain: LocalChain, tmp_path: Path) -> None:
    outcome = rebalance(anvil_chain, tmp_path / "own", SOURCE)
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    function = load_file(tmp_path / "own" / "best.py", "best", SHA256)
    targets = {symbol: int(share.removesuffix("%")) / 100 for symbol, share in TARGETS.items()}
    signal = research.signal(function, every="1d", window="30d")
    tried = research.backtest(tmp_path / "own" / "closes.csv", targets, research.band(0.01), signal=signal)
    expected = tried.weights.select(*TARGETS).row(-1, named=True)
    for symbol, bps in weights(anvil_chain, TARGETS).items():
        assert float(bps) / BPS == pytest.approx(expected[symbol], abs=0.01)


def test_a_file_that_was_changed_trades_nothing_and_says_why(anvil_chain: LocalChain, tmp_path: Path) -> None:
    outcome = rebalance(anvil_chain, tmp_path / "changed", SOURCE.replace("max(", "min("))
    assert outcome.kind is OutcomeKind.HALT
    assert "its file best.py has the SHA-256" in outcome.reason


def test_a_file_that_changes_after_its_answer_is_named_at_once(chain: LocalChain, tmp_path: Path) -> None:
    folder = tmp_path / "silent"
    assert rebalance(chain, folder, SOURCE).kind is OutcomeKind.DONE
    (folder / "best.py").write_text(SOURCE + "# edit\n")
    loaded = load_config(folder / "trimtab.toml")
    why = "its file best.py has the SHA-256"
    with reopened_agent(chain, loaded) as agent:
        next_outcome = agent.rebalance(send=True, confirm=yes)
    assert next_outcome.kind is OutcomeKind.HOLD
    assert mentions(next_outcome.step_input.targets.reasons[0], "signal best gives no new weights", why)
    (alert,) = [alert for alert in cycle_alerts(next_outcome, RunFacts(False, "", None)) if alert.key == "signal:best"]
    assert mentions(alert.text, why, "trimtab weights")
    (check,) = [check for check in api.doctor(loaded, [chain.transport])["checks"] if check["check"] == "signal best"]
    assert (check["state"], why in check["finding"]) == ("warn", True)


def test_an_edited_file_with_its_new_hash_waits_for_the_owner(chain: LocalChain, tmp_path: Path) -> None:
    folder = tmp_path / "edited"
    assert rebalance(chain, folder, SOURCE).kind is OutcomeKind.DONE
    before = weights(chain, TARGETS)
    source = SOURCE.replace("max(", "min(")
    (folder / "best.py").write_text(source)
    signals = {"best": {"timeout": "10s", "file": "best.py:best", "sha256": hashlib.sha256(source.encode()).hexdigest()}}
    with reopened_agent(chain, trusted_config(chain, folder, CHANGES | {"signals": signals}, TARGETS)) as agent:
        waiting = require_rebalance(agent, OutcomeKind.HALT)
        assert mentions(waiting.reason, "max_change of 20 %", "trimtab weights --accept")
        assert weights(chain, TARGETS) == before
        assert api.weights(agent, accept=lambda _: True)["accepted"]
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    assert weights(chain, TARGETS) != before


CALM = '''"""Once a weight is five points off, while the prices of WETH are within a fifth."""


def calm(view):
    closes = [bar.close for bar in view.prices["WETH"]]
    shares = {"WETH": 0.3, "WBTC": 0.3, "LINK": 0.2, "USDC": 0.2}
    is_off = any(abs(view.weights[symbol] - share) > 0.05 for symbol, share in shares.items())
    return is_off and max(closes) < 1.2 * min(closes)
'''
TRIGGER = ROOMY | {
    "policy.trigger": {"kind": "function", "signal": "calm", "window": "30d", "step": "1d"},
    "signals": {"calm": {"timeout": "10s", "file": "calm.py:calm", "sha256": hashlib.sha256(CALM.encode()).hexdigest()}},
}


def test_a_trigger_in_a_file_fires_as_it_was_backtested(chain: LocalChain, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "calm.py").write_text(CALM)
    with agent_on(chain, folder, TRIGGER, TARGETS) as agent:
        fund(chain, {"WETH": 45_000, "WBTC": 25_000, "LINK": 15_000, "USDC": 15_000})
        api.import_prices(agent, closes(chain, folder / "closes.csv"))
        first = require_rebalance(agent)
        assert "the function calm asks for a rebalance" in first.decision_result.decision.reason
        settled = require_rebalance(agent, OutcomeKind.HOLD)
        assert "the function calm asks for no rebalance" in settled.reason
    shares = {symbol: int(share.removesuffix("%")) / 100 for symbol, share in TARGETS.items()}
    for symbol, bps in weights(chain, TARGETS).items():
        assert float(bps) / BPS == pytest.approx(shares[symbol], abs=0.01)
    function = load_file(folder / "calm.py", "calm", hashlib.sha256(CALM.encode()).hexdigest())
    tried = research.backtest(folder / "closes.csv", shares, research.trigger(function, window="30d"))
    assert tried.summary.trades > 0


def test_a_trigger_whose_file_was_changed_is_not_due_and_says_why(chain: LocalChain, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    (folder / "calm.py").write_text(CALM.replace("0.05", "0.01"))
    with agent_on(chain, folder, TRIGGER, TARGETS) as agent:
        fund(chain, {"WETH": 45_000, "WBTC": 25_000, "LINK": 15_000, "USDC": 15_000})
        api.import_prices(agent, closes(chain, folder / "closes.csv"))
        outcome = agent.rebalance(send=True, confirm=yes)
        loaded = agent.context.loaded_config
    why = "its file calm.py has the SHA-256"
    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "the function calm gave no answer", why)
    (alert,) = [alert for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key == "signal:calm"]
    assert mentions(alert.text, "The trigger calm gives no answer", why)
    (check,) = [check for check in api.doctor(loaded, [chain.transport])["checks"] if check["check"] == "signal calm"]
    assert (check["state"], why in check["finding"]) == ("warn", True)
