"""Coverage looks at the beginning of a test, and looks again at the next."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import measured


class Meter:
    """Stands for coverage: on or off."""

    def __init__(self) -> None:
        self.runs = True

    def stop(self) -> None:
        self.runs = False

    def start(self) -> None:
        self.runs = True


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    made = Meter()
    monkeypatch.setattr(measured, "running", lambda: made if made.runs else None)
    return made


def work(meter: Meter, most_s: float) -> bool:
    """Works until nothing is measured, or for `most_s` of processor time. Answers whether it was measured to the end."""
    until = time.process_time() + most_s
    while meter.runs and time.process_time() < until:
        sum(range(10_000))
    return meter.runs


def test_measuring_ends_with_its_time_and_begins_anew_afterwards(meter: Meter) -> None:
    with measured.measured_for(0.02):
        assert not work(meter, 2)
    assert meter.runs
    with measured.measured_for(0.1):
        assert work(meter, 0.02)
    assert work(meter, 0.15), "a timer of before is still running"


def test_without_time_nothing_is_measured_and_what_was_off_stays_off(meter: Meter) -> None:
    with measured.measured_for(0):
        assert not meter.runs
    meter.stop()
    with measured.measured_for(0.5):
        assert not meter.runs
    assert not meter.runs


def test_folders_that_are_named_exist() -> None:
    tests = Path(measured.__file__).parent
    assert all((tests / name).is_dir() for name in measured.MEASURED_S)
