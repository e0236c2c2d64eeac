"""Tests of agent/layers/signals/memory.py: the answers of a step, and faults of signals that are not due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.layers.inputs import apply_effective_targets
from agent.layers.signals.host import SignalHost
from agent.layers.signals.memory import SignalReader
from agent.layers.signals.state import SignalState
from agent.model import ExpectedBalances, Hold, Rebalance, StepInput, StepMemory
from agent.model.weights import SignalAnswer
from agent.policy.decide import decide
from agent.policy.targets import settings_hash
from tests.support.builders import with_snapshot
from tests.support.signals import SIGNAL, pinned, signal_step, trigger_step
from tests.support.text import mentions

GOOD = "def targets(view):\n    return {'WETH': 1.0}\n"
HEAVIEST = """def heaviest(view):
    return max(view.weights.values()) > float(view.options["above"]) and len(view.prices["WETH"]) > 10
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SignalHost]:
    signal_host = SignalHost(tmp_path)
    yield signal_host
    signal_host.close()


def state_of(host: SignalHost, step: StepInput) -> SignalState:
    return SignalReader(host, host.fault)(step, StepMemory((), None, ExpectedBalances((), (), (), None, 0), ()))


def heaviest_step(source: str = HEAVIEST, above: str = "0.1") -> StepInput:
    """Return a step whose trigger is the function of a file that is pinned with this source."""
    return trigger_step(replace(pinned("calm.py:heaviest", source, (("above", above),)), name="calm", timeout_s=10))


# --- the trigger


@pytest.mark.parametrize(
    ("above", "decision_type", "words"),
    [
        pytest.param("0.1", Rebalance, "asks for a rebalance", id="due"),
        pytest.param("0.99", Hold, "asks for no rebalance", id="not due"),
    ],
)
def test_answer_decides_now_and_in_its_record(
    host: SignalHost, tmp_path: Path, above: str, decision_type: type[Rebalance | Hold], words: str
) -> None:
    (tmp_path / "calm.py").write_text(HEAVIEST)
    step = heaviest_step(above=above)
    answered_step = step.with_layer(state_of(host, step))

    for read_step in (answered_step, codec.loads(StepInput, codec.dumps(answered_step))):
        decision = decide(read_step).decision
        assert isinstance(decision, decision_type)
        assert f"the function calm {words}" in decision.reason


OFF_TARGET = """def targets(view):
    return {"WETH": 0.75, "WBTC": 0.25}


def heaviest(view):
    return view.targets["WETH"] == 0.6 and view.targets["WBTC"] == 0.2
"""


def test_trigger_sees_the_targets_that_its_signal_chooses_now(host: SignalHost, tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text(OFF_TARGET)
    step = signal_step(replace(pinned("calm.py:targets", OFF_TARGET), name="chooser", timeout_s=10))
    state = state_of(host, replace(step, policy=heaviest_step(OFF_TARGET).policy))
    assert [answer.why for answer in state.answers] == [""]
    assert state.trigger is not None
    assert (state.trigger.is_due, state.trigger.why) == (True, "")


@pytest.mark.parametrize(
    ("source", "pinned_source", "why"),
    [
        pytest.param(HEAVIEST + "# edited\n", HEAVIEST, "its file calm.py has the SHA-256", id="another hash"),
        pytest.param("def heaviest(view):\n    return view.heights\n", "", "it raised AttributeError", id="an error"),
        pytest.param("def heaviest(view):\n    return {'WETH': 1.0}\n", "", "it returned neither True nor False", id="weights"),
        pytest.param("def heaviest(view):\n    return 1\n", "", "it returned int", id="a number"),
        pytest.param("def heaviest(view):\n    pass\n", "", "it returned NoneType", id="nothing"),
    ],
)
def test_trigger_without_an_answer_is_not_due(host: SignalHost, tmp_path: Path, source: str, pinned_source: str, why: str) -> None:
    (tmp_path / "calm.py").write_text(source)
    step = heaviest_step(pinned_source or source)

    state = state_of(host, step)
    decision = decide(step.with_layer(state)).decision

    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "the function calm gave no answer: ", why)
    assert [why in fault.why for fault in state.faults] == [True]


def test_trigger_that_was_not_run_is_not_due() -> None:
    decision = decide(heaviest_step()).decision

    assert isinstance(decision, Hold)
    assert "gave no answer: it was not run" in decision.reason


def test_trigger_is_not_run_on_an_incomplete_view(host: SignalHost) -> None:
    step = heaviest_step()
    (fault,) = state_of(host, with_snapshot(step, holdings=step.snapshot.holdings[1:])).faults

    assert "some balances or prices are unknown" in fault.why


# --- signals that are not due


def idle(step: StepInput, host: SignalHost) -> StepInput:
    """Return the step after its signal has chosen weights."""
    allocation = apply_effective_targets(step.with_layer(state_of(host, step))).history.allocation
    assert allocation is not None
    return replace(step, history=replace(step.history, allocation=allocation))


def test_file_that_changes_between_answers_is_a_fault_at_once(host: SignalHost, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GOOD)
    step = idle(signal_step(pinned("own.py:targets", GOOD), fixed_tokens=()), host)
    assert state_of(host, step) == SignalState()

    (tmp_path / "own.py").write_text(GOOD + "\n")
    state = state_of(host, step)
    step_with_fault = apply_effective_targets(step.with_layer(state))

    assert [fault.why[:31] for fault in state.faults] == ["its file own.py has the SHA-256"]
    assert step_with_fault.history.allocation == step.history.allocation
    assert f"signal mine gives no new weights: {state.faults[0].why}" in step_with_fault.targets.reasons[-1]

    (tmp_path / "own.py").unlink()
    assert [fault.why for fault in state_of(host, step).faults] == ["its file own.py cannot be read: No such file or directory"]


def test_package_that_is_gone_between_answers_is_a_fault_at_once(host: SignalHost, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GOOD)
    step = idle(signal_step(pinned("own.py:targets", GOOD), fixed_tokens=()), host)
    assert step.portfolio.allocator is not None
    assert step.history.allocation is not None
    allocator = replace(step.portfolio.allocator, signal=replace(SIGNAL, name="gone"))
    allocation = replace(step.history.allocation, settings_hash=settings_hash(allocator, step.portfolio.assets))

    (fault,) = state_of(
        host,
        replace(
            step,
            portfolio=replace(step.portfolio, allocator=allocator),
            history=replace(step.history, allocation=allocation),
        ),
    ).faults

    assert "no installed package has the entry point gone" in fault.why


def test_state_of_a_strategy_has_its_own_answers() -> None:
    own = SignalAnswer("mine", "own")

    assert SignalState((own, SignalAnswer("mine", "other"))).for_part("own") == SignalState((own,))
