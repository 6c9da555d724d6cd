"""L2 modules: the built-in ones (one folder each, one machine for all) and `Module`, with which users write their own.

Built-in modules are pure: `operation.py` says what their parts are, `machine.py` puts them on the log kernel. A user's module
runs in a process of its own: `user_module.py` and `call.py` are what its author sees, `worker.py` the consumer that calls its operations,
`testing.py` a kit that calls them without servers.
"""

from services.modules.call import Call, OperationCancelled
from services.modules.user_module import Module, OperationFailed

__all__ = ["Call", "Module", "OperationCancelled", "OperationFailed"]
