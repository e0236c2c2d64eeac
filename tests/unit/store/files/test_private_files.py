"""Config, store and their folder are their owner's alone to change; the refusal names the chmod (T18)."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.errors import ConfigError
from agent.store import open_store
from agent.store.files.locks import require_trusted_writers
from tests.support import agents
from tests.support.text import raises_field

WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "trimtab.toml"
    path.parent.mkdir(mode=0o700)
    path.write_text("")
    return path


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        require_trusted_writers(path, "config")
    return caught.value


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o644, 0o755])
def test_a_file_that_its_owner_alone_may_write_is_taken(file: Path, mode: int) -> None:
    file.chmod(mode)
    require_trusted_writers(file, "config")


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o622, 0o646, 0o664, 0o666, 0o777])
def test_a_file_that_others_may_write_is_refused_with_its_chmod(file: Path, mode: int) -> None:
    file.chmod(mode)

    error = refused(file)

    assert f"(mode {mode:04o})" in error.message
    assert error.remedy == f"run: chmod go-w {shlex.quote(str(file))}"
    assert os.system(error.remedy.removeprefix("run: ")) == 0
    require_trusted_writers(file, "config")


@pytest.mark.parametrize("mode", [0o702, 0o757, 0o777, 0o2777])
def test_folder_that_everybody_may_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)

    error = refused(file)

    assert error.remedy == f"run: chmod go-w {shlex.quote(str(file.parent))}"
    assert os.system(error.remedy.removeprefix("run: ")) == 0
    require_trusted_writers(file, "config")


def test_sticky_folder_is_taken_without_files_others_may_write(file: Path) -> None:
    file.parent.chmod(0o1777)
    require_trusted_writers(file, "config")

    file.chmod(0o666)

    assert str(file) in refused(file).message


def group_of(monkeypatch: pytest.MonkeyPatch, members: list[str], also_primary: bool) -> None:
    """The folder's group is this user's own, with these members; another user may have it as his own too."""
    me = pwd.getpwuid(os.geteuid())
    other = pwd.struct_passwd(("other", "x", 4242, me.pw_gid if also_primary else 4242, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [me, other])
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("own", "x", gid, members)))


def test_a_folder_of_a_group_with_nobody_else_in_it_is_taken(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(file.parent, -1, pwd.getpwuid(os.geteuid()).pw_gid)
    file.parent.chmod(0o775)
    group_of(monkeypatch, [pwd.getpwuid(os.geteuid()).pw_name], also_primary=False)
    require_trusted_writers(file, "config")


@pytest.mark.parametrize(("members", "also_primary"), [(["other"], False), ([], True)])
def test_a_folder_of_a_group_with_others_in_it_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], also_primary: bool
) -> None:
    os.chown(file.parent, -1, pwd.getpwuid(os.geteuid()).pw_gid)
    file.parent.chmod(0o775)

    group_of(monkeypatch, members, also_primary)

    assert str(file.parent) in refused(file).message


def test_folder_of_a_foreign_group_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.chmod(0o775)
    me = pwd.getpwuid(os.geteuid())

    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd((*me[:3], me.pw_gid + 1, *me[4:])))

    assert str(file.parent) in refused(file).message


def test_a_file_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(file, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)

    error = refused(file)

    assert "another user" in error.message
    assert "copy" in error.remedy


def test_the_folder_of_a_link_counts_like_that_of_its_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "open" / "trimtab.toml"
    link.parent.mkdir()
    link.symlink_to(file)
    require_trusted_writers(link, "config")

    link.parent.chmod(0o777)

    assert str(link.parent) in refused(link).message
    link.parent.chmod(0o755)
    file.parent.chmod(0o777)
    assert str(file.parent) in refused(link).message


def test_a_config_that_others_may_write_is_not_read(file: Path) -> None:
    file.chmod(0o666)

    with raises_field("config"):
        load_config(file)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o444])
def test_a_config_that_others_may_read_is_made_private(tmp_path: Path, mode: int) -> None:
    path = agents.config(tmp_path)
    path.chmod(mode)

    load_config(path, checks_permissions=False)

    assert path.stat().st_mode & 0o777 == mode, "a pause changes nothing"
    load_config(path)
    assert path.stat().st_mode & 0o777 == mode & 0o700


def test_a_config_that_cannot_be_made_private_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError

    file.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)

    with raises_field("config") as caught:
        load_config(file)
    assert caught.value.remedy == f"run: chmod go-rwx {shlex.quote(str(file))}"
    assert "mode 0644" in caught.value.message


@pytest.mark.parametrize("name", ["trimtab.db", "trimtab.db-wal", "trimtab.db-shm"])
def test_store_that_others_may_read_is_made_private(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path / 'trimtab.db'}"
    first = open_store(url, 31337, WALLET)
    first.steps.begin("s", 1, "{}")  # its log stays while the store is open
    (tmp_path / name).chmod(0o644)

    open_store(url, 31337, WALLET).close()

    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    first.close()


@pytest.mark.parametrize("name", ["trimtab.db", "trimtab.db-wal", "trimtab.db-shm", "trimtab.db-journal"])
def test_store_that_others_may_write_is_not_opened(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path / 'trimtab.db'}"
    open_store(url, 31337, WALLET).close()
    path = tmp_path / name
    path.touch()
    path.chmod(0o666)

    with raises_field("store") as caught:
        open_store(url, 31337, WALLET)
    assert caught.value.remedy == f"run: chmod go-w {shlex.quote(str(path))}"


def test_no_store_is_made_in_a_folder_that_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match=r"folder.*store"):
        open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 31337, WALLET)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("umask", [0o002, 0o000])
def test_under_any_umask_our_own_files_are_taken_again(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 31337, WALLET).close()
    finally:
        os.umask(before)
