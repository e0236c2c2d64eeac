"""Kept reports under attack: what the folder beside the store lists, and what a report may do in the browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.documents.research import KeptReportsDocument
from agent.app.research import kept_reports
from agent.app.research.kept_reports import MAX_REPORT_BYTES, list_reports, new_report_path, read_report
from agent.errors import ConfigError
from agent.web.access import Access
from agent.web.reach import Reach
from tests.cli.documents import misfits
from tests.support import agents
from tests.support.dashboards import HOSTILE, MARKUP, InProcessDocumentCache, Served
from tests.support.text import raises_code

NAME = "20261122-130000-tune.html"
PAGE = b"<!doctype html><title>x</title><script>fetch('/controls')</script>"


def keep(folder: Path, name: str = NAME, title: str = "Search", page: bytes = PAGE) -> Path:
    """A report of this name."""
    folder.mkdir(exist_ok=True)
    facts = [{"name": f"fact {number}", "value": MARKUP, "note": ""} for number in range(9)]
    (folder / name).with_suffix(".json").write_text(json.dumps({"kind": "Search", "title": title, "facts": facts}))
    (folder / name).write_bytes(page)
    return folder / name


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return agents.config(tmp_path)


def test_reports_are_listed_by_their_names_newest_first(config: Path, tmp_path: Path) -> None:
    assert list_reports(config) == {"folder": "mine.db.reports", "reports": [], "skipped": []}
    first = new_report_path(config, "backtest")
    keep(first.parent, first.name)
    assert first != new_report_path(config, "backtest")
    assert first.parent == tmp_path / "mine.db.reports"
    assert first.parent.stat().st_mode & 0o777 == 0o700
    keep(first.parent, "20200101-000000-stress.html", "Old")
    kept_reports_document = list_reports(config)
    assert misfits(KeptReportsDocument, kept_reports_document) == []
    assert [report["title"] for report in kept_reports_document["reports"]] == ["Search", "Old"]
    assert kept_reports_document["skipped"] == []
    assert kept_reports_document["reports"][1]["created"] == "2020-01-01 00:00:00"
    assert len(kept_reports_document["reports"][1]["figures"]) == 4
    assert read_report(config, first.name) == PAGE


def test_a_report_without_a_free_name_in_its_second_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(path: Path, exist_ok: bool) -> None:
        raise FileExistsError

    monkeypatch.setattr(Path, "touch", taken)
    with pytest.raises(ConfigError, match="999 reports"):
        new_report_path(config, "backtest")


def test_two_runs_of_a_second__get_two_paths_listed_once_written(config: Path) -> None:
    first = new_report_path(config, "backtest")
    second = new_report_path(config, "backtest")
    assert first != second
    assert list_reports(config) == {"folder": "mine.db.reports", "reports": [], "skipped": []}
    keep(second.parent, second.name)
    assert [report["name"] for report in list_reports(config)["reports"]] == [second.name]


def test_reports_of_a_second_are_listed_by_their_numbers(config: Path, tmp_path: Path) -> None:
    names = [f"20261122-130000{suffix}-tune.html" for suffix in ("", "-2", "-10")]
    for name in (*names[::-1], "20261122-130001-stress.html"):
        keep(tmp_path / "mine.db.reports", name)
    listed_names = [report["name"] for report in list_reports(config)["reports"]]
    assert listed_names == ["20261122-130001-stress.html", *names[::-1]]


@pytest.mark.parametrize("stamp", ["20261399-000000", "20260229-000000", "20261122-250000", "00000000-000000"])
def test_report_of_an_impossible_time__is_skipped(config: Path, tmp_path: Path, stamp: str) -> None:
    folder = tmp_path / "mine.db.reports"
    keep(folder)
    keep(folder, f"{stamp}-backtest.html")
    reports = list_reports(config)
    assert [report["name"] for report in reports["reports"]] == [NAME]
    assert reports["skipped"] == [f"{stamp}-backtest.html: the time in its name does not exist"]


def test_figures_are_those_of_the_reports_own_folder(tmp_path: Path) -> None:
    for name in ("First", "Other"):
        report = keep(tmp_path / f"{name}.db.reports", title=name)
        os.utime(report.with_suffix(".json"), (1, 1))
        assert list_reports(agents.config(tmp_path, name))["reports"][0]["title"] == name


def test_links_pipes_and_large_files__are_no_reports(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine.db.reports"
    keep(folder)
    keep(tmp_path, "secret.html")
    names = [f"20261122-13000{number}-tune.html" for number in range(1, 7)]
    link, hard, pipe, large, own_folder, damaged = (keep(folder, name) for name in names)
    for path in (link, hard, pipe, own_folder):
        path.unlink()
    link.symlink_to(config)
    os.link(config, hard)
    os.mkfifo(pipe)
    own_folder.mkdir()
    with large.open("ab") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    damaged.with_suffix(".json").write_text("[" * 9)
    (folder / "notes.html").write_text("x")
    kept_reports_document = list_reports(config)
    assert [report["name"] for report in kept_reports_document["reports"]] == [NAME]
    assert [why.partition(":")[0] for why in kept_reports_document["skipped"]] == [
        path.name for path in (damaged, own_folder, large, pipe, hard, link)
    ]
    reasons = ("cannot be read", "not a plain file", "not a plain file", "larger than 32 MB", "cannot be read: Is a directory")
    for name, reason in zip(names, reasons, strict=False):
        with pytest.raises(ConfigError, match=f"{name}: {reason}"):
            read_report(config, name)
    absent = "20261122-130009-tune.html"
    for name in (absent, "notes.html", "../mine.toml", "mine.toml", f"../mine.db.reports/{NAME}", f"{NAME}\n", "", "."):
        with raises_code(ConfigError, "unknown"):
            read_report(config, name)


def test_a_folder_that_is_a_link_or_another_users_is_not_read(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path / "elsewhere")
    folder = tmp_path / "mine.db.reports"
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="not a folder of reports"):
        list_reports(config)
    folder.unlink()
    keep(folder)
    monkeypatch.setattr(kept_reports.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(ConfigError, match="another user"):
        read_report(config, NAME)


@pytest.fixture
def entered(config: Path, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A dashboard with one report, and the session of a user who may only read."""
    keep(tmp_path / "mine.db.reports", title=HOSTILE)
    access = Access(Reach(port=1))
    access.set_users({5: ("eve", True)})
    with Served(access, InProcessDocumentCache(str(config), tmp_path / "mine.db")) as server:
        yield server, f"trimtab-1={access.begin_session(5)}"


