"""The example of a cluster holds together: its compose file, what ClickHouse is told, and the settings of our processes agree."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from services.history.cluster import for_cluster
from services.history.migrate import migrations
from streams.settings import Settings
from tests.unit.infra import test_deployment as single

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "cluster"
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CLICKHOUSE = xml.fromstring((FOLDER / "clickhouse-cluster.xml").read_text())
CLICKHOUSES = [name for name in SERVICES if name.startswith("clickhouse-")]
KAFKAS = [name for name in SERVICES if name.startswith("kafka-")]
OURS = [name for name in SERVICES if name.split("-")[0] in ("init", "core", "worker", "gateway")]


def filled(service: str) -> dict[str, str]:
    """A service's variables as compose would fill them in."""
    pattern = re.compile(r"\$\{(?P<name>\w+)(:\?[^}]*)?\}")
    variables = SERVICES[service]["environment"].items()
    return {name: pattern.sub(lambda found: single.EXPORTED[found["name"]], str(value)) for name, value in variables}


def settings_of(service: str) -> Settings:
    known = {f"MPLP_{name.upper()}": name for name in Settings.model_fields}
    assert set(filled(service)) <= set(known)
    return Settings(**{known[variable]: value for variable, value in filled(service).items()})


def texts(path: str) -> list[str]:
    return [element.text or "" for element in CLICKHOUSE.findall(path)]


def test_the_compose_file_has_a_valid_shape_and_its_dependencies_can_be_fulfilled() -> None:
    service = {**single._SERVICE, "properties": dict(single._SERVICE["properties"])}
    mounts = {"type": "string", "pattern": r"^([a-z]+-\d:/[a-z/]+|\./[a-z.-]+:/[a-z/.-]+:ro)$"}
    service["properties"]["volumes"] = {"type": "array", "items": mounts}
    shape = {**single._COMPOSE, "properties": {**single._COMPOSE["properties"]}}
    shape["properties"]["services"] = {"type": "object", "additionalProperties": service}
    jsonschema_rs.validate(shape, COMPOSE)
    volumes = set()
    for name, each in SERVICES.items():
        for needed, how in each.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[needed] or how["condition"] == "service_completed_successfully", (name, needed)
        for volume in each.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (FOLDER / source).exists()
            else:
                assert source not in volumes, "nothing is shared by two servers"
                volumes.add(source)
    assert volumes == set(COMPOSE["volumes"])


def test_the_images_and_the_build_are_those_of_the_smallest_cluster() -> None:
    pinned = {service["image"] for service in single.SERVICES.values()}
    assert {service["image"] for service in SERVICES.values()} == pinned
    assert {(FOLDER / SERVICES[name]["build"]).resolve() for name in OURS} == {single.ROOT}


@pytest.mark.parametrize("service", OURS)
def test_settings_are_valid_and_name_what_is_there(service: str) -> None:
    settings = settings_of(service)
    assert [server.split(":")[0] for server in settings.kafka_bootstrap.split(",")] == KAFKAS
    assert settings.replication_factor == len(KAFKAS)
    assert settings.clickhouse_url.removeprefix("http://").removesuffix(":8123") in CLICKHOUSES
    assert settings.clickhouse_user == SERVICES["clickhouse-1"]["environment"]["CLICKHOUSE_USER"]
    assert filled(service)["MPLP_CLICKHOUSE_PASSWORD"] == filled("clickhouse-1")["CLICKHOUSE_PASSWORD"]
    command = SERVICES[service]["command"]
    assert command == ["mplp", "topics", "apply"] or importlib.util.find_spec(command[2]) is not None


def test_gateways_differ_in_their_server_and_agree_in_the_rest() -> None:
    one, other = (settings_of(name) for name in OURS if name.startswith("gateway-"))
    assert one.clickhouse_url != other.clickhouse_url
    assert one == other.model_copy(update={"clickhouse_url": one.clickhouse_url})
    ports = [port for name in OURS for port in SERVICES[name].get("ports", ())]
    assert len({port.split(":")[1] for port in ports}) == len(ports) == 2
    assert {port.split(":")[2] for port in ports} == {str(one.http_port)}


def test_brokers_know_each_other_and_lose_nothing_with_one_of_them() -> None:
    voters = {f"{filled(name)['KAFKA_NODE_ID']}@{name}:9093" for name in KAFKAS}
    for name in KAFKAS:
        environment = filled(name)
        assert set(environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")) == voters
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"INTERNAL://{name}:19092"
        assert 1 < int(environment["KAFKA_MIN_INSYNC_REPLICAS"]) < int(environment["KAFKA_DEFAULT_REPLICATION_FACTOR"]) <= len(KAFKAS)
    single_node = set(single.SERVICES["kafka"]["environment"]) - {"KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS"}
    assert single_node <= set(SERVICES["kafka-1"]["environment"]), "what one broker needs, three need, too"


def test_clickhouse_is_one_shard_whose_replicas_and_keepers_are_the_servers() -> None:
    cluster = settings_of("gateway-1").clickhouse_cluster
    assert [element.tag for element in CLICKHOUSE.findall("remote_servers/*")] == [cluster]
    assert len(CLICKHOUSE.findall(f"remote_servers/{cluster}/shard")) == 1, "the history is on one shard"
    assert texts(f"remote_servers/{cluster}/shard/internal_replication") == ["true"], "an insert goes to one, the others fetch it"
    for path in (f"remote_servers/{cluster}/shard/replica/host", "zookeeper/node/host", "keeper_server/raft_configuration/server/hostname"):
        assert texts(path) == CLICKHOUSES
    assert set(texts("zookeeper/node/port")) == {CLICKHOUSE.findtext("keeper_server/tcp_port")}
    numbers = [filled(name)["NODE_NUMBER"] for name in CLICKHOUSES]
    assert texts("keeper_server/raft_configuration/server/id") == numbers
    assert len(CLICKHOUSES) % 2 == 1 and len(CLICKHOUSES) >= 3, "a majority is left when one is lost"  # noqa: PT018
    variables = {element.get("from_env") for element in CLICKHOUSE.iter() if element.get("from_env")}
    for name in CLICKHOUSES:
        assert variables <= set(filled(name))
        assert filled(name)["NODE_NAME"] == name
        assert any(volume.startswith("./clickhouse-cluster.xml:/etc/clickhouse-server/config.d/") for volume in SERVICES[name]["volumes"])


def test_every_table_of_the_history_is_replicated_there() -> None:
    cluster = settings_of("gateway-1").clickhouse_cluster
    created = [
        for_cluster(statement, cluster)
        for migration in migrations()
        for statement in migration.statements
        if re.match(r"(\s|--[^\n]*\n)*CREATE\s+TABLE", statement)
    ]
    assert created
    for statement in created:
        assert f"ON CLUSTER '{cluster}'" in statement
        assert re.search(r"ENGINE = Replicated\w*MergeTree", statement), statement
    # A replica takes its place in Keeper from the server's own settings: each table of each server must get another.
    path, name = CLICKHOUSE.findtext("default_replica_path") or "", CLICKHOUSE.findtext("default_replica_name") or ""
    assert "{uuid}" in path
    macros = {element.tag: element.get("from_env") or element.text for element in CLICKHOUSE.findall("macros/*")}
    assert macros[name.strip("{}")] == "NODE_NAME"
    assert set(re.findall(r"{(\w+)}", path)) <= {"uuid", *macros}
