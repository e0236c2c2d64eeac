"""Canaries: a key, a recovery phrase, passwords and an endpoint's secret are planted, every command is run, and nothing that is
written, logged, shown or kept holds one of them (T18).
"""

from __future__ import annotations

import ctypes
import gc
import json
import pickle
import resource
import shutil
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3
from eth_account import Account
from eth_account.signers.local import LocalAccount

from agent import app as api
from agent import wiring
from agent.app.cycles import ignore_progress
from agent.errors import ConfigError
from agent.execution.step_context import StepOutcome
from agent.localchain.world import DevAccount
from agent.signing import keys
from agent.store.journal.intents import IntentStore
from tests.cli.tools import SECRET, CommandResult, Desk
from tests.support.commands.options import every_command, takes
from tests.support.commands.sending import PASSWORD, WALLET_KEY
from tests.support.foreign_text import all_logs, found_in, shown_of
from tests.support.keyrings import MemoryKeyring, using


def unpacked(data: bytes) -> bytes:
    """Return the contents of zlib streams in `data`, since the store compresses its rows."""
    parts = []
    at = data.find(b"x\x9c")
    while at != -1:
        with suppress(zlib.error):
            parts.append(zlib.decompressobj().decompress(data[at:]))
        at = data.find(b"x\x9c", at + 1)
    return b"\0".join(parts)


