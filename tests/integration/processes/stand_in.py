"""A child for the supervisor's tests: waits to be let go, serves (as gateway also /readyz), and notes its starts and stops.

Arguments: the file for the notes, and what to do: `serve`, `answer` (serve and answer HTTP), `fail` (end before it is ready).
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
from pathlib import Path


class Readiness(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ready", "checks": {}}')

    def log_message(self, format: str, *args: object) -> None:
        del format, args


def main() -> None:
    notes, what = Path(sys.argv[1]), sys.argv[2]

    def note(text: str) -> None:
        with notes.open("a") as file:
            file.write(f"{os.environ['MPLP_PROCESS_NAME']} {text} {os.getpid()}\n")

    def end(*_args: object) -> None:
        note("stopped")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    sys.stdin.readline()
    note("started")
    if what == "fail":
        sys.stderr.write("a reason\n")
        sys.exit(7)
    if what == "answer":
        server = http.server.HTTPServer(("127.0.0.1", int(os.environ["MPLP_HTTP_PORT"])), Readiness)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
