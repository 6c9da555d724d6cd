# ruff: noqa: E501  SQL is read a line at a time
"""A history of any size, made inside of ClickHouse: executions with their steps and what modules answered, business events with skew.

The same size gives the same rows. Ids are as random as the product's; executions begin all over `DAYS` days; types, sources and
customers follow a power law. Causes are linked as the product links them: a command starts an execution; what a decision writes names
the record that it answers; a module keeps the request with the request's own id as its cause, and its answer and its events name that
id, too; what a timer decides names nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

#: First moment of the history, and how long it is.
BEGIN = "2026-01-05 00:00:00"
DAYS = 40
#: Every so many executions one fails: its first step is not answered in time, twice.
FAILING = 50
TYPES, SOURCES, CUSTOMERS = 60, 20, 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    executions: int  #: each has about 11 transitions, 6 messages, 3 events of modules and a command
    events: int  #: business events; one in fifty is followed by a composite of five, one in twenty by a delivery

    @classmethod
    def of(cls, rows: int) -> Size:
        """About so many rows in all, half of them business events."""
        return cls(executions=rows * 9 // 400, events=rows // 2)


def fill(client: Client, size: Size) -> None:
    """Inserts it into the tables of the connection's database. Blocks."""
    for statement in statements(size):
        client.command(statement)


def execution(number: int) -> str:
    """An expression for the id of an execution."""
    return _id("'execution'", f"toUInt64({number})")


def event(number: int) -> str:
    """An expression for the id of a business event."""
    return _id("'event'", f"toUInt64({number})")


def _id(*parts: str) -> str:
    return f"UUIDNumToString(sipHash128({', '.join(parts)}))"


def _skewed(most: int, salt: str) -> str:
    """One of `most` numbers, the smaller the more often: half of all are below the square root of `most`."""
    return f"toUInt32(pow({most}, (cityHash64(number, '{salt}') % 1000003) / 1000003)) - 1"


def _spread(of: int) -> str:
    """The moment of thing number n of so many."""
    return f"toDateTime64('{BEGIN}', 6, 'UTC') + toIntervalMicrosecond(intDiv(number * {DAYS * 86_400_000} , {of}) * 1000 + number % 977)"


_HEAD = "id, type, source, subject, time, correlation_id, causation_id, data_text"
_PLACE = "_topic, _partition, _offset, _timestamp"
_SETTINGS = "SETTINGS max_insert_threads = 2, max_partitions_per_insert_block = 0, min_insert_block_size_rows = 500000"


def statements(size: Size) -> Iterator[str]:
    """The inserts."""
    yield _transitions(size)
    yield _messages(size)
    yield _commands(size)
    yield _module_events(size)
    yield _events(size)
    yield _composites(size)
    yield _deliveries(size)


def _executions(size: Size) -> str:
    """A row per execution, and what its parts are called."""
    return f"""SELECT number, {_spread(size.executions)} AS begun, number % {FAILING} = 7 AS fails, 2 + number % 3 AS steps,
        {_id("'execution'", "number")} AS execution, {_id("'command'", "number")} AS command FROM numbers({size.executions})"""


def _transitions(size: Size) -> str:
    answer = _id("'response'", "number", "toUInt64(step - if(kind = 2, 0, 1))")
    return f"""INSERT INTO workflow_transitions ({_HEAD}, execution_id, workflow_id, workflow_version, step_id, attempt, status, aggregate_id,
        sequence, epoch, {_PLACE}) {_SETTINGS}
    SELECT {_id("'transition'", "number", "toUInt64(row)")}, kind_name, 'mplp/orchestrator', execution, at, execution, cause, data,
        execution, concat('workflow-', toString(cityHash64(number) % 12)), '1.0.0', if(step = 0, NULL, concat('step-', toString(step))),
        attempt, state, execution, row + 1, 1, 'mplp.workflow.transitions', number % 4, number * 16 + row, at
    FROM
    (
        SELECT *,
            multiIf(row = 0 OR row + 1 = rows, 0, fails, 1, intDiv(row - 1, 3) + 1) AS step,
            if(step = 0, 0, (row - 1) % 3) AS kind,
            multiIf(
                fails, ['execution.started', 'step.scheduled', 'step.started', 'step.retried', 'step.started', 'step.failed',
                    'execution.failed'][row + 1],
                row = 0, 'execution.started', row + 1 = rows, 'execution.completed',
                ['step.scheduled', 'step.started', 'step.completed'][kind + 1]) AS kind_name,
            multiIf(fails, [0, 0, 1, 1, 2, 2, 0][row + 1], kind = 0, 0, 1) AS attempt,
            multiIf(row + 1 < rows, 'running', fails, 'failed', 'completed') AS state,
            multiIf(
                row = 0 OR (row <= 2 AND step > 0), command,
                fails, NULL,
                step = 0, {_id("'response'", "number", "toUInt64(steps)")}, {answer}) AS cause,
            begun + toIntervalMillisecond(if(fails, row * 10000, intDiv(row, 3) * 40 + if(kind = 2, 3 + cityHash64(number, step) % 30
                + if(cityHash64(step, number) % 500 = 0, 900, 0), 0))) AS at,
            multiIf(
                kind_name = 'step.started', '{{"parameters": {{"name": "n"}}, "module": "plan", "operation": "create-plan"}}',
                kind_name IN ('step.retried', 'step.failed', 'execution.failed'), '{{"error": {{"code": "timeout", "message": "late"}}}}',
                kind_name = 'step.completed', '{{"result": {{"planId": "p-1", "tasks": 3}}}}', '{{}}') AS data
        FROM (SELECT *, if(fails, 7, 2 + 3 * steps) AS rows, arrayJoin(range(if(fails, 7, 2 + 3 * steps))) AS row FROM ({_executions(size)}))
    )"""


