"""T1, T15: searchers with the order of blocks in their hand: whatever size they try, their profit and our loss keep to the limits."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from agent.app.documents.past.step_history import explain, history
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import decimal_text
from tests.support.searchers import EVERY_POOL, ONE_POOL, ROUTERS, TACTICS, Scene, Searcher, Tactic, Turn, searcher_on, turns_by_size


def best_turns(searcher: Searcher, tactic: Tactic, sizes: Sequence[int], rounds: int) -> list[Turn]:
    """Return the results of all sizes tried, the most profitable first: a grid, then in each round the middle of the larger gap beside
    the best.
    """

    def attack(size_usd: Fraction) -> Turn:
        turn = searcher.attack(tactic, size_usd)
        turn.require_bounded()
        return turn

    turns = turns_by_size(attack, [Fraction(size) for size in sizes], rounds)
    return sorted(turns, key=lambda turn: turn.profit, reverse=True)


BY_NAME = {tactic.name: tactic for tactic in TACTICS}
SCRIPT = Path(__file__).parents[2] / "scripts" / "check" / "searchers.py"
V3_SWAP = "0x" + keccak(text="Swap(address,address,int256,int256,uint160,uint128,int24)").hex()
SANDWICH = "front-run and back-run"
SKEW = "skew, unwind later"
ALL = "skew, front-run and back-run"


@pytest.mark.parametrize(
    ("scene", "router", "name", "sizes"),
    [
        pytest.param(ONE_POOL, "swap_router_02", SANDWICH, (200_000, 650_000, 1_100_000), marks=pytest.mark.slow),
        (ONE_POOL, "rebalancer", SANDWICH, (200_000, 650_000, 1_100_000)),
        pytest.param(ONE_POOL, "rebalancer", SKEW, (200_000, 600_000, 3_000_000), marks=pytest.mark.slow),
        pytest.param(ONE_POOL, "swap_router_02", ALL, (200_000, 1_000_000, 3_000_000), marks=pytest.mark.slow),
        pytest.param(EVERY_POOL, "rebalancer", ALL, (10_000, 50_000, 600_000), marks=pytest.mark.slow),
    ],
    ids=lambda value: value.name if isinstance(value, Scene) else None,
)
def test_searcher_of_any_size__moves_nobody_beyond_the_limits(
    anvil_chain: LocalChain, tmp_path: Path, scene: Scene, router: str, name: str, sizes: tuple[int, ...]
) -> None:
    """Each turn is held against limits and estimate; the best of them earned something, else nothing was shown."""
    with searcher_on(anvil_chain, tmp_path, scene, router) as searcher:
        best, *others = best_turns(searcher, BY_NAME[name], sizes, rounds=int(router == ROUTERS[0]))
        assert best.kind is OutcomeKind.DONE
        assert best.profit > 0
        assert min(turn.profit for turn in others) < best.profit
        assert {turn.kind for turn in others} & {OutcomeKind.FAILED, OutcomeKind.REFUSED}, "no size was too large"


@pytest.mark.parametrize(
    ("router", "name", "size"),
    [
        pytest.param("rebalancer", "back-run", 0, id="back-run"),
        pytest.param("swap_router_02", "front-run, unwind later", 600_000, id="front-run"),
        pytest.param("swap_router_02", "bait: skew in our favour, turned round in front", 200_000, id="bait"),
    ],
)
def test_the_other_tactics_keep_to_the_limits_too(anvil_chain: LocalChain, tmp_path: Path, router: str, name: str, size: int) -> None:
    with searcher_on(anvil_chain, tmp_path, ONE_POOL, router) as searcher:
        turn = searcher.attack(BY_NAME[name], Fraction(size))
        turn.require_bounded()
        assert turn.kind is OutcomeKind.DONE
        require_told(searcher, turn)
        if name == "back-run":
            assert 0 < turn.profit < turn.lost, "what a back-run earns is the plan's own impact"
            assert turn.short == 0


def require_told(searcher: Searcher, turn: Turn) -> None:
    """History and explanation of the attacked step tell each leg as the Swap events of the pools do, and the sum as the searcher's."""
    chain = searcher.chain
    loaded = searcher.agent.context.loaded_config
    step = next(step for step in history(loaded)["steps"] if step["execution"])
    swap = next(transaction for transaction in step["transactions"] if transaction["kind"] == "swap")
    swaps = {}
    for log in chain.node.rpc("eth_getTransactionReceipt", swap["hash"])["logs"]:
        if log["topics"][0] == V3_SWAP:
            words = [int.from_bytes(bytes.fromhex(log["data"][2:])[at : at + 32], "big", signed=True) for at in (0, 32)]
            swaps[log["address"].lower()] = sorted(words)
    explanation = explain(loaded, step["step"])
    told_count = 0
    for leg in explanation["legs"]:
        if (amounts := swaps.get(leg["pool"].lower())) is None:
            continue
        told_count += 1
        sold, bought = (chain.tokens[leg[side]].decimals for side in ("token_in", "token_out"))
        assert (leg["realised_in"], leg["realised_out"]) == (decimal_text(amounts[1], sold), decimal_text(-amounts[0], bought))
        share = Fraction(leg["realised_out"]) / Fraction(leg["realised_in"]) * Fraction(leg["planned_in"]) / Fraction(leg["planned_out"])
        assert leg["difference_bps"] == pytest.approx(float((share - 1) * 10_000), abs=0.01)
        assert Fraction(leg["realised_out"]) >= Fraction(leg["floor"])
        assert any(f"{leg['difference_bps']:+g} bps against the plan" in words for words in explanation["sentences"])
    execution = step["execution"]
    assert told_count
    assert execution
    assert execution["difference"]
    assert (execution["legs"], execution["unknown"]) == (len(explanation["legs"]), 0)
    assert float(execution["difference"]) == pytest.approx(-float(turn.short), rel=0.02, abs=0.01)
    assert execution["difference_bps"] == pytest.approx(-float(turn.short / turn.turnover) * 10_000, rel=0.02, abs=0.02)


