"""The bus: what users import. Publish events, subscribe to any topic, handle records in groups, look back, ask in SQL, run workflows.

`validate` says what may enter, `publisher` sends it, `sources` and `subscription` bring it back, `handling` calls handlers and
writes dead letters, `history` looks back, `executions` and `follower` ask workflows and modules, `bus` puts it together.
"""

from streams.bus.bus import Bus, connect
from streams.bus.publisher import Published
from streams.bus.subscription import Delivered, Subscription
from streams.bus.validate import parse_event

__all__ = ["Bus", "Delivered", "Published", "Subscription", "connect", "parse_event"]
