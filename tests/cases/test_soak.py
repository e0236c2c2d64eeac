"""A run does not grow: many looks, refused plans and trades among them, leave as many objects and as large a store as before (R8.9)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random

import pytest

from agent import wiring
from agent.config.load import load_config
from agent.localchain import LocalChain
from agent.store import opening
from scripts.check import soak as soak_script
from tests.support.agents import fund
from tests.support.endpoints import Reply, serve
from tests.support.long_runs import FAULT_KINDS, HELD, KEEP_STEPS, SOAK_TARGETS, Faults, running, soak, soak_config
from tests.support.scenes import scene_on

PAGE = b"<!doctype html><title>Checking your browser</title>"
SICK_REPLIES = (
    Reply(PAGE),
    Reply(PAGE, status=403),
    Reply(b"", status=503),
    Reply(b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "limit exceeded"}}', status=429),
    Reply(b'[{"jsonrpc": "2.0", "id"'),
    Reply(b"", cut="reset"),
)


@contextmanager
def faults_of(chain: LocalChain, store_file: Path, seed: int) -> Iterator[Faults]:
    """Yield the faults of a run; what a sick endpoint answers is drawn from the seed too."""
    answers = Random(seed)
    with serve(lambda _: answers.choice(SICK_REPLIES)) as server:
        faults = Faults(chain, store_file, seed, server)
        try:
            yield faults
        finally:
            faults.end()


LOOKS = 160
LOOKS_OF_TWO_WEEKS = 2_016
"""One each ten minutes."""
WARM = 80
"""Looks until caches are full and as many steps are kept as should be."""


@pytest.mark.slow
def test_many_looks_leave_memory_and_store_as_they_were(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """A snapshot, a plan or a quoter that stayed behind at each look would be hundreds of objects and more."""
    soaked = soak(anvil_chain, soak_config(anvil_chain, tmp_path), LOOKS, every=8, trade_every=32, traced=False)
    assert {"hold", "refused", "done"} <= set(soaked.outcomes), soaked.outcomes
    assert soaked.outcomes["done"] >= 3, soaked.outcomes
    assert soaked.growth("objects", WARM) < 20, soaked.marks
    last = soaked.marks[-1]
    assert last.steps <= KEEP_STEPS + 3 * soaked.outcomes["done"] + 5, "what led to no transaction is removed"
    assert last.store < 12_000_000


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_two_weeks_from_init__grow_by_a_kilobyte_a_look(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look every ten minutes with a move of the market each seventeen hours, and now and then a fault of endpoint, store or clock.
    Each trade left 150 kilobytes while the decoded plans of a thousand rows were kept.
    """
    names = [sys.intern(f"a name {number}") for number in range(100_000)]  # Python's table of names doubles once: here, not while measured
    del names
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_MS", 60)
    fund(anvil_chain, HELD)
    with scene_on(anvil_chain, tmp_path, "0.05", capfd, monkeypatch) as scene:
        scene.init(SOAK_TARGETS, "--ceiling", "200000")
        scene.edit_file("\nkeep_steps = 2000 ", f"\nkeep_steps = {KEEP_STEPS} ")
        scene.say("trust", "--yes")
        loaded = load_config(scene.config)
        with faults_of(anvil_chain, wiring.store_file(loaded), seed=49) as faults:
            long_run = soak(anvil_chain, loaded, LOOKS_OF_TWO_WEEKS, every=48, trade_every=100, look_s=600, traced=False, faults=faults)
        assert long_run.outcomes["done"] >= 18, long_run.outcomes
        faulty = faults.looks_by_kind
        assert min(faulty[kind] for kind in FAULT_KINDS) >= 60, faulty
        failed = long_run.outcomes["error"]
        assert faulty["endpoint"] + faulty["store"] // 3 <= failed <= faulty["endpoint"] + faulty["store"], (failed, faulty)
        assert long_run.growth("resident", 500) <= 1_000, long_run.document(500)["per_look"]
        assert "match" in scene.say("books", "check")


@pytest.mark.slow
def test_the_script_soaks_and_says_what_grew(
    anvil_chain: LocalChain, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen looks with two trades: too few for its bounds in bytes, enough to see what stays behind at each look."""
    monkeypatch.setattr(soak_script, "open_anvil", lambda: nullcontext(anvil_chain))
    monkeypatch.setattr(sys, "argv", ["soak.py", "--looks", "16", "--trade-every", "8", "--json"])
    with pytest.raises(SystemExit):
        soak_script.main()
    document = json.loads(capsys.readouterr().out)
    assert {"hold", "refused", "done"} <= set(document["outcomes"]), document["outcomes"]
    assert sum(document["outcomes"].values()) == document["marks"][-1]["looks"] == 16
    between = [mark["objects"] for mark in document["marks"] if 9 < mark["looks"] < 16]
    assert between[-1] - between[0] < 100 * len(between), document["marks"]


def test_a_defect_in_what_is_told_ends_no_run(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(anvil_chain, soak_config(anvil_chain, tmp_path), traced=False) as (agent, service):
        rounds = agent.run(every="1s", progress=service.on_stage)
        service.on_cycle(next(rounds))
        monkeypatch.setattr(service.recorder, "on_figures", None)  # stands for any defect
        service.on_cycle(next(rounds))
        written = agent.context.store.run_reports.newest()
        assert written is not None
        assert written.cycles == service.recorder.report.cycles == 2
        rounds.close()
