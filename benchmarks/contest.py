"""A simple work, run by every peer that it names: each run a process of its own, as it would be from the shell."""

from __future__ import annotations

import functools
from collections.abc import Collection

from benchmarks import peers
from benchmarks.environment import lacking
from benchmarks.measure import Contender, Context, Figures, Row
from benchmarks.works import Work


def compete(context: Context, module: str, work: Work, chosen: Collection[str]) -> list[Row]:
    """Measure the work's contenders among the chosen peers (all, if none is named); those that cannot run say why."""
    contenders, skipped = [], []
    for key, full in work.CONTENDERS.items():
        peer = key.partition(":")[0]
        if chosen and peer not in chosen:
            continue
        tasks = min(full, work.QUICK_TASKS) if context.quick else full
        reason = lacking(peer)
        if reason:
            skipped.append(Row(contender=key, name=label(key), tasks=tasks, rounds=[], failed=reason))
            continue
        measure = functools.partial(run_peer, context, module, work, key, tasks)
        contenders.append(Contender(key, label(key), measure, tasks))
    return [*context.in_turn(contenders), *skipped]


def run_peer(context: Context, module: str, work: Work, key: str, tasks: int) -> Figures:
    """Let a peer do the work once; return its figures, and what follows from them."""
    peer, _, variant = key.partition(":")
    with context.folder() as folder:
        words = ["--work", module, "--tasks", str(tasks), "--workers", str(context.workers), "--folder", str(folder)]
        words += ["--variant", variant] if variant else []
        ran = context.run(context.python, "-m", f"benchmarks.peers.{peer}", *words, home=folder / "home")
    # A peer that times its own command leaves out what a user would not wait for, such as writing the arguments.
    figures = {"wall": ran.wall, "peak_rss": float(ran.peak_rss)} | ran.figures()
    figures["rate"] = tasks / figures["wall"]
    if "map_seconds" in figures:
        figures["map_rate"] = tasks / figures["map_seconds"]
    if "disk_bytes" in figures:
        figures["disk_bytes_per_task"] = figures["disk_bytes"] / tasks
    if hasattr(work, "derive"):
        figures |= work.derive(figures, tasks, context.workers)
    return figures


def label(key: str) -> str:
    """Return what people call a contender: ``executor:chunksize=1`` is "ProcessPoolExecutor, chunksize 1"."""
    peer, _, variant = key.partition(":")
    facts = peers.facts(peer)
    way = facts.get("VARIANTS", {}).get(variant, variant.replace("=", " "))
    return f"{facts['NAME']}, {way}" if way else str(facts["NAME"])
