"""The order of a partition's inputs."""

from __future__ import annotations

from streams.log.inputs import RANK_ANSWER, RANK_COMMAND, Arrived, Inputs, Source


def at(source: Source, *times: int) -> None:
    source.queue.extend(Arrived(lane="x", time_us=time, record=None, position=None) for time in times)


def order(inputs: Inputs, timers: list[int], now: int = 10**9) -> list[str]:
    taken = []
    while (choice := inputs.choose(min(timers, default=None), now)) is not None:
        if isinstance(choice, Source):
            name = next(name for name, source in inputs.sources.items() if source is choice)
            taken.append(f"{name}@{choice.queue.popleft().time_us}")
        else:
            timers.remove(choice)
            taken.append(f"timer@{choice}")
    return taken


def test_by_time_and_at_one_moment_answers_then_commands_then_timers() -> None:
    inputs = Inputs()
    at(inputs.add("commands", RANK_COMMAND), 10, 20, 30)
    at(inputs.add("answers", RANK_ANSWER), 20, 25)
    assert order(inputs, [20, 22, 40]) == [
        "commands@10", "answers@20", "commands@20", "timer@20", "timer@22", "answers@25", "commands@30", "timer@40",
    ]  # fmt: skip


def test_a_source_that_is_behind_holds_everything_up_until_it_has_something_at_hand() -> None:
    inputs = Inputs()
    at(inputs.add("commands", RANK_COMMAND), 10)
    answers = inputs.add("answers", RANK_ANSWER, behind=True)
    assert order(inputs, [5]) == []
    at(answers, 7)
    assert order(inputs, [5]) == ["timer@5", "answers@7"], "then it is empty and still behind"
    answers.behind = False
    assert order(inputs, [12]) == ["commands@10", "timer@12"]


def test_a_timer_in_the_future_waits() -> None:
    assert order(Inputs(), [100], now=99) == []
    assert order(Inputs(), [100], now=100) == ["timer@100"]
