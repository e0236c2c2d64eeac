"""Frames of results for pandas."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agent.calls import checked_call, described
from agent.errors import ConfigError
from agent.price_files.frames import load_polars


@checked_call
def to_pandas(frame: Any) -> Any:
    """Return a frame of polars as one of pandas, which alone must be installed. Times are in UTC, a
    column `time` becomes its index, and null is NaN. Raises ConfigError for anything else, or without pandas.

    >>> import polars
    >>> to_pandas(polars.DataFrame({"BTC": [42_000.0, None]}))["BTC"].isna().to_list()
    [False, True]
    """
    polars = load_polars()
    if not isinstance(frame, polars.DataFrame):
        raise ConfigError(
            f"frame: {described(frame)} is no frame of polars",
            "write for example research.to_pandas(result.frame())",
        )
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise ConfigError(
            "frame: the package pandas is not installed", "pip install pandas"
        ) from None
    columns = {
        name: pandas.DatetimeIndex(frame[name].dt.replace_time_zone(None).to_numpy(), tz="UTC")
        if isinstance(frame[name].dtype, polars.Datetime)
        else frame[name].to_numpy()
        for name in frame.columns
    }
    copy = pandas.DataFrame(columns)
    return copy.set_index("time") if "time" in columns else copy
