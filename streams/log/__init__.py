"""The log kernel: exactly-once decisions on plain Kafka appends. Start with `types`, then `rule`, `fenced`, `host`."""
