"""The first worker of a new database: it creates the tables before it joins the others."""

from __future__ import annotations

from pathlib import Path

import tomlkit
from sqlalchemy import make_url

from agent.fleet.sharing import join_workers
from agent.localchain import LocalChain
from tests.support.postgresql import Server


def test_worker__joins_in_a_database_without_tables(anvil_chain: LocalChain, server: Server, tmp_path: Path, url: str) -> None:
    config = tmp_path / "client.toml"
    document = tomlkit.parse(anvil_chain.config_text())
    document["store"] = {"url": url}
    config.write_text(tomlkit.dumps(document))

    share = join_workers([config], "clients")

    assert not share.is_served_elsewhere(config)
    assert server.run("SELECT count(*) FROM processes", str(make_url(url).database)) == "1"
