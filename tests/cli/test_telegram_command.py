"""`trimtab telegram` as a process: killed and restarted it repeats nothing, and its token is nowhere to be read."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.wiring import open_store_offline
from tests.cli.tools import TRIMTAB
from tests.support.agents import config
from tests.support.commands.init import Bare
from tests.support.telegram_server import TOKEN, BotApi, bot_api
from tests.support.text import mentions

ME = 4711


def started(path: Path) -> subprocess.Popen[str]:
    command = [*TRIMTAB, "telegram", "--config", str(path)]
    environment = {**os.environ, "TRIMTAB_TELEGRAM": TOKEN}
    return subprocess.Popen(command, cwd=path.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def configured(folder: Path, api: BotApi) -> Path:
    path = config(folder)
    path.write_text(f'{path.read_text()}[telegram]\ntoken_env = "TRIMTAB_TELEGRAM"\nchats = [{ME}]\napi = "{api.url}"\npoll = "1s"\n')
    return path


@pytest.mark.slow
def test_restarted_pause__is_not_repeated_and_shows_no_token(tmp_path: Path) -> None:
    with bot_api() as api:
        path = configured(tmp_path, api)
        api.write(ME, "/pause")
        first = started(path)
        assert mentions(api.until(1)[0][1], "paused")
        first.kill()
        output = first.communicate(timeout=20)[0]
        with open_store_offline(load_config(path)) as (_, switch):
            assert switch.is_paused()
            switch.resume("the owner", 1)
        api.number -= 1
        api.write(ME, "/pause")  # the update that was handled, delivered again
        second = started(path)
        api.write(ME, "/help")
        assert "/status" in api.until(2)[1][1]
        second.send_signal(signal.SIGINT)
        output += second.communicate(timeout=20)[0]
        assert second.returncode == 130, output
        assert "requests that it queued stay" in output, output
        with open_store_offline(load_config(path)) as (_, switch):
            assert not switch.is_paused()
        assert len(api.sent) == 2
        assert TOKEN not in output
        assert TOKEN.split(":")[1] not in output


def test_without_its_settings_it_says_what_is_missing(bare: Bare, tmp_path: Path) -> None:
    result = bare("telegram", "--config", str(config(tmp_path, "plain")))
    assert result.code == 2
    assert mentions(result.err, "[telegram]", "docs/telegram.md")
