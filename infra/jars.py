"""Kafka's jars: exactly those of `jgo.lock.toml`, by coordinates through jgo, verified by SHA-256, in a cache shared by all checkouts.

The cache is `$XDG_CACHE_HOME/mplp-backbone` (else `~/.cache/mplp-backbone`). A jar gets its final name only after its checksum
was found right, and set-ups that run side by side wait for each other, so a jar that is there is a whole jar.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.errors import Unavailable

if TYPE_CHECKING:  # jgo takes 0.4 s to import, and is needed only when a jar is missing
    from jgo.maven import MavenContext

#: Kafka, and the binding through which its log reaches a file (without it Kafka is mute); `!`: its parent must not manage Kafka's versions.
COORDINATES = "org.apache.kafka:kafka_2.13:4.3.0+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
LOCK_FILE = Path(__file__).with_name("jgo.lock.toml")
DOWNLOADS_AT_ONCE = 8
ATTEMPTS = 3

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One locked artifact."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the file in our cache: two jars never share one."""
        return f"{self.group}.{self.artifact}-{self.version}-{self.sha256[:8]}.jar"


def cache_dir() -> Path:
    """The per-user cache; not created."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mplp-backbone"


def locked_jars(lock_file: Path = LOCK_FILE) -> list[Jar]:
    """The jars of the lock file, in its order, which is the order of the class path."""
    dependencies = tomllib.loads(lock_file.read_text())["dependencies"]
    return [Jar(group=d["groupId"], artifact=d["artifactId"], version=d["version"], sha256=d["sha256"]) for d in dependencies]


def lock_digest(lock_file: Path = LOCK_FILE) -> str:
    """Short digest of what is locked: changes with every version and checksum, since file names have both."""
    return hashlib.sha256("\n".join(jar.filename for jar in locked_jars(lock_file)).encode()).hexdigest()[:12]


def resolve(progress: Progress, *, lock_file: Path = LOCK_FILE) -> list[Path]:
    """The class path, in the order of the lock file, after getting the jars that the cache lacks.

    Raises `Unavailable` (`jars.missing`) when a jar cannot be had or is not what the lock file says.
    """
    root = cache_dir()
    folder = root / "jars"
    jars = locked_jars(lock_file)
    paths = [folder / jar.filename for jar in jars]
    if all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(root / "jars.lock"):
        wanted = [jar for jar, path in zip(jars, paths, strict=True) if not path.is_file()]
        if wanted:
            progress(f"Getting {len(wanted)} of {len(jars)} jars of Kafka into {folder} …")
            _get_all(wanted, folder, root / "maven", progress)
    return paths


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock file against other processes; waits for it. The kernel frees it however the holder ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_lock(progress: Progress) -> None:
    """Resolves `COORDINATES` anew with jgo and writes the lock file: for a maintainer who raises the version of Kafka."""
    import jgo

    progress(f"Resolving {COORDINATES} …")
    environment = jgo.build(COORDINATES, update=True, cache_dir=cache_dir() / "resolve")
    shutil.copyfile(environment.lock_path, LOCK_FILE)
    progress(f"{LOCK_FILE.name}: {len(locked_jars())} jars")


def _get_all(jars: list[Jar], folder: Path, repository: Path, progress: Progress) -> None:
    from jgo import constants
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    repositories = {"central": constants.MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    context = MavenContext(repo_cache=repository, remote_repos=repositories, timeout=30)
    done = 0
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for _ in pool.map(lambda jar: _get(jar, folder, context), jars):
            done += 1
            if done % 10 == 0 or done == len(jars):
                progress(f"  {done} of {len(jars)} jars")


def _get(jar: Jar, folder: Path, context: MavenContext) -> None:
    """Puts one jar in place: from the user's Maven repository if it is there and right, else by download."""
    from jgo.constants import default_maven_repo

    in_maven = Path(jar.group.replace(".", "/")) / jar.artifact / jar.version / f"{jar.artifact}-{jar.version}.jar"
    at_home = default_maven_repo() / in_maven
    if at_home.is_file() and _sha256(at_home) == jar.sha256:
        _put(at_home, folder / jar.filename)
        return
    downloaded = context.repo_cache / in_maven
    trouble: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo raises RuntimeError for "not found"
            trouble = error
            downloaded.unlink(missing_ok=True)
            continue
        if _sha256(downloaded) == jar.sha256:
            _put(downloaded, folder / jar.filename)
            downloaded.unlink()
            return
        trouble = ValueError("its checksum is not that of the lock file")
        downloaded.unlink()
    raise Unavailable(
        "jars.missing",
        f"{jar.group}:{jar.artifact}:{jar.version} could not be had: {trouble}",
        advice="Check the network (proxy, certificates, [repositories] in jgo's configuration), then `make setup`: what is there is kept.",
    ) from trouble


def _put(source: Path, target: Path) -> None:
    """Copies under a temporary name, then renames: a jar that has its name is whole."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, part)
    part.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
