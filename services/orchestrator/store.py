"""The definitions that a process knows: by content hash, and the latest of each id. Filled by the shell, read by `decide`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from services.orchestrator.definition import Definition
from services.orchestrator.definitions import definition_hash, parse, parse_valid
from streams.records import Json


class AnyOperation(Collection[str]):
    """The operations of a module that runs elsewhere and has not said what it offers: any name may be one."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class AnyModule(dict[str, Collection[str]]):
    """Every module may exist and offer anything: where only a server could know."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __missing__(self, name: str) -> Collection[str]:
        return AnyOperation()


class DefinitionStore:
    """Definitions by hash. What a hash stands for never changes, so a lookup is a pure function of what `decide` is given."""

    def __init__(self, operations: Mapping[str, Collection[str]]) -> None:
        #: Operations of all known modules, by module; the shell adds those that run elsewhere.
        self.operations: dict[str, Collection[str]] = operations if isinstance(operations, AnyModule) else dict(operations)
        self._by_hash: dict[str, Definition] = {}
        self._latest: dict[str, Definition] = {}

    def __contains__(self, digest: object) -> bool:
        return digest in self._by_hash

    def get(self, digest: str) -> Definition | None:
        """The definition with this hash."""
        return self._by_hash.get(digest)

    def latest(self, workflow_id: str) -> Definition | None:
        """The newest definition with this id."""
        return self._latest.get(workflow_id)

    def all_latest(self) -> list[Definition]:
        """The newest definition of each id, ordered by id."""
        return [self._latest[name] for name in sorted(self._latest)]

    def admit(self, document: Json) -> Definition:
        """The definition of a document from outside, checked unless it is known. Raises `InvalidDocument`."""
        digest = definition_hash(document)
        found = self._by_hash.get(digest)
        if found is None:
            found = self._by_hash[digest] = parse(document, self.operations)
        return found

    def restore(self, document: Json) -> Definition:
        """Takes over a document that was checked when it was written (read back from the control topic)."""
        digest = definition_hash(document)
        if digest not in self._by_hash:
            self._by_hash[digest] = parse_valid(document)
        return self._by_hash[digest]

    def publish(self, definition: Definition) -> None:
        """Makes a definition the newest of its id."""
        self._latest[definition.id] = definition

    def add_module(self, module: str) -> None:
        """A module that runs elsewhere is there; what it offers is not known."""
        self.operations.setdefault(module, AnyOperation())
