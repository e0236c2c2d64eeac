"""Steps as files: what stands in them, how many stay, and that whatever is found in their folder is read and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.app.research.offline import MAX_STEP_BYTES, _is_wording, replay
from agent.errors import ConfigError
from agent.planning import proposals
from agent.store import open_store
from agent.store.files.recorder import RecorderLimits, StepRecorder
from tests.support import builders
from tests.support.stores import DIGEST, DRIFTED, ROOMY, STEPS, edit_step_file, files, recorded_steps
from tests.support.text import raises_field


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of three recorded steps: a hold, a rebalance, a halt."""
    return recorded_steps(tmp_path)


def test_each_step_is_one_canonical_file_of_its_owners_alone(place: Path) -> None:
    paths = files(place)
    assert [path.name for path in paths] == [f"step-{number:08d}-{number - 1:012x}.json" for number in (1, 2, 3)]
    for path in paths:
        document = json.loads(path.read_text())
        assert path.read_text() == json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert (document["format"], document["config_hash"], document["store_kind"]) == ("trimtab step", DIGEST, "live")
    assert [json.loads(path.read_text())["decision"] for path in paths] == ["hold", "rebalance", "halt"]
    assert [json.loads(path.read_text())["plan"] is None for path in paths] == [True, False, True]
    assert not [path for path in paths[0].parent.iterdir() if path not in paths], "a draft stayed"


def test_recorded_steps_are_decided_again_as_they_were(place: Path) -> None:
    replay_document = replay(place)
    assert [step["result"] for step in replay_document["steps"]] == ["same"] * 3
    assert (replay_document["same"], replay_document["different"], replay_document["unreadable"], replay_document["exit"]) == (3, 0, 0, 0)


def test_newest_files__stay_within_both_bounds(tmp_path: Path) -> None:
    place = recorded_steps(tmp_path, STEPS, RecorderLimits(2, 10**9))
    assert [path.name[:13] for path in files(place)] == ["step-00000002", "step-00000003"]
    for name in ("notes.json", "step-1-ab.json", ".step-00000001-000000000000.json.aaaaaaaaaaaa.draft"):
        (place / name).write_text("mine")
    octets = sum(path.stat().st_size for path in files(place)) + 1_000
    recorded_steps(tmp_path, STEPS[:1], RecorderLimits(10, octets))
    assert [path.name[:13] for path in files(place) if len(path.name) > 20] == ["step-00000003", "step-00000004"]
    assert {path.name for path in place.iterdir() if path.read_text() == "mine"} == {
        "notes.json",
        "step-1-ab.json",
        ".step-00000001-000000000000.json.aaaaaaaaaaaa.draft",
    }
    recorded_steps(tmp_path, STEPS[:1], RecorderLimits(10, 1))
    assert [path.name[:13] for path in files(place) if len(path.name) > 20] == ["step-00000005"], "the newest stays, whatever its size"


@pytest.mark.parametrize(("fewer_bytes", "file_count"), [(0, 2), (1, 1)])
def test_newest_files_may_have_all_the_bytes(tmp_path: Path, fewer_bytes: int, file_count: int) -> None:
    for name in ("measured", "bounded"):
        (tmp_path / name).mkdir()
    byte_count = sum(path.stat().st_size for path in files(recorded_steps(tmp_path / "measured", STEPS[:2])))
    place = recorded_steps(tmp_path / "bounded", STEPS[:2], RecorderLimits(10, byte_count - fewer_bytes))
    assert len(files(place)) == file_count


def test_half_written_file_of_a_dead_process__goes_in_an_hour(tmp_path: Path) -> None:
    place = recorded_steps(tmp_path, STEPS[:1])
    draft = place / ".step-00000009-00000000000a.json.aaaaaaaaaaaa.draft"
    draft.write_text("{")
    os.utime(draft, (0, 0))
    recorded_steps(tmp_path, STEPS[:1])
    assert not draft.exists()
    assert len(files(place)) == 2


