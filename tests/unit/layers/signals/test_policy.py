"""Signals of one's own: what they see, which answers count, what a failure does, and that a record needs no plugin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from agent import codec
from agent.config.load import parse_config
from agent.config.weights import build_signals
from agent.errors import ConfigError
from agent.layers.futures.policy.chosen_weights import policy_with_shares
from agent.layers.futures.state import futures_policy, with_policy
from agent.layers.inputs import apply_effective_targets
from agent.layers.signals.host import SignalHost
from agent.layers.signals.memory import SignalReader
from agent.layers.signals.policy import checked_answer, signal_requests
from agent.layers.signals.state import SignalState
from agent.model import (
    AdjustFutures,
    AllocationMethod,
    ExpectedBalances,
    Halt,
    InitialWeights,
    NoTradeZone,
    Rebalance,
    StepInput,
    StepMemory,
    TrackingRisk,
)
from agent.model.futures import FuturesTarget
from agent.model.weights import SignalAnswer, SignalMarket, SignalSettings
from agent.policy.decide import decide
from agent.policy.targets import settings_hash
from tests.support.builders import split, strategy, token, with_snapshot
from tests.support.configs.futures import FUTURES
from tests.support.configs.weights import config_text
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY
from tests.support.planning_worlds import PLAIN, allocator, bps_of, limit, moves, recorded, weighed
from tests.support.signals import install

SETTINGS = SignalSettings("mine", 2, (("fast", "5"),))
WITH_MARKET = replace(SETTINGS, markets=(SignalMarket("ETH", "ETH", "WETH"),))
HALF = '{"spot": {"WETH": 0.5, "WBTC": 0.25, "LINK": 0.25}, "futures": null}'
SIGNAL = """kind = "signal"
signal = "mine"
every = "1d"
window = "30d"
step = "1d"
min_history = "10d"
max_age = "2d"
keep = "3d"
churn = "1%"
until_chosen = "wait"
"""


def signal_step(settings: SignalSettings = SETTINGS, **changes: object) -> StepInput:
    """A step of five assets whose weights, but for 20 % of USDC, a signal chooses."""
    return weighed(replace(allocator(AllocationMethod.SIGNAL, **changes), signal=settings), recorded(moves()))  # type: ignore[arg-type]


def signal_answer(text: str, step: StepInput) -> SignalAnswer:
    (request,) = signal_requests(step, {})
    return checked_answer(request, json.loads(text), "own-signals 1.0")


def with_answer(step: StepInput, answer: SignalAnswer) -> StepInput:
    return step.with_layer(SignalState((answer,)))


@pytest.fixture
def host() -> Iterator[SignalHost]:
    signal_host = SignalHost()
    yield signal_host
    signal_host.close()


def test_a_view_has_prices_weights_and_options_and_its_own_time() -> None:
    (request,) = signal_requests(signal_step(), {})
    view = request.view
    assert (request.why, request.owner, dict(view.options), view.numeraire) == ("", "", {"fast": "5"}, "USDC")
    assert set(view.prices) == {"WETH", "WBTC", "LINK", "UNI"}
    assert all(bars[-1].at_s <= view.now_s and len(bars) > 10 for bars in view.prices.values())
    assert all(a.at_s < b.at_s for bars in view.prices.values() for a, b in pairwise(bars))
    assert 1_000 < view.prices["WETH"][-1].close < 4_000
    assert sum(view.weights.values()) == pytest.approx(1)
    assert [symbol for symbol, _ in request.address_by_symbol] == list(view.free) == ["WETH", "WBTC", "LINK", "UNI"]


@pytest.mark.parametrize("horizon_s", [None, 30 * 86_400])
def test_signal__is_read_before_the_trigger_s_risk_is_known(horizon_s: int | None) -> None:
    """The rule that init writes completes its risk for the targets, which come after the answers."""
    step = signal_step()
    weighing = NoTradeZone(TrackingRisk(Fraction(1, 2), horizon_s, (), ()))
    (request,) = signal_requests(replace(step, policy=replace(step.policy, trigger=weighing)), {})
    (under_bands,) = signal_requests(step, {})
    assert request == under_bands


def test_a_signal_is_not_asked_while_a_balance_is_unknown() -> None:
    weighing = NoTradeZone(TrackingRisk(Fraction(1, 2), None, (), ()))
    step = replace(signal_step(), policy=replace(signal_step().policy, trigger=weighing))
    unread = with_snapshot(step, holdings=step.snapshot.holdings[1:])
    (request,) = signal_requests(unread, {})
    assert "some balances or prices are unknown" in request.why


def test_a_strategy_asks_with_the_weights_of_the_wallet() -> None:
    """Before its books are known: they come after the answers."""
    step = signal_step()
    changed_strategy = replace(strategy("own", 6_000, {"USDC": 10_000}), allocator=step.portfolio.allocator)
    shared = replace(step, portfolio=replace(step.portfolio, allocator=None)).with_config(
        split(changed_strategy, strategy("rest", 4_000, {"USDC": 10_000}))
    )
    (request,) = signal_requests(shared, {})
    assert (request.owner, request.why) == ("own", "")
    assert sum(request.view.weights.values()) == pytest.approx(1)


def test_spot_weights_of_a_signal_are_the_targets() -> None:
    step = signal_step()
    step_with_targets = apply_effective_targets(with_answer(step, signal_answer(HALF, step)))
    assert bps_of(step_with_targets) == {"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "UNI": 0, "USDC": 2_000}
    assert isinstance(decide(step_with_targets).decision, Rebalance)
    chosen = step_with_targets.history.allocation
    assert chosen is not None
    assert (chosen.why, chosen.sample_text) == ("spot weights of the signal mine", "own-signals 1.0")


def test_weights_off_by_a_float_s_last_bits__are_the_same() -> None:
    step = signal_step()
    sums = {}
    for weight in (0.1 + 0.2, 0.3, 0.3 - 2**-54):
        text = json.dumps({"spot": {"WETH": weight, "WBTC": 0.7}, "futures": None})
        sums[weight] = signal_answer(text, step).spot_ppm
    assert len(set(sums.values())) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"spot": {"WETH": NaN}}', "the weight of WETH is nan, not from 0 to 1"),
        ('{"spot": {"WETH": Infinity}}', "the weight of WETH is inf, not from 0 to 1"),
        ('{"spot": {"WETH": -0.1, "WBTC": 1.1}}', "the weight of WETH is -0.1, not from 0 to 1"),
        ('{"spot": {"WETH": 1' + 400 * "0" + "}}", "int too large to convert to float"),
        ('{"spot": {"WETH": 0.5}}', "its spot weights sum to 0.5, not 1"),
        ('{"spot": {"DOGE": 1}}', "'DOGE' is not an asset whose weight is free; choose from WETH, WBTC, LINK, UNI"),
        ('{"spot": {"USDC": 1}}', "'USDC' is not an asset whose weight is free; choose from WETH, WBTC, LINK, UNI"),
        ('{"spot": {"WETH": true}}', "the weight of WETH is not a number"),
        ('{"spot": {"WETH": "1"}}', "the weight of WETH is not a number"),
        ('{"spot": [1]}', "its weights are not a mapping"),
        ('{"spot": null, "futures": null}', "it returned neither spot nor futures weights"),
        ('{"futures": {"ETH": 1}}', "it returned futures weights, but the config has no [futures]"),
        ("[]", "its answer is not readable"),
        ('{"why": "it raised ValueError: no"}', "it raised ValueError: no"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_the_reason(text: str, why: str) -> None:
    answer = signal_answer(text, signal_step())
    assert (answer.why, answer.spot_ppm, answer.market_ppm) == (why, None, None)


@pytest.mark.parametrize(("rest", "is_valid"), [(0.5001, True), (0.500101, False), (0.4999, True), (0.499899, False)])
def test_spot_weights__sum_may_be_a_hundredth_of_a_percent_off(rest: float, is_valid: bool) -> None:
    answer = signal_answer(json.dumps({"spot": {"WETH": 0.5, "WBTC": rest}}), signal_step())
    assert (answer.why == "") is is_valid


@pytest.mark.parametrize(("weight", "is_valid"), [(1, True), (1.000001, False), (0, True), (-0.000001, False)])
def test_spot_weights__each_is_from_nothing_to_the_whole(weight: float, is_valid: bool) -> None:
    answer = signal_answer(json.dumps({"spot": {"WETH": weight, "WBTC": 1 - weight}}), signal_step())
    assert (answer.why == "") is is_valid


@pytest.mark.parametrize(
    ("weights", "why"),
    [({"ETH": 0.6}, ""), ({"ETH": -1}, ""), ({"ETH": 1.5}, "not from -1 to 1"), ({"BTC": 0.5}, "'BTC' is not a futures market")],
)
def test_futures_weights_stay_within_one_of_the_target_notional(weights: dict[str, float], why: str) -> None:
    answer = signal_answer(json.dumps({"futures": weights}), signal_step(WITH_MARKET))
    assert (why in answer.why) if why else (answer.why == "" and answer.market_ppm is not None)


def test_a_market_that_a_signal_does_not_name_has_no_weight() -> None:
    answer = signal_answer(json.dumps({"futures": {}}), signal_step(WITH_MARKET))
    assert [weight for _, weight in answer.market_ppm or ()] == [0]


def test_a_weight_beyond_its_limit_is_no_target() -> None:
    step = signal_step(limits=(limit("WETH", 0, 3_900),), initial_weights=InitialWeights.WAIT)
    decision = decide(apply_effective_targets(with_answer(step, signal_answer(HALF, step)))).decision
    assert isinstance(decision, Halt)
    assert "signal mine: WETH 40.00 % is not within 0 to 39 %" in decision.reason


def test_a_failed_signal_keeps_the_last_weights_and_then_halts() -> None:
    step = signal_step(initial_weights=InitialWeights.WAIT, every_s=86_400, max_overdue_s=2 * 86_400)
    first = apply_effective_targets(with_answer(step, signal_answer(HALF, step)))
    chosen = first.history.allocation
    assert chosen is not None
    failed = SignalAnswer("mine", "", why="it raised ValueError: no")
    for days, stands in ((2, True), (4, False)):
        old = replace(chosen, at_s=chosen.at_s - days * 86_400)
        late = apply_effective_targets(with_answer(replace(step, history=replace(step.history, allocation=old)), failed))
        assert (bps_of(late)["WETH"] == 4_000) is stands
        assert isinstance(decide(late).decision, Halt) is not stands
        assert any("signal mine: it raised ValueError: no" in text for text in (*late.targets.reasons, late.history.allocation_fault))


def test_a_signal_that_never_answered_trades_nothing() -> None:
    step = signal_step(initial_weights=InitialWeights.WAIT)
    step_with_targets = apply_effective_targets(with_answer(step, SignalAnswer("mine", "", why="it gave no answer within 2 s")))
    assert isinstance(decide(step_with_targets).decision, Halt)
    assert bps_of(step_with_targets) == PLAIN


def futures_step(weights: dict[str, float]) -> StepInput:
    step = signal_step(WITH_MARKET, initial_weights=InitialWeights.WAIT)
    step = with_policy(with_snapshot(step, futures=EMPTY), replace(FUTURES_POLICY, leverage_band_bps=1_000))
    return apply_effective_targets(with_answer(step, signal_answer(json.dumps({"futures": weights}), step)))


def test_futures_weights_of_a_signal__are_targets_and_spot_stays() -> None:
    step = futures_step({"ETH": -0.5})
    assert futures_policy(step) is not None
    assert (futures_policy(step).targets, futures_policy(step).leverage_bps) == ((FuturesTarget("ETH", -10_000),), 10_000)
    assert bps_of(step) == PLAIN
    assert "futures targets are those of the signal: 50 % of the target notional" in step.targets.reasons


def test_a_flat_signal_opens_no_futures() -> None:
    step = futures_step({})
    assert futures_policy(step) is not None
    assert futures_policy(step).leverage_bps == 0
    assert not isinstance(decide(step).decision, AdjustFutures)


def test_weights_that_sum_to_less_lower_the_leverage() -> None:
    futures_policy = policy_with_shares(FUTURES_POLICY, {"ETH": Fraction(1, 4), "BTC": Fraction(-1, 8)})
    assert (futures_policy.targets, futures_policy.leverage_bps) == ((FuturesTarget("ETH", 6_667), FuturesTarget("BTC", -3_333)), 7_500)


def test_a_recorded_step_repeats_its_decision_without_the_signal() -> None:
    step = signal_step()
    step_with_targets = apply_effective_targets(with_answer(step, signal_answer(HALF, step)))
    again = codec.loads(StepInput, codec.dumps(step_with_targets))
    assert again.layer(SignalState) == step_with_targets.layer(SignalState)
    assert decide(again) == decide(step_with_targets)
    bare = codec.loads(StepInput, codec.dumps(with_answer(step, signal_answer(HALF, step))))
    assert apply_effective_targets(bare) == step_with_targets


# the process of a signal
GOOD = "from agent.signals import SignalTargets\ndef targets(view):\n    return SignalTargets({'WETH': 1.0})\n"


def run(host: SignalHost, step: StepInput) -> SignalAnswer:
    (answer,) = host.answers(signal_requests(step, {}))
    return answer


def test_a_signal_runs_by_the_name_of_its_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    install(monkeypatch, tmp_path, {"mine": "own_signals:targets"}, GOOD)
    answer = run(host, signal_step())
    assert (answer.why, answer.source, dict(answer.spot_ppm or ())[token("WETH").address]) == ("", "own-signals 1.0", 1_000_000)
    assert run(host, signal_step()) == answer


@pytest.mark.parametrize(
    ("changes", "ppm_by_symbol", "why"),
    [
        ({"fixed_tokens": ()}, {"WETH": 250_000, "USDC": 750_000}, ""),
        ({}, {}, "its spot weights sum to 0.25, not 1"),
    ],
    ids=["numeraire is free", "numeraire is fixed"],
)
def test_a_mapping_leaves_the_rest_to_a_numeraire_that_is_free(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    host: SignalHost,
    changes: dict[str, object],
    ppm_by_symbol: dict[str, int],
    why: str,
) -> None:
    install(monkeypatch, tmp_path, {"mine": "own_signals:targets"}, GOOD.replace("SignalTargets({'WETH': 1.0})", "{'WETH': 0.25}"))
    answer = run(host, signal_step(**changes))
    assert answer.why == why
    weighted = {address: ppm for address, ppm in answer.spot_ppm or () if ppm}
    assert weighted == {token(symbol).address: ppm for symbol, ppm in ppm_by_symbol.items()}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise ValueError('no history')", "it raised ValueError: no history"),
        ("return None", "it returned NoneType, not SignalTargets"),
        ("return 5", "it returned int, not SignalTargets"),
        ("import time; time.sleep(60)", "it gave no answer within 1 s"),
        ("import os; os._exit(3)", "it failed: its process ended"),
        ("view.prices['WETH'] = ()", "it raised TypeError: 'mappingproxy' object does not support item assignment"),
        ("view.now_s = 5", "it raised FrozenInstanceError: cannot assign to field 'now_s'"),
        ("return SignalTargets({'WETH': 10**400})", "it raised ValueError: the weight of 'WETH' is too large"),
        ("return SignalTargets({'WETH': None})", "it raised TypeError: the weight of 'WETH' is NoneType"),
        ("return SignalTargets({'WETH': True})", "it raised TypeError: the weight of 'WETH' is bool"),
    ],
)
def test_a_signal_that_fails_gives_no_targets_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost, body: str, why: str
) -> None:
    install(monkeypatch, tmp_path, {"mine": "own_signals:targets"}, GOOD.replace("return SignalTargets({'WETH': 1.0})", body))
    monkeypatch.setattr("agent.layers.signals.host.START_ALLOWANCE_S", 15 if "sleep" not in body else 4)
    answer = run(host, signal_step(replace(SETTINGS, timeout_s=1)))
    assert (answer.why, answer.spot_ppm) == (why, None)


def test_signal__gets_no_secret_and_prints_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    body = "print('noise'); import os; assert 'TRIMTAB_SECRET' not in os.environ; return SignalTargets({'WETH': 1.0})"
    install(monkeypatch, tmp_path, {"mine": "own_signals:targets"}, GOOD.replace("return SignalTargets({'WETH': 1.0})", body))
    monkeypatch.setenv("TRIMTAB_SECRET", "a key")
    assert run(host, signal_step()).why == ""


def test_a_signal_that_is_missing_or_installed_twice_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    assert "no installed package has the entry point mine" in run(host, signal_step()).why
    install(monkeypatch, tmp_path / "a", {"mine": "own_signals:targets"}, GOOD)
    install(monkeypatch, tmp_path / "b", {"mine": "own_signals:targets"}, GOOD, name="other-signals")
    assert "other-signals 1.0, own-signals 1.0 provide it" in run(host, signal_step()).why


def test_a_signal_that_the_config_does_not_name_is_never_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: SignalHost) -> None:
    mark = tmp_path / "loaded"
    install(monkeypatch, tmp_path / "a", {"mine": "own_signals:targets"}, GOOD)
    install(monkeypatch, tmp_path / "b", {"other": "evil:targets"}, name="evil-signals")
    (tmp_path / "b" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    assert run(host, signal_step()).why == ""
    assert not mark.exists()


def in_file(source: str, function: str = "targets", *, pinned: str | None = None) -> SignalSettings:
    """Settings of a function in own.py that is pinned as it is, or as another text was."""
    sha256 = hashlib.sha256((source if pinned is None else pinned).encode()).hexdigest()
    return replace(SETTINGS, file=f"own.py:{function}", sha256=sha256)


def answer_of_file(folder: Path, source: str, settings: SignalSettings) -> SignalAnswer:
    (folder / "own.py").write_text(source)
    file_host = SignalHost(folder)
    try:
        return run(file_host, signal_step(settings))
    finally:
        file_host.close()


def test_a_signal_runs_from_a_pinned_file_beside_the_config(tmp_path: Path) -> None:
    settings = in_file(GOOD)
    answer = answer_of_file(tmp_path, GOOD, settings)
    assert (answer.why, dict(answer.spot_ppm or ())[token("WETH").address]) == ("", 1_000_000)
    assert answer.source == f"own.py:targets {settings.sha256[:12]}"


CHANGED = GOOD.replace("'WETH'", "'USDC'")


@pytest.mark.parametrize(
    ("source", "settings", "why"),
    [
        (CHANGED, in_file(GOOD), "its file own.py has the SHA-256"),
        (GOOD, in_file(GOOD, "weights"), "its file own.py has no function weights"),
        (GOOD, in_file(GOOD, "__name__"), "its file own.py has no function __name__"),
        ("def targets(:", in_file("def targets(:"), "it raised SyntaxError"),
        ("import no_such_module", in_file("import no_such_module"), "it raised ModuleNotFoundError"),
        ("\x00", in_file("\x00"), "it raised"),
    ],
    ids=["changed", "no function", "no callable", "no Python", "no module", "no text"],
)
def test_a_file_that_is_not_the_pinned_function_gives_the_reason(tmp_path: Path, source: str, settings: SignalSettings, why: str) -> None:
    answer = answer_of_file(tmp_path, source, settings)
    assert answer.why.startswith(why)
    assert answer.spot_ppm is None


def test_a_file_that_is_gone_or_changes_meanwhile(tmp_path: Path) -> None:
    """What was hashed goes on; what cannot be read gives the reason."""
    file_host = SignalHost(tmp_path)
    step = signal_step(in_file(GOOD))
    assert run(file_host, step).why == "its file own.py cannot be read: No such file or directory"
    (tmp_path / "own.py").write_text(GOOD)
    answer = run(file_host, step)
    (tmp_path / "own.py").write_text(CHANGED)
    assert run(file_host, step) == answer
    assert answer.why == ""
    file_host.close()


def test_file_that_changes_between_answers__is_named_at_once(tmp_path: Path) -> None:
    file_host = SignalHost(tmp_path)
    step = signal_step(in_file(GOOD))
    chosen = apply_effective_targets(with_answer(step, answer_of_file(tmp_path, GOOD, in_file(GOOD)))).history.allocation
    idle = replace(step, history=replace(step.history, allocation=chosen))

    def state_of(whose: StepInput) -> SignalState:
        return SignalReader(file_host, file_host.fault)(whose, StepMemory((), None, ExpectedBalances((), (), (), None, 0), ()))

    assert state_of(idle) == SignalState()
    (tmp_path / "own.py").write_text(CHANGED)
    (fault,) = state_of(idle).faults
    assert fault.why.startswith("its file own.py has the SHA-256")
    late = apply_effective_targets(idle.with_layer(state_of(idle)))
    assert late.history.allocation == chosen
    assert f"signal mine gives no new weights: {fault.why}" in late.targets.reasons[-1]
    (tmp_path / "own.py").unlink()
    assert [answer.why for answer in state_of(idle).faults] == ["its file own.py cannot be read: No such file or directory"]
    installed = idle.portfolio.allocator
    assert installed is not None
    other = replace(installed, signal=replace(SETTINGS, name="gone"))
    gone = replace(idle, portfolio=replace(idle.portfolio, allocator=other))
    assert chosen is not None
    same_chosen = replace(chosen, settings_hash=settings_hash(other, gone.portfolio.assets))
    (fault,) = state_of(replace(gone, history=replace(gone.history, allocation=same_chosen))).faults
    assert "no installed package has the entry point gone" in fault.why


def test_too_little_history_asks_no_signal(host: SignalHost) -> None:
    step = signal_step()
    short = replace(step, history=replace(step.history, prices=step.history.prices[-8:]))
    why = run(host, short).why
    assert "min_history requires" in why
    assert "trimtab prices fetch" in why


# the config
def test_the_config_names_a_signal_with_its_options() -> None:
    config = parse_config(config_text(SIGNAL + "[signals.mine]\ntimeout = '5s'\noptions = { fast = 5, mode = 'x' }\n"))
    assert build_signals(config)["mine"] == SignalSettings("mine", 5, (("fast", "5"), ("mode", "x")))


@pytest.mark.parametrize(
    ("toml_value", "text"), [("true", "true"), ("false", "false"), ("0.02", "0.02"), ("-30", "-30"), ("'True'", "True")]
)
def test_signal_option__reaches_the_signal_as_it_is_written(toml_value: str, text: str) -> None:
    config = parse_config(config_text(SIGNAL + f"[signals.mine]\ntimeout = '5s'\noptions = {{ exact = {toml_value} }}\n"))
    assert build_signals(config)["mine"].options == (("exact", text),)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("", "no [signals.mine]"),
        ("[signals.mine]\ntimeout = '2m'\n", "120s; write above 0s and at most 60s"),
        ("[signals.mine]\ntimeout = '5s'\nfile = 'own.py:targets'\n", "sha256: missing; write what sha256sum prints"),
        (f"[signals.mine]\ntimeout = '5s'\nsha256 = '{'0' * 64}'\n", "sha256: without file"),
        (f"[signals.mine]\ntimeout = '5s'\nfile = '../own.py:targets'\nsha256 = '{'0' * 64}'\n", "signals.mine.file"),
        (f"[signals.mine]\ntimeout = '5s'\nfile = 'own.py'\nsha256 = '{'0' * 64}'\n", "signals.mine.file"),
        ("[signals.mine]\ntimeout = '5s'\nfile = 'own.py:targets'\nsha256 = 'abc'\n", "signals.mine.sha256"),
        ("[signals.mine]\ntimeout = '5s'\n[signals.other]\ntimeout = '5s'\n", "signals.other: unused"),
        ("[signals.mine]\ntimeout = '5s'\n" + FUTURES, "futures.leverage_band: missing"),
    ],
)
def test_a_mistake_in_signals_is_named(table: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(SIGNAL + table))
    assert reason in str(caught.value)


def test_a_view_has_one_price_for_each_interval() -> None:
    (request,) = signal_requests(signal_step(step_s=2 * 86_400, window_s=60 * 86_400), {})
    times_s = [bar.at_s for bar in request.view.prices["WETH"]]
    assert len(times_s) > 1
    assert len({at_s // (2 * 86_400) for at_s in times_s}) == len(times_s)
