"""A receiver of webhooks with the standard library alone: checks the signature, and takes each delivery once.

`python examples/webhook_receiver.py PORT SECRET`
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: How far the clocks of two machines may be apart, seconds; older calls may be recordings.
TOLERANCE_S = 300


def is_genuine(headers: Mapping[str, str], body: bytes, secret: str, now_s: float) -> bool:
    """Whether the call was signed with the secret (https://www.standardwebhooks.com), a short while ago."""
    call_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    expected = base64.b64encode(hmac.new(key, f"{call_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(signed, f"v1,{expected}") for signed in headers.get("webhook-signature", "").split(" "))


def receiver(port: int, secret: str, seen: dict[str, object]) -> ThreadingHTTPServer:
    """A server that keeps what it was told in `seen`, by idempotency key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            genuine = is_genuine(self.headers, body, secret, time.time())
            if genuine:
                # A delivery may come again after a crash: the key says that it is the same.
                seen.setdefault(self.headers["idempotency-key"], json.loads(body))
            self.send_response(204 if genuine else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            sys.stderr.write(f"{self.command} {self.path}: {len(seen)} different deliveries\n")

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    receiver(int(sys.argv[1]), sys.argv[2], {}).serve_forever()
