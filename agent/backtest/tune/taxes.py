"""Tax on the gains that a run realises, as owed at each mark."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from agent.floats import FloatArray
from agent.units import BPS


def tax_by_mark(
    dated_gains: Sequence[tuple[int, float]], mark_times_s: Sequence[int], rate_bps: int
) -> FloatArray:
    """Return the tax owed at each mark on gains (time, gain less loss) realised after the first
    mark and until then, in the unit of the gains.

    The gains of a calendar year (UTC) are taxed net of its losses. A year of losses owes nothing
    and lowers no other year's tax. Tax is owed from the disposal on, without interest, and stays
    invested.
    """
    taxes = np.zeros(len(mark_times_s))
    gain_by_year: dict[int, float] = {}
    remaining = sorted((gain_s, gain) for gain_s, gain in dated_gains if gain_s > mark_times_s[0])
    next_index = 0
    for mark, mark_s in enumerate(mark_times_s):
        while next_index < len(remaining) and remaining[next_index][0] <= mark_s:
            gain_s, gain = remaining[next_index]
            year = datetime.fromtimestamp(gain_s, UTC).year
            gain_by_year[year] = gain_by_year.get(year, 0.0) + gain
            next_index += 1
        taxed_gain = sum(max(0.0, year_gain) for year_gain in gain_by_year.values())
        taxes[mark] = taxed_gain * rate_bps / BPS
    return taxes
