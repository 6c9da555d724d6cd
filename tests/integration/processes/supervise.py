"""A supervisor in a process of its own, for tests that kill it. Arguments: data folder, notes. Prints its addresses as JSON when ready."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.processes.supervisor import Supervisor
from services.processes.supervisor_child import ChildSpec
from streams.settings import Settings

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def stand_ins(notes: Path) -> tuple[ChildSpec, ...]:
    return tuple(
        ChildSpec(name=name, command=(sys.executable, STAND_IN, str(notes), what))
        for name, what in (("core-1", "serve"), ("worker-1", "serve"), ("gateway-1", "answer"))
    )


def main() -> None:
    settings = Settings(data_dir=Path(sys.argv[1]), kafka_port=0, http_port=0, topic_prefix="supervised", partitions=1)
    supervisor = Supervisor(settings, lambda line: print(line, file=sys.stderr, flush=True), children=stand_ins(Path(sys.argv[2])))
    asyncio.run(supervisor.run(lambda run_info: print(json.dumps(run_info), flush=True)))


if __name__ == "__main__":
    main()
