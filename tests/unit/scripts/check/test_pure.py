"""scripts/check/pure.py: the patterns of the pure files."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from scripts.check.pure import expand_patterns


@pytest.mark.parametrize(
    ("path", "is_expected"),
    [
        pytest.param("agent/units.py", True, id="module"),
        pytest.param("agent/accounting/entries.py", True, id="file of a package"),
        pytest.param("agent/layers/futures/policy/exposure.py", True, id="layer's package"),
        pytest.param("agent/layers/gradual/policy.py", True, id="layer's module"),
        pytest.param("agent/layers/gradual/execution.py", False, id="layer's execution"),
        pytest.param("agent/engine.py", False, id="shell"),
    ],
)
def test_pure__stands_for_the_files_of_the_contract(path: str, is_expected: bool) -> None:
    assert any(fnmatch(path, pattern) for pattern in expand_patterns("agent/entry.py,pure")) is is_expected


def test_other_patterns__stay_as_they_are() -> None:
    assert expand_patterns("agent/amm/*,agent/units.py") == ["agent/amm/*", "agent/units.py"]
