"""Research data beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("polars")


DATA = Path(__file__).parents[4] / "shared" / "data"
HOURLY = DATA / "prices" / "hourly_2021-04_2022-12.parquet"
needs_data = pytest.mark.skipif(not HOURLY.is_file(), reason=f"the research data are not beside this checkout: no {HOURLY}")
