"""`mplp up`, `down`, `status` and `config`: the product on this machine as a whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic_settings import TomlConfigSettingsSource

from services.cli import frame
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The product on this machine.")

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of everything that is kept [default: .mplp].", show_default=False)]
MASK = "********"
#: A timer this late is worth a word: it fires within milliseconds when all is well.
OVERDUE_MS = 2000


@app.command()
@frame.command
async def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready; `mplp down` stops it.")] = False,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port of the gateway; 0: any free one.")] = None,
    kafka_port: Annotated[int | None, typer.Option("--kafka-port", min=0, max=65535, help="Port of Kafka; 0: any free one.")] = None,
    cores: Annotated[int | None, typer.Option("--cores", min=1, max=64, help="Core processes; they share the partitions.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, max=64, help="Worker processes; they share the partitions.")] = None,
    data: DataOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Start everything on this machine and supervise it; says `ready` when everything answers. Ctrl-C stops all."""
    from services.processes.supervisor import Supervisor
    from services.processes.supervisor_detached import start_detached

    _quiet_clients()
    settings = _settings(http_port=port, kafka_port=kafka_port, cores=cores, workers=workers, data_dir=data)

    def on_ready(run_info: Mapping[str, Any]) -> None:
        frame.say({"status": "ready", **run_info}, as_json=as_json, text=lambda: _ready_text(run_info))

    if detach:
        on_ready(await asyncio.to_thread(start_detached, settings, frame.progress))
    else:
        await Supervisor(settings, frame.progress).run(on_ready)


@app.command()
@frame.command
async def down(data: DataOption = None, as_json: frame.JsonFlag = False) -> None:
    """Stop what `mplp up` started; returns when no process of it is left."""
    from services.processes.supervisor_detached import stop_running

    settings = _settings(data_dir=data)
    stopped = await asyncio.to_thread(stop_running, settings)
    text = f"stopped, {len(stopped)} processes" if stopped else f"nothing runs on {settings.data_dir}"
    frame.say({"stopped": bool(stopped), "pids": stopped}, as_json=as_json, text=text)


@app.command()
@frame.command
async def status(data: DataOption = None, as_json: frame.JsonFlag = False) -> None:
    """Processes, Kafka, ClickHouse and lag. Exit code 0 if all is ready, 1 if something is not, 3 if nothing runs."""
    from services.processes.status import system_status

    _quiet_clients()
    seen = await system_status(_settings(data_dir=data))
    frame.say(seen, as_json=as_json, text=lambda: _status_text(seen))
    if seen["status"] != "ready":
        raise typer.Exit(frame.EXIT_UNREACHABLE if seen["status"] == "stopped" else frame.EXIT_REFUSED)


@app.command()
@frame.command
async def config(as_json: frame.JsonFlag = False) -> None:
    """List every setting with its value, where that comes from, and what it is for. Secrets are masked."""
    rows = effective_settings()
    frame.say(
        rows,
        as_json=as_json,
        text=lambda: frame.table(
            [(row["environment"], row["value"], row["source"], row["description"]) for row in rows],
            ("setting", "value", "source", "meaning"),
        ),
    )


def effective_settings() -> list[dict[str, Any]]:
    """Each setting: `name`, `environment` (variable), `value`, `source` (environment, mplp.toml, default), `default`, `description`."""
    settings = Settings()
    in_file = TomlConfigSettingsSource(Settings)()
    environment = {name.upper() for name in os.environ}
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"MPLP_{name.upper()}"
        source = "environment" if variable in environment else "mplp.toml" if name in in_file else "default"
        rows.append(
            {
                "name": name,
                "environment": variable,
                "value": _shown(getattr(settings, name)),
                "source": source,
                "default": _shown(field.default),
                "description": field.description,
            }
        )
    return rows


def _settings(**given: Any) -> Settings:
    """The settings, with the options that were given on top."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _quiet_clients() -> None:
    """A broker that does not answer is in our own words; the client library's lines beside them only confuse."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    return str(value) if isinstance(value, Path) else value


def _ready_text(run_info: Mapping[str, Any]) -> str:
    return f"ready\n  gateway  {run_info['http']}\n  kafka    {run_info['kafka']}\n  data     {run_info['data_dir']}"


def _status_text(seen: Mapping[str, Any]) -> str:
    servers = [(name, "", seen[name]["status"]) for name in ("kafka", "clickhouse", "gateway")]
    processes = [(process["name"], process["pid"], process["status"]) for process in seen["processes"]]
    parts = [seen["status"], frame.table([*servers, *processes], ("what", "pid", "status"))]
    if work := seen["work"]:
        overdue = f", a timer is {work['overdue_ms']} ms late" if work.get("overdue_ms", 0) > OVERDUE_MS else ", no timer is late"
        parts.append(f"{work.get('workflow', 0)} executions in memory, {work.get('waiting', 0)} inputs wait{overdue}")
    if seen["lag"]:
        lag = [(group, topic, count) for group, topics in seen["lag"].items() for topic, count in topics.items()]
        parts.append(frame.table(lag, ("group", "topic", "records behind")))
    if seen["routes"]:
        routes = [
            (name, each["records"], f"{each['seconds']:.1f}", each["parked"], "down" if each["down"] else "")
            for name, each in seen["routes"].items()
        ]
        parts.append(frame.table(routes, ("route", "records behind", "seconds", "keys parked", "destination")))
    return "\n\n".join(parts)
