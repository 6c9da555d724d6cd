"""The bus: what users import. Publish events, subscribe to any topic, handle records in groups, look back, ask in SQL, run workflows.

`validate` says what may enter, `outgoing` and `publisher` send it, `lines` does so for NDJSON in bulk; `sources`, `group` and
`subscription` bring it back, `selection` says what is wanted, `handling` calls handlers and writes dead letters, `history` looks back;
`executions`, `stories` and `follower` ask workflows and modules, `gateway` asks in SQL; `bus` puts it together.
"""

from streams.bus.bus import Bus, connect
from streams.bus.publisher import Published
from streams.bus.subscription import Delivered, Subscription
from streams.bus.validate import parse_event

__all__ = ["Bus", "Delivered", "Published", "Subscription", "connect", "parse_event"]
