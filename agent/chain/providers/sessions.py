"""HTTP sessions to one host, and bodies that are read within limits of size and time."""

from __future__ import annotations

import logging
import time

import requests

logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # urllib3 logs whole URLs (T18)
_CHUNK_BYTES = 64 * 1024


def open_session(url: str) -> requests.Session:
    """Return a session with proxies, certificates and credentials of the environment, which are
    read once instead of for each request.
    """
    session = requests.Session()
    settings = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = settings["proxies"], settings["verify"]
    session.auth = requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session


def read_body(response: requests.Response, max_bytes: int, deadline: float) -> bytes | None:
    """Read the body; None once it exceeds `max_bytes` or the monotonic `deadline`."""
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        size += len(part)
        if size > max_bytes or time.monotonic() > deadline:
            return None
        parts.append(part)
    return b"".join(parts)
