"""Bytes ↔ records: Avro in the Confluent wire format, CloudEvents headers, and the schema registry."""

from streams.codec.avro import Codec, SchemaIds, headers_of, local_schemas

__all__ = ["Codec", "SchemaIds", "headers_of", "local_schemas"]