def _messages(size: Size) -> str:
    """A module's log: a request and its answer for each step."""
    ask, at = _id("'request'", "number", "toUInt64(step)"), "begun + toIntervalMillisecond((step - 1) * 40 + 1 + answered)"
    return f"""INSERT INTO module_messages ({_HEAD}, kind, source_module, target_module, operation, execution_id, step_id, attempt, status,
        aggregate_id, sequence, epoch, {_PLACE}) {_SETTINGS}
    SELECT if(answered, {_id("'response'", "number", "toUInt64(step)")}, {_id("'kept'", "number", "toUInt64(step)")}),
        if(answered, 'plan.answered', 'plan.requested'), 'mplp/modules/plan', execution, {at}, execution, {ask},
        if(answered, '{{"planId": "p-1", "tasks": 3}}', '{{"name": "n"}}'), if(answered, 'response', 'request'), if(answered, 'plan', 'core'),
        if(answered, 'core', 'plan'), 'create-plan', execution, concat('step-', toString(step)), 1, if(answered, 'success', NULL),
        execution, step * 3 + answered, 1, 'mplp.module.messages', number % 4, number * 16 + step * 3 + answered, {at}
    FROM (SELECT *, arrayJoin(range(1, toUInt8(steps) + 1)) AS step, arrayJoin([0, 1]) AS answered FROM ({_executions(size)}) WHERE NOT fails)"""


def _commands(size: Size) -> str:
    return f"""INSERT INTO workflow_commands ({_HEAD}, execution_id, command, {_PLACE}) {_SETTINGS}
    SELECT command, 'execution.start', 'mplp/cli', execution, begun, execution, NULL, '{{"input": {{}}}}', execution, 'start',
        'mplp.workflow.commands', number % 4, number, begun
    FROM ({_executions(size)})"""


def _module_events(size: Size) -> str:
    """What a module says of each step."""
    return f"""INSERT INTO system_events ({_HEAD}, severity, aggregate_id, sequence, epoch, {_PLACE}) {_SETTINGS}
    SELECT {_id("'told'", "number", "toUInt64(step)")}, 'plan.created', 'mplp/modules/plan', concat('plan-', toString(number)),
        begun + toIntervalMillisecond((step - 1) * 40 + 2) AS at, execution, {_id("'request'", "number", "toUInt64(step)")},
        '{{"planId": "p-1", "tasks": 3}}', 'info', execution, step * 3 + 2, 1, 'mplp.module.messages', number % 4, number * 16 + step * 3 + 2, at
    FROM (SELECT *, arrayJoin(range(1, toUInt8(steps) + 1)) AS step FROM ({_executions(size)}) WHERE NOT fails)"""


def _events(size: Size) -> str:
    """Orders and the like: four of five begin something, the fifth is caused by one that was a little earlier."""
    return f"""INSERT INTO system_events ({_HEAD}, severity, {_PLACE}) {_SETTINGS}
    SELECT {_id("'event'", "number")}, concat('order.kind-', toString({_skewed(TYPES, "type")})),
        concat('shop-', toString({_skewed(SOURCES, "source")})), concat('customer-', toString({_skewed(CUSTOMERS, "customer")}) AS c) AS subject,
        {_spread(size.events)} AS at, concat(subject, '/', toString(intDiv(number, 400000))),
        if(number % 5 = 4, {_id("'event'", "number - 3")}, NULL),
        concat('{{"amount": ', toString(cityHash64(number, 'amount') % 100000 / 100), ', "count": ', toString(number % 7),
            ', "customer": {{"id": "', c, '", "vip": ', if(number % 11 = 0, 'true', 'false'), '}}, "items": [{{"sku": "s',
            toString(cityHash64(number) % 5000), '"}}], "note": "', substring(hex(sipHash128(number)), 1, 24), '"}}'),
        if(number % 200 = 0, 'error', 'info'), 'mplp.system.events', number % 4, intDiv(number, 4), at
    FROM numbers({size.events})"""


def _composites(size: Size) -> str:
    return f"""INSERT INTO composite_events ({_HEAD}, rule_id, rule_version, correlation_type, group_key, window_start, window_end, event_ids,
        event_count, confidence, severity, explanation, revision, {_PLACE}) {_SETTINGS}
    SELECT {_id("'composite'", "number")}, 'orders.many', 'mplp/rules', 'many', at, '', {_id("'event'", "number * 50 + 4")},
        '{{"total": 5}}', concat('rule-', toString({_skewed(40, "rule")})), 1, 'event_count', map('subject', toString(number % 1000)), at, at,
        arrayMap(n -> {_id("'event'", "toUInt64(number * 50 + n)")}, range(5)), 5, 0.8, 'warning', 'Five orders.', 1,
        'mplp.composite.events', number % 4, intDiv(number, 4), at
    FROM (SELECT number, {_spread(max(1, size.events // 50))} AS at FROM numbers({size.events // 50}))"""


def _deliveries(size: Size) -> str:
    return f"""INSERT INTO deliveries ({_HEAD}, event_id, route_id, destination, attempt, status, error, latency_ms, {_PLACE}) {_SETTINGS}
    SELECT {_id("'delivery'", "number")}, 'delivery.ended', 'mplp/routes', 'x', at, '', event, '{{}}', event,
        concat('route-', toString({_skewed(30, "route")})), 'webhook', 1, if(number % 97 = 0, 'dead', 'delivered'),
        if(number % 97 = 0, 'no answer', NULL), cityHash64(number) % 90, 'mplp.deliveries', number % 4, intDiv(number, 4), at
    FROM (SELECT number, {_spread(max(1, size.events // 20))} AS at, {_id("'event'", "number * 20")} AS event FROM numbers({size.events // 20}))"""
