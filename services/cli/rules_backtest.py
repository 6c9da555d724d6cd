"""`mplp rules backtest`: what rules would have said of the stored history."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from services.cli import frame
from services.cli.rules_options import load
from streams.bus.bus import connect
from streams.bus.validate import parse_time
from streams.codec.avro import to_json
from streams.correlation import control
from streams.correlation.backtesting import Progress, Running, Summary, chosen
from streams.correlation.sentences import ago
from streams.durations import parse_duration_ms
from streams.errors import BackboneError, InvalidInput
from streams.records import Json, iso, now

#: Seconds between two lines of progress.
_PROGRESS_S = 1.0


@frame.command
async def backtest_rules(
    rules: Annotated[
        list[str], typer.Argument(metavar="RULE…", help="Files of rules, or ids of rules in force; - is stdin.", show_default=False)
    ],
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Begin: a time, or a duration back from now, e.g. 24h.", show_default=False)
    ],
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, exclusive; default: now.", show_default=False)] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Run rules over the stored history, by event time; nothing is emitted. A summary per day and group; progress on stderr.

    With --json one object per composite on stdout, and the summary on stderr. Only records of the period take part: what began
    before it is not known, and what is open at its end is not said.
    """
    _settle_memory()
    try:
        async with connect() as bus:
            documents, ids = _given(rules)
            control.check(documents)
            asked, silent = chosen(documents, ids, await control.list_rules(bus))
            running = Running(bus, asked, _instant(since), _instant(until) if until else now(), silent=silent, progress=_Told())
            async for said in running.composites():
                if as_json:
                    frame.write(frame.json_text(to_json(said)))
    except BackboneError as error:
        frame.fail(error, as_json=False)  # stdout has composites and nothing else
    if as_json:
        frame.progress(frame.json_text(running.summary.to_dict()))
    else:
        frame.write("\n".join(lines(running.summary)))


def _settle_memory() -> None:
    """What a backtest keeps has no cycles: walks over millions of records that find none would cost a tenth of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _given(rules: Sequence[str]) -> tuple[list[Json], list[str]]:
    """The documents of what are files, and the ids."""
    files = [name for name in rules if name == "-" or "/" in name or "." in name or Path(name).is_file()]
    return [document for name in files for document in load(Path(name))], [name for name in rules if name not in files]


def _instant(text: str) -> datetime:
    """A time, or a duration back from now. Raises `InvalidInput` (`time.invalid`)."""
    try:
        return parse_time(text)
    except InvalidInput:
        try:
            return now() - timedelta(milliseconds=parse_duration_ms(text))
        except (InvalidInput, OverflowError):
            raise InvalidInput("time.invalid", f"{text!r} is neither a time (2026-01-31T12:00:00Z) nor a duration (24h).") from None


class _Told:
    """Tells how far it is, not too often."""

    def __init__(self) -> None:
        self._told_s = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.seconds - self._told_s >= _PROGRESS_S:
            self._told_s = progress.seconds
            share = 100 * progress.read // max(progress.of, 1)
            left = "" if progress.left_s is None else f", {ago(int(progress.left_s * 1e6))} left"
            frame.progress(f"{progress.read:,} of {progress.of:,} records ({share} %), {progress.per_second:,.0f}/s{left}")


def lines(summary: Summary) -> Iterator[str]:
    """What a person reads: what was looked at, then per rule the days and the groups."""
    rate = f" ({summary.read / summary.seconds:,.0f}/s)" if summary.seconds else ""
    yield (
        f"{iso(summary.since)} to {iso(summary.until)}: {summary.looked_at:,} records, of which {summary.read:,} could matter; "
        f"{summary.seconds:.1f} s{rate}"
    )
    for rule_id, rule in summary.rules.items():
        yield ""
        yield f"{rule_id}: {rule.composites:,} composite{'' if rule.composites == 1 else 's'} of {rule.matched:,} matched records" + (
            f"; an expression failed on {rule.errors:,}" if rule.errors else ""
        )
        told = rule.to_dict()
        yield from (f"  {day}  {count:,}" for day, count in told["days"].items())
        if told["groups"]:
            shown = f", the {len(told['groups'])} with most" if len(rule.groups) > len(told["groups"]) else ""
            yield f"  by group{shown}:"
            yield from (f"    {each['composites']:,}  {each['group']}" for each in told["groups"])
