"""How much of its source partition a route holds, and how it reads again what it has left in the log: bounds of a line (`line.py`)."""

from __future__ import annotations

#: Records that a line holds in memory, and of one key.
RECORDS_MAX = 4000
KEY_RECORDS_MAX = 1000
#: Bytes of them; one record may be larger.
BYTES_MAX = 8 * 1024 * 1024
#: Keys that are not settled, and bytes of them: a state is one message (`dump`).
KEYS_MAX = 10_000
KEY_BYTES_MAX = 2 * 1024 * 1024
#: A key that is longer than most, bytes.
LONG_KEY = 8192
#: Characters of what is kept of why keys failed, in a state; each has its share.
MESSAGES_CHARACTERS_MAX = 500_000
#: Attempts under way.
UNDER_WAY_MAX = 64
#: Records that a sweep may bring of each key, however many keys there are.
SHARE_LEAST = 16
#: To read so many records costs less than to begin to read somewhere else.
SWEEP_JUMP = 1000
