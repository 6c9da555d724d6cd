"""The history: every record of the log topics as a row of ClickHouse, exactly once, and read-only SQL over it.

`sink` is the shell: it reads the topics, decides block boundaries in the log *before* it inserts, and inserts exactly those
blocks. `blocks`, `rows`, `container` and `guard` are pure. `store` talks to the engine: embedded (chDB) or a server, by settings.
"""
