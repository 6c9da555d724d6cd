"""The error family: every refusal and failure has a stable code, says whose fault it is, and what to do.

Codes are public (`docs/reference`): lower case, dotted, kebab-case within a part, e.g. `input.invalid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Whose fault an error is."""

    CALLER = "caller"  #: the request is wrong; repeating it unchanged is useless
    PEER = "peer"  #: a server that we need is away or misbehaves; repeating later may help
    OURS = "ours"  #: a defect of this product


class BackboneError(Exception):
    """Root of all errors that leave this product.

    `code` is stable and public, `message` is one sentence for a person, `pointer` (JSON pointer or record path) names
    the fault in the caller's document, `faults` all of them if there are several, `advice` says what to do next.
    """

    fault: Fault = Fault.OURS
    http_status: int = 500
    exit_code: int = 1

    def __init__(
        self, code: str, message: str, *, pointer: str | None = None, advice: str | None = None, faults: Sequence[Violation] = ()
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.pointer = pointer
        self.advice = advice
        self.faults = tuple(faults)

    def to_dict(self) -> dict[str, object]:
        """The error as people and programs get it: `code`, `message` and, when known, `pointer`, `advice` and `faults`."""
        parts = {"code": self.code, "message": self.message, "pointer": self.pointer, "advice": self.advice}
        told: dict[str, object] = {name: value for name, value in parts.items() if value is not None}
        return {**told, "faults": [fault.to_dict() for fault in self.faults]} if self.faults else told


class InvalidInput(BackboneError):
    """What was given is malformed."""

    fault = Fault.CALLER
    http_status = 400


class Refused(BackboneError):
    """What was asked is well formed, but not allowed in this state (`execution.wrong-state`, `conflict`, …)."""

    fault = Fault.CALLER
    http_status = 409


class NotFound(BackboneError):
    """What was named does not exist."""

    fault = Fault.CALLER
    http_status = 404


class Denied(BackboneError):
    """The caller may not do this."""

    fault = Fault.CALLER
    http_status = 403


class TooLarge(BackboneError):
    """Beyond one of `streams.limits` (`payload.too-large`, …)."""

    fault = Fault.CALLER
    http_status = 413


class ModuleFailed(BackboneError):
    """A program that was asked (a user's module, an extension) went wrong itself (`internal`, `extension.failed`, …)."""

    fault = Fault.PEER
    http_status = 502


class Unavailable(BackboneError):
    """A server that we need (Kafka, ClickHouse, the gateway) cannot be reached or did not answer in time."""

    fault = Fault.PEER
    http_status = 503
    exit_code = 3


class Defect(BackboneError):
    """Something that cannot happen did: our bug. Please report it with the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that is wrong with a document: `code`, JSON `pointer` to the smallest wrong value, a sentence."""

    code: str
    pointer: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """The fault as `{"code", "pointer", "message"}`."""
        return {"code": self.code, "pointer": self.pointer, "message": self.message}


class InvalidDocument(InvalidInput):
    """A definition, rule or route with one or more faults; `violations` has all of them."""

    http_status = 422

    def __init__(self, code: str, message: str, violations: Sequence[Violation]) -> None:
        super().__init__(code, message, pointer=violations[0].pointer if violations else None)
        self.violations = tuple(violations)

    def to_dict(self) -> dict[str, object]:
        """As `BackboneError.to_dict`, with `faults`."""
        return {**super().to_dict(), "faults": [violation.to_dict() for violation in self.violations]}
