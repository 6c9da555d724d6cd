"""The parts of the reference that are made from code: HTTP, settings, error codes. `services.cli.reference` adds the shell and writes them.

A test holds `docs/reference` against what this makes, so that the documentation is never behind.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import infra
import services
import streams
from services.gateway import memory
from services.gateway.app import create_app, described
from services.gateway.memory import Memory
from services.gateway.problems import HTTP_CODES
from services.history.saved import SavedQuery, ready
from streams import errors
from streams.settings import Settings

NOTICE = "<!-- Made from code by `python -m services.cli.reference`. Do not edit. -->"


def page(title: str, introduction: str, *parts: str) -> str:
    """A page of the reference."""
    return "\n\n".join([NOTICE, f"# {title}", introduction.strip(), *parts]).rstrip() + "\n"


def cell(text: object) -> str:
    """Text that stands in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(headers)} |", f"|{'|'.join(['---'] * len(headers))}|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


# -- saved queries


def queries_page() -> str:
    """The saved queries that come along."""
    rows = [[f"[`{name}`](#{name})", query.title] for name, query in ready().items()]
    return page(
        "Saved queries",
        "Ready answers to what people ask most: `mplp query --saved slowest-steps --param limit=5`, over HTTP `POST /v1/query` with "
        '`{"saved": "slowest-steps", "parameters": {"limit": 5}}`, in Python `bus.query(saved="slowest-steps", parameters={"limit": 5})`. '
        "[Your own](../how-to/ask-the-history.md#save-a-query) stand beside them.",
        table(["query", "answers"], rows),
        *(_query(query) for query in ready().values()),
    )


def _query(query: SavedQuery) -> str:
    rows = [
        [f"`{p.name}`", f"`{p.type}`", "required" if p.required else f"`{json.dumps(p.default)}`", p.description] for p in query.parameters
    ]
    parameters = [table(["parameter", "type", "default", "meaning"], rows)] if rows else []
    return "\n\n".join([f"## {query.name}", f"**{query.title}** {query.description}", *parameters, f"```sql\n{query.sql}\n```"])


# -- settings


def settings_page() -> str:
    """Every setting with its type, default and meaning."""
    rows = [
        [f"`MPLP_{name.upper()}`", f"`{name}`", _type_of(field), _default_of(field), field.description]
        for name, field in Settings.model_fields.items()
    ]
    return page(
        "Settings",
        "From the environment (`MPLP_…`), then from `mplp.toml` in the working directory, then these defaults. `mplp config` shows those "
        "in force; an unknown key in `mplp.toml` is refused. Secrets belong into the environment.",
        table(["environment", "`mplp.toml`", "type", "default", "meaning"], rows),
    )


