"""The definitions that a process knows: by content hash, and the latest of each id. Filled by the shell, read by `decide`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from services.orchestrator.definition import ChildWorkflow, Conditional, CustomCondition, Definition, ModuleOperation
from services.orchestrator.definitions import faulty, parse, parse_valid, validate
from streams.definitions import VERSION_MARK, definition_hash
from streams.errors import InvalidDocument
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
        self._faulty: dict[str, InvalidDocument] = {}

    def __contains__(self, digest: object) -> bool:
        return digest in self._by_hash

    def get(self, digest: str) -> Definition | None:
        """The definition with this hash."""
        return self._by_hash.get(digest)

    def latest(self, workflow_id: str, version: str | None = None) -> Definition | None:
        """The newest published definition with this id, and this version if one is named. Raises `InvalidDocument` if it has faults."""
        key = workflow_id if version is None else f"{workflow_id}{VERSION_MARK}{version}"
        if key in self._faulty:
            raise self._faulty[key]
        return self._latest.get(key)

    def all_latest(self) -> list[Definition]:
        """The newest definition of each id that is published and has no faults, ordered by id."""
        return [self._latest[name] for name in sorted(self._latest) if "@" not in name]

    def admit(self, document: Json) -> Definition:
        """The definition of a document from outside, checked unless it is known. Raises `InvalidDocument`."""
        digest = definition_hash(document)
        found = self._by_hash.get(digest)
        if found is None:
            found = self._add(parse(document, self.operations))
        return found

    def restore(self, document: Json) -> Definition:
        """Takes over a document that was checked when it was written (read back from the control topic)."""
        digest = definition_hash(document)
        if digest not in self._by_hash:
            self._add(parse_valid(document))
        return self._by_hash[digest]

    def _add(self, definition: Definition) -> Definition:
        """Knows a definition, and those that stand inside it, by their hashes."""
        self._by_hash[definition.hash] = definition
        for place in definition.places.values():
            match place.step.action:
                case ChildWorkflow(definition=Definition() as inline) if inline.hash not in self._by_hash:
                    self._add(inline)
                case ModuleOperation(module=module) | Conditional(condition=CustomCondition(module=module)):
                    # It was there when the definition was checked, maybe by another process, before this one had heard of it.
                    self.add_module(module)
                case _:
                    pass
        return definition

    def publish(self, key: str, document: Json) -> None:
        """A document is in force under `key`: an id, or an id with a version. One with faults stands there, too: starting it is refused."""
        faults = validate(document, AnyModule())
        if faults:
            self._latest.pop(key, None)
            self._faulty[key] = faulty(faults)
        else:
            self._latest[key] = self.restore(document)
            self._faulty.pop(key, None)

    def withdraw(self, key: str) -> None:
        """Nothing is in force under `key` any more. What is pinned by its hash stays."""
        self._latest.pop(key, None)
        self._faulty.pop(key, None)

    def add_module(self, module: str) -> None:
        """A module that runs elsewhere is there; what it offers is not known."""
        self.operations.setdefault(module, AnyOperation())
