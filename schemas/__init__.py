"""The contract: one Avro schema per record, under `avro/`. Everything else is checked against these files."""

from importlib.resources import files

#: Folder that holds one `<Record>.avsc` per record.
AVRO = files(__name__) / "avro"