def test_search__finds_the_best_size_between_its_grid() -> None:
    def attack(size: Fraction) -> Turn:
        return Turn(size, OutcomeKind.DONE, -((size - 37) ** 2), Fraction(0), Fraction(0), Fraction(0))

    turns = turns_by_size(attack, [Fraction(size) for size in (1, 10, 100)], 12)
    assert abs(max(turns, key=lambda turn: turn.profit).size_usd - 37) < 1
    assert [turn.size_usd for turn in turns] == sorted(turn.size_usd for turn in turns)


def test_a_turn_beyond_a_limit_or_an_estimate_is_found_out() -> None:
    good = Turn(Fraction(1), OutcomeKind.DONE, *map(Fraction, (5, 8, 9, 100, 3, 4, 6)))
    good.require_bounded()
    for wrong in (
        Turn(Fraction(1), OutcomeKind.DONE, *map(Fraction, (5, 10, 9, 100, 3, 4, 6))),
        Turn(Fraction(1), OutcomeKind.DONE, *map(Fraction, (5, 8, 9, 100, 5, 4, 6))),
        Turn(Fraction(1), OutcomeKind.DONE, *map(Fraction, (7, 8, 9, 100, 3, 4, 6))),
        Turn(Fraction(1), OutcomeKind.FAILED, *map(Fraction, (1, 0, 0, 0))),
    ):
        with pytest.raises(AssertionError):
            wrong.require_bounded()


def test_report__tells_the_best_turn_and_the_worst_loss() -> None:
    spec = importlib.util.spec_from_file_location("searchers_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    turns = [
        Turn(Fraction(10), OutcomeKind.DONE, *map(Fraction, (5, 8, 9, 1_000, 3, 4, 6))),
        Turn(Fraction(20), OutcomeKind.DONE, *map(Fraction, (2, 10, 9, 1_000, 3, 4, 6))),
        Turn(Fraction(30), OutcomeKind.FAILED, *map(Fraction, (-7, 1, 1, 0))),
    ]
    row = report.summary_row(ONE_POOL, "rebalancer", TACTICS[0], turns)
    assert (row["best_size_usd"], row["profit_bps"], row["loss_bps"], row["worst_loss_bps"], row["limit_bps"]) == (10, 50, 80, 100, 90)
    assert (row["sizes_tried"], row["carried_out"], row["violations"]) == (3, 2, 1)
