"""The search for a setting: every one is tried out on the first three quarters, one is chosen, and judged on the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import PriceTable
from agent.backtest.settings import Settings, Wanted
from agent.backtest.simulate import digest
from agent.backtest.tune.grid import Choice, Grid
from agent.backtest.tune.jobs import DAY_S, Chunk, Engine, Found, Job, Kept, Terms, held, part_of, piece
from agent.backtest.tune.statistics import (
    Claim,
    Deflated,
    HeatMap,
    Interval,
    Judged,
    Neighbours,
    Objective,
    Overfitting,
    Verdict,
    Walk,
    deflated,
    first_of_last,
    folds,
    heat_map,
    interval,
    neighbours,
    overfitting,
    scores,
    verdict,
    walked,
)
from agent.errors import ConfigError
from agent.model import Method
from agent.units import YEAR_S

Floats = NDArray[np.float64]
Work = Callable[[Job, Sequence[Chunk]], Iterator[tuple[Chunk, list[Found]]]]
Progress = Callable[[int, int], None]
_Last = tuple[tuple[Claim, ...], tuple[Found, Found], Floats, float, NDArray[np.int64]]
MOST_CELLS = 100_000_000
"""Values that are kept at once, settings times periods: 0.8 GB."""
FEWEST_PERIODS = 8
FORMAT = "2"


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for. `table` holds the wanted symbols alone; `calendar` is the rule that has to be beaten."""

    table: PriceTable
    wanted: Wanted
    settings: Settings
    grid: Grid
    calendar: Choice
    terms: Terms
    objective: Objective = Objective.GROWTH
    walk: Walk = Walk.ANCHORED
    folds: int = 4
    full: bool = False


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found. `score` is the objective of each choice per year, `excess` its log growth over hold per year, both over the
    first three quarters; `period_s` the distance of two returns; `walk` each fold with its choice and its excess log returns over hold
    and over the calendar rule; `walk_claims` those of all folds; `claims` those of the last quarter, in which
    `last` are the best and the calendar rule, `last_hold` the worth of holding at the same times, `hold_final` at its last bar,
    `looks` how many settings the folder has seen judged there. `engines` is how many runs each engine did, `resumed` how many were
    there before, `stamp` what the search is known by.
    """

    search: Search
    choices: tuple[Choice, ...]
    found: tuple[Found, ...]
    score: Floats
    excess: Floats
    best: int
    period_s: float
    deflated: Deflated | None
    overfitting: Overfitting | None
    stability: HeatMap
    neighbours: Neighbours | None
    walk: tuple[tuple[Judged, Floats, Floats], ...]
    walk_claims: tuple[Claim, ...]
    claims: tuple[Claim, ...]
    verdict: Verdict
    last_from_s: int
    last: tuple[Found, Found]
    last_hold: Floats
    hold_final: float
    looks: int
    last_times_s: NDArray[np.int64]
    engines: tuple[tuple[str, int], ...]
    resumed: int
    stamp: dict[str, str]


def tune(search: Search, work: Work, folder: Path | None, allow: Callable[[Job, Sequence[Chunk]], None], progress: Progress) -> Tuned:
    """The whole search. `work` does chunks, `allow` raises where what is left to do is too much, `folder` keeps what is done.

    Raises ConfigError for data too short, for more results than fit in memory, and for a folder of another search.
    """
    choices, table = search.grid.choices(), search.table
    split = first_of_last(table.bars)
    marks = tuple(range(0, split, _period_bars(table)))
    if len(marks) <= FEWEST_PERIODS:
        raise ConfigError(f"--prices: {table.bars} bars are {len(marks)} periods to choose in", f"at least {FEWEST_PERIODS + 1} are needed")
    if len(choices) * len(marks) > MOST_CELLS:
        raise ConfigError(f"the grid has {len(choices):,} settings over {len(marks):,} periods", "take wider steps, or fewer values")
    runs = (*choices, search.calendar)
    job = Job(piece(table, 0, split), search.wanted, part_of(search.settings, 0, split), runs, marks, search.terms, search.full)
    with Kept(folder, _stamp(search, runs), runs).opened() as kept:
        resumed = sum(len(found) for key, found in kept.done.items() if key.startswith("runs-"))
        found = _all_runs(job, kept, work, allow, progress)
        return _told(search, job, kept, found, resumed)


def _all_runs(
    job: Job, kept: Kept, work: Work, allow: Callable[[Job, Sequence[Chunk]], None], progress: Progress
) -> tuple[Found, ...]:  # fmt: skip
    chunks = job.chunks()
    rest = [chunk for chunk in chunks if kept.key(chunk) not in kept.done]
    if rest:
        allow(job, rest)
    done = sum(chunk.end - chunk.start for chunk in chunks) - sum(chunk.end - chunk.start for chunk in rest)
    for chunk, found in work(job, rest):
        _require(found, range(chunk.start, chunk.end), len(job.marks))
        kept.keep(kept.key(chunk), found, job.runs[chunk.start : chunk.end])
        done += len(found)
        progress(done, len(job.runs))
    for chunk in chunks:
        _require(kept.done[kept.key(chunk)], range(chunk.start, chunk.end), len(job.marks))
    return tuple(one for chunk in chunks for one in kept.done[kept.key(chunk)])


def _require(found: Sequence[Found], runs: range, marks: int) -> None:
    if [one.run for one in found] != list(runs) or any(len(one.values) != marks for one in found):
        raise ConfigError(f"results of runs {runs.start} to {runs.stop - 1} do not fit", "remove their file from the folder of --out")


def _told(search: Search, job: Job, kept: Kept, found: tuple[Found, ...], resumed: int) -> Tuned:
    table, choices, objective = search.table, job.runs[:-1], search.objective
    returns = np.column_stack([log_returns(one.values) for one in found])
    own, calendar = returns[:, :-1], returns[:, -1]
    hold = log_returns(held(search.wanted, search.settings, job.table, job.marks))
    per_year = _per_year(job.table, job.marks)
    score = scores(own, objective) * (per_year if objective is Objective.GROWTH else np.sqrt(per_year))
    best = int(score.argmax())
    judged = walked(own, objective, folds(len(own), search.folds, search.walk))
    after = [_excesses(search, job, one, calendar) for one in judged]
    claims, last, last_hold, hold_final, last_times_s = _last_quarter(search, kept, best, choices[best])
    risk, looks = overfitting(own, objective), sum(key.startswith("last-") for key in kept.done) - 1  # but for the calendar rule
    counted = [job.engine(choice).value for choice in job.runs]
    return Tuned(
        search=search,
        choices=choices,
        found=found[:-1],
        score=score,
        excess=(own.mean(axis=0) - hold.mean()) * per_year,
        best=best,
        period_s=YEAR_S / per_year,
        deflated=deflated(own - hold[:, None], best),
        overfitting=risk,
        stability=heat_map(choices, score, best),
        neighbours=neighbours(choices, score, best),
        walk=tuple((one, *excess) for one, excess in zip(judged, after, strict=True)),
        walk_claims=() if not after else tuple(
            Claim(rival, _yearly(np.concatenate(parts), per_year, search.settings.seed))
            for rival, parts in zip(_rivals(search), zip(*after, strict=True), strict=True)
        ),
        claims=claims,
        verdict=verdict(choices[best], search.calendar, claims, risk, looks),
        last_from_s=int(table.times_s[first_of_last(table.bars)]),
        last=last,
        last_hold=last_hold,
        hold_final=hold_final,
        looks=looks,
        last_times_s=last_times_s,
        engines=tuple((engine.value, counted.count(engine.value)) for engine in Engine if engine.value in counted),
        resumed=resumed,
        stamp=_stamp(search, job.runs),
    )  # fmt: skip


def log_returns(values: Floats) -> Floats:
    """Of each period; what costs more than it is worth counts as next to nothing left."""
    found: Floats = np.diff(np.log(np.maximum(values, 1e-9 * values[0])))
    return found


def _period_bars(table: PriceTable) -> int:
    """Bars from one mark to the next: a day, or one bar where bars are longer."""
    return max(1, round(DAY_S / table.interval_s))


def _per_year(table: PriceTable, marks: Sequence[int]) -> float:
    return YEAR_S * (len(marks) - 1) / float(table.times_s[marks[-1]] - table.times_s[marks[0]])


def _rivals(search: Search) -> tuple[str, str]:
    return "hold", f"the calendar rule ({search.calendar.label})"


def _excesses(search: Search, job: Job, one: Judged, calendar: Floats) -> tuple[Floats, Floats]:
    """Over a hold that begins at the targets with the judging, and over the calendar rule."""
    start, end = one.fold.judged_from, one.fold.judged_to
    hold = log_returns(held(search.wanted, search.settings, job.table, job.marks[start : end + 1]))
    return one.returns - hold, one.returns - calendar[start:end]


def _yearly(values: Floats, per_year: float, seed: int) -> Interval | None:
    found = interval(values, seed)
    return None if found is None else found.times(per_year)


def _last_quarter(search: Search, kept: Kept, best: int, choice: Choice) -> _Last:
    """The chosen setting and the calendar rule begin at the targets with the last quarter, an allocator with its window before that."""
    table = search.table
    split = first_of_last(table.bars)
    step = _period_bars(table)
    last = []
    for key, one in ((f"last-{best:07d}", choice), ("last-calendar", search.calendar)):
        warm = 0 if one.allocator is Method.FIXED else min(split, search.terms.window_s // table.interval_s)
        start, end = split - warm, table.bars
        marks = tuple(range(warm, end - start, step))
        job = Job(
            piece(table, start, end), search.wanted, part_of(search.settings, start, end), (one,), marks, search.terms, search.full
        )  # fmt: skip
        if key not in kept.done:
            kept.keep(key, job.do(job.chunks()[0]), (one,))
        _require(kept.done[key], range(1), len(marks))
        last.append(kept.done[key][0])
    tail = piece(table, split, table.bars)
    marks = tuple(range(0, tail.bars, step))
    *hold_path, hold_final = held(search.wanted, search.settings, tail, (*marks, tail.bars - 1)).tolist()
    hold = np.array(hold_path)
    per_year = _per_year(tail, marks) if len(marks) > 1 else 0.0
    own, rule = (log_returns(one.values) for one in last)
    rivals = zip(_rivals(search), (own - log_returns(hold), own - rule), strict=True)
    claims = tuple(Claim(rival, _yearly(excess, per_year, search.settings.seed)) for rival, excess in rivals)
    return claims, (last[0], last[1]), hold, hold_final, tail.times_s[list(marks)]


def _stamp(search: Search, runs: Sequence[Choice]) -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": version("trimtab"),
        "grid": sha256("\n".join(map(repr, runs)).encode()).hexdigest(),
        "data": search.table.digest,
        "settings": digest(search.wanted, search.settings),
        "search": sha256(repr((search.terms, search.full)).encode()).hexdigest(),
    }
