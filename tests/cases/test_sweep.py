"""[sweep] on a chain: profit beyond an amount goes to a cold address on a schedule, once an interval, over kills too."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from eth_utils.address import to_checksum_address

from agent import app as api
from agent.app.agent import Agent
from agent.app.money import transfers
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind, RequestState
from tests.faults.probe import heard
from tests.faults.rig import in_child
from tests.support.agents import USD, agent_config, fund, reopened_agent, trusted_config, yes
from tests.support.constants import HOUR_S

COLD = str(to_checksum_address("0x00000000000000000000000000000000000c01d0"))
HELD_USD = {"WETH": 5_000, "USDC": 5_000}
TARGETS = {"WETH": "50%", "USDC": "50%"}
SWEEP = {"to": COLD, "above": "200", "least": "50", "every": "3h"}
SWEEPING = {
    "wallet.payout_addresses": [COLD],
    "sweep": SWEEP,
    "policy.trigger": {"kind": "threshold", "absolute": "30%"},
}


def swept_usd(chain: LocalChain) -> Fraction:
    return Fraction(chain.balance("USDC", COLD), USD)


def look(agent: Agent) -> StepOutcome:
    """Run one cycle."""
    (outcome,) = [outcome for outcome in agent.run(send=True, confirm=yes, once=True) if isinstance(outcome, StepOutcome)]
    return outcome


def move_weth(chain: LocalChain, factor: Fraction) -> None:
    chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * factor})


def pass_time(chain: LocalChain) -> None:
    """Let an hour and a half pass, with prices that stay: the market's move takes half an hour."""
    chain.warp(HOUR_S)
    move_weth(chain, Fraction(1))


def end_interval(chain: LocalChain, agent: Agent) -> None:
    """Let an interval pass, with a look in between, which values the portfolio."""
    pass_time(chain)
    assert look(agent).kind is OutcomeKind.HOLD
    pass_time(chain)


def begin_sweeping(chain: LocalChain, folder: Path, changes: Mapping[str, object] | None = None) -> LoadedConfig:
    """Write a config that sweeps, and look once: the first interval begins."""
    fund(chain, HELD_USD)
    loaded = trusted_config(chain, folder, {**SWEEPING, **(changes or {})}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
    return loaded


def test_profit_beyond_the_amount_is_paid_once_an_interval(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path)) as agent:
        move_weth(chain, Fraction(11, 10))
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == 0, "the interval has not ended"
        end_interval(chain, agent)
        paid = look(agent)
        assert paid.kind is OutcomeKind.DONE, paid.reason
        assert [intent.kind for intent in paid.transactions] == [IntentKind.PAYOUT]
        assert 299 < swept_usd(chain) <= 300, "of 500 profit 200 stay, less gas"
        (request,) = agent.context.store.requests.newest()
        assert request.to == COLD
        first_usd = swept_usd(chain)
        for _ in range(2):
            end_interval(chain, agent)
            assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == first_usd, "what was swept is no profit a second time"
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.DONE
        assert 549 < swept_usd(chain) - first_usd <= 550, "5,500 of WETH rose by a tenth"


def test_a_new_book_sweeps_its_own_profit(chain: LocalChain, tmp_path: Path) -> None:
    loaded = begin_sweeping(chain, tmp_path)
    with reopened_agent(chain, loaded) as agent:
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.DONE
    first_usd = swept_usd(chain)
    api.open_new_book(loaded.path, "a new year")
    with reopened_agent(chain, loaded) as agent:
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == first_usd, "the new book has no profit yet"
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.DONE
        assert 349 < swept_usd(chain) - first_usd <= 350, "of 550 profit 200 stay"


def test_a_book_in_another_numeraire_is_not_swept(chain: LocalChain, tmp_path: Path) -> None:
    loaded = begin_sweeping(chain, tmp_path)
    changed = trusted_config(
        chain,
        tmp_path,
        {
            **SWEEPING,
            "portfolio.numeraire": "WETH",
            "limits.min_trade": "0.01",
            "sweep": {**SWEEP, "above": "0.1", "least": "0.02"},
        },
        TARGETS,
    )
    with reopened_agent(chain, changed) as agent:
        end_interval(chain, agent)
        waiting = look(agent)
        assert waiting.kind is OutcomeKind.HOLD, waiting.reason
        assert "trimtab books open" in waiting.reason
        assert chain.balance("WETH", COLD) == 0
    api.open_new_book(loaded.path, "in WETH")
    with reopened_agent(chain, changed) as agent:
        for _ in range(2):
            assert look(agent).kind is OutcomeKind.HOLD, "the second look finds no profit, and an interval begins"
        move_weth(chain, Fraction(1, 2))
        end_interval(chain, agent)
        paid = look(agent)
        assert paid.kind is OutcomeKind.DONE, paid.reason
        assert chain.balance("WETH", COLD) > 0


