"""A function in a file as the trigger: what it sees and answers, what a failure does, and which configs may name it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.config.load import parse_config
from agent.config.triggers import build_policy_trigger
from agent.errors import ConfigError
from agent.layers.signals.host import SignalHost
from agent.layers.signals.memory import SignalReader
from agent.layers.signals.policy import trigger_request
from agent.layers.signals.state import SignalState
from agent.model import AnsweredTrigger, ExpectedBalances, Hold, Rebalance, SignalSettings, StepInput, StepMemory
from agent.policy.decide import decide
from agent.policy.triggers.trigger_text import format_trigger
from tests.support.builders import history, step_input, with_snapshot
from tests.support.configs.weights import config_text
from tests.support.planning_worlds import DAY_S, PLAIN, moves, recorded

HEAVIEST = """def heaviest(view):
    return max(view.weights.values()) > float(view.options["above"]) and len(view.prices["WETH"]) > 10
"""


def settings_of(source: str, above: str = "0.1") -> SignalSettings:
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    return SignalSettings("calm", 10, (("above", above),), file="calm.py:heaviest", sha256=sha256)


def step_with(signal: SignalSettings) -> StepInput:
    """A step off its targets whose trigger is this function, with 60 days of prices."""
    step = step_input(targets_bps=PLAIN, past=history(prices=recorded(moves())))
    change_bps = {"WETH": 1_000, "USDC": -1_000}
    assets = tuple(replace(asset, target_bps=asset.target_bps + change_bps.get(asset.token.symbol, 0)) for asset in step.portfolio.assets)
    policy = replace(step.policy, trigger=AnsweredTrigger(30 * DAY_S, step_s=DAY_S, signal=signal))
    return replace(step, portfolio=replace(step.portfolio, assets=assets), policy=policy)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SignalHost]:
    made = SignalHost(tmp_path)
    yield made
    made.close()


def answered(host: SignalHost, step: StepInput) -> StepInput:
    return step.with_layer(SignalReader(host, host.fault)(step, StepMemory((), None, ExpectedBalances((), (), (), None, 0), ())))


def test_view_is_that_of_the_wallet_with_one_price_a_step() -> None:
    request = trigger_request(step_with(settings_of(HEAVIEST)))
    assert request is not None
    assert (request.why, request.is_trigger, dict(request.view.options)) == ("", True, {"above": "0.1"})
    assert 25 < len(request.view.prices["WETH"]) <= 30
    assert sum(request.view.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(("above", "kind", "words"), [("0.1", Rebalance, "asks for a rebalance"), ("0.99", Hold, "asks for no rebalance")])
def test_answer_decides_and_stays_in_the_record(host: SignalHost, tmp_path: Path, above: str, kind: type, words: str) -> None:
    (tmp_path / "calm.py").write_text(HEAVIEST)
    step = answered(host, step_with(settings_of(HEAVIEST, above)))
    read_again = codec.loads(StepInput, codec.dumps(step))
    for each in (step, read_again):
        decision = decide(each).decision
        assert isinstance(decision, kind)
        assert f"the function calm {words}" in decision.reason


NO_ANSWERS = {
    "another hash": (HEAVIEST + "# edited\n", "its file calm.py has the SHA-256"),
    "an error": (HEAVIEST.replace("view.weights", "view.heights"), "it raised AttributeError"),
    "weights": ("def heaviest(view):\n    return {'WETH': 1.0}\n", "it returned neither True nor False"),
    "a number": ("def heaviest(view):\n    return 1\n", "it returned int"),
    "nothing": ("def heaviest(view):\n    pass\n", "it returned NoneType"),
}


@pytest.mark.parametrize(("source", "why"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_without_an_answer_nothing_is_due_and_the_reason_says_why(host: SignalHost, tmp_path: Path, source: str, why: str) -> None:
    (tmp_path / "calm.py").write_text(source)
    step = answered(host, step_with(settings_of(HEAVIEST if source.startswith(HEAVIEST) else source)))
    decision = decide(step).decision
    assert isinstance(decision, Hold)
    assert "the function calm gave no answer: " in decision.reason
    assert why in decision.reason
    (fault,) = step.layer(SignalState).faults
    assert why in fault.why


def test_it_is_not_asked_while_a_balance_or_all_prices_are_unknown(host: SignalHost) -> None:
    step = step_with(settings_of(HEAVIEST))
    for each, why in (
        (with_snapshot(step, holdings=step.snapshot.holdings[1:]), "some balances or prices are unknown"),
        (replace(step, history=replace(step.history, prices=())), "WETH has no prices"),
    ):
        (fault,) = answered(host, each).layer(SignalState).faults
        assert why in fault.why


def test_a_step_without_its_answer_holds() -> None:
    decision = decide(step_with(settings_of(HEAVIEST))).decision
    assert isinstance(decision, Hold)
    assert "gave no answer: it was not run" in decision.reason


TRIGGER = 'trigger = { kind = "function", signal = "calm", window = "30d", step = "1d" }'
SIGNAL = f"[signals.calm]\ntimeout = '5s'\nfile = 'calm.py:heaviest'\nsha256 = '{'0' * 64}'\noptions = {{ above = '0.4' }}\n"


def config_with(trigger: str, signals: str) -> str:
    text = config_text('kind = "fixed"')
    (line,) = [line for line in text.splitlines() if line.startswith("trigger = ")]
    return text.replace(line, trigger) + "\n" + signals


def test_the_config_names_the_function_with_its_file() -> None:
    trigger = build_policy_trigger(parse_config(config_with(TRIGGER, SIGNAL)))
    settings = SignalSettings("calm", 5, (("above", "0.4"),), file="calm.py:heaviest", sha256="0" * 64)
    assert trigger == AnsweredTrigger(30 * DAY_S, step_s=DAY_S, signal=settings)
    step = step_with(settings)
    assert format_trigger(step.policy.trigger, step.portfolio) == f"the function calm, calm.py:heaviest {'0' * 12}"


@pytest.mark.parametrize(
    ("trigger", "signals", "words"),
    [
        (TRIGGER, "", "policy.trigger.signal: no [signals.calm]"),
        (TRIGGER.replace('"1d"', '"30m"'), SIGNAL, "policy.trigger.step: 30 min"),
        (TRIGGER.replace('"1d"', '"30d"'), SIGNAL, "policy.trigger.step: 30 d"),
        (TRIGGER.replace(', step = "1d"', ""), SIGNAL, "step: missing"),
        (TRIGGER.replace("= {", "= [{").replace("}", '}, { kind = "time", every = "1d" }]'), SIGNAL, "a list cannot contain a function"),
    ],
)
def test_a_mistake_is_named(trigger: str, signals: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with(trigger, signals))
    assert words in str(caught.value)
