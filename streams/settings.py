"""All settings: environment `MPLP_*`, then `mplp.toml` in the working directory, then these defaults; `mplp config` lists them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from streams import limits
from streams.topics import TopicNames
from streams.webhooks.addresses import Network, parse_networks
from streams.webhooks.signing import keys_of

#: File in the data folder that says where the running product answers.
RUN_FILE = "run.json"


class Settings(BaseSettings):
    """Where everything is and how large it is. Unknown keys in `mplp.toml` are refused."""

    model_config = SettingsConfigDict(env_prefix="MPLP_", toml_file="mplp.toml", extra="forbid", frozen=True)

    kafka_bootstrap: str = Field("", description="Kafka servers, host:port, comma separated. Empty: the embedded broker.")
    kafka_port: int = Field(9092, ge=0, le=65535, description="Port of the embedded broker on loopback; 0: any free one.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN", description="SASL mechanism.")
    kafka_sasl_username: str = Field("", description="SASL user.")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    kafka_ca_file: str = Field("", description="PEM file of the authority that signed Kafka's certificate; empty: the system's.")
    replication_factor: int = Field(1, ge=1, description="Replicas of the topics that are created.")
    partitions: int = Field(4, ge=1, le=1000, description="Partitions of the topics; fixed when they are created.")
    topic_prefix: str = Field("mplp", pattern=r"^[A-Za-z0-9_-]+$", description="First part of the names of our topics.")
    schema_registry_url: str = Field("", description="A Confluent-compatible registry. Empty: the built-in one.")
    schemas_topic: str = Field("_schemas", pattern=r"^[A-Za-z0-9._-]{1,240}$", description="Topic of the built-in schema registry.")
    clickhouse_url: str = Field("", description="ClickHouse server, http(s)://host:port. Empty: embedded (chDB).")
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="ClickHouse password.")
    clickhouse_ca_file: str = Field("", description="PEM file of the authority that signed ClickHouse's certificate; empty: the system's.")
    clickhouse_cluster: str = Field(
        "", pattern=r"^[A-Za-z0-9_.-]*$",
        description="Cluster of ClickHouse servers (one shard) that the history is replicated on. Empty: one server.",
    )  # fmt: skip
    clickhouse_database: str = Field("mplp", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="ClickHouse database.")
    query_seconds: int = Field(limits.QUERY_SECONDS_MAX, ge=1, le=3600, description="How long a query may take, seconds.")
    query_memory_bytes: int = Field(limits.QUERY_MEMORY_BYTES_MAX, ge=2**20, description="Memory that a query may use, bytes.")
    query_rows: int = Field(limits.QUERY_ROWS_MAX, ge=1, description="Rows that a query may answer with.")
    query_result_bytes: int = Field(limits.QUERY_RESULT_BYTES_MAX, ge=2**10, description="Size of a query's answer, bytes.")
    query_rows_read: int = Field(limits.QUERY_ROWS_READ_MAX, ge=1, description="Rows that a query may read.")
    query_concurrency: int = Field(limits.QUERIES_MAX, ge=1, le=64, description="Queries at a time; more wait up to 10 s for one to end.")
    history_retention: str = Field(
        "",
        description="How long the history keeps rows: table=duration, comma separated (system_events=400d, deliveries=90d). "
        "A table that is not named keeps them for ever.",
    )
    queries_dir: str = Field("", description="Folder of your own saved queries, `*.sql`. Empty: only the ready ones.")
    data_dir: Path = Field(Path(".mplp"), description="Folder of the embedded Kafka, ClickHouse and run.json.")
    http_host: str = Field("127.0.0.1", description="Address of the gateway.")
    http_port: int = Field(8700, ge=0, le=65535, description="Port of the gateway; 0: any free one.")
    api_keys: SecretStr = Field(
        SecretStr(""), description="Keys for the gateway, name:role:sha256-of-key, comma separated. Needed beyond loopback."
    )
    api_key: SecretStr = Field(SecretStr(""), description="Key that commands and `streams.connect` show to the gateway.")
    cores: int = Field(1, ge=1, le=64, description="Core processes of `mplp up`; they share the partitions.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes of `mplp up`; they share the partitions.")
    group_session_timeout_ms: int = Field(6000, ge=1000, description="A silent process loses its partitions after this time.")
    checkpoint_records: int = Field(
        limits.CHECKPOINT_RECORDS, ge=1, description="Log records after which the owner of a partition writes a checkpoint."
    )
    checkpoint_interval_ms: int = Field(
        limits.CHECKPOINT_INTERVAL_MS, ge=100, description="Time after which it writes one if anything changed, milliseconds."
    )
    deduplication_window_ms: int = Field(
        limits.DEDUPLICATION_WINDOW_MS, ge=60_000,
        description="How long an execution that ended takes commands, and a repeated start is recognised, milliseconds.",
    )  # fmt: skip
    live_state_bytes: int = Field(
        limits.LIVE_STATE_BYTES, ge=0,
        description="States of a partition's modules that stay in memory though nothing happens to them, bytes as they are written.",
    )  # fmt: skip
    module_concurrency: int = Field(16, ge=1, le=1000, description="Requests that a process of a user's module works on at a time.")
    module_drain_ms: int = Field(
        10_000, ge=0, description="How long a process of a user's module that was told to end lets running requests go on, milliseconds."
    )
    extensions: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether `mplp up` runs the host of extensions; auto: if a package in mplp.extensions is installed.",
    )
    extension_memory_bytes: int = Field(512 * 2**20, ge=64 * 2**20, description="Memory that one extension may allocate, bytes (Linux).")
    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs webhooks (HMAC-SHA256): text, or whsec_ and base64; several, the current one first. Empty: they are not signed.",
    )
    webhook_networks: str = Field(
        "", description="Networks (CIDR, comma separated) that webhooks may go to although they are private, also by http."
    )
    webhook_ca_file: str = Field("", description="PEM file of further authorities that webhooks trust.")
    webhook_timeout_ms: int = Field(10_000, ge=100, le=60_000, description="How long one attempt at a webhook may take, milliseconds.")
    webhook_attempts: int = Field(8, ge=1, le=50, description="Attempts at a webhook before it goes to the dead letters.")
    webhook_retry_ms: int = Field(
        500, ge=10, le=60_000, description="Wait after the first failed attempt; three times as long after each further one, at most 5 min."
    )
    webhook_concurrency: int = Field(8, ge=1, le=256, description="Calls to one destination at a time, per worker.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level of the processes' own logs.")

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _are_keys(cls, value: SecretStr) -> SecretStr:
        keys_of(value.get_secret_value())
        return value

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource, file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Arguments win over the environment, the environment over `mplp.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def names(self) -> TopicNames:
        """Names of the topics on the broker."""
        return TopicNames(self.topic_prefix)

    def run_info(self) -> dict[str, Any]:
        """What the running `mplp up` wrote to `<data_dir>/run.json`; empty if there is none or it is broken."""
        try:
            content = json.loads((self.data_dir / RUN_FILE).read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def webhook_allowed(self) -> tuple[Network, ...]:
        """Networks that webhooks may go to besides public ones: as set, else as the running `mplp up` has it."""
        return parse_networks(self.webhook_networks or str(self.run_info().get("webhook_networks", "")))

    def bootstrap_servers(self) -> str:
        """Kafka's address: as set, else where the running `mplp up` has it, else the default port on loopback."""
        return self.kafka_bootstrap or str(self.run_info().get("kafka", "")) or f"127.0.0.1:{self.kafka_port or 9092}"

    def http_url(self) -> str:
        """The gateway's address, without a trailing slash: of the running `mplp up`, else as set."""
        return str(self.run_info().get("http", "")) or f"http://{self.http_host}:{self.http_port or 8700}"
