"""The Faust app: made from settings, with the chunk transport, without tables, web server or topics of its own."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import faust
from faust.transport import drivers

from streams import limits
from streams.faust_app.prefix import Chunk
from streams.faust_app.transport import Consumer, PassThrough
from streams.settings import Settings

SCHEME = "mplp-chunk"
#: Seconds between commits of what is acknowledged; they only shorten what a successor reads again.
COMMIT_INTERVAL_S = 1.0
#: Bytes of one fetch of one partition.
FETCH_BYTES_MAX = 4 * 1024 * 1024

Handler = Callable[[Chunk], Awaitable[None]]


class App(faust.App):
    """A Faust app without tables, hence without a folder."""

    def _create_directories(self) -> None:
        """Nothing of ours lies on disk."""


def new_app(settings: Settings, *, group: str, instance: str | None = None, offset_reset: str = "earliest") -> App:
    """The app, not started. `group` is its consumer group; `instance` (unique, stable over restarts) makes membership static."""
    # Also where the distribution is not installed (its entry point does the same).
    drivers.TRANSPORTS.aliases.setdefault(SCHEME, "streams.faust_app.transport:Transport")
    session_s = settings.group_session_timeout_ms / 1000
    return App(
        group,
        broker=[f"{SCHEME}://{server.strip()}" for server in settings.bootstrap_servers().split(",")],
        broker_credentials=_credentials(settings),
        consumer_group_instance_id=instance,
        consumer_auto_offset_reset=offset_reset,
        consumer_max_fetch_size=max(FETCH_BYTES_MAX, limits.LOG_MESSAGE_BYTES_MAX),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=max(0.3, session_s / 4),
        broker_request_timeout=max(30.0, session_s + 1),
        broker_rebalance_timeout=max(60.0, 2 * session_s),  # see `streams.faust_app.consumer_thread.shows_membership`
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_max_poll_records=limits.CHUNK_RECORDS_MAX * limits.CHUNK_BACKLOG_MAX,
        stream_buffer_maxsize=2 * limits.CHUNK_RECORDS_MAX * limits.CHUNK_BACKLOG_MAX,  # never full: the consumer counts what is under way
        stream_wait_empty=False,  # what is unfinished at a rebalance is fetched again; its acknowledgement is dropped
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
        loghandlers=[],
        producer_acks=-1,
    )


def add_agent(app: App, topics: Sequence[str], handle: Handler, failed: Callable[[BaseException], None], name: str) -> None:
    """One Faust agent (concurrency 1) that gives each chunk of the topics (names on the broker) to `handle`, then acknowledges it.

    An exception acknowledges nothing: it is handed to `failed`, which must end the process, and the agent takes no further chunk.
    """
    channel = app.topic(
        *topics, schema=PassThrough(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"), internal=False
    )

    async def agent(stream: Any) -> None:
        async for chunk in stream.noack():
            try:
                await handle(chunk)
            except Exception as error:
                failed(error)
                raise
            consumer_of(app).acknowledge(chunk)

    app.agent(channel, name=name, concurrency=1)(agent)


def consumer_of(app: App) -> Consumer:
    """The app's consumer, which is always ours."""
    consumer = app.consumer
    assert isinstance(consumer, Consumer)
    return consumer


def _credentials(settings: Settings) -> Any:
    """What Faust needs for the protocol of the settings; None: neither TLS nor SASL."""
    protocol = settings.kafka_security_protocol
    context = ssl.create_default_context(cafile=settings.kafka_ca_file or None) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
