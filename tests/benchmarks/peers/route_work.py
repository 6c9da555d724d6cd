"""What the peers of `routes.py` do with an event, in plain Python: what the product's routes say in CEL."""

from __future__ import annotations

import io
import uuid
from typing import Any

import fastavro
import orjson

_NAMESPACE = uuid.UUID("6d706c70-0000-5000-8000-6261636b626e")


def read(value: bytes, schema: Any) -> dict[str, Any]:
    """The event, its payload parsed; the frame stays beside it."""
    record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
    record["data"] = orjson.loads(record["data"])
    record["frame"] = value[:5]
    return dict(record)


def wanted(record: dict[str, Any]) -> bool:
    """The matcher and the filter."""
    return bool(record["type"].startswith("order.") and "test" not in record["data"])


def transformed(record: dict[str, Any]) -> dict[str, Any]:
    """set, rename, drop."""
    data = dict(record["data"])
    data["currency"], data["cents"] = "EUR", data["total"] * 100
    data["customer"] = data.pop("cust")
    del data["secret"]
    return {**record, "data": data}


def written(record: dict[str, Any], target: str, schema: Any) -> bytes:
    """The event for a target, with an id of its own and its cause."""
    made = {
        **record, "id": str(uuid.uuid5(_NAMESPACE, f"route/{target}/{record['id']}")), "causation_id": record["id"],
        "data": orjson.dumps(record["data"]).decode(),
    }  # fmt: skip
    body = io.BytesIO()
    body.write(made.pop("frame"))
    fastavro.schemaless_writer(body, schema, made)
    return body.getvalue()