def test_unwritable_step__is_reported_and_the_store_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "steps"
    heard = []
    recorder = StepRecorder(place, DIGEST, "live", ROOMY)
    recorder.report_failure = heard.append
    place.rmdir()
    store_folder = tmp_path / "other"
    store_folder.mkdir()
    recorded_steps(store_folder)
    store = open_store(f"sqlite:///{store_folder}/trimtab.db", 31_337, builders.OWNER)
    store.steps.on_step_recorded = recorder.write_step
    store.steps.end("0" * 12, "hold", "again", None, "hold")
    assert store.steps.newest(10)[-1].reason == "again"
    assert len(heard) == 1
    assert "be recorded" in heard[0]
    store.close()


def test_unwritable_folder__is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "missing" / "steps"):
        with raises_field("record.dir"):
            StepRecorder(place, DIGEST, "live", ROOMY)


def test_older_version_s_file__loads_without_later_fields(place: Path) -> None:
    """Everything with a default may lack: of the whole file, of history, of the snapshot, of the limits."""
    for path in files(place):
        edit_step_file(
            path,
            version="0.0.1",
            input__history__campaign=None,
            input__history__sleeves=None,
            input__history__orders=None,
            input__snapshot__past=None,
            input__snapshot__supplies=None,
            input__split=None,
            input__wishes=None,
            input__acted=None,
        )
    edit_step_file(files(place)[0], plan=None)
    assert {step["result"] for step in replay(place)["steps"]} == {"same"}


def test_other_decision_reason_or_plan__is_shown_with_both(place: Path) -> None:
    hold, rebalance, halt = files(place)
    edit_step_file(hold, decision="rebalance")
    leg = json.loads(rebalance.read_text())["plan"]["legs"][0]
    legs = [{**leg, "amount_in_raw": 12_345, "min_out_raw": 1}]
    edit_step_file(rebalance, plan__legs=legs)
    edit_step_file(halt, reason="no reason")
    replay_document = replay(place)
    assert (replay_document["exit"], replay_document["different"]) == (14, 3)
    (place / "zzz.json").write_text("{}")
    beside = replay(place)
    assert (beside["exit"], beside["unreadable"]) == (14, 1)  # a step that differs is what matters
    differs = [[(difference["path"], difference["recorded"]) for difference in step["differs"]] for step in replay_document["steps"]]
    assert differs[0] == [("decision", "rebalance")]
    assert differs[1] == [("plan.legs[0].amount_in_raw", 12_345), ("plan.legs[0].min_out_raw", 1)]
    assert differs[2] == [("reason", "no reason")]


def test_cost_in_other_words__is_the_same_decision(place: Path) -> None:
    _, rebalance, _ = files(place)
    skipped = json.loads(rebalance.read_text())["plan"]["skipped"]
    if skipped:
        edit_step_file(rebalance, plan__skipped=[{**step_document, "why": "trading it would cost more"} for step_document in skipped])
    words = {"path": "reason", "recorded": "trading it would cost more than limits.plan_cost", "now": "limits.plan_cost allows at most 10"}
    assert _is_wording(words)
    assert not _is_wording({**words, "recorded": "no reason"})
    assert not _is_wording({**words, "path": "plan.legs[0].pool"})
    replay_document = replay(place)
    assert (replay_document["same"] + replay_document["reworded"], replay_document["different"], replay_document["exit"]) == (3, 0, 0)


def test_other_gap_bound__is_no_other_plan_but_a_lost_gap_is(tmp_path: Path) -> None:
    """A later version may prove more, or mend its proof; what is traded is the same."""
    place = recorded_steps(tmp_path, [builders.step_input(values=DRIFTED)])
    (step,) = files(place)
    edit_step_file(step, plan__gap_bps="1/3")
    (other_bound,) = replay(place)["steps"]
    assert (other_bound["result"], [difference["path"] for difference in other_bound["differs"]]) == ("reworded", ["plan.gap_bps"])
    assert not _is_wording({"path": "plan.gap_bps", "recorded": "1/3", "now": None})


