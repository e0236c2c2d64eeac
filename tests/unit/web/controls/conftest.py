"""A config, and the site that serves it, for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import agents

if TYPE_CHECKING:
    from tests.support.sites import Site


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agents.config(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def site(config: Path) -> Iterator[Site]:
    from tests.support.sites import Site  # needs the extra, without which the files are skipped

    with Site(config.parent / "mine.db.users", config=str(config)) as site:
        yield site
