"""Permission checks: files that decide over money, and their folders, must be writable by their owner alone."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

from agent.errors import ConfigError

_COMPANIONS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite reads beside its own."""


def require_private(path: Path, what: str, *, companions: bool = False) -> None:
    """Raise ConfigError, with the chmod that repairs it, if others may write `path` or its folder. `what` names it in the message.

    Like StrictModes of sshd: a file belongs to this user or root and is writable by its owner alone; so is its folder. A folder may be
    writable by a group that is the user's own and has no other members, since a umask of 002 creates such folders, and by everybody if it
    is sticky, like /tmp: there only owners remove files. With `companions` SQLite's own files beside it are checked too. A missing file
    passes.
    """
    names = (path, *(path.with_name(path.name + end) for end in _COMPANIONS if companions))
    for file in names:
        if (state := _state(file)) is not None:
            _require_owner(state, file, what)
            if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _writable(what, file, state)
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        if (state := _state(folder)) is not None:
            _require_owner(state, folder, f"the folder of {what}")
            if not _folder_is_ours(state):
                raise _writable(f"the folder of {what}", folder, state)


def _folder_is_ours(state: os.stat_result) -> bool:
    if state.st_mode & stat.S_ISVTX:
        return True
    if state.st_mode & stat.S_IWOTH:
        return False
    return not state.st_mode & stat.S_IWGRP or _alone_in(state.st_gid)


def _alone_in(gid: int) -> bool:
    """True if this user's own group has that number and no other members."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    others = [one.pw_name for one in pwd.getpwall() if one.pw_gid == gid and one.pw_uid != me.pw_uid]
    return me.pw_gid == gid and not others and set(group.gr_mem) <= {me.pw_name}


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # the reader reports the error
        return None


def _require_owner(state: os.stat_result, path: Path, what: str) -> None:
    if state.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{what}: {path} belongs to another user (uid {state.st_uid}), who can change it",
            "run as that user, or make a copy of your own",
        )


def _writable(what: str, path: Path, state: os.stat_result) -> ConfigError:
    mode = stat.S_IMODE(state.st_mode)
    return ConfigError(f"{what}: others than its owner may write {path} (mode {mode:04o})", f"run: chmod go-w {shlex.quote(str(path))}")
