"""A profile is read from an https address only with its hash, and before that is compared nothing of it is parsed (T16)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import app as api
from agent.config.writing.profile import MAX_BYTES
from agent.errors import ConfigError, Retryable
from agent.web.reach import PublicOptions
from tests.support.agents import config, profile, taken_over
from tests.support.fakes.http_server import LoopbackHandler, listening
from tests.support.pages.certificates import certificate

__all__ = ["certificate"]


@pytest.fixture
def site(certificate: PublicOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An https site with a profile at /p, a redirect to it at /moved, too much at /large, no TOML at /broken."""
    content = profile(tmp_path).read_bytes()

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            body = {"/large": content + b"#" * MAX_BYTES, "/broken": b"["}.get(self.path, content)
            self.reply(302 if self.path == "/moved" else 200, body, Location="/p")

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.tls_cert))
    with listening(Handler, certificate) as port:
        yield f"https://localhost:{port}"


def test_profile__is_read_from_an_https_address_of_pinned_hash(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path)
    file = profile(tmp_path)
    before = path.read_bytes()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    plain = site.replace("https", "http")
    with_password = site.replace("//", "//me:hidden@")
    for address, pinned, field, words in (
        (f"{site}/p", None, "--sha256", "localhost"),
        (f"{site}/p", "ab" * 32, f"{site}/p", digest),
        (f"{site}/broken", digest, f"{site}/broken", "is pinned"),
        (f"{site}/moved", digest, "FILE", "302"),
        (f"{site}/large", digest, "FILE", f"{MAX_BYTES:,}"),
        (f"{plain}/p", digest, "FILE", "https"),
        (f"{with_password}/p", digest, "FILE", "password"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)) as refused:
            taken_over(path, address, sha256=pinned)
        assert refused.value.message.startswith(field)
        assert "hidden" not in str(refused.value)
    assert path.read_bytes() == before
    by_file = api.import_profile(path, api.ProfileSource(file), None)
    document = taken_over(path, f"{site}/p", sha256=digest)
    assert (document["profile"], document["sha256"], document["editing"].state) == (f"{site}/p", digest, "written")
    assert document["minimum_capital"] == by_file["minimum_capital"] != ""
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Retryable, match="FILE: the download failed: its certificate is not accepted"):
        taken_over(path, f"{site}/p", sha256=digest)
