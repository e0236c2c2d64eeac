"""Nodes of the embedded chain with one interface: eth-tester in process, and an anvil process."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from typing import IO, Any, Protocol, cast
from urllib.parse import urlsplit

from eth_abi.abi import decode, encode
from eth_abi.exceptions import EncodingError
from eth_typing import HexStr
from eth_utils.abi import collapse_if_tuple
from web3 import Web3
from web3.contract.contract import ContractFunction
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from agent.artifacts import anvil_binary
from agent.errors import ConfigError, Retryable
from agent.foreign_text import failure_words
from agent.localchain.world import ACCOUNT_COUNT, HD_PATH, WHALE_INDEX, dev_accounts
from agent.signing.keys import TEST_MNEMONIC

REQUEST_TIMEOUT_S = 60
_HEADERS = {"Content-Type": "application/json"}


class LocalProvider(JSONBaseProvider):
    """JSON-RPC on loopback, without proxies, cookies and redirects, which make web3's provider nine
    times as slow. A forked process opens its own connection. Raises OSError if the node is gone.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.endpoint_uri = url
        self._thread_connections = threading.local()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """See web3's BaseProvider."""
        return self.decode_rpc_response(self.post(self.encode_rpc_request(method, params)))

    def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        """Return JSON-RPC answers in the order of `calls`, with one request."""
        request_objects = [
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
            for request_id, (method, params) in enumerate(calls)
        ]
        return sorted(
            json.loads(self.post(json.dumps(request_objects).encode())),
            key=lambda answer: int(answer["id"]),
        )

    def post(self, request_body: bytes) -> bytes:
        """Return the body of the node's answer to a request's body."""
        connection = self._connection()
        try:
            connection.request("POST", "/", request_body, _HEADERS)
            return connection.getresponse().read()
        except (HTTPException, OSError) as error:
            connection.close()
            raise ConnectionError(
                f"the local node at {self.endpoint_uri} does not answer: {failure_words(error)}"
            ) from error

    def _connection(self) -> HTTPConnection:
        """Return the thread's connection, renewed after a fork or if the node closed it."""
        owner_pid, connection = getattr(self._thread_connections, "pid_and_connection", (0, None))
        if connection is None or owner_pid != os.getpid():
            endpoint = urlsplit(self.endpoint_uri)
            connection = HTTPConnection(
                endpoint.hostname or "127.0.0.1", endpoint.port, timeout=REQUEST_TIMEOUT_S
            )
            self._thread_connections.pid_and_connection = os.getpid(), connection
        elif connection.sock is not None and _has_data(connection.sock):
            connection.close()
        return connection


def _has_data(node_socket: socket.socket) -> bool:
    """Return whether the connection has data to read, which between two requests means that the
    node closed it.
    """
    poller = select.poll()
    poller.register(node_socket, select.POLLIN)
    return bool(poller.poll(0))


BLOCK_GAS = 100_000_000
WHALE_WEI = 10**9 * 10**18
ACCOUNT_WEI = 10**4 * 10**18
_MINED_TIMEOUT_S = 120
_POLL_S = 0.005
"""Longest wait for a transaction, and the polling interval, seconds."""
_MINE_ATTEMPTS = 50
_MINE_PAUSE_S = 0.02
"""Attempts, and the pause between them, while anvil refuses a block because another is in
progress.
"""


class LocalNode(Protocol):
    """Interface of a local node, with functions that web3 lacks."""

    @property
    def w3(self) -> Web3:
        """Web3 without validation middleware and without CCIP-read."""

    @property
    def url(self) -> str | None:
        """HTTP address; None in process."""

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Return the results of JSON-RPC reads, in order, with one request. Raises RuntimeError
        with the node's message.
        """

    def transact(self, call: Any, fields: Mapping[str, Any]) -> tuple[HexStr, bool]:
        """Send a bound contract function with these transaction fields; return its hash, and True
        if it succeeded, once it is mined.
        """

    def now_s(self) -> int:
        """Return the timestamp of the newest block."""

    def mine(self, blocks: int) -> None:
        """Mine empty blocks."""

    def mine_at(self, timestamp_s: int) -> None:
        """Mine an empty block with that timestamp, which must be later than the newest block's."""

    def one_second_blocks(self) -> Any:
        """Return a context in which each block is one second after the previous one, independent of
        the wall clock.
        """

    def snapshot(self) -> str:
        """Save the state."""

    def revert(self, snapshot: str) -> None:
        """Revert to a saved state, which is then deleted."""

    def set_native(self, address: str, wei: int) -> None:
        """Give an address exactly this much native coin."""


