"""Makes `.venv`: what the first `make` of anything runs, with the system's Python and its standard library alone.

    python3 infra/bootstrap.py

Checks what is assumed and explains what is missing, installs exactly the versions of `requirements-dev.lock` and this project, and
prepares Kafka (`python -m infra.setup`). Doing it again costs nothing: a stamp in `.venv` says for which lock files it was done.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

# Nothing that Python 3.7 does not know: an old one must get as far as to say that it is too old.
OLDEST, NEWEST = (3, 11), (3, 14)
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
LOCK = ROOT / "requirements-dev.lock"
STAMP = ENVIRONMENT / "set-up.stamp"
SAY_EVERY = 20


def main() -> None:
    """Does what is still to be done."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        fail(
            f"Python {dotted(OLDEST)} to {dotted(NEWEST)} is needed, this is {dotted(sys.version_info[:2])} ({sys.executable}).",
            "Install one and run: make PYTHON=python3.12 setup",
        )
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second make beside this one waits
        set_up()


def set_up() -> None:
    """Does it, unless the stamp says that it was done."""
    wanted = digest()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return
    make_environment()
    install_packages()
    say("Installing mplp-backbone into .venv …")
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    if subprocess.call([str(PYTHON), "-m", "infra.setup"], cwd=str(ROOT)) != 0:
        sys.exit(1)
    STAMP.write_text(wanted)
    say("Set up. The command is .venv/bin/mplp")


def digest() -> str:
    """What the set-up depends on."""
    content = b"".join((ROOT / name).read_bytes() for name in ("requirements-dev.lock", "pyproject.toml", "infra/jgo.lock.toml"))
    return hashlib.sha256(content).hexdigest()


def make_environment() -> None:
    """Makes `.venv`, unless one is there that works and has pip."""
    if PYTHON.exists() and quiet([str(PYTHON), "-m", "pip", "--version"]):
        return
    say(f"Making .venv with {sys.executable} …")
    if not quiet([sys.executable, "-c", "import ensurepip, venv"]):
        fail(
            "This Python has no venv module or no ensurepip.",
            f"On Debian and Ubuntu: apt install python{dotted(sys.version_info[:2])}-venv. Then run make again.",
        )
    shutil.rmtree(str(ENVIRONMENT), ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0:
        fail("The environment could not be made: " + made.stdout.strip(), f"Is there space, and may this user write to {ROOT}?")


def install_packages() -> None:
    """Installs the locked packages, with a line now and then."""
    total = sum(1 for line in LOCK.read_text().splitlines() if "==" in line)
    say(f"Installing {total} packages of {LOCK.name} (the first time this takes a minute or two) …")
    command = [str(PYTHON), "-m", "pip", "install", "--no-deps", "--progress-bar", "off", "--requirement", str(LOCK)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=str(ROOT))
    seen = 0
    tail: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        tail = [*tail[-30:], line]
        if line.startswith(("Collecting", "Requirement already satisfied")):
            seen += 1
            if seen % SAY_EVERY == 0:
                say(f"  {seen} of {total}")
        elif line.startswith("Installing collected"):
            say("  unpacking …")
    if process.wait() != 0:
        sys.stderr.write("".join(tail))
        fail("pip could not install the packages (see above).", "Check the network and pip's configuration, then run make again.")


def pip(*arguments: str) -> None:
    """Runs pip in `.venv`; ends the set-up if it fails."""
    if subprocess.call([str(PYTHON), "-m", "pip", *arguments], cwd=str(ROOT)) != 0:
        fail(f"pip {arguments[0]} failed (see above).", "Check the network and pip's configuration, then run make again.")


def quiet(command: list[str]) -> bool:
    """Whether a command succeeds; its output is dropped."""
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def dotted(version: tuple[int, ...]) -> str:
    """A version as text."""
    return ".".join(map(str, version))


def say(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def fail(what: str, advice: str) -> None:
    """Ends the set-up with a reason and what to do."""
    say(f"error: {what}\n  {advice}")
    sys.exit(1)


if __name__ == "__main__":
    main()
