"""Charts of results by plotly."""

from __future__ import annotations

from typing import Any

from agent.errors import ConfigError


def load_plotly() -> Any:
    """Return plotly's graph objects. Raises ConfigError if it is not installed."""
    try:
        from plotly import graph_objects
    except ImportError:
        raise ConfigError(
            "a chart needs the package plotly", "pip install 'trimtab[analysis]'"
        ) from None
    return graph_objects
