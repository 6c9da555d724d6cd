"""The page of the example rules: each with what it says about its events. Written by `python -m streams.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streams.correlation.parse import parse_rule
from streams.correlation.trial import Trial
from streams.documents import read_documents

EXAMPLES = Path(__file__).parents[1] / "examples" / "rules"
#: In the order of the page: first those that need nothing but this product, then those that most people want.
FIRST = (
    "workflow-stuck", "retries-rising", "steps-failing-in-a-row", "heartbeat-missing", "error-burst", "deploy-then-errors", "latency-high",
    "latency-unusual", "payment-without-shipment", "brute-force", "login-without-second-factor",
)  # fmt: skip
_INTRODUCTION = """
Each of them is a file in `examples/rules/`, with events to try it on (`.ndjson`) and what it must say (`.expected.ndjson`), which CI
checks. Copy the one that is nearest to what you want, change names and numbers, and try it:

```console
$ mplp rules test examples/rules/brute-force.yaml --events examples/rules/brute-force.ndjson
$ mplp events history --json > events.ndjson      # or on what has really happened
$ mplp rules apply examples/rules/brute-force.yaml
```

Below each rule is what it says about its events: the `explanation` of its composites."""


def rules_page() -> str:
    """The page."""
    names = [*FIRST, *sorted(file.stem for file in EXAMPLES.glob("*.yaml") if file.stem not in FIRST)]
    return "\n\n".join(["# Rules to start from", _INTRODUCTION.strip(), *(part for name in names for part in _example(name))]) + "\n"


def _example(name: str) -> Iterator[str]:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    documents = read_documents(text, code="file.unreadable")
    comment = [line for line in text.splitlines() if line.startswith("#")]
    yield f"## {documents[0]['title']}"
    yield " ".join(line.lstrip("# ") for line in comment)
    yield f"`examples/rules/{name}.yaml`:"
    yield "```yaml\n" + "\n".join(line for line in text.splitlines() if line not in comment) + "\n```"
    trial = Trial(parse_rule(document) for document in documents)
    with (EXAMPLES / f"{name}.ndjson").open("rb") as events:
        said = [composite for line in events for composite in trial.line(line)]
    said += trial.finish()
    yield "\n".join(f"- {composite.severity}: {composite.explanation}" for composite in said)