def test_a_hostile_report_gets_neither_session_nor_network(entered: tuple[Served, str]) -> None:
    served, cookie = entered
    path = f"/reports/{NAME}"
    code, headers, body = served.ask(path, Cookie=cookie)
    assert (code, body, headers["content-type"]) == (200, PAGE, "text/html; charset=utf-8")
    policy = headers["content-security-policy"].split("; ")
    assert policy[:2] == ["sandbox allow-scripts", "default-src 'none'"]
    assert "connect-src 'none'" in policy
    assert "form-action 'none'" in policy
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert headers["cross-origin-opener-policy"] == "unsafe-none"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    for other in ("", "trimtab-1=x"):  # without a login there is nothing
        for place in (path, "/reports"):
            code, headers, body = served.ask(place, Cookie=other)
            assert code == 303
            assert headers["location"].startswith("/login")
            assert PAGE not in body


@pytest.mark.parametrize(
    "name",
    ["..%2fmine.toml", "..%2f..%2fetc%2fpasswd", "%2e%2e/mine.toml", "mine.db.users", NAME.replace("html", "json"), f"{NAME}%00",
     f"{NAME}%0a", f".%2f{NAME}", "20200101-000000-tune.html"],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(entered: tuple[Served, str], name: str) -> None:
    served, cookie = entered
    code, _, body = served.ask(f"/reports/{name}", Cookie=cookie)
    assert code == 404
    assert b"wallet" not in body
    assert PAGE not in body


def test_titles_and_figures_of_reports_are_text(entered: tuple[Served, str]) -> None:
    served, cookie = entered
    text = ""
    for _ in range(100):
        if f"/reports/{NAME}" in (text := served.ask("/reports", Cookie=cookie)[2].decode()):
            break
        time.sleep(0.05)
    assert f'<a href="/reports/{NAME}" rel="noopener">' in text
    assert "&lt;img src=x" in text
    assert HOSTILE not in text
    assert MARKUP not in text
