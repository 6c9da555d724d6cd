"""Signatures as Standard Webhooks defines them (https://www.standardwebhooks.com, HMAC-SHA256). Pure.

A receiver computes the same over the body as it came, compares in constant time, and refuses old timestamps.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

#: What a secret in base64 begins with.
_ENCODED = "whsec_"


def keys_of(secrets: str) -> tuple[bytes, ...]:
    """The keys of a setting: secrets separated by blanks or commas, of which the first is the current one.

    A secret that begins with `whsec_` is base64, any other stands for its own bytes. Raises `ValueError`.
    """
    return tuple(_key(secret) for secret in secrets.replace(",", " ").split())


def _key(secret: str) -> bytes:
    if not secret.startswith(_ENCODED):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a secret that begins with {_ENCODED} goes on in base64") from error


def signature(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature for each key, so that receivers can change theirs at any time."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    made = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in made)
