"""`mplp workflow` without a server: definitions are checked and tried out under scenarios. `workflow.py` gives these their names."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import frame
from services.processes import offline
from streams.errors import InvalidDocument, InvalidInput
from streams.records import Json

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Workflow definition, JSON or YAML; - reads stdin.")]


@frame.command
async def validate(
    file: FileArgument,
    modules: Annotated[
        Path | None, typer.Option("--modules", metavar="FILE", help="More modules: name → list of operations (null: any), JSON or YAML.")
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Check a definition and list all its faults. Exit code 1 if there is one."""
    operations = {**offline.OPERATIONS, **(read_modules(modules) if modules else {})}
    try:
        faults = [fault.to_dict() for fault in offline.validate(offline.read_document(read_text(file)), operations)]
    except InvalidDocument as error:
        faults = [fault.to_dict() for fault in error.violations]
    except InvalidInput as error:
        faults = [{"code": error.code, "pointer": "", "message": error.message}]
    frame.say({"valid": not faults, "faults": faults}, as_json=as_json, text=lambda: _faults_text(file, faults))
    if faults:
        raise typer.Exit(frame.EXIT_REFUSED)


def _faults_text(file: Path, faults: list[dict[str, str]]) -> str:
    if not faults:
        return f"{file} is valid."
    lines = [f"{fault['code']:<24} {fault['pointer'] or '/'}\n    {fault['message']}" for fault in faults]
    return "\n".join([*lines, f"{file} has {len(faults)} fault{'s' if len(faults) > 1 else ''}."])


@frame.command
async def try_(
    file: FileArgument,
    scenario: Annotated[
        list[Path],
        typer.Option(
            "--scenario",
            metavar="SCENARIO",
            help="Input, answers of modules, commands at virtual times, what is expected; may be given many times.",
        ),
    ],
    coverage: Annotated[
        bool, typer.Option("--coverage", help="List the steps, branches, retries, fallbacks that no scenario took.")
    ] = False,
    fail_under: Annotated[
        float | None, typer.Option("--fail-under", metavar="PERCENT", min=0, max=100, help="Exit code 1 if less is covered.")
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Run a definition without servers, with a virtual clock. Exit code 1 if a scenario expected something else."""
    document = offline.read_document(read_text(file))
    trials = [(path, _trial(document, path)) for path in scenario]
    report = offline.measure(document, [trial for _, trial in trials]) if coverage or fail_under is not None else None
    frame.say(_trials_json(trials, report), as_json=as_json, text=lambda: _trials_text(trials, report))
    if fail_under is not None and report is not None and report["percent"] < fail_under:
        frame.progress(f"{report['percent']:g} % is covered; wanted are {fail_under:g} %.")
        raise typer.Exit(frame.EXIT_REFUSED)
    if not all(trial.passed for _, trial in trials):
        raise typer.Exit(frame.EXIT_REFUSED)


def _trial(document: Json, path: Path) -> offline.Trial:
    scenario = offline.read_document(read_text(path))
    try:
        return offline.run_trial(document, scenario)
    except InvalidDocument as error:
        if error.code != "scenario.invalid":
            raise
        raise InvalidDocument(error.code, f"{path}: {error.message}", error.violations) from error


def _trials_json(trials: list[tuple[Path, offline.Trial]], report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of one scenario its outcome; of several a list under `scenarios`, each with the name of its file."""
    if len(trials) == 1:
        found = dict(trials[0][1].outcome)
    else:
        found = {"scenarios": [{"scenario": str(path), **trial.outcome} for path, trial in trials]}
    return found if report is None else {**found, "coverage": report}


def _trials_text(trials: list[tuple[Path, offline.Trial]], report: Mapping[str, Any] | None) -> str:
    lines = []
    for path, trial in trials:
        if len(trials) == 1:
            lines += [offline.story(trial), ""]
        lines.append(offline.verdict(trial, str(path)))
        for difference in trial.outcome.get("differences", ()):
            expected, actual = frame.json_text(difference["expected"]), frame.json_text(difference["actual"])
            lines.append(f"    {difference['path'] or '/'}: expected {expected}, got {actual}")
    if len(trials) > 1:
        lines.append(f"{sum(trial.passed for _, trial in trials)} of {len(trials)} scenarios passed")
    if report is not None:
        lines += ["", offline.coverage_text(dict(report))]
    return "\n".join(lines)


def read_text(file: Path) -> str:
    """The text of a file, or of stdin for `-`. Raises `InvalidInput` (`file.unreadable`)."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("file.unreadable", f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def read_modules(file: Path) -> Mapping[str, Collection[str]]:
    """Operations by module from a file. Raises `InvalidInput` (`modules.invalid`)."""
    document = offline.read_document(read_text(file))
    if isinstance(document, dict) and set(document) == {"modules"}:
        document = document["modules"]
    if not isinstance(document, dict) or not all(
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)) for value in document.values()
    ):
        raise InvalidInput("modules.invalid", f"{file} is not a map of module names to lists of operations.")
    return {name: offline.AnyOperation() if value is None else tuple(value) for name, value in document.items()}


def read_definition(file: Path) -> offline.Definition:
    """The definition in a file, whatever modules it uses. Raises `InvalidDocument` with all faults."""
    return offline.parse(offline.read_document(read_text(file)), offline.AnyModule())