@pytest.mark.parametrize(
    ("recorded", "now", "is_wording"),
    [
        pytest.param("a drift of 0.7 USDC", "a drift of 0.70 USDC", True, id="trailing-zero"),
        pytest.param("at 2500 USDC", "at 2,500.00 USDC", True, id="thousands"),
        pytest.param("a drift of 0.7 USDC", "a drift of 0.71 USDC", False, id="another-number"),
        pytest.param("a drift of 10 USDC", "a drift of 1 USDC", False, id="another-power-of-ten"),
        pytest.param("a drift of 0.7 USDC", "a lack of 0.7 USDC", False, id="another-word"),
    ],
)
def test_reason_of_a_hold__is_reworded_only_by_the_form_of_its_numbers(recorded: str, now: str, is_wording: bool) -> None:
    assert _is_wording({"path": "reason", "recorded": recorded, "now": now}) is is_wording


@pytest.mark.parametrize("path", ["plan.decision.reason", "plan.layer_actions[0].reason", "plan.slicing_comparison.why"])
def test_reason_in_a_plan__may_be_in_other_words(path: str) -> None:
    assert _is_wording({"path": path, "recorded": "out", "now": "out of the market"})


def test_trade_without_a_title__of_an_earlier_version__is_the_same_decision(tmp_path: Path) -> None:
    place = recorded_steps(tmp_path, [builders.step_input(values=DRIFTED)])
    (step,) = files(place)
    decision = json.loads(step.read_text())["plan"]["decision"]
    edit_step_file(step, plan__decision={**decision, "title": "stop_loss of WETH"})
    (reworded,) = replay(place)["steps"]
    assert (reworded["result"], [difference["path"] for difference in reworded["differs"]]) == ("reworded", ["plan.decision.title"])
    edit_step_file(step, plan__decision={name: value for name, value in decision.items() if name != "title"})
    assert replay(place)["same"] == 1


