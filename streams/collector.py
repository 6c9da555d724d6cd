"""How often the collector of cycles looks at what our processes hold.

What lives here lives in logs, states and queues without cycles, and goes by reference counts; a walk over all of it, which the
default thresholds order every few hundred thousand allocations, would stop a decision for as long as it takes. At a start it would be
worse: everything that is imported and every state that is loaded stays, and is walked over again and again.
"""

from __future__ import annotations

import gc

#: Allocations that outlive their release before the young are looked at; young rounds before the middle, middle rounds before all.
GC_THRESHOLDS = (20_000, 20, 50)


def look_seldom() -> None:
    """From here on; what is there already is spared for good."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def settle() -> None:
    """When a process serves: releases what its start has left over, and spares the rest."""
    gc.collect()
    look_seldom()
