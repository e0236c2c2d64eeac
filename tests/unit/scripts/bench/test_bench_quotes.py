"""The benchmark of quotes runs, compares answers, says what is missing, and prints what its users parse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench import bench_quotes, quote_peers
from scripts.bench.quote_peers import Peer, PeerMissing, Worker, our_worker

SCRIPT = Path(bench_quotes.__file__)
CASES = {"v2", "v3_within_one_tick", "v3_over_5_ticks", "v3_over_50_ticks"}


def run(*options: str, **environment: str) -> str:
    command = [sys.executable, SCRIPT, "--seconds", "0.01", "--rounds", "2", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, **environment})
    return done.stdout


def printed_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["bench_quotes.py", "--seconds", "0.01", "--rounds", "2", *options])
    bench_quotes.main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_bench__prints_one_json_with_a_figure_a_case(monkeypatch, capsys):
    printed = json.loads(printed_here(monkeypatch, capsys, "--json"))
    assert set(printed) == {"machine", "amounts", "ours", "peers"}
    assert set(printed["ours"]) == {"warm", "first"}
    for figures in printed["ours"].values():
        assert set(figures) == CASES
        assert all(figure > 100 for figure in figures.values())
    assert printed["peers"] == {}


@pytest.mark.slow
def test_the_benchmark_prints_a_line_per_case_for_people(monkeypatch, capsys):
    assert {line.split()[0] for line in printed_here(monkeypatch, capsys).splitlines()} == CASES


@pytest.mark.slow
def test_bench_without_a_network__names_missing_peers(tmp_path):
    printed = json.loads(run("--json", "--peers", PIP_NO_INDEX="1", npm_config_offline="true", npm_config_cache=str(tmp_path)))
    assert set(printed["peers"]) == {peer.name for peer in quote_peers.PEERS}
    for peer in printed["peers"].values():
        assert set(peer) == {"missing"}
        assert "fail" in peer["missing"] or "path" in peer["missing"]
    assert set(printed["ours"]["warm"]) == CASES


@pytest.mark.parametrize(("case", "crossed"), [("v3_within_one_tick", 0), ("v3_over_5_ticks", 5), ("v3_over_50_ticks", 50)])
def test_the_cases_cross_as_many_ticks_as_they_say(case, crossed):
    state, amount = bench_quotes.workload()[case]
    states = quote_peers.new_states(state)
    for last, expected_case in ((state, amount), (state, amount - bench_quotes.AMOUNTS), (states[-1], amount - len(states))):
        assert last.swap(bench_quotes.TOKEN0, expected_case).ticks_crossed == crossed


class Generous(Worker):
    """Pays one base unit too much."""

    def answers(self, case: str, uses_new_states: bool = False) -> list[int]:
        return [answer + 1 for answer in super().answers(case, uses_new_states)]


def no_peer(folder: Path) -> Worker:
    raise PeerMissing("not here")


@pytest.mark.slow
def test_peer__is_held_against_the_contract_in_the_same_rounds():
    command = [sys.executable, quote_peers.__file__, "trimtab"]
    folder = quote_peers.ROOT
    gone = [sys.executable, "-c", ""]
    peers = [
        Peer("ourselves", lambda _: our_worker()),
        Peer("generous", lambda _: Generous(command, folder), quotes_new_states=False),
        Peer("absent", no_peer),
        Peer("broken", lambda _: Worker(gone, folder)),
    ]
    document = bench_quotes.compare(peers, 3, 0.02)
    assert set(document["peers"]["ourselves"]) == {"warm", "first"}
    for figures in document["peers"]["ourselves"].values():
        assert set(figures["answers_unlike_the_contract"].values()) == {0}
        assert all(0.2 < ratio < 5 for ratio in figures["ratio"].values())
    assert set(document["peers"]["generous"]) == {"warm"}
    assert set(document["peers"]["generous"]["warm"]["answers_unlike_the_contract"].values()) == {bench_quotes.AMOUNTS}
    assert document["peers"]["absent"] == {"missing": "not here"}
    assert document["peers"]["broken"] == {"missing": quote_peers.ENDED}
    document_lines = bench_quotes.document_lines(document)
    assert "512 answers differ" in document_lines[0]
    assert document_lines[-2:] == ["absent is missing: not here", f"broken is missing: {quote_peers.ENDED}"]


def test_a_pool_reaches_another_process_as_it_is():
    for state, _ in bench_quotes.workload().values():
        assert quote_peers.from_json(json.loads(json.dumps(quote_peers.as_json(state)))) == state
