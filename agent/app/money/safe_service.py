"""The transaction service of Safe{Wallet}, where the owners of a Safe see a call and add signatures.

Paths and fields are those of its API (safe-transaction-service, 5.18.0 and later): version 2 of the
call, version 1 of a confirmation. Its answers are untrusted: only signatures are read from them,
which callers check like those of a file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import requests

from agent.chain.providers.sessions import open_session, read_body
from agent.codec import json_field
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, Retryable
from agent.foreign_text import failure_words, read_json
from agent.model import UnsignedTx
from agent.signing.safe_tx import safe_tx_fields

TIMEOUT_S = 15.0
"""Longest wait for one answer."""
MAX_ANSWER_BYTES = 2**20
MAX_CONFIRMATIONS = 100
"""Most signatures that are read of one call; each is recovered."""


@dataclass(frozen=True, slots=True)
class SafeService:
    """The service at `url`, without a trailing slash. `api_key` may be empty."""

    url: str
    api_key: str = field(repr=False)

    def offer(
        self, safe: str, tx: UnsignedTx, safe_tx_hash: str, owner: str, signature: bytes
    ) -> None:
        """Propose the call with the signature of an owner, or add it if the service has the call.
        Raises Retryable if it is not accepted.
        """
        signature_hex = "0x" + signature.hex()
        if self._transaction(safe_tx_hash) is not None:
            path = f"v1/multisig-transactions/{safe_tx_hash}/confirmations/"
            self._post(path, {"signature": signature_hex})
            return
        proposal_json = {
            **safe_tx_fields(tx),
            "value": str(tx.value_wei),
            "contractTransactionHash": safe_tx_hash,
            "sender": owner,
            "signature": signature_hex,
            "origin": "trimtab",
        }
        self._post(f"v2/safes/{safe}/multisig-transactions/", proposal_json)

    def signatures(self, safe_tx_hash: str) -> list[str]:
        """Return the texts in place of signatures of the call, empty if the service does not have
        it. Raises Retryable.
        """
        transaction = self._transaction(safe_tx_hash)
        if transaction is None:
            return []
        confirmations = json_field(transaction, "confirmations")
        if not isinstance(confirmations, list) or len(confirmations) > MAX_CONFIRMATIONS:
            raise _failure("odd answer: confirmations")
        return [str(json_field(confirmation, "signature")) for confirmation in confirmations]

    def _transaction(self, safe_tx_hash: str) -> object:
        """Return the JSON of the call; None if the service does not have it."""
        status_code, answer_bytes = self._ask(f"v2/multisig-transactions/{safe_tx_hash}/")
        try:
            transaction: object = read_json(answer_bytes.decode())
        except ValueError:
            raise _failure(f"HTTP {status_code} without JSON") from None
        if status_code == requests.codes.not_found:
            return None
        if status_code != requests.codes.ok:
            raise _failure(f"HTTP {status_code}")
        if json_field(transaction, "safeTxHash") != safe_tx_hash:
            raise _failure("it answers with another call")
        return transaction

    def _post(self, path: str, body: Mapping[str, object]) -> None:
        status_code, _ = self._ask(path, body)
        if status_code not in (requests.codes.ok, requests.codes.created):
            raise _failure(f"HTTP {status_code}")

    def _ask(self, path: str, body: Mapping[str, object] | None = None) -> tuple[int, bytes]:
        """Return status and body of the answer to a GET, or to a POST of `body`. Raises Retryable,
        which repeats neither words of the service nor its address and key.
        """
        try:
            with open_session(self.url) as session:
                session.auth = None
                if self.api_key:
                    session.headers["Authorization"] = f"Bearer {self.api_key}"
                with session.request(
                    "GET" if body is None else "POST",
                    f"{self.url}/api/{path}",
                    data=None if body is None else json.dumps(body),
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    status_code = response.status_code
                    deadline_s = time.monotonic() + TIMEOUT_S
                    answer_bytes = read_body(response, MAX_ANSWER_BYTES, deadline_s)
        except Exception as error:  # also those of urllib3, idna and the encoding of headers
            raise _failure(failure_words(error)) from None
        if answer_bytes is None:
            raise _failure("its answer is too long or too slow")
        return status_code, answer_bytes


def configured_service(loaded_config: LoadedConfig) -> SafeService | None:
    """Return the service of `[wallet]`; None without one. Raises ConfigError if the variable of its
    key is not set.
    """
    wallet = loaded_config.config.wallet
    if wallet.safe_service is None:
        return None
    api_key = ""
    if wallet.safe_service_token_env is not None:
        api_key = loaded_config.variables.get(wallet.safe_service_token_env, "")
        if not api_key:
            raise ConfigError(
                f"wallet.safe_service_token_env: environment variable {wallet.safe_service_token_env} is"
                " not set",
                "export it, or put it into .env beside the config",
            )
    return SafeService(wallet.safe_service, api_key)


def _failure(reason: str) -> Retryable:
    return Retryable(
        f"the Safe's transaction service: {reason}",
        "signatures that are recorded here stay; check wallet.safe_service, then run the command"
        " again",
    )
