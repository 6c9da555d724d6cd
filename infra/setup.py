"""Prepares a machine once: Kafka's jars and the AOT cache, both in the per-user cache. `python -m infra.setup`, or by `mplp up`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from infra import jars
from infra.jars import Progress
from infra.kafka import EmbeddedKafka
from infra.runtime import aot_cache, java
from streams.errors import BackboneError

#: AOT caches of this many runtimes are kept (each checkout has its own Java); older ones go.
KEPT = 4
#: Java writes the cache, 70 MB, when it ends: 5 s on an idle machine.
WRITING_TIMEOUT_S = 300.0


async def prepare(progress: Progress) -> None:
    """Gets what is missing; costs nothing when all is there.

    Raises `Unavailable` with `java.missing` or `jars.missing`.
    """
    java()
    await asyncio.to_thread(jars.resolve, progress)
    await make_aot_cache(progress)


async def make_aot_cache(progress: Progress) -> None:
    """Makes the AOT cache if it is missing. A failure is told and costs only speed."""
    target = aot_cache()
    if target.is_file():
        return
    with jars.exclusive(jars.cache_dir() / "aot.lock"):
        if target.is_file():
            return
        progress("Preparing Kafka for fast starts (once) …")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        try:
            await train(part)
            part.replace(target)
        except (BackboneError, OSError) as error:
            progress(f"  not prepared, Kafka will start more slowly: {error}")
        finally:
            part.unlink(missing_ok=True)
        for old in sorted(target.parent.glob("*.aot"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            with suppress(OSError):
                old.unlink()


async def train(output: Path) -> None:
    """Runs a broker on a throw-away folder, gives it some of everything to do, and lets Java write the cache as it ends."""
    chatter = logging.getLogger("aiokafka")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)  # a group coordinator that is not there yet is no news here
    try:
        with tempfile.TemporaryDirectory(prefix="mplp-aot-") as folder:
            async with EmbeddedKafka(Path(folder), jvm_flags=(f"-XX:AOTCacheOutput={output}",)) as kafka:
                await _exercise(kafka.bootstrap)
                await kafka.stop(timeout_s=WRITING_TIMEOUT_S)
    finally:
        chatter.setLevel(level)


async def _exercise(bootstrap: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("training", 4, 1), NewTopic("compacted", 1, 1, topic_configs={"cleanup.policy": "compact"})])
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            await asyncio.gather(*[producer.send_and_wait("training", b"value", key=str(number).encode()) for number in range(100)])
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer("training", bootstrap_servers=bootstrap, group_id="training", auto_offset_reset="earliest")
        await consumer.start()
        try:
            await consumer.getone()
            await consumer.commit()
        finally:
            await consumer.stop()
        await admin.delete_topics(["training"])
    finally:
        await admin.close()


def main() -> None:
    """`--lock` resolves Kafka's version anew and rewrites the lock file; without it the machine is prepared."""
    parser = argparse.ArgumentParser(prog="python -m infra.setup", description=main.__doc__)
    parser.add_argument("--lock", action="store_true", help="write the lock file of the jars anew")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    try:
        if arguments.lock:
            jars.write_lock(tell)
        asyncio.run(prepare(tell))
    except BackboneError as error:
        tell(f"error: {error}" + (f"\n  {error.advice}" if error.advice else ""))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
