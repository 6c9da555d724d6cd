"""The part of Confluent's schema registry API that readers and writers of our topics need, at the root of the gateway.

Kafka UIs, kcat, ClickHouse and Confluent's serialisers speak it. Errors are Confluent's (`error_code`, `message`), not problem details.
When `MPLP_SCHEMA_REGISTRY_URL` names a registry, these paths lead there (307).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse

from streams.codec.compatibility import parse, violations
from streams.codec.registry import SchemaFollower, Writes, change_store, plan_registration
from streams.codec.store import AVRO_TYPE, COMPATIBILITIES, SchemaStore, SchemaVersion, config_record
from streams.errors import BackboneError, InvalidInput, Refused, TooLarge, Unavailable
from streams.kafka import Kafka

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_LATEST = ("latest", "-1")

T = TypeVar("T")


class RegistryError(Exception):
    """A refusal in Confluent's terms; the first three digits of its code are the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def subject_unknown(subject: str) -> RegistryError:
    """40401."""
    return RegistryError(40401, f"Subject '{subject}' not found.")


def version_unknown(version: str) -> RegistryError:
    """40402."""
    return RegistryError(40402, f"Version {version} not found.")


SCHEMA_UNKNOWN = 40403
NO_OWN_COMPATIBILITY = 40408
SCHEMA_INVALID = 42201
VERSION_INVALID = 42202
COMPATIBILITY_INVALID = 42203
STORE_FAILED = 50001


def answer(content: Any, status: int = 200) -> Response:
    """A response in the registry's content type."""
    return Response(orjson.dumps(content), status, media_type=MEDIA_TYPE)


class RegistryRoute(APIRoute):
    """A route whose errors are Confluent's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors caught before the gateway makes problem details of them."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RegistryError as error:
                return answer({"error_code": error.code, "message": error.message}, int(str(error.code)[:3]))
            except Unavailable as error:
                return answer({"error_code": STORE_FAILED, "message": error.message}, 500)

        return handler


def router(kafka: Kafka) -> APIRouter:
    """The registry's routes over the topic of the schemas, or redirections to the registry that the settings name."""
    url = kafka.settings.schema_registry_url
    return _elsewhere(url) if url else _Routes(kafka).router()


