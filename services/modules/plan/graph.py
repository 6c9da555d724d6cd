"""The dependency graph of a plan's tasks: what is wrong with it, and in which order the tasks may run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.modules.plan.state import Task
from streams.errors import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All faults of a task graph; without faults also its shape."""

    faults: tuple[Violation, ...]
    order: tuple[str, ...] = ()  #: tasks in an order that respects all dependencies, otherwise as given
    stages: tuple[tuple[str, ...], ...] = ()  #: tasks that may run side by side, stage after stage
    longest_chain: tuple[str, ...] = ()  #: the longest chain of tasks that must follow each other


def validate(tasks: Sequence[Task]) -> Validation:
    """Checks that there are tasks, that dependencies exist and that they have no cycle; all faults at once.

    Pointers are into the list of tasks (`/tasks/2/dependencies/0`). Codes as of workflows: `dependency.unknown`,
    `dependency.cycle`; `tasks.missing` for a plan without tasks.
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
    import networkx  # takes a second to load, and few processes check a plan

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(known)
    graph.add_edges_from((dependency, task.task_id) for task in tasks for dependency in task.dependencies if dependency in known)
    faults += [
        Violation(
            code="dependency.cycle",
            pointer="/tasks",
            message=f"Tasks depend on each other in a circle: {', '.join(sorted(group, key=known.__getitem__))}.",
        )
        for group in networkx.strongly_connected_components(graph)
        if len(group) > 1 or any(graph.has_edge(one, one) for one in group)
    ]
    if faults:
        return Validation(faults=tuple(sorted(faults, key=lambda fault: (fault.code, fault.pointer, fault.message))))
    return Validation(
        faults=(),
        order=tuple(networkx.lexicographical_topological_sort(graph, key=known.__getitem__)),
        stages=tuple(tuple(sorted(stage, key=known.__getitem__)) for stage in networkx.topological_generations(graph)),
        longest_chain=tuple(networkx.dag_longest_path(graph)),
    )
