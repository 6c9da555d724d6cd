"""`python -m tests.clickhouse_http --folder DIR`: serves until its standard input closes; says its port as JSON on standard output."""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import threading
from pathlib import Path

from tests.clickhouse_http.engine import Engine
from tests.clickhouse_http.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clickhouse_http")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD")
    parser.add_argument("--cluster", default="", help="take statements of this replicated cluster as those of one node")
    parser.add_argument("--certificate", type=Path, help="PEM file with certificate and key: serve https")
    arguments = parser.parse_args()
    users = dict(user.partition(":")[::2] for user in arguments.user or ["default:"])
    server = Server(("127.0.0.1", arguments.port), Engine(arguments.folder, cluster=arguments.cluster), users)
    if arguments.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"port": server.server_address[1]}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
