"""Many small objects, as the drivers do them, and their adds, gets and deletes taken together."""

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
    """Do it with store_lib."""
    from benchmarks.ours_driver import small

    answer = small(request, measures)
    _summed(measures)
    return answer


def peer(request: Request, measures: Measures) -> Answer:
    """Do it with glance_store."""
    from benchmarks.peer_driver import small

    answer = small(request, measures)
    _summed(measures)
    return answer
