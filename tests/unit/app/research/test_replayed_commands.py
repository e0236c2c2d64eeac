"""A recorded step is proposed again by what asked for it: the agent at a look, or its owner by a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.app.research.offline import replay
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import (
    AgentCycle,
    Invest,
    LimitOrder,
    Payment,
    PendingPayment,
    PlanRequest,
    RaiseForWithdrawal,
    SellEntireBalance,
    SellEverything,
    StepInput,
    StepRequest,
    Swap,
    SwapAtPrice,
    Unwrap,
)
from agent.planning.requests import proposer
from agent.policy.cash_flows import transfers
from agent.store import open_store
from agent.store.files.recorder import StepRecorder
from tests.support.builders import NOW_S, OWNER, raw, step_input, with_limits
from tests.support.decisions.exits import LINK, MARKET, SOUND, step_with_stops
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.refusal_worlds import World
from tests.support.stores import DIGEST, ROOMY, edit_step_file, files
from tests.support.tokens import USDC, WBTC, WETH
from tests.support.transactions import CHAIN_ID

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
THREE, DRIFTED, CASH = (
    with_limits(step_input(TARGETS, TARGETS | values), plan_cost_bps=200)
    for values in ({}, {"WETH": 7_000, "WBTC": 2_000, "USDC": 1_000}, {"USDC": 3_000})
)
OWED = transfers.reserve_claims(THREE, (PendingPayment(0, Payment(USDC.address, raw(3_000, USDC))),))
CHEAP, DEAR = (LimitOrder("one", USDC.address, WETH.address, raw(100, USDC), Fraction(price), NOW_S + 3_600, NOW_S) for price in (1, 10**9))
CASES: Mapping[str, tuple[PlanRequest, StepInput, str, OutcomeKind]] = {
    "own": (AgentCycle(), DRIFTED, "agent", OutcomeKind.PLANNED),
    "own, an order fills": (AgentCycle((DEAR, CHEAP)), DRIFTED, "agent", OutcomeKind.PLANNED),
    "swap": (Swap(WETH.address, USDC.address, raw(1, WETH)), THREE, "swap", OutcomeKind.PLANNED),
    "swap of too much": (Swap(WETH.address, USDC.address, raw(100, WETH)), THREE, "swap", OutcomeKind.REFUSED),
    "order that fills": (SwapAtPrice(CHEAP), THREE, "swap --price", OutcomeKind.PLANNED),
    "open limit order": (SwapAtPrice(DEAR), THREE, "swap --price", OutcomeKind.HOLD),
    "order that expires": (SwapAtPrice(replace(CHEAP, until_s=NOW_S + 1)), THREE, "swap --price", OutcomeKind.HOLD),
    "invest": (Invest(((USDC.address, raw(1_000, USDC)),)), CASH, "invest", OutcomeKind.PLANNED),
    "invest dust": (Invest(((USDC.address, 1),)), THREE, "invest", OutcomeKind.HOLD),
    "money raised": (RaiseForWithdrawal(USDC.address), OWED, "withdraw", OutcomeKind.PLANNED),
    "coin unwrapped": (Unwrap(raw(1, WETH)), THREE, "withdraw", OutcomeKind.PLANNED),
    "everything sold": (SellEverything(), THREE, "stop", OutcomeKind.PLANNED),
    "sold out": (SellEntireBalance(WBTC.address), THREE, "edit --remove", OutcomeKind.PLANNED),
}


def step_folder(folder: Path, steps: Sequence[tuple[StepOutcome, StepRequest | None]]) -> Path:
    """The folder of files of these steps, written as the engine writes them."""
    place = folder / "steps"
    with closing(open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, OWNER)) as store:
        store.steps.on_step_recorded = StepRecorder(place, DIGEST, "live", ROOMY).write_step
        for number, (step_record, step_request) in enumerate(steps):
            name = f"{number:012x}"
            word = type(step_record.decision).__name__.lower()
            store.steps.begin(name, NOW_S, codec.dumps(step_record.step_input), None if step_request is None else codec.dumps(step_request))
            store.steps.begin(name, NOW_S, codec.dumps(step_record.step_input))  # once more, for a token that was shut out
            store.steps.end(name, word, step_record.reason, step_record.plan, step_record.kind.value)
    return place


@pytest.mark.parametrize("name", CASES)
def test_each_command_replays_as_it_was_and_a_change_shows(tmp_path: Path, name: str) -> None:
    case, step, command, kind = CASES[name]
    outcome = evaluation.evaluate_input(step, proposer(case), FakeEvidenceSource())
    assert outcome.kind is kind, outcome.reason
    place = step_folder(tmp_path, [(outcome, case)])
    replay_document = replay(place)
    assert [(step["result"], step["requested_by"]) for step in replay_document["steps"]] == [("same", command)], replay_document
    (file,) = files(place)
    recorded = json.loads(file.read_text())
    if outcome.plan is None:
        edit_step_file(file, reason="for no reason")
    else:
        edit_step_file(file, plan__legs=[{**recorded["plan"]["legs"][0], "amount_in_raw": 7}])
    altered = replay(place)
    assert (altered["different"], altered["exit"]) == (1, 14)
    edit_step_file(file, request={"type": "ManualAction", "command": "payout"})
    assert [(step["result"], step["requested_by"]) for step in replay(place)["steps"]] == [("manual", "payout")]


def test_a_record_that_does_not_say_is_judged_as_before(tmp_path: Path) -> None:
    """Nothing asked but the agent: an older file cannot say more."""
    outcomes = [evaluation.evaluate_input(CASES[name][1], proposer(CASES[name][0]), FakeEvidenceSource()) for name in ("own", "swap")]
    place = step_folder(tmp_path, [(outcome, None) for outcome in outcomes])
    assert [(step["result"], step["requested_by"]) for step in replay(place)["steps"]] == [("same", None), ("manual", None)]
    for file in files(place):
        assert json.loads(file.read_text())["request"] is None
        edit_step_file(file, request=None)  # the file lacks the key
    assert (replay(place)["same"], replay(place)["manual"], replay(place)["exit"]) == (1, 1, 0)


def test_what_vanished_before_it_was_sent_replays_the_same(tmp_path: Path) -> None:
    """The look after the approval decided to hold, and was refused since what had been confirmed was gone."""
    off = {"balance_jump_bps": None, "daily_loss_bps": None}
    had, gone = (
        with_limits(
            step_with_stops("LINK", values={"WETH": 3_000, "WBTC": 3_000, "LINK": link, "USDC": usdc}, pools=(*MARKET, SOUND)), **off
        )
        for link, usdc in ((2_000, 2_000), (0, 4_000))
    )
    with closing(open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, OWNER, had.portfolio.wrapped_native)) as store:
        store.steps.on_step_recorded = StepRecorder(tmp_path / "steps", DIGEST, "live", ROOMY).write_step
        world = World(store, had, lambda _: False, lacks=(LINK.address,))

        def vanishes(to: str, _: int) -> None:
            world.lacks.discard(to)
            world.step = gone

        world.approved = vanishes
        world.rounds()
    replay_document = replay(tmp_path / "steps")
    (refused,) = [step for step in replay_document["steps"] if step["outcome"] == "refused"]
    assert refused["decision"] == "hold"
    assert "in the wallet" in refused["reason"]
    assert (replay_document["different"], replay_document["unreadable"]) == (0, 0), [
        step for step in replay_document["steps"] if step["result"] != "same"
    ]
