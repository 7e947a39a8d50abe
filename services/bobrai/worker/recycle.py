"""When a worker should be replaced by a fresh one: after a number of tasks, or when its memory has grown."""

from bobrai.worker.memory import resident_bytes

_MIB = 1024 * 1024


def reason_to(*, ended: int, max_tasks: int, max_memory_mib: int) -> str:
    """Return why this worker should drain and exit, or an empty string; a limit of 0 is none."""
    if max_tasks and ended >= max_tasks:
        return f"it has run {ended} tasks of at most {max_tasks}"
    if max_memory_mib and (used := resident_bytes() / _MIB) > max_memory_mib:
        return f"it uses {used:.0f} MiB of at most {max_memory_mib}"
    return ""
