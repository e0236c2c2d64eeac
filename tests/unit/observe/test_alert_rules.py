"""What is told when: once, in order, after its cooldown, not in quiet hours; what passed untold is dropped; a restart repeats nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Alert, AlertKind, AlertState
from agent.observe.notify import MAX_TEXT_LENGTH, AlertRules, QuietHours, decide_alerts, sanitize_text
from tests.support.foreign_text import CORPUS
from tests.support.records.alerts import DONE, HALT, HOUR, KINDS, NOON, RULES
from tests.support.text import mentions


class AlertTeller:
    """A store in memory, and the texts that were told at each look."""

    def __init__(self, rules: AlertRules = RULES) -> None:
        self.states: dict[str, AlertState] = {}
        self.rules = rules

    def look(self, at_s: int, *alerts: Alert, judged: frozenset[AlertKind] = KINDS) -> list[str]:
        alert_decision = decide_alerts(tuple(self.states.values()), alerts, judged, at_s, self.rules)
        self.states |= {state.key: state for state in alert_decision.changed_states}
        return [state.text for state in alert_decision.to_send]


def test_what_lasts_is_told_once_when_it_begins() -> None:
    teller = AlertTeller()
    assert teller.look(NOON, HALT) == ["halted"]
    assert [teller.look(NOON + hour * HOUR, HALT) for hour in range(1, 200)] == [[]] * 199


def test_what_lasts_is_told_again_after_repeat_and_not_before() -> None:
    teller = AlertTeller(replace(RULES, repeat_s=24 * HOUR))
    assert teller.look(NOON, HALT) == ["halted"]
    assert teller.look(NOON + 24 * HOUR - 1, HALT) == []
    assert teller.look(NOON + 24 * HOUR, replace(HALT, text="still halted")) == ["still halted"]
    assert teller.look(NOON + 25 * HOUR, HALT) == []


def test_returning_condition__alerts_after_its_cooldown_if_on_then() -> None:
    teller = AlertTeller()
    assert teller.look(NOON, HALT) == ["halted"]
    assert teller.look(NOON + HOUR) == []
    assert teller.look(NOON + 2 * HOUR, HALT) == []
    assert teller.look(NOON + 6 * HOUR - 1, HALT) == []
    assert teller.look(NOON + 6 * HOUR, replace(HALT, text="halted anew")) == ["halted anew"]
    assert teller.look(NOON + 7 * HOUR) == []
    assert teller.look(NOON + 8 * HOUR, HALT) == []
    assert teller.look(NOON + 9 * HOUR) == []
    assert teller.look(NOON + 99 * HOUR) == [], "it was over before it could be told"


def test_events_within_the_cooldown__are_counted_and_sent_after() -> None:
    teller = AlertTeller()
    assert teller.look(NOON, DONE) == ["done"]
    for hour in (1, 2, 3):
        assert teller.look(NOON + hour * HOUR, replace(DONE, text=f"done {hour}")) == []
    (again,) = teller.look(NOON + 6 * HOUR)
    assert mentions(again, "done 3", "3 times")
    assert teller.look(NOON + 7 * HOUR) == []


def test_keys__have_their_own_cooldowns_and_events_another() -> None:
    teller = AlertTeller(replace(RULES, cooldown_s_by_kind={AlertKind.REBALANCE: 0}))
    for minute in range(3):
        assert teller.look(NOON + minute, DONE) == ["done"]
    assert teller.look(NOON + 3, HALT, DONE) == ["halted", "done"]
    assert teller.look(NOON + 4, DONE, HALT) == ["done"]


def test_alerts__go_out_in_the_order_raised() -> None:
    rules = replace(RULES, quiet_hours=QuietHours(12 * 60, 13 * 60, ZoneInfo("UTC")))
    teller = AlertTeller(rules)
    events = [replace(DONE, key=f"k{number}", text=f"event {number}") for number in range(5)]
    for number, event in enumerate(events):
        assert teller.look(NOON + number, event) == []
    assert teller.look(NOON + HOUR) == [f"event {number}" for number in range(5)]


def test_nothing_but_what_is_urgent_is_told_in_quiet_hours() -> None:
    teller = AlertTeller(
        replace(RULES, quiet_hours=QuietHours(11 * 60, 13 * 60, ZoneInfo("UTC")), urgent_kinds=frozenset({AlertKind.ERROR}))
    )
    error = Alert(AlertKind.ERROR, "error", "ended")
    assert teller.look(NOON, DONE, HALT, error) == ["ended"]
    assert teller.look(NOON + HOUR - 1, HALT) == []
    assert teller.look(NOON + HOUR, HALT) == ["done", "halted"]


def test_what_passed_in_quiet_hours_is_not_told_afterwards() -> None:
    teller = AlertTeller(replace(RULES, quiet_hours=QuietHours(11 * 60, 13 * 60, ZoneInfo("UTC"))))
    assert teller.look(NOON, HALT) == []
    assert teller.look(NOON + 60) == []
    assert teller.look(NOON + 2 * HOUR) == []


def test_a_look_that_failed_ends_nothing_that_it_could_not_see() -> None:
    teller = AlertTeller()
    assert teller.look(NOON, HALT) == ["halted"]
    assert teller.look(NOON + 7 * HOUR, judged=frozenset({AlertKind.PAUSED})) == []
    assert teller.look(NOON + 8 * HOUR, HALT) == [], "it never ended"


def test_kinds_that_nobody_wants_are_not_remembered() -> None:
    teller = AlertTeller(replace(RULES, kinds=frozenset({AlertKind.HALT})))
    assert teller.look(NOON, DONE, HALT) == ["halted"]
    assert set(teller.states) == {"halt"}


def test_clock_set_back__silences_nothing_beyond_its_cooldown() -> None:
    teller = AlertTeller()
    assert teller.look(NOON + 1_000 * HOUR, HALT) == ["halted"]
    teller.look(NOON, judged=KINDS)
    assert teller.look(NOON + 1, HALT) == []
    assert teller.look(NOON + 6 * HOUR - 1, HALT) == []
    assert teller.look(NOON + 6 * HOUR, HALT) == ["halted"]


def test_clock_set_back__repeats_what_lasts_after_repeat() -> None:
    teller = AlertTeller(replace(RULES, repeat_s=24 * HOUR))
    assert teller.look(NOON + 1_000 * HOUR, HALT) == ["halted"]
    assert teller.look(NOON, HALT) == []
    assert teller.look(NOON + 24 * HOUR - 1, HALT) == []
    assert teller.look(NOON + 24 * HOUR, HALT) == ["halted"]


@given(st.lists(st.tuples(st.integers(1, 3 * HOUR), st.booleans(), st.booleans()), max_size=60))
def test_key__alerts_never_twice_in_its_cooldown_or_in_quiet_hours(looks: list[tuple[int, bool, bool]]) -> None:
    quiet = QuietHours(22 * 60, 7 * 60, ZoneInfo("Europe/Berlin"))
    teller = AlertTeller(replace(RULES, quiet_hours=quiet))
    at_s = NOON
    last = dict[str, int]()
    for after_s, halted, done in looks:
        at_s += after_s
        before = dict(teller.states)
        teller.look(at_s, *([HALT] if halted else []), *([DONE] if done else []))
        for key, state in teller.states.items():
            if state.last_sent_s == at_s and state != before.get(key):
                assert at_s - last.get(key, 0) >= 6 * HOUR
                assert quiet.until_s(at_s) is None
                last[key] = at_s


# quiet hours
BERLIN = QuietHours(22 * 60, 7 * 60, ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("local", "until"),
    [
        ((2026, 1, 5, 21, 59), None),
        ((2026, 1, 5, 22, 0), (2026, 1, 6, 7)),
        ((2026, 1, 6, 3, 30), (2026, 1, 6, 7)),
        ((2026, 1, 6, 6, 59), (2026, 1, 6, 7)),
        ((2026, 1, 6, 7, 0), None),
        ((2026, 3, 28, 23, 0), (2026, 3, 29, 7)),  # the night in which clocks go forward
        ((2026, 10, 24, 23, 0), (2026, 10, 25, 7)),  # and back
    ],
)
def test_quiet_hours__are_of_the_zone_over_midnight(local: tuple[int, ...], until: tuple[int, ...] | None) -> None:
    zone = ZoneInfo("Europe/Berlin")
    at_s = int(datetime(*local, tzinfo=zone).timestamp())  # type: ignore[arg-type]  # five numbers
    until_s = None if until is None else int(datetime(*until, tzinfo=zone).timestamp())  # type: ignore[arg-type]  # four numbers
    assert BERLIN.until_s(at_s) == until_s


def test_quiet_hours_within_one_day_end_on_it() -> None:
    quiet = QuietHours(13 * 60, 14 * 60 + 30, ZoneInfo("UTC"))
    assert quiet.until_s(NOON) is None
    assert quiet.until_s(NOON + HOUR) == NOON + 2 * HOUR + 1_800


@pytest.mark.parametrize(
    ("fold", "minute", "until_fold"),
    [
        pytest.param(0, 15, 0, id="first"),
        pytest.param(0, 30, None, id="after the first"),
        pytest.param(1, 0, 1, id="repeated"),
        pytest.param(1, 29, 1, id="last minute"),
        pytest.param(1, 30, None, id="after the repeated"),
    ],
)
def test_quiet_hours__end_after_now_in_a_repeated_hour(fold: int, minute: int, until_fold: int | None) -> None:
    quiet = QuietHours(22 * 60, 2 * 60 + 30, ZoneInfo("Europe/Berlin"))

    def at_s(minute: int, fold: int) -> int:
        return int(datetime(2026, 10, 25, 2, minute, tzinfo=quiet.time_zone, fold=fold).timestamp())

    assert quiet.until_s(at_s(minute, fold)) == (None if until_fold is None else at_s(30, until_fold))


# T17
@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_no_markup_escape_or_link_survives_in_a_text(text: str) -> None:
    sanitized_text = sanitize_text(f"USDC {text} end")
    assert not set("<>[]{}`*&\"'@#$|\\~^!\n\r\t") & set(sanitized_text)
    assert "://" not in sanitized_text
    assert sanitized_text.isascii()
    assert sanitized_text.isprintable()
    assert len(sanitized_text) <= MAX_TEXT_LENGTH


def test_a_genitive_reads_as_a_word() -> None:
    assert mentions(sanitize_text("at the chain's balances"), "at the")
    assert sanitize_text("'s ' 'x'") == "?s ? ?x?"
