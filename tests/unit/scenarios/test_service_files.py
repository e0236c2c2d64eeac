"""Image and compose file: hardened, their commands exist, and the image's steps install trimtab, without docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from agent.errors import EXIT_USAGE
from tests.support.commands.checks import require_command

ROOT = Path(__file__).parents[3]
CONTAINER = ROOT / "deploy" / "Containerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
FLEET = ROOT / "deploy" / "fleet.yaml"


def test_a_command_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nowhere"):
        require_command(["run", "--nowhere"])


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in CONTAINER.read_text().splitlines() if not line.startswith("#")))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_the_container_runs_trimtab_itself_and_not_as_root() -> None:
    steps = instructions()
    last = dict(steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :])
    assert json.loads(last["ENTRYPOINT"]) == ["trimtab"], "the exec form: signals reach the program"
    require_command(json.loads(last["CMD"]))
    assert last["USER"].split(":")[0].isdecimal()
    assert int(last["USER"].split(":")[0]) > 0
    user, group = last["USER"].split(":")
    last_stage = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    instruction, adds_user = steps[last_stage + 1]
    assert instruction == "RUN"
    assert f"groupadd --system --gid {group} trimtab" in adds_user, "files of the volume belong to a group that exists"
    assert f"useradd --system --uid {user} --gid {group} " in adds_user
    assert last["STOPSIGNAL"] == "SIGTERM"
    program, *words = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    require_command(words)
    assert (program, words[0]) == ("trimtab", "health")
    assert words[words.index("--config") + 1] in json.loads(last["CMD"]), "the config of the run beside it"


def test_container__copies_what_is_there_and_no_secret() -> None:
    sent = [line[1:] for line in CONTAINER.with_name("Containerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, path) for path in sent), source
        assert name not in ("ADD", "ARG")
        assert "://" not in value
    assert any("--require-hashes" in value for _, value in instructions())


def test_compose_service__is_confined_and_only_the_run_has_keys() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"run", "serve", "telegram", "proxy"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "ports", "environment", "user"} & service.keys()
        assert ("keys.env" in service["env_file"]) is (name == "run")
        assert service.get("profiles", []) == ([name] if name in ("telegram", "proxy") else [])
        if name == "proxy":
            continue
        options = {"run": "--send --yes", "serve": "--proxy a.example --proxy-secret /data/proxy.secret"}.get(name, "")
        for extra in ("", options):
            words = shlex.split(re.sub(r"\$\{\w+:-\}", extra, service["command"]))
            assert words[:3] == [name, "--config", "/data/trimtab.toml"]
            require_command(words)
        assert service["volumes"] == ["./books:/data"]
        assert service["restart"] == "on-failure:5"
    assert "{env.TRIMTAB_PROXY_SECRET}" in (ROOT / "deploy" / "Caddyfile").read_text()


def test_wallets_service__is_confined_and_none_has_keys() -> None:
    services = yaml.safe_load(FLEET.read_text())["services"]
    assert set(services) == {"database", "worker-1", "worker-2", "serve", "node-exporter"}
    files_of_metrics = set()
    for name in ("worker-1", "worker-2", "serve"):
        service = services[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["env_file"] == ["endpoints.env", "agent.env"]
        words = shlex.split(re.sub(r"\$\{\w+:-\}", "", service["command"]))
        assert words[:3] == [name.partition("-")[0], "--config", "/data"]
        require_command(words)
        if words[0] == "worker":
            files_of_metrics.add(words[words.index("--metrics-file") + 1])
            assert "./metrics:/metrics" in service["volumes"]
    assert len(files_of_metrics) == 2, "each worker writes a file of its own"
    assert services["database"]["ports"] == ["127.0.0.1:5432:5432"], "no other machine reaches it"


@pytest.mark.slow
def test_the_steps_of_the_image_install_every_service(tmp_path: Path) -> None:
    """Its build stage, in a folder in place of the root; packages come from the index, by their hashes."""
    environment = {**os.environ}
    for name, value in instructions():
        text = re.sub(r"/(opt|src)\b", rf"{tmp_path}/\1", value)
        if name == "WORKDIR":
            (folder := Path(text)).mkdir()
        elif name == "ENV":
            environment |= dict(word.split("=") for word in shlex.split(text))
        elif name == "COPY":
            *sources, target = text.split()
            for source in (ROOT / source for source in sources):
                if source.is_dir():
                    shutil.copytree(source, folder / target)
                else:
                    (folder / target).mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, folder / target)
        elif name == "RUN":
            subprocess.run(["sh", "-euc", text], cwd=folder, env=environment, check=True)
        elif name == "FROM" and not value.endswith("AS build"):
            break
    program = tmp_path / "opt" / "trimtab" / "bin" / "trimtab"
    for command in ("run", "serve", "telegram", "health"):
        completed = subprocess.run([program, command, "--config", "none.toml"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (completed.returncode, "none.toml: no such file" in completed.stderr) == (EXIT_USAGE, True), completed.stderr
    subprocess.run([program.with_name("python"), "-c", "import fastapi, telegram, uvicorn"], check=True)