def _type_of(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.annotation is SecretStr:
        return "secret"
    return {"str": "text", "int": "integer", "Path": "path"}.get(getattr(field.annotation, "__name__", ""), "text")


def _default_of(field: FieldInfo) -> str:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return f"`{default}`" if str(default) else "empty"


# -- HTTP


def http_page() -> str:
    """Every route: who may, parameters, body, answers."""
    schema = described(create_app(Memory().ports()))
    parts = [
        _operation(path, method, operation) for path, operations in schema["paths"].items() for method, operation in operations.items()
    ]
    return page("HTTP", f"{schema['info']['description']}\n\nThe machine-readable description is at `/openapi.json`.", *parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    role = operation["x-mplp-role"]
    parts = [
        f"## {method.upper()} {path}",
        f"{operation['summary'].rstrip('?')}. Role: {role or 'none needed'}.",
        operation.get("description", "").strip(),
    ]
    parameters = [
        [
            f"`{parameter['name']}`",
            parameter["in"],
            "yes" if parameter.get("required") else "no",
            _default_in(parameter),
            parameter.get("description", ""),
        ]
        for parameter in operation.get("parameters", ())
    ]
    if parameters:
        parts.append(table(["parameter", "in", "required", "default", "meaning"], parameters))
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"Body (`{media_type}`): {_body(body['schema'])}")
    answers = [
        f"{status}: {answer['description']}" for status, answer in operation["responses"].items() if status not in ("200", "201", "default")
    ]
    if answers:
        parts.append("Other answers: " + " ".join(answers))
    return "\n\n".join(part for part in parts if part)


def _default_in(parameter: Mapping[str, Any]) -> str:
    default = parameter.get("schema", {}).get("default")
    return "" if default is None else f"`{default}`"


def _body(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if not properties:
        choices = schema.get("oneOf")
        return (
            " or ".join(_body(choice) for choice in choices)
            if choices
            else str(schema.get("description", f"any {schema.get('type', 'JSON')}."))
        )
    required = schema.get("required", ())
    fields = [
        f"`{name}`{' (required)' if name in required else ''}{_colon(field.get('description', ''))}" for name, field in properties.items()
    ]
    return "an object of\n\n" + "\n".join(f"- {field}" for field in fields)


def _colon(text: str) -> str:
    return f": {text}" if text else ""


# -- error codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An error code where it is raised: its class (None: a fault of a document) and its sentence, `…` where values stand."""

    code: str
    kind: str | None
    sentence: str


def errors_page() -> str:
    """Every code, whose fault it is, the status and exit code that it becomes, and its sentences."""
    families = _families()
    by_code: dict[str, list[Code]] = {}
    for found in (
        *codes_in_use(),
        *(Code(code=code, kind=None, sentence="The HTTP layer refuses the request.") for code in HTTP_CODES.values()),
    ):
        by_code.setdefault(found.code, []).append(found)
    rows: list[list[object]] = []
    for code, uses in sorted(by_code.items()):
        family = next((families[use.kind] for use in uses if use.kind in families), None)
        sentences = " / ".join(dict.fromkeys(use.sentence for use in uses))
        fault, status, exit_code = (family.fault.value, family.http_status, family.exit_code) if family else ("caller", "in `faults`", "")
        rows.append([f"`{code}`", fault, status, exit_code, sentences])
    return page(
        "Error codes",
        "Codes are stable. *Fault* says who can mend it: the *caller*, a *peer* that we need (repeat later), or *ours* (please report). "
        "A code without a status names one fault of a document; it stands in `faults` of the refusal, or is the answer of a module "
        "or an execution.",
        table(["code", "fault", "HTTP", "exit", "sentence"], rows),
    )


def codes_in_use() -> Iterator[Code]:
    """Every code that a source file gives to an error or a violation, with its sentence."""
    for _, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from _of_call(node)
            elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
                kind, code, sentence = node.elts
                if isinstance(kind, ast.Name) and _is_code(code) and (text := _sentence(sentence)):
                    yield Code(code=_constant(code), kind=kind.id, sentence=text)


def _sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of ours but the in-memory twin of the gateway's ports: its name and its syntax tree."""
    for package in (streams, services, infra):
        root = Path(next(iter(package.__path__)))
        for path in sorted(set(root.rglob("*.py")) - {Path(memory.__file__)}):
            yield ".".join(path.relative_to(root.parent).with_suffix("").parts), ast.parse(path.read_text())


def _of_call(call: ast.Call) -> Iterator[Code]:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    code = named.get("code") or (call.args[0] if call.args else None)
    sentence = named.get("message") or next((text for text in call.args[1:] if _sentence(text)), None)
    kind = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else None
    if code is not None and sentence is not None and _is_code(code) and (text := _sentence(sentence)):
        yield Code(code=_constant(code), kind=kind, sentence=text)


def _constant(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _is_code(node: ast.expr) -> bool:
    text = _constant(node)
    return (
        bool(text)
        and text == text.lower()
        and " " not in text
        and "." in text
        and text.replace(".", "").replace("-", "").isalpha()
        and not text.startswith("mplp.")
    )


def _sentence(node: ast.expr) -> str:
    """The text of a constant or an f-string that has a blank; `…` for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(_constant(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        text = _constant(node)
    return text if " " in text else ""


def _families() -> dict[str | None, type[errors.BackboneError]]:
    """All classes of errors by name; modules that define one are loaded for it, so that the page does not depend on who asks."""

    def below(cls: type[errors.BackboneError]) -> Iterator[type[errors.BackboneError]]:
        yield cls
        for child in cls.__subclasses__():
            yield from below(child)

    known = {cls.__name__ for cls in below(errors.BackboneError)}
    for module, tree in _sources():
        bases = {base.id for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases if isinstance(base, ast.Name)}
        if bases & known:
            importlib.import_module(module)
    return {
        cls.__name__: cls for cls in below(errors.BackboneError) if cls.__module__.partition(".")[0] in ("streams", "services", "infra")
    }