@pytest.mark.parametrize(
    "profit_usd",
    [Fraction(-500), Fraction(0), Fraction(200), Fraction(249)],
    ids=["loss", "none", "what_stays", "below_the_smallest_payment"],
)
def test_profit_that_is_not_beyond_the_amount_stays(chain: LocalChain, tmp_path: Path, profit_usd: Fraction) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path)) as agent:
        move_weth(chain, 1 + profit_usd / HELD_USD["WETH"])
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.HOLD
        move_weth(chain, Fraction(5, 4))
        pass_time(chain)
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == 0, "the interval ended without a payment, and the next has not ended"


def test_a_price_of_one_look_is_not_swept(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path)) as agent:
        end_interval(chain, agent)
        move_weth(chain, Fraction(5, 4))
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == 0


def test_a_deposit_is_no_profit(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path, {"limits.balance_jump": "10%"})) as agent:
        chain.set_balances({"USDC": chain.balance("USDC") + 3_000 * USD})
        pass_time(chain)
        assert look(agent).kind is OutcomeKind.HALT
        pass_time(chain)
        assert look(agent).kind is OutcomeKind.HALT
        transfers.classify_transfers(agent.context.loaded_config, "all", "deposit")
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == 0
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        look(agent)
        assert 299 < swept_usd(chain) <= 300, "the profit is that of the rise alone"


def test_a_shortfall_of_the_numeraire_is_sold_first(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 9_990, "USDC": 10})
    loaded = trusted_config(chain, tmp_path, {**SWEEPING, "policy.trigger.absolute": "30%"}, {"WETH": "95%", "USDC": "5%"})
    with reopened_agent(chain, loaded) as agent:
        look(agent)
        move_weth(chain, Fraction(21, 20))
        end_interval(chain, agent)
        paid = look(agent)
        assert paid.kind is OutcomeKind.DONE, paid.reason
        assert {IntentKind.SWAP, IntentKind.PAYOUT} <= {intent.kind for intent in paid.transactions}
        assert 290 < swept_usd(chain) <= 300


def test_the_day_s_payouts_cut_a_sweep_and_then_hold_it_back(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path, {"limits.payout_per_day": "120"})) as agent:
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.DONE
        assert swept_usd(chain) == 120
        end_interval(chain, agent)
        waiting = look(agent)
        assert waiting.kind is OutcomeKind.HOLD
        assert "the sweep of profit waits: limits.payout_per_day leaves 0" in waiting.reason
        chain.warp(24 * HOUR_S)
        move_weth(chain, Fraction(1))
        assert look(agent).kind is OutcomeKind.DONE, "it is tried again within the same interval"
        assert swept_usd(chain) == 240


def test_a_pause_holds_a_sweep_back(chain: LocalChain, tmp_path: Path) -> None:
    with reopened_agent(chain, begin_sweeping(chain, tmp_path)) as agent:
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        agent.context.kill_switch.pause("while it is due", 0)
        look(agent)
        assert swept_usd(chain) == 0
        assert agent.context.store.requests.newest() == ()
        agent.context.kill_switch.resume("it is over", 0)
        look(agent)
        assert swept_usd(chain) > 0


def test_a_sweep_goes_only_to_an_address_that_was_confirmed(chain: LocalChain, tmp_path: Path) -> None:
    loaded = begin_sweeping(chain, tmp_path)
    stranger = str(to_checksum_address("0x00000000000000000000000000000000000bad01"))
    changed = agent_config(
        chain, tmp_path, {**SWEEPING, "wallet.payout_addresses": [stranger], "sweep": {**SWEEP, "to": stranger}}, TARGETS
    )
    assert changed.path == loaded.path
    with reopened_agent(chain, changed) as agent:
        move_weth(chain, Fraction(11, 10))
        end_interval(chain, agent)
        waiting = look(agent)
        assert "payout_address" in waiting.reason, waiting.reason
        assert chain.balance("USDC", stranger) == 0