def _web3_without_middleware(provider: Any) -> Web3:
    """Return a web3 without extra requests: no chain id before each call, no names, no
    CCIP-read.
    """
    provider.global_ccip_read_enabled = False
    w3 = Web3(provider)
    for middleware_name in ("validation", "ens_name_to_address", "gas_price_strategy"):
        w3.middleware_onion.remove(middleware_name)
    return w3


def call_data(call: ContractFunction) -> str:
    """Return the calldata of a bound function; twenty times as fast as web3, which is used only for
    arguments that need its conversions.
    """
    argument_types = [collapse_if_tuple(abi_input) for abi_input in call.abi["inputs"]]
    try:
        return call.selector + encode(argument_types, call.arguments).hex()
    except EncodingError:
        return str(call._encode_transaction_data())


def read_views(node: LocalNode, calls: Sequence[ContractFunction]) -> list[tuple[Any, ...]]:
    """Return the values of several bound view functions, read with one request."""
    hex_answers = node.ask(
        [("eth_call", [{"to": call.address, "data": call_data(call)}, "latest"]) for call in calls]
    )
    return [
        decode(
            [collapse_if_tuple(abi_output) for abi_output in call.abi["outputs"]],
            bytes.fromhex(hex_answer[2:]),
        )
        for call, hex_answer in zip(calls, hex_answers, strict=True)
    ]


