"""What a missing package is taken for: an extra that is not installed, or a defect of our own."""

from __future__ import annotations

import pytest

from agent.errors import Refused, require_analysis_package


@pytest.mark.parametrize("name", ["numba", "scipy.optimize", "agentic"])
def test_missing_package_of_others__is_refused_with_its_remedy(name: str) -> None:
    with pytest.raises(Refused) as refused, require_analysis_package(", or use fixed weights"):
        raise ModuleNotFoundError(name=name)
    assert (refused.value.message, refused.value.code) == (f"{name} is not installed", "package")
    assert refused.value.remedy == "pip install 'trimtab[analysis]', or use fixed weights"


@pytest.mark.parametrize("name", ["agent", "agent.backtest.kernel", None])
def test_missing_module_of_our_own__stays_a_defect(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), require_analysis_package():
        raise ModuleNotFoundError(name=name)
