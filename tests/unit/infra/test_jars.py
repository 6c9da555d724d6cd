"""The jars: what the lock file says, whole, or a clear error. The repository is an HTTP server on loopback."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra import jars
from streams.errors import Unavailable

#: jgo reads a response to its end and leaves the closing of the connection to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

CONTENT = b"the bytes of a jar"


class Repository:
    """Serves `files` by their path and counts the requests for jars."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.asked.append(self.path)
                body = repository.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def offer(self, artifact: str, content: bytes) -> None:
        path = f"/org/example/{artifact}/1.0/{artifact}-1.0.jar"
        self.files[path] = content
        self.files[f"{path}.sha1"] = hashlib.sha1(content).hexdigest().encode()


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    """A repository on loopback, an empty cache, and a user who has no Maven repository and no jgo configuration."""
    served = Repository()
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", served.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def lock_of(folder: Path, **contents: bytes) -> Path:
    path = folder / "jgo.lock.toml"
    path.write_text(
        "".join(
            f'[[dependencies]]\ngroupId = "org.example"\nartifactId = "{artifact}"\nversion = "1.0"\npackaging = "jar"\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            for artifact, content in contents.items()
        )
    )
    return path


def test_jars_come_once_and_in_the_order_of_the_lock_file(repository: Repository, tmp_path: Path) -> None:
    for artifact in ("zebra", "ant"):
        repository.offer(artifact, CONTENT + artifact.encode())
    lock = lock_of(tmp_path, zebra=CONTENT + b"zebra", ant=CONTENT + b"ant")
    told: list[str] = []

    first = jars.resolve(told.append, lock_file=lock)
    asked = list(repository.asked)
    again = jars.resolve(told.append, lock_file=lock)

    assert [path.read_bytes() for path in first] == [CONTENT + b"zebra", CONTENT + b"ant"]
    assert again == first
    assert repository.asked == asked, "the second time nothing is asked"
    assert told[-1].strip() == "2 of 2 jars"


def test_a_jar_that_is_not_the_locked_one_never_enters_the_cache(repository: Repository, tmp_path: Path) -> None:
    repository.offer("good", CONTENT)
    repository.offer("bad", b"something else")

    with pytest.raises(Unavailable, match="checksum") as caught:
        jars.resolve(lambda _: None, lock_file=lock_of(tmp_path, good=CONTENT, bad=CONTENT))

    assert caught.value.code == "jars.missing"
    assert "org.example:bad:1.0" in caught.value.message
    assert {path.read_bytes() for path in (jars.cache_dir() / "jars").iterdir()} <= {CONTENT}


def test_a_jar_that_nobody_has_is_an_error_that_says_what_to_do(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        jars.resolve(lambda _: None, lock_file=lock_of(tmp_path, nowhere=CONTENT))
    assert caught.value.code == "jars.missing"
    assert "make setup" in (caught.value.advice or "")


def test_the_users_maven_repository_is_used_if_it_has_the_right_bytes(repository: Repository, tmp_path: Path) -> None:
    repository.offer("wrong", CONTENT)
    for artifact, content in (("right", CONTENT), ("wrong", b"damaged")):
        at_home = tmp_path / "m2" / "org" / "example" / artifact / "1.0" / f"{artifact}-1.0.jar"
        at_home.parent.mkdir(parents=True)
        at_home.write_bytes(content)

    paths = jars.resolve(lambda _: None, lock_file=lock_of(tmp_path, right=CONTENT, wrong=CONTENT))

    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]
    assert not any("/right/" in path for path in repository.asked)
    assert (tmp_path / "m2/org/example/wrong/1.0/wrong-1.0.jar").read_bytes() == b"damaged", "what is the user's is not touched"


def test_set_ups_side_by_side_download_each_jar_once(repository: Repository, tmp_path: Path) -> None:
    repository.offer("shared", CONTENT)
    lock = lock_of(tmp_path, shared=CONTENT)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: jars.resolve(lambda _: None, lock_file=lock), range(4)))
    assert all(paths[0].read_bytes() == CONTENT for paths in results)
    assert sum(path.endswith(".jar") for path in repository.asked) == 1


def test_the_committed_lock_file_pins_one_kafka_completely() -> None:
    locked = jars.locked_jars()
    kafka = {jar.version for jar in locked if jar.group == "org.apache.kafka"}
    assert len(kafka) == 1
    assert kafka.pop() in jars.COORDINATES
    assert all(len(jar.sha256) == 64 for jar in locked)
    assert len({jar.filename for jar in locked}) == len(locked)