def _elsewhere(url: str) -> APIRouter:
    routes = APIRouter()

    async def lead_there(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{url.rstrip('/')}{request.url.path}{query}", 307)

    for path in ("/subjects", "/schemas", "/config", "/compatibility"):
        for pattern in (path, path + "/{rest:path}"):
            routes.add_api_route(pattern, lead_there, methods=["GET", "POST", "PUT"], include_in_schema=False)
    return routes


class _Routes:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._follower = SchemaFollower(kafka)
        self._writing = asyncio.Lock()  # writers of one process wait for each other instead of overtaking each other

    def router(self) -> APIRouter:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await self._follower.close()

        routes = APIRouter(route_class=RegistryRoute, lifespan=lifespan, default_response_class=Response)
        for method, path, endpoint, summary in (
            ("GET", "/subjects", self.subjects, "Subjects that have a schema"),
            ("POST", "/subjects/{subject}", self.look_up, "Whether a schema is registered under a subject"),
            ("GET", "/subjects/{subject}/versions", self.versions, "Versions of a subject"),
            ("POST", "/subjects/{subject}/versions", self.register, "Register a schema; refused if it is not compatible"),
            ("GET", "/subjects/{subject}/versions/{version}", self.version, "One version, or the latest"),
            ("GET", "/subjects/{subject}/versions/{version}/schema", self.version_text, "The schema of a version alone"),
            ("GET", "/schemas/types", self.types, "Kinds of schemas"),
            ("GET", "/schemas/ids/{schema_id}", self.schema, "The schema with an id"),
            ("GET", "/schemas/ids/{schema_id}/schema", self.schema_text, "The schema with an id alone"),
            ("GET", "/schemas/ids/{schema_id}/versions", self.uses, "Subjects and versions of an id"),
            ("GET", "/schemas/ids/{schema_id}/subjects", self.users, "Subjects of an id"),
            ("POST", "/compatibility/subjects/{subject}/versions", self.fits_all, "Whether a schema may follow all versions"),
            ("POST", "/compatibility/subjects/{subject}/versions/{version}", self.fits, "Whether a schema may follow a version"),
            ("GET", "/config", self.config, "Compatibility of all subjects"),
            ("GET", "/config/{subject}", self.subject_config, "Compatibility of a subject"),
            ("PUT", "/config/{subject}", self.set_subject_config, "Set the compatibility of a subject"),
        ):
            routes.add_api_route(path, endpoint, methods=[method], summary=summary, response_class=Response)
        return routes

    async def _store(self) -> SchemaStore:
        return await self._follower.current()

    async def subjects(self, subjectPrefix: str = "", deleted: bool = False) -> Response:
        store = await self._store()
        return answer([subject for subject in store.subjects(deleted=deleted) if subject.startswith(subjectPrefix)])

    async def versions(self, subject: str, deleted: bool = False) -> Response:
        return answer([entry.version for entry in _versions(await self._store(), subject, deleted=deleted)])

    async def version(self, subject: str, version: str, deleted: bool = False) -> Response:
        entry = _version(await self._store(), subject, version, deleted=deleted)
        return answer({"subject": subject, "version": entry.version, "id": entry.id, **_body(entry)})

    async def version_text(self, subject: str, version: str, deleted: bool = False) -> Response:
        return Response(_version(await self._store(), subject, version, deleted=deleted).schema, media_type=MEDIA_TYPE)

    async def types(self) -> Response:
        return answer([AVRO_TYPE])

    async def schema(self, schema_id: str) -> Response:
        return answer(_body(_by_id(await self._store(), schema_id)))

    async def schema_text(self, schema_id: str) -> Response:
        return Response(_by_id(await self._store(), schema_id).schema, media_type=MEDIA_TYPE)

    async def uses(self, schema_id: str) -> Response:
        store = await self._store()
        return answer([{"subject": entry.subject, "version": entry.version} for entry in store.versions_of_id(_by_id(store, schema_id).id)])

    async def users(self, schema_id: str) -> Response:
        store = await self._store()
        return answer(sorted({entry.subject for entry in store.versions_of_id(_by_id(store, schema_id).id)}))

    async def look_up(self, subject: str, request: Request, deleted: bool = False) -> Response:
        text = await _schema_of(request)
        store = await self._store()
        _versions(store, subject, deleted=deleted)
        entry = store.find(subject, orjson.loads(text), deleted=deleted)
        if entry is None:
            raise RegistryError(SCHEMA_UNKNOWN, "Schema not found")
        return answer({"subject": subject, "version": entry.version, "id": entry.id, **_body(entry)})

    async def register(self, subject: str, request: Request) -> Response:
        text = await _schema_of(request)

        def decide(store: SchemaStore) -> tuple[Writes, SchemaVersion]:
            writes, versions = plan_registration(store, [(subject, text)])
            return writes, versions[0]

        try:
            async with self._writing:
                entry = await change_store(self._kafka, decide)
        except Refused as error:
            raise RegistryError(409, f"Schema being registered is incompatible with an earlier schema: {error.message}") from error
        except (InvalidInput, TooLarge) as error:
            raise _invalid(error) from error
        return answer({"id": entry.id})

    async def fits(self, subject: str, version: str, request: Request, verbose: bool = False) -> Response:
        text = await _schema_of(request)
        store = await self._store()
        return _verdict(store, subject, text, [_version(store, subject, version, deleted=False)], verbose=verbose)

    async def fits_all(self, subject: str, request: Request, verbose: bool = False) -> Response:
        text = await _schema_of(request)
        store = await self._store()
        return _verdict(store, subject, text, store.versions(subject), verbose=verbose)

    async def config(self) -> Response:
        return answer({"compatibilityLevel": (await self._store()).compatibility()})

    async def subject_config(self, subject: str, defaultToGlobal: bool = False) -> Response:
        store = await self._store()
        level = store.compatibility(subject) if defaultToGlobal else store.own_compatibility(subject)
        if level is None:
            raise RegistryError(NO_OWN_COMPATIBILITY, f"Subject '{subject}' does not have subject-level compatibility configured")
        return answer({"compatibilityLevel": level})

    async def set_subject_config(self, subject: str, request: Request) -> Response:
        level = str((await _object_of(request)).get("compatibility", "")).upper()
        if level not in COMPATIBILITIES:
            raise RegistryError(COMPATIBILITY_INVALID, f"Invalid compatibility level. Valid values are {', '.join(COMPATIBILITIES)}")

        def decide(store: SchemaStore) -> tuple[Writes, None]:
            return ([] if store.own_compatibility(subject) == level else [config_record(level, subject)]), None

        async with self._writing:
            await change_store(self._kafka, decide)
        return answer({"compatibility": level})


def _versions(store: SchemaStore, subject: str, *, deleted: bool) -> list[SchemaVersion]:
    found = store.versions(subject, deleted=deleted)
    if not found:
        raise subject_unknown(subject)
    return found


def _version(store: SchemaStore, subject: str, version: str, *, deleted: bool) -> SchemaVersion:
    found = _versions(store, subject, deleted=deleted)
    if version in _LATEST:
        return found[-1]
    if not (version.isascii() and version.isdecimal() and 0 < int(version) < 2**31):
        raise RegistryError(VERSION_INVALID, f"The specified version '{version}' is not a valid version id.")
    for entry in found:
        if entry.version == int(version):
            return entry
    raise version_unknown(version)


def _by_id(store: SchemaStore, schema_id: str) -> SchemaVersion:
    number = int(schema_id) if schema_id.isascii() and schema_id.isdecimal() and len(schema_id) <= 10 else 0
    entry = store.by_id(number)
    if entry is None:
        raise RegistryError(SCHEMA_UNKNOWN, f"Schema {schema_id} not found")
    return entry


def _body(entry: SchemaVersion) -> Mapping[str, str]:
    return {"schema": entry.schema} if entry.schema_type == AVRO_TYPE else {"schema": entry.schema, "schemaType": entry.schema_type}


def _verdict(store: SchemaStore, subject: str, text: str, versions: list[SchemaVersion], *, verbose: bool) -> Response:
    found = violations(text, [entry.schema for entry in versions], store.compatibility(subject))
    return answer({"is_compatible": not found, **({"messages": found} if verbose else {})})


async def _object_of(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise RegistryError(SCHEMA_INVALID, f"The body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise RegistryError(SCHEMA_INVALID, "The body is no JSON object.")
    return body


async def _schema_of(request: Request) -> str:
    """The Avro schema in the body, as text that parses. A schema may be sent as text, as Confluent wants it, only."""
    body = await _object_of(request)
    if body.get("schemaType", AVRO_TYPE) != AVRO_TYPE or body.get("references"):
        raise RegistryError(SCHEMA_INVALID, "This registry keeps Avro schemas without references only.")
    text = body.get("schema")
    if not isinstance(text, str):
        raise RegistryError(SCHEMA_INVALID, "The body has no schema.")
    try:
        parse(text)
        orjson.loads(text)
    except (InvalidInput, orjson.JSONDecodeError) as error:
        raise RegistryError(SCHEMA_INVALID, f"Invalid schema: {error}") from error
    return text


def _invalid(error: BackboneError) -> RegistryError:
    return RegistryError(SCHEMA_INVALID, error.message)