def files_with(folder: Path, secrets: Iterable[str], besides: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Return the files below `folder` that contain a secret in any form, except `besides`."""
    secrets = list(secrets)
    leaks = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in set(besides):
            data = path.read_bytes()
            if leaked := found_in(data + b"\0" + unpacked(data), secrets):
                leaks[path.name] = leaked
    return leaks


def objects_of(package: str) -> list[object]:
    """Return every living object whose class is of `package`, including those that the garbage collector was told to ignore."""
    gc.unfreeze()
    objects = [thing for thing in gc.get_objects() if str(type(thing).__module__).partition(".")[0] == package]
    gc.freeze()
    return objects


def told_by(thing: object) -> bytes:
    """Return all representations of an object: text forms, JSON, pickle."""
    texts = [repr(thing).encode(), str(thing).encode(), f"{thing}".encode()]
    for attempt in ("model_dump_json", "model_dump"):
        method = getattr(thing, attempt, None)
        if callable(method) and not isinstance(thing, type):
            texts.append(str(method()).encode())
    try:
        texts.append(pickle.dumps(thing))
    except Exception as refused:  # the error of pickling must not contain the secret either
        texts.append(shown_of(refused.with_traceback(None)).encode())
    return b"\0".join(texts)


PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
"""A recovery phrase of BIP-39's test vectors."""
NEW_PASSWORD = "another canary password"
SECRETS = (WALLET_KEY[2:], PASSWORD, SECRET, PHRASE, NEW_PASSWORD)
ARGUMENTS = {
    "init": ("--wallet", "0x" + "11" * 20, "--target", "WETH=50%", "--target", "USDC=50%", "--rpc", "RPC_A=one", "--rpc", "RPC_B=two"),
    "quote": ("--in", "WETH", "--out", "USDC", "--amount", "1"),
    "swap": ("--in", "WETH", "--out", "USDC", "--amount", "0.1"),
    "run": ("--once", "--record", "steps"),
    "paper": ("--once", "--value", "1000", "--record", "steps"),
    "replay": ("steps",),
    "trust": ("--yes",),
    "adopt": ("--yes",),
    "rebalance": ("--send", "--yes"),
    "pause": ("--reason", "looking"),
    "explain": ("0" * 12,),
    "db backup": ("backup.db",),
}
"""What commands are given; one that is not named here is run without arguments."""
BOTH_WAYS = {"doctor", "plan", "rebalance", "history"}
"""Commands that are run for people and as JSON; of the others every second one speaks JSON."""
PR_GET_DUMPABLE = 3
EXITS = {0, 2, 10, 11, 12, 15}


@pytest.fixture
def planted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The desk's wallet in a keystore, its password and more in the environment, a secret in the endpoint's URL."""
    path = desk.config.parent / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(WALLET_KEY, PASSWORD, kdf="pbkdf2", iterations=1000)))
    path.chmod(0o600)
    desk.edit(("test_account = 0", 'keystore = "wallet.json"'))
    for name, secret in (("TRIMTAB_KEYSTORE_PASSWORD", PASSWORD), ("K", WALLET_KEY), ("PHRASE", PHRASE), ("NEW", NEW_PASSWORD)):
        monkeypatch.setenv(name, secret)
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)
    monkeypatch.chdir(desk.config.parent)
    return desk


def run_all(desk: Desk, folder: Path) -> bytes:
    """All that every command says, for people and as JSON."""
    results: list[CommandResult] = []
    for number, words in enumerate(sorted(every_command(), key=lambda words: words[0] == "pause")):  # what is paused sends nothing
        for form in ((), ("--json",)) if words[0] in BOTH_WAYS else (("--json",) if number % 2 else (),):
            config = folder / f"{number}{len(form)}.toml" if words == ("init",) else desk.config
            arguments = [*ARGUMENTS.get(" ".join(words), ()), *(form if takes(words, "--json") else ())]
            arguments += ["--config", str(config)] if takes(words, "--config") else []
            answer = desk.run(*words, *arguments)
            assert answer.code in EXITS, (words, answer.why)
            results.append(answer)
    return "\n".join(output.out + output.err for output in results).encode()


def test_no_command_writes_logs_or_shows_a_secret(planted: Desk, tmp_path: Path) -> None:
    with all_logs() as logs:
        outputs = run_all(planted, tmp_path)
        sent = planted.ask("history")
    assert any(item["transactions"] for item in sent["steps"]), "nothing was signed, so nothing was proven"
    assert not found_in(outputs, SECRETS)
    assert not found_in(logs.getvalue().encode(), SECRETS)
    assert (tmp_path / "backup.db").stat().st_size > 10_000
    assert len(list((tmp_path / "steps").glob("step-*.json"))) > 1, "no steps of run and paper were searched"
    shutil.copytree(tmp_path, tmp_path / "backup", ignore=shutil.ignore_patterns("backup"))
    written = {planted.config, tmp_path / "backup" / planted.config.name}  # the owner wrote the URL into it
    assert not files_with(tmp_path, SECRETS, written)


@pytest.mark.slow
def test_nothing_that_lives_says_a_secret_of_itself(planted: Desk) -> None:
    """Every object of ours, while a key is loaded and after it has signed: its text, JSON and pickle."""
    outcomes: list[StepOutcome] = []

    def look(outcome: StepOutcome) -> bool:
        outcomes.append(outcome)
        mine = [thing for thing in objects_of("agent") if not isinstance(thing, DevAccount)]  # the published keys of local chains
        assert {"LocalSigner", "PrivateKey", "EndpointProvider", "Config"} <= {type(thing).__name__ for thing in mine}
        assert not [type(thing).__name__ for thing in mine if found_in(told_by(thing), SECRETS)]
        return True

    with api.open_agent(planted.config) as agent:
        assert agent.rebalance(send=True, confirm=look).transactions
        folder = planted.config.parent
        assert (folder / "trimtab.db-wal").stat().st_size > 0
        assert not files_with(folder, SECRETS, [planted.config])
    assert outcomes


PLACES = {
    "signing": (LocalAccount, "sign_transaction"),
    "asking": (urllib3.connectionpool.HTTPConnectionPool, "urlopen"),
    "writing": (IntentStore, "add_intent"),
}


def test_a_secret_in_a_frame_of_a_traceback_would_be_found() -> None:
    def fail(local: str) -> None:
        raise ZeroDivisionError(len(local))

    with pytest.raises(ZeroDivisionError) as caught:
        fail(PHRASE)
    assert found_in(shown_of(caught.value).encode(), SECRETS)
    assert len(found_in(" ".join(SECRETS).encode(), SECRETS)) == len(SECRETS)


@pytest.mark.parametrize("where", PLACES)
def test_a_defect_anywhere_shows_no_secret_in_its_traceback(planted: Desk, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A traceback with every local variable of every frame, as rich and error reporters print it; of our own frames alone."""

    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    home, name = PLACES[where]
    with monkeypatch.context() as broken:
        broken.setattr(home, name, defect)
        caught = failure(planted)
    assert not found_in(shown_of(caught).encode(), SECRETS)


def failure(desk: Desk) -> BaseException:
    """The error that a rebalance ends with, from its first frame of ours on."""
    try:
        with api.open_agent(desk.config) as agent:
            agent.rebalance(send=True, confirm=lambda _: True)
    except Exception as error:
        assert error.__traceback__ is not None
        return error.with_traceback(error.__traceback__.tb_next)
    raise AssertionError("nothing failed")


def test_process_with_a_key__writes_no_core_and_hides_its_memory(planted: Desk) -> None:
    with api.open_agent(planted.config) as agent, wiring.open_transactor(agent.context, lambda _: True, ignore_progress):
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


def test_wallet_commands_write_a_key_nowhere_but_locked(planted: Desk, tmp_path: Path) -> None:
    """A new key, one taken over, a password changed: what any of them says and writes, the failing ways too."""
    results = []
    with all_logs() as logs, using(MemoryKeyring()):
        for args in (
            ("create", "--keystore", "new.json", "--password-env", "NEW"),
            ("create", "--keystore", "new.json", "--password-env", "NEW"),
            ("create", "--keystore", "other.json", "--password-env", "K2"),
            ("create", "--keyring", "trimtab/main"),
            ("address", "--keystore", "new.json", "--verify", "--password-env", "NEW"),
            ("address", "--keystore", "new.json", "--verify", "--password-env", "PHRASE"),
            ("address", "--config", str(planted.config), "--verify"),
            ("change-password", "--keystore", "new.json", "--password-env", "PHRASE", "--new-password-env", "NEW"),
            ("change-password", "--keystore", "new.json", "--password-env", "NEW", "--new-password-env", "PHRASE"),
        ):
            results += [planted.run("wallet", *args), planted.run("wallet", *args, "--json")]
    assert {result.code for result in results} == {0, 2}
    for text in ("\n".join(result.out + result.err for result in results), logs.getvalue()):
        assert not found_in(text.encode(), SECRETS)
    assert not files_with(tmp_path, SECRETS, [planted.config])


def test_phrase_wrong_by_one_word__is_in_no_message(tmp_path: Path) -> None:
    wrong = PHRASE.replace("yellow", "zebra")
    caught = None
    with all_logs() as logs:
        try:
            api.import_wallet(tmp_path / "w.json", None, api.PasswordSource(), lambda prompt: wrong)
        except ConfigError as error:
            caught = error.with_traceback(None)
    assert caught is not None
    assert not found_in((shown_of(caught) + logs.getvalue()).encode(), [wrong, PHRASE])
