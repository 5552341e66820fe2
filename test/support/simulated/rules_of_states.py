"""The rules of the pure transitions, each with a product that breaks it."""

from __future__ import annotations

from support.simulated.mutations import Mutation

STATE = "ledger.state"

OF_STATES = (
    Mutation(
        "a claim does not advance",
        "Claim advances next by a batch and adds it to the farmer's claims",
        ((f"{STATE}:claim", "next=segment.next + count", "next=segment.next"),),
        "transitions",
    ),
    Mutation(
        "tasks of the list are claimed before returned ones",
        "Claim takes returned tasks first",
        (
            (
                f"{STATE}:claim",
                "_claim_returned(state.returned, want, seconds_left)",
                "_claim_returned(state.returned, "
                "want - min(want, sum(one.tasks - one.next for one in state.segments)), seconds_left)",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "released tasks are lost",
        "One commit settles finished tasks and returns the rest",
        (
            (
                f"{STATE}:settle",
                "returned=_append_intervals(state.returned, _released(state, settlement))",
                "returned=state.returned",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "the tasks of a dead farmer are lost",
        "Expel: the commit counts ..., returns the rest",
        ((f"{STATE}:expel", "returned=_append_intervals(state.returned, released)", "returned=state.returned"),),
        "transitions",
    ),
    Mutation(
        "a task is handed out again as the same attempt",
        "attempt rises whenever a task is handed out again",
        (("formats.intervals:Interval.next_attempt", "self.attempt + 1", "self.attempt"),),
        "transitions",
    ),
    Mutation(
        "all tasks of a dead farmer count a death",
        "deaths counts only farmers that died while the task ran",
        (
            (
                f"{STATE}:expel",
                "ran = [one for claimed in remaining for one in _intersection(claimed, died)]",
                "ran = list(remaining)",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "a farmer settles tasks that it does not hold",
        "one commit settles a batch that it holds",
        ((f"{STATE}:settle", "if count_tasks(claims) + count_tasks(reported) != count_tasks(held):", "if False:"),),
        "transitions",
    ),
    Mutation(
        "an old attempt is settled in place of the held one",
        "one commit settles a batch that it holds",
        (
            (
                "formats.intervals:subtract",
                "removed.setdefault((one.segment, one.attempt), [])",
                "removed.setdefault(one.segment, [])",
            ),
            (
                "formats.intervals:subtract",
                "removed.get((one.segment, one.attempt), ())",
                "removed.get(one.segment, ())",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "finished tasks are not counted",
        "the revision carries the sums",
        ((f"{STATE}:settle", "finished=state.finished + settlement.finished", "finished=state.finished"),),
        "transitions",
    ),
    Mutation(
        "an abandoned journal does not count any more",
        "departed: the counted size of its result file",
        ((f"{STATE}:settle", "if settlement.journal != entry.journal and entry.bytes:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "a farmer leaves while it holds tasks",
        "a farmer leaves when it holds no tasks",
        ((f"{STATE}:leave", "if entry.claims:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "the journal length of a farmer that left is dropped",
        "departed: freezes that length",
        (
            (
                f"{STATE}:leave",
                "{**state.departed, entry.journal: entry.bytes} if entry.bytes else state.departed",
                "state.departed",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "a segment is imported twice",
        "growth: a list has more tasks at its end",
        ((f"{STATE}:grow", "if segment.first != state.tasks:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "retried tasks stay counted",
        "retry: recorded tasks are unprocessed again",
        ((f"{STATE}:retry", "failed=state.failed - failed", "failed=state.failed"),),
        "transitions",
    ),
    Mutation(
        "closed journals are not summed",
        "closed bytes are the sum of the lengths dropped from departed",
        (
            (
                f"{STATE}:begin_epoch",
                "closed_bytes=state.closed_bytes + sum(closed.values())",
                "closed_bytes=state.closed_bytes",
            ),
        ),
        "transitions",
    ),
)
