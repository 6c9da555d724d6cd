"""`mplp topics`: the topics of the catalogue, and the schemas of their records."""

from __future__ import annotations

import typer

from services.cli import frame
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import CATALOGUE, TopicNames
from streams.topics_apply import AppliedTopics, TopicState, apply_topics, topic_states

app = typer.Typer(no_args_is_help=True, help="Create and verify the topics and schemas.")


@app.command()
@frame.command
async def apply(as_json: frame.JsonFlag = False) -> None:
    """Create what is missing, raise what is too small, register the schemas, and say what differs.

    Exit code 1 if a topic differs in what cannot be changed: its partitions or replicas.
    """
    applied = await apply_topics(Kafka(Settings()))
    frame.say(applied.to_dict(), as_json=as_json, text=lambda: _applied_text(applied))
    if applied.differences:
        raise typer.Exit(frame.EXIT_REFUSED)


def _applied_text(applied: AppliedTopics) -> str:
    lines = [f"created    {name}" for name in applied.created]
    lines += [f"unchanged  {name}" for name in applied.unchanged]
    lines += [f"changed    {found.topic}: {found.setting} was {found.actual}, is now {found.expected}" for found in applied.changed]
    lines += [f"differs    {found.topic}: {found.setting} is {found.actual}, expected {found.expected}" for found in applied.differences]
    lines.append(f"schemas    {len(applied.schemas)} subjects registered")
    return "\n".join(lines)


@app.command("list")
@frame.command
async def list_(as_json: frame.JsonFlag = False) -> None:
    """The topics of the catalogue with what the broker has of them."""
    settings = Settings()
    states = await topic_states(Kafka(settings))
    rows = _rows(states, settings.names)
    frame.say(rows, as_json=as_json, text=lambda: frame.table([list(row.values()) for row in rows], list(rows[0])))


def _rows(states: dict[str, TopicState], names: TopicNames) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for topic in CATALOGUE:
        name = names.physical(topic.name)
        state = states.get(name)
        rows.append(
            {
                "topic": name,
                "exists": state is not None,
                "partitions": state.partitions if state else 0,
                "records": state.records if state else 0,
                "cleanup": topic.cleanup,
                "key": topic.key,
                "types": ", ".join(record.__name__ for record in topic.records),
            }
        )
    return rows
