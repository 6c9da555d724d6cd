"""A Confluent-compatible registry over HTTP: the same functions as the built-in one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from streams.codec.avro import SchemaIds, local_schemas, schema_text
from streams.codec.store import FULL_TRANSITIVE, SchemaVersion
from streams.errors import BackboneError, InvalidInput, Refused, Unavailable

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_TIMEOUT_S = 10.0


class RemoteRegistry:
    """A client of one registry; use it as an async context manager. A user and password may stand in the URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self._url, timeout=_TIMEOUT_S, headers={"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE}
        )

    async def __aenter__(self) -> RemoteRegistry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def register(self, subject: str, text: str) -> SchemaVersion:
        """Registers a schema, with `FULL_TRANSITIVE` for its subject.

        Raises `Refused` (`schema.incompatible`), `InvalidInput` (`schema.invalid`), `Unavailable`.
        """
        path = f"/subjects/{_part(subject)}"
        found = await self._call("POST", path, {"schema": text}, missing_ok=True)
        if found is None:
            await self._call("PUT", f"/config/{_part(subject)}", {"compatibility": FULL_TRANSITIVE})
            await self._call("POST", f"{path}/versions", {"schema": text})
            found = await self._call("POST", path, {"schema": text})
        return SchemaVersion(subject=subject, version=int(found["version"]), id=int(found["id"]), schema=str(found["schema"]))

    async def load(self, registrations: Iterable[tuple[str, str]]) -> SchemaIds:
        """All schemas of the given (subject, record name) pairs' subjects, and the ids under which our records are written."""
        pairs = list(registrations)
        texts = {name: schema_text(schema) for name, schema in local_schemas().items()}
        subjects = list(dict.fromkeys(subject for subject, _ in pairs))
        stored = await asyncio.gather(*(self._versions(subject) for subject in subjects))
        looked_up = await asyncio.gather(
            *(self._call("POST", f"/subjects/{_part(subject)}", {"schema": texts[name]}, missing_ok=True) for subject, name in pairs)
        )
        schemas = {number: schema for versions in stored for number, schema in versions.items()}
        record_ids: dict[str, int] = {}
        for (_, name), found in zip(pairs, looked_up, strict=True):
            if found is not None:
                record_ids.setdefault(name, int(found["id"]))
        return SchemaIds(schemas=schemas, record_ids=record_ids)

    async def _versions(self, subject: str) -> Mapping[int, dict[str, Any]]:
        path = f"/subjects/{_part(subject)}/versions"
        numbers = await self._call("GET", path, missing_ok=True) or []
        entries = await asyncio.gather(*(self._call("GET", f"{path}/{number}") for number in numbers))
        return {int(entry["id"]): orjson.loads(entry["schema"]) for entry in entries}

    async def _call(self, method: str, path: str, body: Any = None, *, missing_ok: bool = False) -> Any:
        try:
            answer = await self._client.request(method, path, content=None if body is None else orjson.dumps(body))
            content = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(
                "registry.unreachable",
                f"The schema registry at {_shown(self._url)} does not answer: {error}",
                advice="Check MPLP_SCHEMA_REGISTRY_URL.",
            ) from error
        if answer.is_success:
            return content
        if answer.status_code == 404 and missing_ok:
            return None
        raise _error(answer.status_code, path, content)


def _error(status: int, path: str, content: Any) -> BackboneError:
    message = f"The schema registry refused {path}: {content.get('message', status) if isinstance(content, dict) else status}"
    if status == 409:
        return Refused("schema.incompatible", message)
    if status == 422:
        return InvalidInput("schema.invalid", message)
    return Unavailable("registry.failed", message)


def _part(text: str) -> str:
    return quote(text, safe="")


def _shown(url: str) -> str:
    """The URL without a password."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None))
