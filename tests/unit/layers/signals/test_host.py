"""Tests of agent/layers/signals/host.py: signals in processes of their own, by entry point or from a pinned file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.layers.signals.host import SignalHost
from agent.layers.signals.policy import signal_requests
from agent.model import StepInput
from agent.model.weights import SignalAnswer, SignalSettings
from tests.support.builders import token
from tests.support.signals import SIGNAL, install, pinned, signal_step

WETH = token("WETH").address
GOOD = "from agent.signals import SignalTargets\ndef targets(view):\n    return SignalTargets({'WETH': 1.0})\n"
CHANGED = GOOD.replace("'WETH'", "'USDC'")
ENTRY = {"mine": "own_signals:targets"}
LONG = "SignalTargets({f'T{number}': 0.0 for number in range(10_000)})"
"""Weights of so many names that the answer has more than 65,536 bytes."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SignalHost]:
    signal_host = SignalHost(tmp_path)
    yield signal_host
    signal_host.close()


def with_body(body: str) -> str:
    return GOOD.replace("return SignalTargets({'WETH': 1.0})", body)


def answer_of(host: SignalHost, step: StepInput | None = None) -> SignalAnswer:
    (answer,) = host.answers(signal_requests(step or signal_step(), {}))
    return answer


def weight_of(answer: SignalAnswer, symbol: str) -> int:
    return dict(answer.spot_ppm or ())[token(symbol).address]


# --- installed signals


def test_signal_runs_by_the_name_of_its_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    install(monkeypatch, tmp_path, ENTRY, GOOD)
    answer = answer_of(host)

    assert (answer.why, answer.source, weight_of(answer, "WETH")) == ("", "own-signals 1.0", 1_000_000)
    assert answer_of(host) == answer


@pytest.mark.parametrize(
    ("fixed_tokens", "ppm_by_symbol", "why"),
    [
        pytest.param((), {"WETH": 250_000, "USDC": 750_000}, "", id="numeraire is free"),
        pytest.param((token("USDC").address,), {}, "its spot weights sum to 0.25, not 1", id="numeraire is fixed"),
    ],
)
def test_mapping_leaves_the_rest_to_a_free_numeraire(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    host: SignalHost,
    fixed_tokens: tuple[str, ...],
    ppm_by_symbol: dict[str, int],
    why: str,
) -> None:
    install(monkeypatch, tmp_path, ENTRY, with_body("return {'WETH': 0.25}"))

    answer = answer_of(host, signal_step(fixed_tokens=fixed_tokens))

    assert answer.why == why
    assert {token: ppm for token, ppm in answer.spot_ppm or () if ppm} == {
        token(symbol).address: ppm for symbol, ppm in ppm_by_symbol.items()
    }


def test_empty_mapping_is_refused_with_what_a_free_numeraire_alone_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost
) -> None:
    install(monkeypatch, tmp_path, ENTRY, with_body("return {}"))

    answer = answer_of(host, signal_step(fixed_tokens=()))

    assert (answer.why, answer.spot_ppm) == ('it returned no weights (write {"USDC": 1} for cash alone)', None)


def test_process_sees_the_targets_of_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    install(monkeypatch, tmp_path, ENTRY, with_body("return dict(view.targets)"))
    step = signal_step(fixed_tokens=())

    answer = answer_of(host, step)

    assert answer.why == ""
    assert dict(answer.spot_ppm or ()) == {asset.token.address: asset.target_bps * 100 for asset in step.portfolio.assets}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param("raise ValueError('no history')", "it raised ValueError: no history", id="an error"),
        pytest.param("return None", "it returned NoneType, not SignalTargets", id="nothing"),
        pytest.param("return {}", "it returned no weights", id="no weights"),
        pytest.param("return 5", "it returned int, not SignalTargets", id="a number"),
        pytest.param("import time; time.sleep(60)", "it gave no answer within 1 s", id="a timeout"),
        pytest.param("import os; os._exit(3)", "it failed: its process ended", id="an exit"),
        pytest.param(f"return {LONG}", "it failed: its answer is too long", id="a long answer"),
        pytest.param(
            "view.prices['WETH'] = ()",
            "it raised TypeError: 'mappingproxy' object does not support item assignment",
            id="a change of prices",
        ),
        pytest.param("view.now_s = 5", "it raised FrozenInstanceError: cannot assign to field 'now_s'", id="time changed"),
        pytest.param(
            "return SignalTargets({'WETH': 10**400})", "it raised ValueError: the weight of 'WETH' is too large", id="a large weight"
        ),
        pytest.param("return SignalTargets({'WETH': None})", "it raised TypeError: the weight of 'WETH' is NoneType", id="no weight"),
        pytest.param("return SignalTargets({'WETH': True})", "it raised TypeError: the weight of 'WETH' is bool", id="a truth value"),
        pytest.param("return {'WETH': float('nan')}", "the weight of WETH is nan, no finite number", id="NaN"),
        pytest.param(
            "return SignalTargets(None, {'ETH': float('-inf')})", "the weight of ETH is -inf, no finite number", id="an infinite weight"
        ),
    ],
)
def test_signal_that_fails_gives_no_targets_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost, body: str, why: str
) -> None:
    install(monkeypatch, tmp_path, ENTRY, with_body(body))
    monkeypatch.setattr("agent.layers.signals.host.START_ALLOWANCE_S", 15 if "sleep" not in body else 4)

    answer = answer_of(host, signal_step(replace(SIGNAL, timeout_s=1)))

    assert (answer.why, answer.spot_ppm) == (why, None)