def test_released_sweep__waits_for_the_next_interval(chain: LocalChain, tmp_path: Path) -> None:
    loaded = begin_sweeping(chain, tmp_path)
    move_weth(chain, Fraction(11, 10))
    with reopened_agent(chain, loaded) as agent:
        end_interval(chain, agent)
    assert in_child(lambda: look_until(chain, loaded, "after:write a request")) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        assert transfers.release_withdrawal(agent, 1).state is RequestState.RELEASED
        pass_time(chain)
        assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == 0
        end_interval(chain, agent)
        assert look(agent).kind is OutcomeKind.DONE
        assert 299 < swept_usd(chain) <= 300


def look_until(chain: LocalChain, loaded: LoadedConfig, moment: str) -> None:
    """Run a cycle in a process that a SIGKILL ends at that moment."""
    chain.__dict__.pop("transport", None)  # a connection of its own

    def kill_at(passed_moment: str) -> None:
        if passed_moment.startswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    with reopened_agent(chain, loaded) as agent, heard(kill_at):
        look(agent)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before:write a request", marks=pytest.mark.slow),
        "after:write a request",
        pytest.param("before:send", marks=pytest.mark.slow),
        "after:send",
        pytest.param("before:write the end of a request", marks=pytest.mark.slow),
        pytest.param("after:write the end of a request", marks=pytest.mark.slow),
        "before:write the interval of sweeps",
        pytest.param("after:write the interval of sweeps", marks=pytest.mark.slow),
    ],
)
def test_a_killed_sweep_is_paid_once(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    loaded = begin_sweeping(chain, tmp_path)
    move_weth(chain, Fraction(11, 10))
    with reopened_agent(chain, loaded) as agent:
        end_interval(chain, agent)
    assert in_child(lambda: look_until(chain, loaded, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        for _ in range(3):
            look(agent)
        assert 299 < swept_usd(chain) <= 300
        end_interval(chain, agent)
        look(agent)
        assert 299 < swept_usd(chain) <= 300
        assert [request.state for request in agent.context.store.requests.newest()] == [RequestState.DONE]


def test_sweep_that_was_paid_and_released__is_no_profit_again(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Owners of a Safe may execute a payment after its release; `trimtab adopt` releases what is open."""
    chain = anvil_chain
    loaded = begin_sweeping(chain, tmp_path)
    move_weth(chain, Fraction(11, 10))
    with reopened_agent(chain, loaded) as agent:
        end_interval(chain, agent)
    assert in_child(lambda: look_until(chain, loaded, "before:write the end of a request")) == -signal.SIGKILL
    swept = swept_usd(chain)
    assert swept > 0
    with reopened_agent(chain, loaded) as agent:
        assert agent.context.store.requests.end(1, RequestState.RELEASED, agent.context.clock.now_s())
        for _ in range(2):
            end_interval(chain, agent)
            assert look(agent).kind is OutcomeKind.HOLD
        assert swept_usd(chain) == swept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wallet.payout_addresses": []}, "is not in wallet.payout_addresses"),
        ({"limits.payout_per_day": "0"}, "limits.payout_per_day is 0"),
        ({"limits.payout_per_day": "49"}, "sweep.least: 50 is more than limits.payout_per_day"),
        ({"sweep": {**SWEEP, "every": "1m"}}, "30m to 28d"),
        ({"sweep": {key: SWEEP[key] for key in ("to", "above", "least")}}, "exactly one of every and cron"),
        ({"sweep": {**SWEEP, "cron": "0 9 1 * *"}}, "exactly one of every and cron"),
        ({"sweep": {**SWEEP, "least": "0"}}, "0 would pay dust"),
        ({"sweep": {**SWEEP, "above": "-5"}}, "sweep.above"),
        ({"sweep": {**SWEEP, "to": "0x12"}}, "is not an address"),
    ],
    ids=[
        "recipient_not_listed",
        "no_payouts",
        "payouts_below_the_least",
        "too_often",
        "no_schedule",
        "two_schedules",
        "dust",
        "negative",
        "no_address",
    ],
)
def test_a_sweep_that_cannot_be_paid_is_refused_in_the_config(
    anvil_chain: LocalChain, tmp_path: Path, changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        agent_config(anvil_chain, tmp_path, {**SWEEPING, **changes}, TARGETS)
    assert message in f"{refused.value.message} {refused.value.remedy}"


def test_a_smallest_payment_of_the_whole_daily_limit_is_accepted(anvil_chain: LocalChain, tmp_path: Path) -> None:
    loaded = agent_config(anvil_chain, tmp_path, {**SWEEPING, "limits.payout_per_day": "50"}, TARGETS)
    assert loaded.config.sweep is not None
