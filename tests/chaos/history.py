"""The history under fire: the sink's process is killed, stopped and continued, the broker restarted, the log of blocks lost, ClickHouse
away, a second gateway fights for the work, zombies write into the logs, all of it under load and while questions are asked. The tables
agree with an account kept outside of the product, and `history verify` says `exact`.

`make chaos-history`, or `python -m tests.chaos.history [--kills 50] [--seed N] [--faults zombie,…] [--server]`. With `--server` the
tables are on a ClickHouse server (the engine behind ClickHouse's HTTP protocol), and ClickHouse goes away, and a second gateway comes, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from streams.log.rule import FENCED, type_and_epoch
from streams.records import Block, Inserted
from streams.topics import BLOCKS
from tests.chaos.__main__ import say
from tests.chaos.history_stage import ANSWERS_S, Stage, places_twice, stage
from tests.chaos.history_traffic import GARBAGE, REPEAT, VOID, Traffic

#: What happens in a run, besides kills.
EMBEDDED, SERVER = ("zombie", "replay", "broker", "sleeper"), ("zombie", "replay", "broker", "away", "fight", "sleeper")
#: How long a stopped gateway sleeps, one that sleeps for longer than an insert may wait, and how long ClickHouse is away (seconds).
ASLEEP_S, LONG_S, AWAY_S = 9.0, 70.0, 60.0
#: Kills between two verifications.
VERIFY_EVERY = 10
#: How long a gateway lives at most that is killed while it starts, and one that has begun to answer, seconds.
YOUNG_S, WORKING_S = 4.0, 1.5
#: Rows of one answer.
PAGE = 20_000
RUNNING_INSERTS = "SELECT count() FROM system.processes WHERE query ILIKE '%INSERT INTO%' AND query NOT ILIKE '%system.processes%'"
IDS = "SELECT id, _partition AS p, _offset AS o FROM system_events WHERE source = 'chaos' AND (p, o) > {} ORDER BY p, o LIMIT {}"


@dataclass(slots=True)
class Fire:
    """What is done to a stage, and what was seen."""

    stage: Stage
    chance: random.Random
    away_s: float
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    cut: int = 0  #: blocks whose sink died between their decision and the note that they are in
    questions: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask_on(self) -> None:
        """Questions all the time: each makes the sink cut its blocks at once. No place may ever be there twice."""
        http = self.stage.gateway.http
        while not self.over.is_set():
            with contextlib.suppress(httpx.HTTPError):
                sql = places_twice() if self.questions % 10 == 0 else "SELECT count() FROM system_events"
                answer = await http.post("/v1/query", json={"sql": sql})
                if answer.status_code == httpx.codes.OK:
                    self.questions += 1
                    rows = answer.json()
                    twice = (rows if isinstance(rows, list) else rows["rows"])[0].get("twice", 0)
                    self.wrong += [f"{twice} rows are there twice, after {dict(self.done)}"] if twice else []
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def suffer(self, fault: str) -> None:
        """One fault, at a random moment."""
        gateway, server = self.stage.gateway, self.stage.server
        if self.chance.random() < 0.7:
            await gateway.rows("SELECT 1")
            await asyncio.sleep(self.chance.uniform(0.0, WORKING_S))
        else:
            await asyncio.sleep(self.chance.uniform(0.0, YOUNG_S))
        self.done[fault] += 1
        match fault:
            case "kill":
                await gateway.kill()
            case "zombie" | "sleeper":
                gateway.signal(signal.SIGSTOP)
                await asyncio.sleep(LONG_S if fault == "sleeper" else ASLEEP_S)
                gateway.signal(signal.SIGCONT)
            case "broker":
                await self.stage.restart_broker(self.chance.uniform(0.5, 5.0))
            case "replay":
                await self._lose_blocks()
            case "away":
                assert server is not None
                await server.kill()
                await asyncio.sleep(self.away_s)
                await server.start()
            case "fight":
                await self._fight()
            case _:
                raise SystemExit(f"There is no fault {fault}.")

    async def _lose_blocks(self) -> None:
        """The log of blocks is gone, and the sink dies: its successor knows only the tables, and offers them what they have."""
        kafka = self.stage.kafka
        topic = kafka.names.physical(BLOCKS)
        async with self.stage.gateway.down(), kafka.consumer() as consumer, kafka.admin() as admin:
            await self._count_cut()
            if self.stage.server is not None:
                await asyncio.to_thread(self._inserts_ended)
            ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(kafka.settings.partitions)])
            await admin.delete_records({tp: RecordsToDelete(before_offset=end) for tp, end in ends.items()})

    def _inserts_ended(self) -> None:
        """Without a log of blocks nobody knows of an insert that is still under way."""
        assert self.stage.server is not None
        client = self.stage.server.client()
        until_s = time.monotonic() + ANSWERS_S
        while client.query(RUNNING_INSERTS).result_rows[0][0]:
            if time.monotonic() > until_s:
                raise RuntimeError("An insert does not end.")
            time.sleep(0.1)
        client.close()

    async def _fight(self) -> None:
        """A second gateway takes a share; then the first is stopped until the other has all of it, and wakes up beside it."""
        gateway = self.stage.gateway
        async with self.stage.another() as other:
            await other.rows("SELECT 1")
            await asyncio.sleep(self.chance.uniform(0.0, 5.0))
            gateway.signal(signal.SIGSTOP)
            await asyncio.sleep(ASLEEP_S)
            gateway.signal(signal.SIGCONT)
            await asyncio.sleep(self.chance.uniform(0.0, 5.0))

    async def judge(self, after: str) -> dict[str, Any]:
        """A whole verification."""
        report = await self.stage.gateway.verified()
        took = f"{report['offsets']:,} offsets in {report['seconds']:.1f} s"
        say(f"{sum(self.done.values())} done, after {after}: {report['verdict']}, {took}")
        if not report["exact"]:
            self.wrong.append(f"after {after}: {json.dumps(report['differences'])[:3000]}")
            say(self.wrong[-1])
        return report

    async def _count_cut(self) -> None:
        """Reads the log of blocks: what was decided and not noted when the next owner came."""
        kafka, codec = self.stage.kafka, self.stage.codec
        places = [TopicPartition(kafka.names.physical(BLOCKS), number) for number in range(kafka.settings.partitions)]
        async with kafka.consumer() as consumer:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            pending: dict[TopicPartition, set[tuple[str, int, int]]] = {place: set() for place in places}
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        if type_and_epoch(record.headers)[0] == FENCED:
                            self.cut += len(pending[place])
                            pending[place].clear()
                            continue
                        match codec.decode(record.value):
                            case Block(topic=topic, partition=number, first_offset=first):
                                pending[place].add((topic, number, first))
                            case Inserted(topic=topic, partition=number, first_offset=first):
                                pending[place].discard((topic, number, first))


async def burn(fire: Fire, faults: list[str], traffic: Traffic) -> dict[str, Any]:
    """All faults under load; the last verification, when everything has come to rest."""
    tasks = [asyncio.create_task(fire.ask_on()), asyncio.create_task(traffic.run())]
    try:
        for number, fault in enumerate(faults, start=1):
            await fire.suffer(fault)
            if number % VERIFY_EVERY == 0 or fault != "kill":
                await fire.judge(fault)
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        fire.over.set()
        traffic.over.set()
        await asyncio.gather(*tasks)
    await fire._count_cut()
    return await fire.judge("everything")


async def counted(fire: Fire) -> tuple[Counter[str], list[str]]:
    """What the tables have of what was written: rows by where they have to be, and the ids of the events."""
    gateway = fire.stage.gateway
    kinds = ", ".join(f"'{kind}'" for kind in (VOID, REPEAT, GARBAGE))
    rows = await gateway.rows(
        "SELECT 'system_events' AS target, count() AS n FROM system_events WHERE source = 'chaos' "
        "UNION ALL SELECT 'workflow_transitions', count() FROM workflow_transitions "
        "UNION ALL SELECT 'dead_letters', count() FROM dead_letters "
        f"UNION ALL SELECT kind, count() FROM log_records WHERE kind IN ({kinds}) GROUP BY kind"
    )
    ids: list[str] = []
    at = (-1, -1)
    while True:
        page = await gateway.rows(IDS.format(at, PAGE))
        if not page:
            return Counter({str(row["target"]): int(row["n"]) for row in rows if int(row["n"])}), ids
        ids += [str(row["id"]) for row in page]
        at = (int(page[-1]["p"]), int(page[-1]["o"]))


async def run(folder: Path, chance: random.Random, faults: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A whole run; what was done, and what was seen."""
    began_s = time.monotonic()
    async with stage(folder, server=options.server) as under:
        fire = Fire(under, chance, options.away)
        traffic = Traffic(under.kafka, under.codec, random.Random(chance.random()))
        last = await burn(fire, faults, traffic)
        found, ids = await counted(fire)
    account = traffic.account
    wrong = [*fire.wrong, *account.faults(found, ids)]
    return {
        "exact": not wrong, "seconds": round(time.monotonic() - began_s, 1), "server": options.server, "faults": dict(fire.done),
        "starts": under.gateway.starts, "blocks_cut_off": fire.cut, "questions_answered": fire.questions, "sent": dict(account.sent),
        "in_doubt": dict(account.doubtful), "found": dict(found), "offsets": last["offsets"], "rows": last["rows"],
        "log_records": last["log_records"], "wrong": wrong[:10],
    }  # fmt: skip


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--faults", default=None, help="besides kills: zombie, sleeper, replay, broker; on a server also away, fight")
    parser.add_argument("--away", type=float, default=AWAY_S, help="seconds without ClickHouse")
    parser.add_argument("--server", action="store_true", help="on a ClickHouse server instead of embedded")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    others = (SERVER if options.server else EMBEDDED) if options.faults is None else tuple(filter(None, options.faults.split(",")))
    chance = random.Random(seed)
    faults = ["kill"] * options.kills + list(others)
    chance.shuffle(faults)
    say(f"seed {seed}: {' '.join(faults)}")
    folder = Path(tempfile.mkdtemp(prefix="mplp-chaos-history-"))
    report = asyncio.run(run(folder, chance, faults, options))
    if report["exact"]:
        shutil.rmtree(folder)
    else:
        say(f"what is left of it is in {folder}")
    sys.stdout.write(json.dumps({"seed": seed, **report}, indent=2) + "\n")
    return 0 if report["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
