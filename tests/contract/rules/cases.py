"""The cases of the rule language: YAML files beside this one, each case a sentence of the contract and its outcome worked out by hand.

A case gives a rule (`of`: its `correlation`; `also`: the rule's other fields) or several `rules` (`id`, `of` and the other fields).
Where it says nothing, matchers `a` to `z` take records of that type, `timespan` is 10 s (none in sessions) and `grace` 0.

Records (`see`, in order of arrival) are words `<type><seconds>[=<JSON of data.v>][@<data.g>][#<id>]`; without `#` the id is type and
seconds. `records` gives whole ones instead (`at`: seconds). `until` is `--until` in seconds.

What must come out is `says`: the composites that stand in the end, in any order, as `<ids> [<window_start> <window_end>] <name>=<value>…`;
a composite among the ids is `<rule id>` in angle brackets. A rule without `output` is run as `eager` and as `final`: both must say it.
`said` lists everything instead, revisions and retractions included. `summary` is a part of the summary.

In `faults.yaml` a case gives a rule and the `faults` that checking it must find: pairs of code and pointer, no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

Json = Any
HERE = Path(__file__).parent
T0 = datetime(2026, 1, 1, tzinfo=UTC)
#: What a case may say beyond its name: anything else is a slip of the pen.
KNOWN = frozenset({"of", "also", "rules", "see", "records", "until", "says", "said", "summary"})

_WORD = re.compile(r"(?P<type>[a-z]+)(?P<at>-?\d+(?:\.\d+)?)(?:=(?P<value>[^@#]+))?(?:@(?P<group>[^#]+))?(?:#(?P<id>.+))?")
_SAID = re.compile(r"(?P<ids>[^\[]*)\[(?P<start>\S+) (?P<end>\S+)\](?P<more>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case as its file gives it."""

    file: str
    name: str
    fields: Mapping[str, Json]

    @property
    def documents(self) -> list[Json]:
        """The rules in full words."""
        given = self.fields.get("rules") or [{"id": "r", "of": self.fields["of"], **self.fields.get("also", {})}]
        return [_document(rule) for rule in given]

    @property
    def lines(self) -> str:
        """The records as NDJSON."""
        given = [_of_word(word) for word in self.fields.get("see", "").split()]
        given += [_at(record) if isinstance(record, dict) else record for record in self.fields.get("records", ())]
        return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in given)


def read(file: str) -> list[Case]:
    """The cases of one file, names unique."""
    documents = yaml.safe_load((HERE / f"{file}.yaml").read_text("utf-8"))
    cases = [
        Case(file=file, name=document["case"], fields={key: value for key, value in document.items() if key != "case"})
        for document in documents
    ]
    assert len({case.name for case in cases}) == len(cases), "two cases have one name"
    return cases


def instant(seconds: float) -> str:
    """A time as records have it."""
    return (T0 + timedelta(microseconds=round(float(seconds) * 1_000_000))).isoformat()


def _document(rule: Mapping[str, Json]) -> Json:
    correlation = dict(rule["of"])
    if correlation.get("window") != "session":
        correlation.setdefault("timespan", "10s")
    correlation.setdefault("grace", 0)
    names = "abcdefghijklmnopqrstuvwxyz"
    if "events" in rule:
        events = rule["events"]
    else:
        events = {name: {"type": name} for name in names}
        correlation.setdefault("events", ["a"])
    others = {key: value for key, value in rule.items() if key not in ("of", "events")}
    return {**others, "events": events, "correlation": {key: value for key, value in correlation.items() if value is not None}}


def _of_word(word: str) -> Json:
    found = _WORD.fullmatch(word)
    assert found is not None, word
    data = {} if found["value"] is None else {"v": json.loads(found["value"])}
    if found["group"] is not None:
        data["g"] = found["group"]
    return {"type": found["type"], "id": found["id"] or found["type"] + found["at"], "time": instant(float(found["at"])), "data": data}


def _at(record: Mapping[str, Json]) -> Json:
    return {"time": instant(record["at"]), **{key: value for key, value in record.items() if key != "at"}} if "at" in record else record


# --- what was said ---


def standing(composites: list[Json]) -> list[Json]:
    """What stands after all revisions."""
    last: dict[str, Json] = {}
    for composite in composites:
        before = last.get(composite["id"])
        assert composite["revision"] == (0 if before is None else before["revision"] + 1), "revisions count from 0 without a gap"
        last[composite["id"]] = composite
    return [composite for composite in last.values() if not composite["retracted"]]


def deviations(wanted: list[str], composites: list[Json]) -> Iterator[str]:
    """In what the composites differ from what is wanted; the order says nothing."""
    expected, present = sorted(map(_parsed, wanted), key=_place), sorted(_told(composites), key=_place)
    if len(expected) != len(present):
        yield f"{len(expected)} wanted, {len(present)} there"
        return
    for one, other in zip(expected, present, strict=True):
        for name, value in one.items():
            if other.get(name) != value or isinstance(other.get(name), bool) != isinstance(value, bool):
                yield f"{name} is {other.get(name)!r}, not {value!r}, in {other}"


def _parsed(text: str) -> dict[str, Json]:
    found = _SAID.fullmatch(text)
    assert found is not None, text
    more = dict(word.split("=", 1) if "=" in word else (word, "true") for word in found["more"].split())
    assert more.keys() <= {"rule", "value", "count", "group", "revision", "retracted", "suppressed", "confidence", "severity"}, text
    values = {name: value if name in ("rule", "group", "severity") else json.loads(value) for name, value in more.items()}
    return {"ids": found["ids"].split(), "start": float(found["start"]), "end": float(found["end"]), **values}


def _told(composites: list[Json]) -> Iterator[dict[str, Json]]:
    names = {composite["id"]: f"<{composite['rule_id']}>" for composite in composites}
    for composite in composites:
        yield {
            "ids": [names.get(event_id, event_id) for event_id in composite["event_ids"]],
            "start": _seconds(composite["window_start"]), "end": _seconds(composite["window_end"]), "rule": composite["rule_id"],
            "value": composite["data"]["value"], "count": composite["event_count"], "group": ",".join(composite["group_key"].values()),
            "revision": composite["revision"], "retracted": composite["retracted"], "suppressed": composite["suppressed_count"],
            "confidence": composite["confidence"], "severity": composite["severity"],
        }  # fmt: skip


def _seconds(text: str) -> float:
    return (datetime.fromisoformat(text) - T0) / timedelta(seconds=1)


def _place(told: Mapping[str, Json]) -> tuple[Json, ...]:
    return told["end"], told["start"], told["ids"], told.get("rule", ""), told.get("group", ""), told.get("revision", 0)
