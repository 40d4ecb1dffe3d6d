"""Adds, gets and deletes of many small objects as a single phase."""

from benchmarks.child import Answer, Measures, Request


def _summed(measures: Measures) -> None:
    phases = list(measures.phases.values())
    measures.phases["all"] = {
        name: sum(phase[name] or 0 for phase in phases)
        for name in (
            "seconds",
            "user_seconds",
            "system_seconds",
            "cpu_seconds",
            "server_cpu_seconds",
        )
    }


def ours(request: Request, measures: Measures) -> Answer:
    """Measure store_lib."""
    from benchmarks.ours_driver import small

    answer = small(request, measures)
    _summed(measures)
    return answer


def peer(request: Request, measures: Measures) -> Answer:
    """Measure glance_store."""
    from benchmarks.peer_driver import small

    answer = small(request, measures)
    _summed(measures)
    return answer
