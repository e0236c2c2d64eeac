"""A table of stress prices."""

from __future__ import annotations

from tests.support.backtests import random_table

TABLE = random_table(3, 200)
