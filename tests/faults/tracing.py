"""What strace wrote, and how it is asked to watch little."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def without_children(words: list[str]) -> list[str]:
    """Have an strace that follows threads let go of the programs that they start.

    To stop at nothing but the calls that it looks at (``--seccomp-bpf``) would be quicker, but then strace 6.1 does not
    inject signals.
    """
    return [words[0], "-b", "execve", *words[1:]]


def counts_of(trace: Path) -> dict[str, int]:
    """Return for each call how often the busiest thread made it, from a trace with a line a call."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        # With -f, the thread's number comes first.
        before, opening, _ = line.partition("(")
        *thread, call = before.split() or [""]
        if opening and call.isidentifier() and len(thread) <= 1:
            counts["".join(thread), call] += 1
    busiest: dict[str, int] = {}
    for (_, call), count in counts.items():
        busiest[call] = max(count, busiest.get(call, 0))
    return busiest
