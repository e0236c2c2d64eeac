"""What a node says of a tip that it does not take, and the transaction that pays more: below the bounds, once, after a restart too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.chain.sender import OutcomeUnknown, TipRefused
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.config.build import build_execution
from agent.config.load import parse_config
from agent.config.schema import Config
from agent.errors import ConfigError, NotAccepted, Refused, Retryable
from agent.execution.submission.replacement import MAX_TIP_RAISES, cancel_transaction, with_demanded_tip
from agent.model import Head, IntentKind, IntentState
from agent.policy.step_input import apply_min_tip
from agent.signing.terms import TIP_CAP_WEI
from tests.support.builders import step_input
from tests.support.configs.samples import config_text
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.transport import ScriptedTransport
from tests.support.signing import ESCAPE, futures_grant
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, WALLET, Bench, Killed, bench, patient, states, tx, when_sent

S = IntentState
TIP = tx(0).tip_wei


# --- The transaction that pays what was demanded.


def demanding(setup: Bench, needed: int, named: bool = True) -> list[int]:
    """Let the chain refuse a lower tip; return the list of tips that it was offered."""
    tips: list[int] = []
    tip_by_hash: dict[str, int] = {}
    sign = setup.signer.sign
    send = setup.chain.send

    def noted(unsigned, grant):
        signed = sign(unsigned, grant)
        tip_by_hash[signed.hash] = unsigned.tip_wei
        return signed

    def refusing(signed) -> None:
        tips.append(tip_by_hash[signed.hash])
        if tips[-1] < needed:
            raise TipRefused("the node refused it", (), needed if named else None)
        send(signed)

    setup.signer.sign = noted  # type: ignore[method-assign]
    setup.chain.send = refusing  # type: ignore[method-assign]
    return tips


@pytest.mark.parametrize("needed", [TIP + 1, 3 * TIP, TIP_CAP_WEI])
def test_a_refused_tip_is_raised_at_once_to_the_demanded_one(tmp_path: Path, needed: int) -> None:
    setup = bench(tmp_path)
    tips = demanding(setup, needed)
    ended = setup.run()
    assert (ended.state, ended.tx.tip_wei, tips) == (S.FINAL, needed, [TIP, needed])
    assert states(setup) == [("swap", "replaced"), ("swap", "final")]
    assert ended.tx.max_fee_wei is not None
    assert ended.tx.max_fee_wei >= GWEI + needed
    assert setup.store.journal.open_intents() == ()
    assert setup.run(1, max_priority_fee_wei=needed).state is S.FINAL
    assert tips[2:] == [needed]


def test_the_transaction_that_waits_at_the_demanded_tip_is_named(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    demanding(setup, 3 * TIP)
    with raises_code(Retryable, "not_mined") as caught:
        setup.run()
    assert setup.chain.sent[-1] in caught.value.message
    assert "not accepted" not in caught.value.message, "the refused one was replaced"


def test_nameless_demand__doubles_the_tip_a_few_times(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    tips = demanding(setup, TIP_CAP_WEI, named=False)
    setup.settings = replace(setup.settings, usual_tip_wei=GWEI // 4)
    setup.run(max_priority_fee_wei=GWEI // 100)
    assert tips == [GWEI // 100, GWEI // 4, GWEI // 2, GWEI, 2 * GWEI, 4 * GWEI, 5 * GWEI]


def test_nodes_that_refuse_every_tip_end_the_attempt(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    tips = demanding(setup, TIP_CAP_WEI + 1, named=False)
    with pytest.raises(NotAccepted, match="the node refused it"):
        setup.run(max_priority_fee_wei=1)
    assert len(tips) == 1 + MAX_TIP_RAISES
    assert tips == sorted(set(tips))


@pytest.mark.parametrize("at", ["before:send", "before:planned", "after:planned", "after:signed"])
def test_killed_process__pays_the_demanded_tip_after_all(tmp_path: Path, at: str) -> None:
    setup = bench(tmp_path)
    needed = 3 * TIP
    seen: list[str] = []

    def die(event) -> None:
        seen.append(event.name)
        if event.name == at and seen.count("before:send") == 1 and seen.index("before:send") < len(seen) - (at != "before:send"):
            raise Killed

    setup.on_event = die
    tips = demanding(setup, needed)
    with pytest.raises(Killed):
        setup.run()
    setup.restart()
    setup.executor().reconcile()
    assert tips[-1] == needed
    assert [state for _, state in states(setup)].count("final") == 1
    assert setup.store.journal.open_intents() == ()


def test_demand__is_stored_before_payment_and_holds_for_a_day(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    demanding(setup, 3 * TIP)
    setup.on_event = lambda event: demanded.append(setup.store.budgets.demanded_tip_wei(START_S)) if event.name == "before:send" else None
    demanded: list[int] = []
    setup.run()
    assert demanded == [0, 3 * TIP]
    setup.restart()
    day = 86_400
    times_s = [START_S, START_S + day - 1, START_S + day]
    assert [setup.store.budgets.history(at_s).demanded_tip_wei for at_s in times_s] == [3 * TIP, 3 * TIP, 0]
    assert [setup.store.budgets.demanded_tip_wei(at_s) for at_s in times_s] == [3 * TIP, 3 * TIP, 0]


def test_demand_below_the_paid_tip__is_a_mere_refusal(tmp_path: Path) -> None:
    setup = bench(tmp_path)

    def contradicts(_signed) -> None:
        raise TipRefused("the node refused it", (), TIP)

    setup.chain.send = contradicts  # type: ignore[method-assign]
    with pytest.raises(NotAccepted, match="the node refused it"):
        setup.run()
    assert setup.store.budgets.demanded_tip_wei(setup.clock.now_s()) == 0


def test_demand_beside_an_unknown_outcome__is_paid_when_late(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    tips = demanding(setup, 3 * TIP)
    send = setup.chain.send

    def half_known(signed) -> None:
        try:
            send(signed)
        except TipRefused as refusal:
            raise OutcomeUnknown("one node refused it, another did not answer", "", refusal) from None

    setup.chain.send = half_known  # type: ignore[method-assign]
    when_sent(setup, 1, setup.chain.mine)
    ended = setup.run()
    assert (ended.state, tips) == (S.FINAL, [TIP, 3 * TIP])


@pytest.mark.parametrize(("is_emergency", "end_state"), [(True, S.FINAL), (False, S.CANCELLED)])
def test_demand_far_above_the_grant__is_paid_by_an_emergency(tmp_path: Path, is_emergency: bool, end_state: IntentState) -> None:
    setup = bench(tmp_path)
    setup.settings = replace(setup.settings, emergency_gas_ceilings=(100 * GWEI, None))
    demanding(setup, 4 * GWEI)
    cheap = replace(tx(0), max_fee_wei=GWEI * 11 // 10, max_priority_fee_wei=GWEI // 10)
    granted = replace(futures_grant(ESCAPE, is_emergency=is_emergency), max_gas_wei=cheap.max_gas_cost_wei, deadline_s=START_S + 90)
    setup.store.steps.begin("escape", START_S, "{}")
    ended = setup.executor().run("escape", cheap, granted, "escape")
    assert (ended.kind, ended.state) == (IntentKind.FUTURES, end_state)


# --- Fees and costs.


HEAD = Head(1, 1, "0x" + "00" * 32, START_S, 10 * GWEI)


def test_demanded_tip__raises_the_maximum_fee_within_limits() -> None:
    def fees(limit: int | None, soft: int | None = None) -> tuple[int | None, int | None]:
        raised = with_demanded_tip(tx(0), HEAD, 3 * GWEI, limit, soft)
        return raised.max_fee_wei, raised.max_priority_fee_wei

    assert fees(None) == (23 * GWEI, 3 * GWEI)
    assert fees(20 * GWEI) == (20 * GWEI, 3 * GWEI)
    assert fees(20 * GWEI, 13 * GWEI) == (13 * GWEI, 3 * GWEI)
    for limits in ((13 * GWEI - 1, None), (None, 13 * GWEI - 1)):
        with raises_code(Refused, "gas_price", "3000000000 wei"):
            fees(*limits)


def test_a_legacy_price_is_its_own_tip() -> None:
    legacy = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    raised = with_demanded_tip(legacy, replace(HEAD, base_fee_wei=None), 3 * GWEI, 3 * GWEI)
    assert (raised.gas_price_wei, raised.max_fee_wei, raised.max_priority_fee_wei) == (3 * GWEI, None, None)


def test_a_cancel_pays_the_demanded_tip_too() -> None:
    cancel = cancel_transaction(tx(0), WALLET, HEAD, 100 * GWEI, 3 * GWEI)
    assert (cancel.to, cancel.data, cancel.max_priority_fee_wei) == (WALLET, "0x", 3 * GWEI)


@pytest.mark.parametrize(("suggested", "tip_wei"), [("0x0", 0), ("0x1", 1), (None, 7)], ids=["zero", "one wei", "none"])
def test_a_suggested_tip_of_zero_is_a_suggestion(suggested: str | None, tip_wei: int) -> None:
    """Quiet rollups suggest it; the usual tip of the network is for nodes that suggest none."""
    fees = {"eth_gasPrice": "0x1", "eth_maxPriorityFeePerGas": suggested}
    node = ScriptedTransport(**fees, eth_getTransactionCount="0x0", eth_getBalance="0x0")
    scope = SnapshotScope(WALLET, (), (), (), (), (), 0, 100)
    reader = ChainReader([node], 31337, scope, FakeClock(), min_operators=1, usual_tip_wei=7)
    assert reader.snapshot().priority_fee_wei == tip_wei


@pytest.mark.parametrize("base_fee_wei", [GWEI, None], ids=["1559", "legacy"])
def test_every_cost_counts_the_tip_that_nodes_take(base_fee_wei: int | None) -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 10_000, "USDC": 0})
    head = replace(step.snapshot.head, base_fee_wei=base_fee_wei)
    step = replace(step, snapshot=replace(step.snapshot, head=head, priority_fee_wei=2, gas_price_wei=2))

    def price(configured: int, demanded: int) -> int:
        changed = replace(
            step,
            execution=replace(step.execution, min_tip_wei=configured),
            history=replace(step.history, demanded_tip_wei=demanded),
        )
        return apply_min_tip(changed).snapshot.current_gas_price_wei - (base_fee_wei or 0)

    assert [price(0, 0), price(1, 0), price(5, 0), price(0, 7), price(5, 7), price(7, 5)] == [2, 2, 5, 7, 7, 7]


# --- execution.min_tip


def with_min_tip(written: str, gas_price: str = "60 gwei", chain_id: int = 1) -> Config:
    """Return a config with this least tip."""
    return parse_config(
        config_text(
            ('deadline = "90s"', f'deadline = "90s"\nmin_tip = "{written}"'),
            ('gas_price = "60 gwei"', f'gas_price = "{gas_price}"'),
            ("chain_id = 1\n", f"chain_id = {chain_id}\n"),
        )
    )


def test_a_least_tip_is_at_most_what_is_signed_and_the_gas_price() -> None:
    assert with_min_tip("5 gwei").execution.min_tip == TIP_CAP_WEI
    assert with_min_tip("3 gwei", gas_price="3 gwei").execution.min_tip == 3 * GWEI
    with pytest.raises(ConfigError, match=r"execution.min_tip: 5.000000001 gwei is above the most that is signed .*at most 5 gwei"):
        with_min_tip("5.000000001 gwei")
    with pytest.raises(ConfigError, match=r"execution.min_tip: 3.000000001 gwei is above limits.gas_price of 3 gwei"):
        with_min_tip("3.000000001 gwei", gas_price="3 gwei")


@pytest.mark.parametrize(
    ("chain_id", "written", "gwei"),
    [
        pytest.param(1, None, 0, id="none"),
        pytest.param(1, "2 gwei", 2, id="configured"),
        pytest.param(137, None, 25, id="own minimum"),
        pytest.param(137, "26 gwei", 26, id="above the minimum"),
        pytest.param(137, "1 gwei", 25, id="below the minimum"),
    ],
)
def test_a_chains_own_minimum_counts_in_every_plan(chain_id: int, written: str | None, gwei: int) -> None:
    config = parse_config(config_text())
    config = config.model_copy(
        update={
            "chain": config.chain.model_copy(update={"chain_id": chain_id}),
            "execution": config.execution.model_copy(update={"min_tip": None if written is None else int(written.split()[0]) * GWEI}),
        }
    )
    assert build_execution(config, ()).min_tip_wei == gwei * GWEI