def test_signal_has_its_own_time_besides_that_of_a_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    install(monkeypatch, tmp_path, ENTRY, GOOD)
    monkeypatch.setattr("agent.layers.signals.host.START_ALLOWANCE_S", 0)

    assert answer_of(host, signal_step(replace(SIGNAL, timeout_s=20))).why == ""


def test_signal_that_failed_runs_in_a_new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    """The process whose answer is too long goes on and is ended."""
    mark = tmp_path / "pid"
    body = f"import os, pathlib; mark = pathlib.Path({str(mark)!r}); is_first = not mark.exists(); mark.write_text(str(os.getpid()))"
    install(monkeypatch, tmp_path, ENTRY, with_body(f"{body}; return {LONG} if is_first else SignalTargets({{'WETH': 1.0}})"))

    assert answer_of(host).why == "it failed: its answer is too long"
    first_id = mark.read_text()
    assert not Path(f"/proc/{first_id}").exists()
    assert answer_of(host).why == ""
    assert mark.read_text() != first_id


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM], ids=["processes", "files", "memory"])
def test_signal_without_a_process_gives_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost, number: int) -> None:
    """And is asked again, in a process, at the next request."""
    (tmp_path / "own.py").write_text(GOOD)
    step = signal_step(pinned("own.py:targets", GOOD))

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as without_processes:
        without_processes.setattr("agent.layers.signals.host.subprocess.Popen", fail)
        answer = answer_of(host, step)

    assert answer.spot_ppm is None
    assert answer.why.startswith("it failed: ")
    assert answer_of(host, step).why == ""


def test_signal_gets_no_secret_and_prints_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    body = "print('noise'); import os; assert 'TRIMTAB_SECRET' not in os.environ; return SignalTargets({'WETH': 1.0})"
    install(monkeypatch, tmp_path, ENTRY, with_body(body))
    monkeypatch.setenv("TRIMTAB_SECRET", "a key")

    assert answer_of(host).why == ""


def test_signal_that_is_missing_or_installed_twice_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    assert "no installed package has the entry point mine" in answer_of(host).why

    install(monkeypatch, tmp_path / "a", ENTRY, GOOD)
    install(monkeypatch, tmp_path / "b", ENTRY, GOOD, name="other-signals")

    assert "other-signals 1.0, own-signals 1.0 provide it" in answer_of(host).why


def test_signal_that_the_config_does_not_name_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    mark = tmp_path / "loaded"
    install(monkeypatch, tmp_path / "a", ENTRY, GOOD)
    install(monkeypatch, tmp_path / "b", {"other": "evil:targets"}, name="evil-signals")
    (tmp_path / "b" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")

    assert answer_of(host).why == ""
    assert not mark.exists()


def test_signal_is_not_run_on_an_incomplete_view(tmp_path: Path, host: SignalHost) -> None:
    """Its file is missing, and the reason is that of the prices."""
    step = signal_step(pinned("own.py:targets", GOOD))
    step = replace(step, history=replace(step.history, prices=step.history.prices[-8:]))

    assert "min_history requires" in answer_of(host, step).why


def test_answer_names_the_version_that_its_process_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    """Not the one installed since."""
    install(monkeypatch, tmp_path, ENTRY, GOOD)
    answer = answer_of(host)
    metadata = tmp_path / "own_signals-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 2.0"))

    assert answer_of(host).source == answer.source == "own-signals 1.0"
    host.close()
    assert answer_of(host).source == "own-signals 2.0"


# --- functions in pinned files


def test_function_runs_from_a_pinned_file_beside_the_config(tmp_path: Path, host: SignalHost) -> None:
    settings = pinned("own.py:targets", GOOD)
    (tmp_path / "own.py").write_text(GOOD)

    answer = answer_of(host, signal_step(settings))

    assert (answer.why, answer.source, weight_of(answer, "WETH")) == ("", f"own.py:targets {settings.sha256[:12]}", 1_000_000)


@pytest.mark.parametrize(
    ("source", "settings", "why"),
    [
        pytest.param(CHANGED, pinned("own.py:targets", GOOD), "its file own.py has the SHA-256", id="changed"),
        pytest.param(GOOD, pinned("own.py:weights", GOOD), "its file own.py has no function weights", id="no function"),
        pytest.param(GOOD, pinned("own.py:__name__", GOOD), "its file own.py has no function __name__", id="no callable"),
        pytest.param("def targets(:", pinned("own.py:targets", "def targets(:"), "it raised SyntaxError", id="no Python"),
        pytest.param("import no_such", pinned("own.py:targets", "import no_such"), "it raised ModuleNotFoundError", id="no module"),
        pytest.param("\x00", pinned("own.py:targets", "\x00"), "it raised", id="no text"),
    ],
)
def test_file_without_the_pinned_function_gives_the_reason(
    tmp_path: Path, host: SignalHost, source: str, settings: SignalSettings, why: str
) -> None:
    (tmp_path / "own.py").write_text(source)

    answer = answer_of(host, signal_step(settings))

    assert answer.why.startswith(why)
    assert answer.spot_ppm is None


def test_file_that_changes_after_its_hash_does_not_count(tmp_path: Path, host: SignalHost) -> None:
    """The process goes on with what was hashed."""
    step = signal_step(pinned("own.py:targets", GOOD))
    assert answer_of(host, step).why == "its file own.py cannot be read: No such file or directory"

    (tmp_path / "own.py").write_text(GOOD)
    answer = answer_of(host, step)
    (tmp_path / "own.py").write_text(CHANGED)

    assert answer.why == ""
    assert answer_of(host, step) == answer
