"""The kernel under a seed: processes that crash, sleep and wake late, a broker that answers late or not at all, and an oracle.

Start with `loop` (virtual time), then `broker`, `ports`, `group`, `world` (one seeded run) and `oracle` (what must be true).
"""
