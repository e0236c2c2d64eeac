"""What `limits.i_accept` lets pass is shown by status and doctor, as long as it is in force (T21)."""

from __future__ import annotations

from tests.cli.tools import Desk
from tests.support.text import mentions


def limits_rows(desk: Desk) -> list[tuple[str, str, str]]:
    """What doctor says of limits: state, finding, remedy."""
    return [(row["state"], row["finding"], row["remedy"]) for row in desk.ask("doctor")["checks"] if row["check"] == "limits"]


def test_what_is_accepted_is_told_by_status_and_doctor(desk: Desk) -> None:
    desk.edit(('slippage = "0.3%"', 'i_accept = ["slippage"]\nslippage = "6%"'))
    text = "limits.slippage: 6 % is above the ceiling of 5 %, accepted by limits.i_accept"
    assert text in desk.ask("status")["warnings"]
    (row,) = limits_rows(desk)
    assert row[:2] == ("warn", text)
    assert "lower" in row[2]


def test_a_name_that_is_not_needed_is_told_by_doctor(desk: Desk) -> None:
    desk.edit(('slippage = "0.3%"', 'i_accept = ["slippage"]\nslippage = "0.3%"'))
    assert desk.ask("status")["warnings"] == []
    (row,) = limits_rows(desk)
    assert row[0] == "warn"
    assert mentions(row[1], "limits.i_accept", "slippage")
    assert mentions(row[2], '"slippage"', "limits.i_accept")


def test_what_is_not_accepted_is_refused_by_every_command(desk: Desk) -> None:
    desk.edit(('slippage = "0.3%"', 'slippage = "6%"'))
    for command in ("status", "plan", "doctor"):
        result = desk.run(command, "--json")
        assert result.code == 2
        assert mentions(result.out + result.err, "limits.slippage", "6 %", "5 %")
