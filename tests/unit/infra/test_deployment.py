"""The container files hold together: valid shapes, pinned images, and every setting, module, command and file that they name exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from services.cli.main import ENTRIES, load
from services.gateway.keys import check_bind, parse_keys
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("init", "core", "worker", "gateway")
#: What a user has to export before `docker compose up`.
EXPORTED = {"MPLP_CLICKHOUSE_PASSWORD": "secret", "MPLP_API_KEYS": "me:admin:" + "0" * 64}

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
_COMMAND = {"type": "array", "items": _TEXT, "minItems": 1}
_SERVICE = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9/-]+:\d+(\.\d+)+$"},  # a full version, never `latest`
        "build": _TEXT,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "command": _COMMAND,
        "environment": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},  # only to this machine
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/[a-z/]+$"}},
        "ulimits": {"type": "object", "additionalProperties": {"type": "integer"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {"condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}},
            },
        },
        "healthcheck": {
            "type": "object",
            "required": ["test", "interval", "timeout", "retries"],
            "additionalProperties": False,
            "properties": {"test": _COMMAND, "interval": _DURATION, "timeout": _DURATION, "retries": {"type": "integer", "minimum": 1}},
        },
    },
}
_COMPOSE = {
    "type": "object",
    "required": ["services"],
    "additionalProperties": False,
    "properties": {
        "name": _TEXT,
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
    "patternProperties": {"^x-": True},
}


def environment_of(service: str) -> dict[str, str]:
    """A service's variables as compose would fill them in; a variable that the user must export and we do not know fails."""

    def filled(match: re.Match[str]) -> str:
        return EXPORTED[match["name"]]

    pattern = re.compile(r"\$\{(?P<name>\w+)(:\?[^}]*)?\}")
    return {name: pattern.sub(filled, str(value)) for name, value in SERVICES[service]["environment"].items()}


def test_compose_file_has_a_valid_shape() -> None:
    jsonschema_rs.validate(_COMPOSE, COMPOSE)


def test_dependencies_can_be_fulfilled() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, f"{name} depends on {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], f"{name} waits for the health of {needed}, which has no check"
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[needed]["restart"] == "no", f"{needed} never completes"
    volumes = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert volumes == set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", OURS)
def test_every_setting_exists_and_is_valid(service: str) -> None:
    environment = environment_of(service)
    known = {f"MPLP_{name.upper()}": name for name in Settings.model_fields}
    assert set(environment) <= set(known)
    settings = Settings(**{known[variable]: value for variable, value in environment.items()})
    assert settings.kafka_bootstrap.split(":")[0] in SERVICES
    assert settings.clickhouse_url.startswith("http://clickhouse:")
    assert settings.clickhouse_user == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    assert settings.clickhouse_database == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_DB"]


def test_all_processes_agree_on_what_they_share() -> None:
    shared = [
        {name: value for name, value in environment_of(service).items() if "HTTP" not in name and "KEYS" not in name} for service in OURS
    ]
    assert all(settings == shared[0] for settings in shared)


def test_the_gateway_is_reachable_and_guarded() -> None:
    environment = environment_of("gateway")
    assert SERVICES["gateway"]["ports"] == [f"127.0.0.1:{environment['MPLP_HTTP_PORT']}:{environment['MPLP_HTTP_PORT']}"]
    check_bind(environment["MPLP_HTTP_HOST"], parse_keys(environment["MPLP_API_KEYS"]))


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(service: str) -> None:
    command = SERVICES[service]["command"]
    if command[0] == "mplp":
        name, *rest = command[1:]
        found = load(name)
        if ENTRIES[name].noun:
            assert rest[0] in found.commands  # type: ignore[union-attr]
    else:
        assert command[:2] == ["python", "-m"]
        spec = importlib.util.find_spec(command[2])
        assert spec is not None
        assert spec.origin is not None
        assert "def main()" in Path(spec.origin).read_text()


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments dropped."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def test_dockerfile_is_sane() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "CMD"}
    found = instructions()
    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= known
    assert all(re.match(r"python:\d+\.\d+\.\d+-slim( AS [a-z]+)?$", value) for name, value in found if name == "FROM")
    assert [value for name, value in found if name == "USER"][-1] not in ("root", "0"), "the processes need no root"


def test_dockerfile_copies_what_is_there_and_what_the_build_needs() -> None:
    sources = [
        source
        for name, value in instructions()
        if name == "COPY" and "--from" not in value
        for source in shlex.split(value)[:-1]
    ]  # fmt: skip
    assert all((ROOT / source).exists() for source in sources)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == allowed, ".dockerignore lets through exactly what is copied"
    packages = {"streams", "services", "infra", "schemas"}
    assert packages <= set(sources)


def test_the_image_has_the_python_that_the_project_supports() -> None:
    from packaging.specifiers import SpecifierSet

    requires = re.search(r'requires-python = "([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert requires is not None
    versions = re.findall(r"FROM python:(\d+\.\d+\.\d+)", (ROOT / "Dockerfile").read_text())
    assert versions
    assert all(version in SpecifierSet(requires[1]) for version in versions)
