"""Past prices that a rule needs are read from the chain before the first look: weights are chosen at once, or nothing is traded and why."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app import cycles
from agent.app.agent import Agent
from agent.chain.history import past_rounds
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import Halt
from agent.store.prices import PriceStore
from agent.wiring import past_prices, price_windows
from agent.wiring.price_windows import fill_price_windows, missing_prices, needed_windows
from tests.support.agents import ROOMY, agent_config, agent_on, fund, trusted_config, yes
from tests.support.constants import HOUR_S
from tests.support.markets.past_prices import push_rounds
from tests.support.on_chain.weights import SETTINGS
from tests.support.samples import slow
from tests.support.stores import chosen_weights
from tests.support.text import causes

TARGETS = {"WETH": "40%", "LINK": "40%", "USDC": "20%"}
HOURLY = {**SETTINGS, "every": "1d", "window": "6h", "step": "1h", "min_history": "4h", "max_age": "3h", "keep": "1d"}
EVENT = {"kind": "drawdown", "fall": "20%", "within": "6h"}


def weighed(**changes: object) -> dict[str, object]:
    return ROOMY | {"portfolio.weights": HOURLY | changes}


def rounds(chain: LocalChain) -> None:
    """Nine hours in which WETH moves little and LINK much, by rounds of their feeds alone."""
    for number in range(7):
        push_rounds(chain, "LINK", [("1.1", "0.95")[number % 2]])
        push_rounds(chain, "WETH", [("1.01", "0.995")[number % 2]])
    push_rounds(chain, "LINK", ["1"])
    push_rounds(chain, "WETH", ["1"])
    chain.refresh_feeds()


def first_cycle(agent: Agent, *, send: bool = True) -> StepOutcome:
    """The first cycle of `trimtab run --send`."""
    with closing(agent.run(send=send, confirm=yes, once=True)) as results:
        outcome = next(results)
    assert isinstance(outcome, StepOutcome), outcome
    return outcome


def hours(agent: Agent) -> Mapping[str, int]:
    spans = agent.context.store.prices.spans(agent.portfolio.numeraire.address)
    return {agent.portfolio.token(span.token).label: span.hour_count for span in spans if span.source == "feed"}


@pytest.mark.parametrize("kind", ["risk_parity", *slow(["inverse_volatility", "minimum_variance"])])
def test_first_run__chooses_weights_from_the_rounds_of_the_feeds(anvil_chain: LocalChain, tmp_path: Path, kind: str) -> None:
    with agent_on(anvil_chain, tmp_path, weighed(kind=kind), TARGETS) as agent:
        rounds(anvil_chain)
        fund(anvil_chain, {"WETH": 40_000, "LINK": 40_000, "USDC": 20_000})
        outcome = first_cycle(agent)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert hours(agent)["WETH"] >= 6
        (chosen,) = chosen_weights(agent.context.store)
        bps = {agent.portfolio.token(token).label: weight for token, weight in chosen.weights_bps}
        assert bps["WETH"] > bps["LINK"], "WETH moved less"
        assert bps["USDC"] == 2_000


@pytest.mark.parametrize(
    "changes",
    [{"policy.trigger": EVENT}, {"policy.trigger": [EVENT, {"kind": "threshold", "relative": "10%"}]}, weighed()],
    ids=["market event", "event beside a band", "allocator"],
)
def test_rebalance__reads_what_its_rule_needs_once(anvil_chain: LocalChain, tmp_path: Path, changes: dict[str, object]) -> None:
    with agent_on(anvil_chain, tmp_path, ROOMY | changes, TARGETS) as agent:
        rounds(anvil_chain)
        fund(anvil_chain, {"WETH": 40_000, "LINK": 40_000, "USDC": 20_000})
        lines: list[str] = []
        agent.rebalance(progress=lines.append)
        assert any(line.startswith("Reading 6 hours of WETH, LINK from the feed") or "hours of WETH, LINK" in line for line in lines), lines
        assert any(line.startswith("WETH: ") and "hours of past prices" in line for line in lines)
        assert hours(agent).keys() == {"WETH", "LINK"}
        assert fill_price_windows(agent.context) == ()


@pytest.mark.parametrize(
    ("fall", "trigger", "fires"),
    [
        ("70/100", EVENT, True),
        ("70/100", [EVENT, {"kind": "threshold", "absolute": "40%"}], True),
        ("90/100", EVENT, False),
    ],
    ids=["a fall", "a fall beside a band", "a smaller fall"],
)
def test_first_run__answers_a_fall_since_the_last_rounds(
    anvil_chain: LocalChain, tmp_path: Path, fall: str, trigger: object, fires: bool
) -> None:
    rounds(anvil_chain)
    anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * Fraction(fall)})
    with agent_on(anvil_chain, tmp_path, ROOMY | {"policy.trigger": trigger}, TARGETS) as agent:
        fund(anvil_chain, {"WETH": 30_000, "LINK": 45_000, "USDC": 25_000})
        outcome = first_cycle(agent)
        assert outcome.kind is (OutcomeKind.DONE if fires else OutcomeKind.HOLD), outcome.reason
        assert "no recorded price" not in outcome.reason
        assert ("no asset has a drawdown" in outcome.reason) is not fires
        assert "below its highest of 6 h" in outcome.reason


def test_rule_without_prices__reads_nothing(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS) as agent:
        assert fill_price_windows(agent.context) == ()
        assert hours(agent) == {}


@pytest.mark.parametrize(
    ("changes", "labels"),
    [(weighed(), ["WETH", "LINK"]), (ROOMY | {"policy.trigger": EVENT}, ["WETH", "LINK"]), (ROOMY, [])],
    ids=["allocator", "market event", "no rule"],
)
def test_trust__reads_them_once_the_contracts_are_pinned(
    anvil_chain: LocalChain, tmp_path: Path, changes: dict[str, object], labels: list[str]
) -> None:
    rounds(anvil_chain)
    loaded = trusted_config(anvil_chain, tmp_path, changes, TARGETS)
    lines = api.read_past_prices(loaded, transports=[anvil_chain.transport])
    assert [line.partition(":")[0] for line in lines] == labels, lines


@pytest.mark.parametrize(
    ("changes", "labels"),
    [(weighed(), ["WETH", "LINK"]), (ROOMY | {"policy.trigger": EVENT}, ["WETH", "LINK"]), (ROOMY, [])],
    ids=["allocator", "market event", "no rule"],
)
def test_new_config__reads_them_before_its_contracts_are_pinned(
    anvil_chain: LocalChain, tmp_path: Path, changes: dict[str, object], labels: list[str]
) -> None:
    rounds(anvil_chain)
    loaded = agent_config(anvil_chain, tmp_path, changes, TARGETS)
    lines = api.read_first_prices(loaded.path, transports=[anvil_chain.transport])
    assert [line.partition(":")[0] for line in lines] == labels, lines
    assert all("hours of past prices" in line for line in lines)
    needed_text = api.needed_past_prices(loaded)
    assert bool(needed_text) is bool(labels)
    assert all(word in needed_text for word in (*labels, *(["of past prices", f"trimtab trust --config {loaded.path}"] if labels else [])))


@pytest.mark.parametrize("until_chosen", ["targets", "wait"])
@pytest.mark.parametrize("fault", ["operators disagree", *slow(["the endpoint timed out"])])
def test_failing_endpoint__trades_nothing_until_the_window_is_read(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_chosen: str, fault: str
) -> None:
    with agent_on(anvil_chain, tmp_path, weighed(until_chosen=until_chosen), TARGETS) as agent:
        rounds(anvil_chain)
        fund(anvil_chain, {"WETH": 70_000, "LINK": 10_000, "USDC": 20_000})

        def fail(*_: object) -> None:
            raise Retryable(fault, "try again")

        monkeypatch.setattr(past_prices, "past_rounds", fail)
        monkeypatch.setattr(past_prices, "past_twaps", fail)
        outcome = first_cycle(agent)
        assert isinstance(outcome.decision, Halt)
        assert causes(outcome) == ("weights",)
        assert fault in outcome.reason
        assert outcome.transactions == ()
        monkeypatch.setattr(past_prices, "past_rounds", past_rounds)
        done = first_cycle(agent)
        assert done.kind is OutcomeKind.DONE, done.reason
        assert len(chosen_weights(agent.context.store)) == 1


def test_lasting_run__acts_before_it_reads_past_prices_again(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first cycle waits for them; a stop that is due later does not."""
    order: list[str] = []
    run_cycle = cycles.run_policy_cycle

    def fail(*_: object) -> None:
        order.append("past prices")
        raise Retryable("the endpoint timed out", "try again")

    def act(*arguments: Any) -> StepOutcome:
        order.append("cycle")
        return run_cycle(*arguments)

    monkeypatch.setattr(past_prices, "past_rounds", fail)
    monkeypatch.setattr(past_prices, "past_twaps", fail)
    monkeypatch.setattr(cycles, "run_policy_cycle", act)
    monkeypatch.setattr(cycles, "PRICE_RETRY_S", 0)
    with agent_on(anvil_chain, tmp_path, weighed(), TARGETS) as agent:
        fund(anvil_chain, {"WETH": 70_000, "LINK": 10_000, "USDC": 20_000})
        with closing(agent.run(every="1s", send=True, confirm=yes)) as results:
            for _ in range(3):
                assert isinstance(next(results), StepOutcome)
    assert [name for name, _ in groupby(order)] == ["past prices", "cycle", "past prices", "cycle", "past prices"]