def test_decision_that_is_impossible_now__is_a_difference(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of a later version must not pass for a bad file."""

    def broken(_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(proposals, "decide", broken)
    replay_document = replay(place)
    assert (replay_document["different"], replay_document["exit"]) == (3, 14)
    assert replay_document["steps"][0]["differs"] == [{"path": "error", "recorded": None, "now": "a defect"}]


def test_other_limits_in_the_file_show_as_another_plan(tmp_path: Path) -> None:
    place = recorded_steps(tmp_path, [builders.step_input(values=DRIFTED)])
    edit_step_file(files(place)[0], input__limits__slippage_bps=500)
    (step,) = replay(place)["steps"]
    assert step["result"] == "different"
    assert all("min_out_raw" in difference["path"] for difference in step["differs"])


def test_what_a_person_asked_for_is_not_decided_again(place: Path) -> None:
    hold, rebalance, halt = files(place)
    edit_step_file(hold, decision="payout")
    edit_step_file(rebalance, plan__decision__by_hand=True)
    edit_step_file(halt, outcome="done", decision="retreat")
    replay_document = replay(place)
    assert (replay_document["manual"], replay_document["exit"]) == (3, 0)


def test_halt_that_went_wrong__is_decided_again(place: Path) -> None:
    halt = files(place)[2]
    for outcome, by_hand in (("error", 0), ("done", 1)):
        edit_step_file(halt, outcome=outcome)
        assert replay(place)["manual"] == by_hand


def spoil(folder: Path) -> dict[str, str]:
    """Names of files that are no steps, with a word that says why; as many kinds as there are."""
    whole = files(folder)[0].read_text()
    texts = {
        "cut.json": (whole[: len(whole) // 2], "JSON"),
        "empty.json": ("", "JSON"),
        "deep.json": ("[" * 100_000, "nested"),
        "foreign.json": ('{"hello": "world"}', "field"),
        "newer.json": (whole.replace('"format"', '"from_the_future":1,"format"', 1), "from_the_future"),
        "other.json": (whole.replace("trimtab step", "something else", 1), "not a recorded step"),
        "twice.json": (whole.replace('"format"', '"store_kind":"live","format"', 1), "twice"),
        "huge.json": (whole.replace('"now_s":', '"now_s":' + "9" * 4_000 + ",", 1), ""),
        "far.json": (json.dumps({**json.loads(whole), "now_s": "9" * 30}), "time"),
        "decimals.json": (whole.replace('"decimals":18', '"decimals":999999999'), "decimals"),
        "steered.json": ("\x1b[2J\x1b]0;owned\x07", "JSON"),
    }
    for name, (text, _) in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "linked.json").symlink_to(files(folder)[0])
    (folder / "endless.json").symlink_to("/dev/zero")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "waits.json")
    with (folder / "vast.json").open("wb") as vast_file:
        vast_file.truncate(MAX_STEP_BYTES + 1)
    more = {"binary.json": "text", "linked.json": "read", "endless.json": "read", "folder.json": "read"}
    more |= {"waits.json": "not a regular file", "vast.json": "larger than 64 MiB"}
    return {name: why for name, (_, why) in texts.items()} | more


def test_whatever_else_lies_there_is_named_and_the_rest_goes_on(place: Path) -> None:
    wrong = spoil(place)
    replay_document = replay(place)
    why_by_file = {step["file"]: step["why"] for step in replay_document["steps"] if step["result"] == "unreadable"}
    assert why_by_file.keys() == wrong.keys()
    assert not {name: why_by_file[name] for name, why in wrong.items() if why not in why_by_file[name]}
    assert (replay_document["same"], replay_document["exit"]) == (3, 2)
    assert json.dumps(replay_document).isprintable()


@pytest.mark.parametrize("spacing", [0, -10, 2**15])
def test_a_tick_spacing_that_no_pool_has_is_named_and_not_walked(tmp_path: Path, spacing: int) -> None:
    """Below zero a quote would walk the ticks away from where it stands, for ever."""
    pools = (builders.v3_pool(builders.token("WETH"), builders.token("USDC"), 2_000),)
    place = recorded_steps(tmp_path, [builders.step_input(values=DRIFTED, pools=pools)])
    (file,) = files(place)
    document = json.loads(file.read_text())
    document["input"]["snapshot"]["pools"][0]["tick_spacing"] = spacing
    file.write_text(json.dumps(document))
    (step,) = replay(place)["steps"]
    assert step["result"] == "unreadable"
    assert f"{spacing}" in step["why"]


def test_without_any_step_there_is_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no recorded steps"):
        replay(tmp_path)
    with pytest.raises(ConfigError, match="No such file or directory"):
        replay(tmp_path / "missing")


HOOK = """
import sys
from agent.cli.main import main
import agent.app.research.offline
sys.argv = ["trimtab", "replay", sys.argv[1], "--json"]

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        assert not (flags or 0) & 3, f"written to: {path}"
    bad = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "os.rmdir",
           "os.link", "os.symlink", "os.chmod", "os.truncate", "shutil.", "sqlite3.", "pickle.", "marshal.loads", "ctypes.dlopen")
    assert not event.startswith(bad), f"{event} {arguments}"

sys.dont_write_bytecode = True
import scipy.optimize
sys.addaudithook(watch)
main()
"""


def test_a_replay_does_nothing_but_read(place: Path) -> None:
    """No write, no network, no program, no store, whatever the files say: told by the interpreter itself."""
    spoil(place)
    before = {path.name: path.lstat().st_mtime_ns for path in place.iterdir()}
    done = subprocess.run([sys.executable, "-c", HOOK, str(place)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["same"] == 3
    assert {path.name: path.lstat().st_mtime_ns for path in place.iterdir()} == before
