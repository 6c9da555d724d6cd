"""A ClickHouse server for tests: the real engine (chDB) in a process of its own, behind ClickHouse's HTTP protocol.

What runs against it is the unchanged client, so the server path is tested where no server can be installed. `engine` turns a request into
statements of chDB, `wire` knows compression and status codes, `server` speaks HTTP, `process` starts and ends it all for tests.

What it is not: it knows one user with all rights, no quotas, no `system.query_log`, no external tables, no native-block compression. With
`cluster` it takes the statements of a replicated cluster of one node (chDB has no Keeper): `ON CLUSTER` of that name, and
Replicated engines as their plain twins.
"""
