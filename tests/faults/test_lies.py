"""T2, each field alone: whoever controls one endpoint gets nothing signed while the other one is honest, unless it cannot hurt."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from agent.errors import ConfigError
from agent.localchain import LocalChain
from tests.faults.scene import Scene, scene
from tests.faults.suite import Folders, Only, Result
from tests.faults.suite_lies import HARMLESS, all_fields, harmless, run
from tests.faults.suites import sample
from tests.support.agents import reopened_agent
from tests.support.samples import slow

SEED = 0
FURTHER = r"(?<!balanceOf) part \d$|(symbol|slot0) word [1-9]$"
READ_OF_THE_LENS = {
    "balanceOf", "decimals", "allowance", "getReserves word 0", "getReserves word 1", "latestRoundData word 0", "latestRoundData word 1",
    "latestRoundData word 3", "latestRoundData word 4", "code hash", "pool price", "pool tick", "pool liquidity", "pool mean of ticks",
    "pool mean of liquidity", "tick index", "tick net", "pool known from", "pool known to",
}  # fmt: skip


@pytest.fixture
def honest(anvil_session: LocalChain, folders: Folders) -> Iterator[Scene]:
    with scene(anvil_session, folders(), SEED) as honest_scene:
        yield honest_scene


def results(chain: LocalChain, folders: Folders, seat: str, only: Only) -> list[Result]:
    lie_results = list(run(chain, folders, SEED, lambda field, at: at == seat and only(field, at)))
    assert not [(str(result.case), result.violations) for result in lie_results if result.violations]
    assert sum(result.injected["lie"] for result in lie_results) > 0
    return lie_results


def test_answers_a_step_reads__are_all_falsified(honest: Scene) -> None:
    fields = all_fields(honest)
    assert {f"lens: {part}" for part in READ_OF_THE_LENS} <= {field.replace("pool tick ", "tick ") for field in fields} | set(fields)
    kinds = {field.split(":")[0] for field in fields}
    assert {
        "eth_chainId", "eth_getBalance", "eth_gasPrice", "eth_maxPriorityFeePerGas", "eth_getTransactionCount latest",
        "eth_getTransactionCount pending", "eth_getTransactionCount at a block", "eth_getBlockByNumber latest",
        "eth_getBlockByNumber by height", "eth_estimateGas", "eth_call simulation", "eth_call simulation of an approval",
        "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getTransactionByHash",
    } <= kinds  # fmt: skip
    assert all(any(harmless(field) == why for field in fields) for why in HARMLESS.values()), "a reason that nothing needs"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lie_in_any_field__gets_nothing_signed_beside_an_honest(anvil_session: LocalChain, folders: Folders, whole: bool) -> None:
    """Every field that could hurt; in every run without those that frame a value, and without further words of a text or a slot."""
    lie_results = results(
        anvil_session, folders, "one of two", lambda field, at: harmless(field) is None and (whole or not re.search(FURTHER, field))
    )
    assert len(lie_results) > (80 if whole else 50)


@pytest.mark.parametrize("one_of", [6, pytest.param(3, marks=pytest.mark.slow)])
def test_lie_that_gets_a_signature__costs_at_most_the_limits(anvil_session: LocalChain, folders: Folders, one_of: int) -> None:
    """A sample of the fields that cannot hurt, by name."""
    sampled = sample(SEED, one_of)
    results(anvil_session, folders, "one of two", lambda field, at: harmless(field) is not None and sampled(field, at))


def test_two_endpoints_of_one_operator_count_once(anvil_session: LocalChain, folders: Folders) -> None:
    sampled = sample(SEED, 12)
    results(anvil_session, folders, "twice the same of two", lambda field, at: harmless(field) is None and sampled(field, at))


def test_two_endpoints_of_one_operator_are_no_two_operators(anvil_session: LocalChain, folders: Folders) -> None:
    with (
        scene(anvil_session, folders(), SEED, operators=("sick", "alpha")) as sick_scene,
        pytest.raises(ConfigError, match="1 operator"),
        reopened_agent(anvil_session, sick_scene.loaded, [sick_scene.direct("sick"), sick_scene.direct("sick")]),
    ):
        pass


@pytest.mark.parametrize("one_of", [160, *slow([80, 40])])
def test_one_liar_of_three_is_outvoted(anvil_session: LocalChain, folders: Folders, one_of: int) -> None:
    sampled = sample(SEED, one_of)
    lie_results = results(anvil_session, folders, "one of three", sampled)
    assert all(result.ends[0].startswith("done") for result in lie_results), [(result.case.fault, result.ends) for result in lie_results]


@pytest.mark.parametrize("one_of", [96, *slow([48, 24])])
def test_only_endpoint__gets_nothing_signed_outside_the_policy(anvil_session: LocalChain, folders: Folders, one_of: int) -> None:
    results(anvil_session, folders, "alone", sample(SEED, one_of))