def test_young_feed__names_what_is_missing_and_is_read_in_a_day(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_on(anvil_chain, tmp_path, weighed(window="60d", min_history="30d", step="1d", max_age="2d"), TARGETS) as agent:
        lines = fill_price_windows(agent.context)
        assert all("intervals of 1 day are missing, the feed of" in line for line in lines), lines
        assert len(lines) == 2
        assert fill_price_windows(agent.context) == ()
        with monkeypatch.context() as clock_set_back:
            clock_set_back.setattr(PriceStore, "last_fetch_s", lambda *_: (agent.context.clock.now_s() + HOUR_S,) * 2)
            assert len(fill_price_windows(agent.context)) == 2
        fund(anvil_chain, {"WETH": 40_000, "LINK": 40_000, "USDC": 20_000})
        assert first_cycle(agent, send=False).kind is OutcomeKind.HOLD, "a young feed is no fault: until_chosen decides"
        monkeypatch.setattr(price_windows, "RETRY_S", 0)
        assert len(fill_price_windows(agent.context)) == 2


def test_gap_that_opens_later__is_read_within_the_same_day(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """A run that was down for some hours reads them at its start, although all were recorded a moment before."""
    with agent_on(anvil_chain, tmp_path, ROOMY | {"policy.trigger": EVENT}, TARGETS) as agent:
        rounds(anvil_chain)
        fill_price_windows(agent.context)
        assert fill_price_windows(agent.context) == ()
        anvil_chain.warp(2 * HOUR_S)
        progress: list[str] = []
        assert [line.partition(":")[0] for line in fill_price_windows(agent.context, progress.append)] == ["WETH", "LINK"]
        (reading,) = (text for text in progress if text.startswith("Reading"))
        assert int(reading.split()[1]) <= 3, "older gaps were looked for already"


@pytest.mark.parametrize(
    ("changes", "spans"),
    [(weighed(), {(7 * HOUR_S, HOUR_S)}), (ROOMY | {"policy.trigger": EVENT}, {(30 * HOUR_S, HOUR_S)}), (ROOMY, set())],
    ids=["allocator", "market event with a day before it", "band"],
)
def test_windows__are_those_of_allocator_and_trigger(
    anvil_chain: LocalChain, tmp_path: Path, changes: dict[str, object], spans: set[tuple[int, int]]
) -> None:
    with agent_on(anvil_chain, tmp_path, changes, TARGETS) as agent:
        context = agent.context
        windows = needed_windows(context.portfolio, context.policy, context.layers)
        assert {(window.span_s, window.interval_s) for window in windows} == spans
        missing = missing_prices(context.store.prices, agent.portfolio.numeraire.address, windows, context.clock.now_s())
        assert all(gap.missing_count == gap.interval_count for gap in missing)
        assert len(missing) == (2 if spans else 0)
