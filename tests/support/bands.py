"""A new config with bands, for tests in which a certain drift has to trigger."""

from __future__ import annotations

TRACKING_LINE = 'trigger = { kind = "tracking", strictness = "normal" }\n'
"""The trigger of `trimtab init`."""
BAND_LINES = 'trigger = { kind = "threshold", relative = "10%" }\ndestination = "target"             # or "band"\n'


def with_bands(config_text: str) -> str:
    """Return the config of `trimtab init` with bands of a tenth of each target, and trades to the targets."""
    assert TRACKING_LINE in config_text
    return config_text.replace(TRACKING_LINE, BAND_LINES, 1)
