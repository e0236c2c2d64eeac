"""What a run reports of itself in the store: its state, counters, and the figures of its newest
cycle. Servers and commands judge its health by it.
"""

from __future__ import annotations

from dataclasses import dataclass

Counts = tuple[tuple[str, int], ...]
"""Pairs of a name and a number, sorted by name."""
PPM = 1_000_000
"""Parts per million in one whole."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Figures of the newest cycle that knew them; None or empty if no cycle did. Amounts are
    decimal texts in whole coins of the numeraire, as `trimtab status` prints them.

    `loss_limit` is limits.daily_loss as an amount, None if it is off; `endpoint_scores_ppm` has the
    score of each operator's worst endpoint, in millionths.
    """

    took_ms: int | None = None
    open_intents: int = 0
    value: str | None = None
    drifts_bps: Counts = ()
    head_s: int | None = None
    gas_24h_wei: int | None = None
    loss_24h: str | None = None
    loss_limit: str | None = None
    endpoint_scores_ppm: Counts = ()


@dataclass(frozen=True, slots=True)
class RunReport:
    """The report of one run. Times are Unix seconds of its machine's clock.

    `process_identity` identifies its process on its machine, empty if unknown; `sends` is False for
    a dry run. `last_good_cycle_at_s` is the end of the last good cycle, `trouble` the problem of the
    last one, empty if it was good. `hang_text` is the watchdog's report, `pause_reason` the reason
    of the kill switch, empty if it is off. `ended_s` is None until the run ends; `end_error` is the
    error that ended it, empty if it was stopped. Counters begin with the run; those of transactions
    are by "kind state".
    """

    run_id: str
    process_identity: str
    sends: bool
    interval_s: int
    started_s: int
    written_s: int
    cycles: int = 0
    last_cycle_s: int | None = None
    last_good_cycle_at_s: int | None = None
    trouble: str = ""
    pause_reason: str = ""
    hang_text: str = ""
    ended_s: int | None = None
    end_error: str = ""
    outcomes: Counts = ()
    transactions: Counts = ()
    failed_heartbeats: int = 0
    figures: RunFigures = RunFigures()


def sum_counts(first_counts: Counts, more_counts: Counts) -> Counts:
    """Return the sums of both by name."""
    total_by_name = dict(first_counts)
    for name, count in more_counts:
        total_by_name[name] = total_by_name.get(name, 0) + count
    return tuple(sorted(total_by_name.items()))