class AnvilNode:
    """An anvil process, reached at its HTTP address."""

    def __init__(self, url: str) -> None:
        self.provider = LocalProvider(url)
        self.w3 = _web3_without_middleware(self.provider)
        self.url: str | None = url

    def rpc(self, method: str, *params: object) -> Any:
        """Make one JSON-RPC call, which may be a method of anvil's own. Raises RuntimeError with
        the node's message.
        """
        answer = self.w3.provider.make_request(cast("RPCEndpoint", method), list(params))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """See LocalNode."""
        answers = self.provider.batch(calls) if calls else []
        for answer in answers:
            if "error" in answer:
                raise RuntimeError(str(answer["error"]))
        return [answer["result"] for answer in answers]

    def transact(self, call: Any, fields: Mapping[str, Any]) -> tuple[HexStr, bool]:
        """See LocalNode. The request is sent directly, because web3's own path takes twice
        as long.
        """
        if isinstance(call, ContractFunction):
            calldata = call_data(call)
            tx_fields = {**fields, "chainId": self._chain_id, "to": call.address, "data": calldata}
        else:
            tx_fields = call.build_transaction({**fields, "chainId": self._chain_id})
            tx_fields.pop("to", None)  # a deployment has no recipient
        tx_hash = self.rpc(
            "eth_sendTransaction",
            {
                field_name: hex(field_value) if isinstance(field_value, int) else field_value
                for field_name, field_value in tx_fields.items()
            },
        )
        deadline_s = time.monotonic() + _MINED_TIMEOUT_S
        while (receipt := self.rpc("eth_getTransactionReceipt", tx_hash)) is None:
            if time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"anvil did not mine transaction {tx_hash} within {_MINED_TIMEOUT_S} s"
                )
            time.sleep(_POLL_S)
        return HexStr(tx_hash), receipt["status"] == "0x1"

    @cached_property
    def _chain_id(self) -> int:
        return self.w3.eth.chain_id

    def now_s(self) -> int:
        """See LocalNode."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def mine(self, blocks: int) -> None:
        """See LocalNode."""
        self.rpc("anvil_mine", hex(blocks))

    def mine_at(self, timestamp_s: int) -> None:
        """See LocalNode. If anvil mines blocks meanwhile and reaches that time, the next block
        follows them.

        anvil counts a block's time before the block can be read, so a time that it rejects now may
        be valid a moment later.
        """
        for tries_left in reversed(range(_MINE_ATTEMPTS)):
            block_timestamp_s = max(timestamp_s, self.now_s() + 1)
            try:
                self.rpc("evm_setNextBlockTimestamp", block_timestamp_s)
                break
            except RuntimeError:
                if tries_left == 0:
                    raise
                time.sleep(_MINE_PAUSE_S)
        self.rpc("evm_mine")

    @contextmanager
    def one_second_blocks(self) -> Iterator[None]:
        """See LocalNode."""
        self.rpc("anvil_setBlockTimestampInterval", 1)
        try:
            yield
        finally:
            self.rpc("anvil_removeBlockTimestampInterval")

    def snapshot(self) -> str:
        """See LocalNode."""
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """See LocalNode. anvil takes mined transactions out of its pool by sender and nonce, some
        time after their receipts can be read. If it did that after the revert, it would drop the
        sender's next transaction.
        """
        deadline_s = time.monotonic() + _MINED_TIMEOUT_S
        while any(
            self.rpc("eth_getTransactionReceipt", tx_hash) for tx_hash in self._pooled_hashes()
        ):
            if time.monotonic() > deadline_s:
                raise RuntimeError("anvil keeps mined transactions in its pool")
            time.sleep(_POLL_S)
        if not self.rpc("evm_revert", snapshot):
            raise RuntimeError(f"anvil has no snapshot {snapshot}")

    def _pooled_hashes(self) -> list[str]:
        """Return the hashes of the transactions in the pool."""
        transactions_by_status = self.rpc("txpool_content").values()
        return [
            tx["hash"]
            for by_sender in transactions_by_status
            for by_nonce in by_sender.values()
            for tx in by_nonce.values()
        ]

    def set_native(self, address: str, wei: int) -> None:
        """See LocalNode."""
        self.rpc("anvil_setBalance", address, hex(wei))


def _sufficient_gas(evm_state: Any, transaction: Any) -> int:
    """Estimate a sufficient gas limit as nodes do: upwards from the consumed gas, to 1.5 %.
    py-evm's own estimator bisects the whole block limit, which takes a dozen executions instead of
    two or three.
    """
    from eth.vm.spoof import SpoofTransaction

    def remaining_gas(gas_limit: int) -> int | None:
        """Return the remaining gas; None if the limit is too low. Raises the error of an execution
        at the highest limit.
        """
        state_snapshot = evm_state.snapshot()
        try:
            computation = evm_state.apply_transaction(
                SpoofTransaction(transaction, gas=gas_limit, gas_price=0)
            )
            if computation.is_error and gas_limit == evm_state.gas_limit:
                raise computation.error
            return None if computation.is_error else int(computation.get_gas_remaining())
        finally:
            evm_state.revert(state_snapshot)

    sufficient_limit = int(evm_state.gas_limit)
    insufficient_limit = sufficient_limit - (remaining_gas(sufficient_limit) or 0) - 1
    # The consumed gas is enough, unless an inner call receives only a share of the remaining gas
    # (EIP-150); then it takes slightly more.
    gas_limit_guesses = [insufficient_limit + 1, insufficient_limit * 64 // 63 + 2_300]
    while (sufficient_limit - insufficient_limit - 1) * 1_000 > 15 * sufficient_limit:
        gas_limit = min(
            gas_limit_guesses.pop(0)
            if gas_limit_guesses
            else (sufficient_limit + insufficient_limit) // 2,
            sufficient_limit - 1,
        )
        if remaining_gas(gas_limit) is None:
            insufficient_limit = max(insufficient_limit, gas_limit)
        else:
            sufficient_limit = min(sufficient_limit, gas_limit)
    return sufficient_limit


class TesterNode:
    """eth-tester with py-evm, in this process, with the same accounts as anvil."""

    __test__ = False

    def __init__(self, genesis_s: int, wallet_wei: int) -> None:
        if find_spec("eth_tester") is None:
            raise ConfigError(
                "the chain in this process needs eth-tester, which is not installed",
                "pip install 'trimtab[local]'",
            )
        from eth_tester import EthereumTester, PyEVMBackend
        from eth_tester.backends.pyevm.main import get_default_genesis_params
        from eth_utils.address import to_canonical_address
        from web3 import EthereumTesterProvider

        balances_wei = [wallet_wei] + [
            WHALE_WEI if i == WHALE_INDEX else ACCOUNT_WEI for i in range(1, ACCOUNT_COUNT)
        ]
        genesis_state = {
            to_canonical_address(account.address): {
                "balance": wei,
                "nonce": 0,
                "code": b"",
                "storage": {},
            }
            for account, wei in zip(dev_accounts(), balances_wei, strict=True)
        }
        genesis_params = get_default_genesis_params(
            {"gas_limit": BLOCK_GAS, "timestamp": genesis_s}
        )
        backend = PyEVMBackend(
            genesis_params, genesis_state, mnemonic=TEST_MNEMONIC, hd_path=HD_PATH
        )
        backend.chain.gas_estimator = _sufficient_gas
        self.tester = EthereumTester(backend)
        self.provider = EthereumTesterProvider(self.tester)
        self.w3 = _web3_without_middleware(self.provider)
        self.url: str | None = None

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """See LocalNode."""
        from agent.chain.providers.eth_tester import EthTesterTransport
        from agent.chain.rpc import RpcFault

        answers = EthTesterTransport(self.provider).batch(calls)
        for answer in answers:
            if isinstance(answer, RpcFault):
                raise RuntimeError(answer.message)
        return answers

    def transact(self, call: Any, fields: Mapping[str, Any]) -> tuple[HexStr, bool]:
        """See LocalNode."""
        tx_hash = call.transact(dict(fields))
        return Web3.to_hex(tx_hash), self.w3.eth.get_transaction_receipt(tx_hash)["status"] == 1

    def now_s(self) -> int:
        """See LocalNode."""
        return int(self.tester.get_block_by_number("latest")["timestamp"])

    def mine(self, blocks: int) -> None:
        """See LocalNode."""
        self.tester.mine_blocks(blocks)

    def mine_at(self, timestamp_s: int) -> None:
        """See LocalNode."""
        chain = self.tester.backend.chain
        chain.header = chain.header.copy(timestamp=timestamp_s)
        self.tester.mine_blocks(1)

    @contextmanager
    def one_second_blocks(self) -> Iterator[None]:
        """See LocalNode. py-evm takes every block's time from the wall clock, so the time is set
        again after each block.
        """
        chain = self.tester.backend.chain
        build_header = chain.create_header_from_parent

        def header_one_second_later(parent: Any, **params: Any) -> Any:
            return build_header(parent, **{**params, "timestamp": parent.timestamp + 1})

        chain.create_header_from_parent = header_one_second_later
        chain.header = chain.header.copy(timestamp=chain.get_canonical_head().timestamp + 1)
        try:
            yield
        finally:
            del chain.create_header_from_parent

    def snapshot(self) -> str:
        """See LocalNode."""
        return str(self.tester.take_snapshot())

    def revert(self, snapshot: str) -> None:
        """See LocalNode."""
        self.tester.revert_to_snapshot(int(snapshot))

    def set_native(self, address: str, wei: int) -> None:
        """See LocalNode. eth-tester has no call for this, so the state below the pending block is
        replaced and two blocks are mined. eth-tester's revert has to repeat the newest block, which
        the second one makes possible.
        """
        from eth_utils.address import to_canonical_address

        chain = self.tester.backend.chain
        vm = chain.get_vm(chain.header)
        vm.state.set_balance(to_canonical_address(address), wei)
        vm.state.persist()
        chain.header = chain.header.copy(state_root=vm.state.state_root)
        self.tester.mine_blocks(2)


CHAIN_ID = 31337
READY_TIMEOUT_S = 30
MAX_OUTPUT_BYTES = 500
"""Bytes of the output of anvil that an error shows, the last ones."""
MAX_STATES = 512
"""Number of blocks whose state is kept. By default anvil writes older states, megabytes each, to
the home folder and never deletes them.
"""
# The shell keeps anvil alive until our pipe closes, which happens even if this process is killed.
_KEEPER_SCRIPT = (
    '"$0" "$@" </dev/null & child=$!; exec >/dev/null 2>&1; trap "" INT HUP; cat; kill -KILL'
    " $child; wait $child"
)


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def require_free_port(port: int, url: str) -> None:
    """Raise ConfigError if somebody listens on the port."""
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"the chain cannot be served on {url}: {error.strerror}",
                "choose another --port, or stop the process that listens on this one",
            ) from error


@contextmanager
def run_anvil(
    port: int | None = None, flags: Sequence[str] = (), genesis_s: int | None = None
) -> Iterator[str]:
    """Run anvil with the test accounts; yield its URL.

    `flags` are passed on (such as --fork-url URL). Anvil ends with the context, or with this
    process, even if that is killed. Raises ConfigError if the port is taken or a flag is wrong,
    Retryable if it does not answer in time.
    """
    listen_port = free_port() if port is None else port
    url = f"http://127.0.0.1:{listen_port}"
    require_free_port(listen_port, url)
    # A genesis time of its own tells our anvil from another that took the port in this moment.
    unique_genesis_s = (int(time.time()) if genesis_s is None else genesis_s) - random.randrange(
        600
    )
    is_fork = "--fork-url" in flags
    chain_id_flags = () if "--chain-id" in flags else ("--chain-id", str(CHAIN_ID))
    anvil_command = [
        str(anvil_binary()),
        "--port",
        str(listen_port),
        "--silent",
        "--mnemonic",
        TEST_MNEMONIC,
    ]
    anvil_command += [
        "--gas-limit",
        str(BLOCK_GAS),
        "--balance",
        str(ACCOUNT_WEI // 10**18),
        "--prune-history",
        str(MAX_STATES),
    ]
    anvil_command += (
        [*flags] if is_fork else [*chain_id_flags, "--timestamp", str(unique_genesis_s), *flags]
    )
    shell = shutil.which("sh") or "/bin/sh"
    keeper_process = subprocess.Popen(  # noqa: S603 our own program and arguments
        [shell, "-c", _KEEPER_SCRIPT, *anvil_command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert keeper_process.stdin is not None  # noqa: S101 they were opened as pipes
    assert keeper_process.stdout is not None  # noqa: S101 as above
    anvil_output = bytearray()
    # Drained as long as anvil runs: a full pipe would block it.
    drain = threading.Thread(target=_drain, args=(keeper_process.stdout, anvil_output), daemon=True)
    drain.start()
    try:
        _await_ready(drain, anvil_output, url, None if is_fork else unique_genesis_s)
        yield url
    finally:
        keeper_process.stdin.close()
        keeper_process.wait(timeout=10)
        drain.join(timeout=10)
        keeper_process.stdout.close()


def _drain(pipe: IO[bytes], output: bytearray) -> None:
    """Read the pipe until its end, which is that of anvil; keep the last bytes in `output`."""
    while chunk := os.read(pipe.fileno(), 65536):
        output += chunk
        del output[:-MAX_OUTPUT_BYTES]


def _await_ready(
    drain: threading.Thread, anvil_output: bytearray, url: str, expected_genesis_s: int | None
) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if not drain.is_alive():
            message = anvil_output.decode(errors="replace").strip() or "no message"
            raise ConfigError(
                f"anvil did not start on {url}: {message}", "correct what its message names"
            )
        answered_genesis_s = _read_genesis_s(url)
        if answered_genesis_s is not None and (
            expected_genesis_s is None or answered_genesis_s == expected_genesis_s
        ):
            return
        time.sleep(0.02)
    raise Retryable(f"anvil at {url} did not answer within {READY_TIMEOUT_S} s")


def _read_genesis_s(url: str) -> int | None:
    """Return the timestamp of block 0; None while there is no answer."""
    request_body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["0x0", False]}
    ).encode()
    request = urllib.request.Request(url, request_body, {"Content-Type": "application/json"})  # noqa: S310 always http on loopback
    try:
        with urllib.request.urlopen(request, timeout=1) as response:  # noqa: S310 as above
            return int(json.load(response)["result"]["timestamp"], 16)
    except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError):
        return None
