"""`trimtab docs` and the pages that the site gets from the code: each error names an anchor that is there."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from agent import artifacts
from agent.app.start.capital import minimum_capitals
from agent.artifacts import documentation_site
from agent.cli.display.terminal import error_document
from agent.config.networks import NETWORKS
from agent.config.networks.network import Network
from agent.config.schema import Config
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused, Verdict
from agent.guards.table import REMEDIES
from agent.model.alerts import AlertKind
from agent.web.documentation import refusal_entry, serve_documentation
from tests.cli.tools import CommandResult
from tests.support.text import mentions

reference = pytest.importorskip("scripts.make.docs_reference", reason="mkdocs is not installed")


def test_site__is_served_on_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("the site")
    (tmp_path / "secret").write_text("beside it")
    ready = threading.Event()
    addresses = list[str]()

    def take(address: str) -> None:
        addresses.append(address)
        ready.set()

    threading.Thread(target=serve_documentation, args=(tmp_path / "site", 0, take), daemon=True).start()
    assert ready.wait(10)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", addresses[0])
    assert urlopen(addresses[0]).read() == b"the site"
    for outside in ("../secret", "%2e%2e/secret"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(addresses[0] + outside)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("head_agee", "write head_age"),
        ("HEAD_AGE", "write head_age"),
        ("turn_over", "write turnover"),
        ("xyzzy", "trimtab docs shows all at refusals.html"),
        ("<b>", "trimtab docs shows all at refusals.html"),
    ],
)
def test_a_code_without_an_entry_is_named_with_those_like_it(code: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        refusal_entry(code)
    assert error.value.message == f"CODE: {code!r} is neither the code of an error nor a guard"
    assert error.value.remedy.startswith(remedy)


def test_a_port_in_use_and_a_site_that_was_not_built_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match=r"--port \d+: .*0 takes a free one"):
        serve_documentation(tmp_path, taken.getsockname()[1], pytest.fail)
    monkeypatch.setattr(artifacts, "_REPO", tmp_path)
    with pytest.raises(ConfigError, match="make docs"):
        documentation_site()


def test_an_entry_is_printed_where_no_site_is_built(
    bare: Callable[..., CommandResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_REPO", tmp_path)
    guard = bare("docs", "turnover")
    assert (guard.code, REMEDIES["turnover"] in " ".join(guard.out.split())) == (0, True), guard.err
    error = bare("docs", "proposal_open")
    assert mentions(" ".join(error.out.split()), "proposal_open: ", "awaits an external signature", "→ after it was sent")
    assert bare("docs").code == 2


def test_entry_without_a_terminal__is_printed_alone(bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script, or a pipe, does not wait for a server that it cannot see."""
    monkeypatch.setattr(artifacts, "documentation_site", lambda: pytest.fail("no page is served"))
    assert bare("docs", "turnover").code == 0


def test_catalogue__anchors_every_error_guard_and_alert() -> None:
    anchors = set(re.findall(r"^### (\S+)$", reference.refusals_page(), re.MULTILINE))
    errors = [
        OperatorNeeded("a"),
        ConfigError("a: b"),
        *(Refused("a", code=code) for code in ErrorCode),
        *(Refused("a", [Verdict(guard, "1", "2", False)]) for guard in REMEDIES),
    ]
    named = {error_document(error)["error"]["docs"].partition("refusals.html#")[2] for error in errors}
    assert not named - anchors
    assert {f"alert-{kind.value}" for kind in AlertKind} <= anchors


def test_reference__has_every_key_with_default_and_bounds() -> None:
    page = reference.config_page()
    for name in Config.model_fields:
        assert f"| `{name}` |" in page
    for row in (
        '| `slippage` | share or "off" | required; `init` writes 0.3% |  | [slippage](refusals.md#slippage), [fair_floor](refusals.md#f',
        '| `plan_cost` | share or "off" | required; `init` writes 0.5% |  | [plan_cost](refusals.md#plan_cost), ceiling 5 % |',
        "| `wallet_wait` | duration | 2m |  |  | How long a process waits for the wallet's lock; 1s to 1h. |",
        "| `confirm_blocks` | number | none, `init` writes 3 | ≥ 0, ≤ 32 |  | Preceding blocks whose prices must confirm",
        "| `feed_max_age` | duration | required |  | [feed_health](refusals.md#feed_health) | Age above which",
        "| `fall` | share | required |  |  | Distance of the price below its highest",
        "| `rpc` | [\\[\\[chain.rpc\\]\\]](#chainrpc) | required | at least 1 |  | Endpoints. |",
        "| `prompt` | true or false | false |",
    ):
        assert row in page, [line for line in page.splitlines() if line.startswith(row[:12])]


def test_reference_key__lacks_no_unit_default_or_meaning() -> None:
    rows = [line.split(" | ") for line in reference.config_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 250
    blank = [row[0] for row in rows if len(row) != 6 or not row[1].strip() or not row[2].strip() or not row[5].strip(" |")]
    assert not blank


def test_a_page_with_the_rules_of_a_table_leads_to_its_keys() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="prices.md"))
    assert reference.on_page_markdown("# Prices", page) == "# Prices\n\nEvery key: [\\[reference\\]](keys-of-the-config.md#reference)."


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_network_page__has_tokens_feeds_venues_and_small_money(network: Network) -> None:
    page = reference.PAGES[f"network-{network.name}.md"]()
    assert f"network-{network.name}.md" in (Path(reference.ROOT) / "mkdocs.yml").read_text()
    for token in network.tokens:
        assert f"| {token.symbol} | `{token.address}` | {token.decimals} | {network.feed_of(token) or 'none: TWAP'} |" in page
    for venue in network.venues:
        assert f"| {venue.name} | `{venue.factory or venue.pool_manager}` |" in page
    small = minimum_capitals(PORTFOLIO_TEMPLATES["small"])[network.name]
    assert f"| small | {small} |" in page
    assert mentions(page, f"Chain {network.chain_id}", network.finality, f"`native_floor` {network.native_floor}")
