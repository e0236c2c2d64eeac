"""The interval of sweeps in the store: the last one that began, of the same schedule."""

from __future__ import annotations

from agent.layers.sweep.store import SweepStore
from agent.store.store import Store
from tests.support.stores import store_fixture

store = store_fixture()


def test_interval_is_that_of_the_same_schedule(store: Store) -> None:
    sweeps = store.layer_repository(SweepStore)
    assert sweeps.interval_start_s("every 86400") is None
    for start_s in (100, 200):
        sweeps.begin_interval("every 86400", start_s)
        assert sweeps.interval_start_s("every 86400") == start_s
    assert sweeps.interval_start_s("every 3600") is None
