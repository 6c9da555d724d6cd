"""Which topic the rows of a partition are of. A topic that is deleted and made again under its name begins at offset 0 as another one.

The tables know a row's place by its topic's name, so the rows of the earlier topic must not keep it: they go on under the name with the
beginning of that topic's identity behind it (`mplp.system.events@1f0c2ab4`), and the new topic is filled in from its own offset 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from clickhouse_connect.driver.client import Client

from services.history.cluster import for_cluster
from services.history.copying import ALLOW_TIMES, columns_of, listed
from services.history.insert import quoted
from services.history.made import make
from services.history.ports import Incarnation
from services.history.tables import all_tables

Place = tuple[str, int]  #: topic (logical name), partition

_TABLE = """CREATE TABLE IF NOT EXISTS incarnations
(topic String, partition Int32, topic_id String, number UInt32, at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = MergeTree ORDER BY (topic, partition, number) SETTINGS non_replicated_deduplication_window = 1000"""
#: Moved rows are found by their offsets, so that a move that was cut off can go on; nothing is taken for a repeat.
_MOVE_SETTINGS = "async_insert = 0, insert_deduplicate = 0, max_execution_time = 0"


def create(client: Client, cluster: str) -> None:
    """Makes the table of them."""
    make(client, _TABLE, cluster)


def read(client: Client, places: Collection[Place]) -> dict[Place, Incarnation]:
    """The latest of each place."""
    rows = client.query(
        "SELECT topic, partition, argMax(topic_id, number), max(number) AS latest FROM incarnations "
        "WHERE topic IN {topics:Array(String)} GROUP BY topic, partition",
        parameters={"topics": sorted({topic for topic, _ in places})},
    ).result_rows
    found = {(str(topic), int(partition)): Incarnation(topic_id=str(id_), number=int(number)) for topic, partition, id_, number in rows}
    return {place: found[place] for place in places if place in found}


def note(client: Client, incarnations: Mapping[Place, Incarnation]) -> None:
    """Notes which topic the rows of places are of. A repeat, also by another process, changes nothing that counts."""
    values = ", ".join(
        f"({quoted(topic)}, {partition}, {quoted(one.topic_id)}, {one.number})" for (topic, partition), one in sorted(incarnations.items())
    )
    client.command(f"INSERT INTO incarnations (topic, partition, topic_id, number) SETTINGS async_insert = 0 VALUES {values}")


def name_aside(topic: str, incarnation: Incarnation) -> str:
    """Under which the rows of an earlier topic of that name are kept."""
    return f"{topic}@{incarnation.topic_id[:8]}"


def set_aside(client: Client, place: Place, incarnation: Incarnation, cluster: str) -> str:
    """Moves the rows of a place to another name, and returns that. Cut off at any moment, it goes on where it was when it is run again."""
    topic, partition = place
    aside = name_aside(topic, incarnation)
    for table in all_tables():
        here = f"_topic = {quoted(topic)} AND _partition = {partition}"
        moved = f"SELECT _offset FROM {table} WHERE _topic = {quoted(aside)} AND _partition = {partition}"
        columns = [str(name) for (name,) in client.query(columns_of(table)).result_rows if name != "_topic"]
        if not int(client.query(f"SELECT count() FROM {table} WHERE {here}").result_rows[0][0]):
            continue
        client.command(
            f"INSERT INTO {table} (_topic, {listed(columns)}) SETTINGS {_MOVE_SETTINGS}, {ALLOW_TIMES} "
            f"SELECT {quoted(aside)}, * FROM (SELECT {listed(columns)} FROM {table} WHERE {here} AND _offset NOT IN ({moved}))"
        )
        client.command(for_cluster(f"ALTER TABLE {table} DELETE WHERE {here} SETTINGS mutations_sync = 2", cluster))
    return aside
