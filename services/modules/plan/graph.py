"""The dependency graph of a plan's tasks:

what is wrong with it, in which order the tasks may run, and which of them decide when it ends. Pure.

Every task has a start and an end; a dependency of one of four types holds one of them back until one of another task's. So the graph has
two nodes per task, joined by the task's duration, and the critical path is the longest way through it (the critical path method, Kelley
and Walker 1959, for precedence diagrams).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.modules.plan.state import DependencyType, Task
from streams.errors import Violation
from streams.operations import CONTRACT

if TYPE_CHECKING:
    import networkx

START, END = "start", "end"
#: Of the task that is depended on, and of the task that waits.
_ENDS: Mapping[DependencyType, tuple[str, str]] = {
    "finish-to-start": (END, START),
    "start-to-start": (START, START),
    "finish-to-finish": (END, END),
    "start-to-finish": (START, END),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """When a task may begin and end at the earliest, and by how much it may be late without delaying the plan, milliseconds."""

    task_id: str
    start_ms: float
    end_ms: float
    slack_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All faults of a task graph; without faults also its shape."""

    faults: tuple[Violation, ...]
    order: tuple[str, ...] = ()  #: tasks in an order that respects all dependencies, otherwise as given
    stages: tuple[tuple[str, ...], ...] = ()  #: tasks that may run side by side, stage after stage
    longest_chain: tuple[str, ...] = ()  #: the longest chain of tasks that must follow each other
    critical_path: tuple[str, ...] = ()  #: the tasks that decide when the plan ends
    duration_ms: float = 0.0  #: how long the plan takes at least
    slots: tuple[Slot, ...] = field(default=())


def validate(tasks: Sequence[Task]) -> Validation:
    """Checks that there are tasks, that dependencies and operations of built-in modules exist, and that there is no cycle.

    All faults at once. Pointers are into the list of tasks (`/tasks/2/dependencies/0`). Codes as of workflows: `dependency.unknown`,
    `dependency.cycle`, `operation.unknown`; `tasks.missing` for a plan without tasks.
    """
    if not tasks:
        return Validation(faults=(Violation(code="tasks.missing", pointer="/tasks", message="The plan has no tasks."),))
    known = {task.task_id: index for index, task in enumerate(tasks)}
    faults = [
        Violation(
            code="dependency.unknown",
            pointer=f"/tasks/{index}/dependencies/{place}",
            message=f"Task {task.task_id!r} depends on {dependency!r}, which the plan does not have.",
        )
        for index, task in enumerate(tasks)
        for place, dependency in enumerate(task.dependencies)
        if dependency not in known
    ]
    faults += [
        Violation(
            code="operation.unknown",
            pointer=f"/tasks/{index}/operation",
            message=f"Task {task.task_id!r} calls {task.module}.{task.operation}, which there is not.",
        )
        for index, task in enumerate(tasks)
        if task.module is not None and task.operation not in CONTRACT.get(task.module, (task.operation,))
    ]
    import networkx  # takes a second to load, and few processes check a plan

    moments = _moments(tasks, known)
    faults += [
        Violation(
            code="dependency.cycle",
            pointer="/tasks",
            message=f"Tasks depend on each other in a circle: {', '.join(sorted({task for task, _ in group}, key=known.__getitem__))}.",
        )
        for group in networkx.strongly_connected_components(moments)
        if len(group) > 1 or any(moments.has_edge(one, one) for one in group)
    ]
    if faults:
        return Validation(faults=tuple(sorted(faults, key=lambda fault: (fault.code, fault.pointer, fault.message))))
    return _shape(tasks, known, moments)


def _moments(tasks: Sequence[Task], known: Mapping[str, int]) -> networkx.DiGraph[tuple[str, str]]:
    """Starts and ends of all tasks, and what must come before what; the weight of an edge is the time between them, milliseconds."""
    import networkx

    graph: networkx.DiGraph[tuple[str, str]] = networkx.DiGraph()
    for task in tasks:
        graph.add_edge((task.task_id, START), (task.task_id, END), weight=task.duration_ms or 0.0)
    for task in tasks:
        for dependency in task.dependencies:
            if dependency in known:
                before, after = _ENDS[task.type_of(dependency)] if dependency != task.task_id else (START, START)
                graph.add_edge((dependency, before), (task.task_id, after), weight=0.0)
    return graph


def _shape(tasks: Sequence[Task], known: Mapping[str, int], moments: Any) -> Validation:
    import networkx

    # Which task begins before which: only what holds back a start counts, directly or by way of an end that it waits for.
    starts: networkx.DiGraph[str] = networkx.DiGraph()
    starts.add_nodes_from(known)
    starts.add_edges_from(
        (dependency, task.task_id) for task in tasks for dependency in task.dependencies if task.type_of(dependency).endswith("start")
    )
    order = [
        task for task, moment in networkx.lexicographical_topological_sort(moments, key=lambda node: known[node[0]]) if moment == START
    ]
    early: dict[Any, float] = {}
    for node in networkx.topological_sort(moments):
        early[node] = max((early[before] + moments.edges[before, node]["weight"] for before in moments.predecessors(node)), default=0.0)
    duration = max(early.values())
    late: dict[Any, float] = {}
    for node in reversed(list(networkx.topological_sort(moments))):
        late[node] = min((late[after] - moments.edges[node, after]["weight"] for after in moments.successors(node)), default=duration)
    slots = tuple(
        Slot(
            task_id=task,
            start_ms=early[task, START],
            end_ms=early[task, END],
            slack_ms=min(late[task, START] - early[task, START], late[task, END] - early[task, END]),
        )
        for task in order
    )
    longest = tuple(networkx.dag_longest_path(starts))
    critical = tuple(dict.fromkeys(task for task, _ in networkx.dag_longest_path(moments))) if duration else longest
    return Validation(
        faults=(),
        order=tuple(order),
        stages=tuple(tuple(sorted(stage, key=known.__getitem__)) for stage in networkx.topological_generations(starts)),
        longest_chain=longest,
        critical_path=critical,
        duration_ms=duration,
        slots=slots,
    )


def holding_back(task: Task, tasks: Mapping[str, Task], moment: str, reached: Mapping[str, frozenset[str]]) -> list[str]:
    """Tasks that hold back the start or the end of `task`. `reached`: for start and end, the states of a task that is so far."""
    return [
        dependency
        for dependency in task.dependencies
        if _ENDS[task.type_of(dependency)][1] == moment and tasks[dependency].status not in reached[_ENDS[task.type_of(dependency)][0]]
    ]
