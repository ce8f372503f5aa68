"""Damage to a pool's folder as small recipes: made at random from a seed, kept as JSON where one found something."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

Recipe = dict[str, Any]

# What a pool's folder holds that commands read; the folder itself last.
FILES = (
    "pool.json",
    "args.parquet",
    "state.db",
    "state.db-wal",
    "state.db-shm",
    "lock",
    "slots",
    "supervisor.log",
    "udf/v1/snapshot.json",
    "udf/v1/{pool}.py",
    "logs/worker-0001.log",
    "results/segment-000001.parquet",
    "results/segment-000003.parquet",
    "results",
    "logs",
    "requests",
    "udf",
)
# Most of what can be wrong lies in these.
WEIGHTS = (4, 4, 12, 4, 1, 1, 1, 1, 1, 1, 2, 3, 3, 1, 1, 1, 1)
KINDS = ("flip", "overwrite", "cut", "insert", "text", "empty", "swap", "gone", "folder", "link", "pipe")
KIND_WEIGHTS = (8, 8, 4, 2, 1, 1, 3, 1, 1, 1, 1)
LONGEST = 5000
SMALL = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


def make(chance: random.Random, home: Path) -> Recipe:
    """Make up a recipe that can be carried out on the pools of a home."""
    pool = chance.choice(sorted(path.name for path in (home / "pools").iterdir()))
    (name,) = chance.choices(FILES, WEIGHTS)
    name = name.format(pool=pool)
    path = home / "pools" / pool / name
    if not path.exists():
        name, path = "state.db", home / "pools" / pool / "state.db"
    (kind,) = chance.choices(KINDS, KIND_WEIGHTS)
    size = path.stat().st_size
    recipe: Recipe = {"pool": pool, "file": name, "do": kind}
    if kind == "flip":
        # A few bits here and there.
        recipe["at"] = [chance.randrange(max(size, 1)) for _ in range(chance.choice((1, 1, 1, 3, 20)))]
        recipe["bit"] = chance.randrange(8)
    elif kind in {"overwrite", "insert"}:
        recipe["at"] = chance.randrange(max(size, 1))
        recipe |= _data(chance, size)
    elif kind == "cut":
        recipe["at"] = chance.choice((chance.randrange(max(size, 1)), max(0, size - 1)))
    elif kind == "swap":
        other = chance.choice([each for each in FILES if each != name and "{" not in each])
        recipe["with"] = chance.choice((f"../interrupted/{name}", f"../mixed/{name}", other))
    elif kind == "link":
        recipe["to"] = chance.choice(("nowhere", "/dev/zero", f"../mixed/{name}", "."))
    return recipe


def _data(chance: random.Random, size: int) -> Recipe:
    """Make up new bytes, in few words."""
    length = chance.randrange(1, min(LONGEST, max(1, size)) + 1)
    match chance.randrange(4):
        case 0:
            return {"byte": 0, "length": length}
        case 1:
            return {"byte": 255, "length": length}
        case 2:
            return {"hex": chance.choice(SMALL).to_bytes(8, chance.choice(("little", "big"))).hex()}
    return {"seed": chance.randrange(2**32), "length": length}


def _bytes(recipe: Recipe) -> bytes:
    if "hex" in recipe:
        return bytes.fromhex(recipe["hex"])
    if "byte" in recipe:
        return bytes([recipe["byte"]]) * int(recipe["length"])
    return random.Random(recipe["seed"]).randbytes(recipe["length"])  # noqa: S311 - no secret


def apply(recipe: Recipe, home: Path) -> None:
    """Damage a pool; what the recipe speaks of and is not there is left alone."""
    root = home / "pools" / recipe["pool"]
    path = root / recipe["file"]
    kind = recipe["do"]
    if kind in {"flip", "overwrite", "cut", "insert", "text", "empty"}:
        if path.is_file():
            path.write_bytes(_changed(bytearray(path.read_bytes()), recipe))
        return
    if kind == "swap":
        other = root / recipe["with"]
        if path.is_file() and other.is_file():
            mine, theirs = path.read_bytes(), other.read_bytes()
            path.write_bytes(theirs)
            other.write_bytes(mine)
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "link":
        path.symlink_to(recipe["to"])
    elif kind == "pipe":
        os.mkfifo(path, 0o600)


def _changed(data: bytearray, recipe: Recipe) -> bytes:
    match recipe["do"]:
        case "flip":
            for at in recipe["at"]:
                if at < len(data):
                    data[at] ^= 1 << recipe["bit"]
        case "overwrite":
            new = _bytes(recipe)
            data[recipe["at"] : recipe["at"] + len(new)] = new
        case "insert":
            data[recipe["at"] : recipe["at"]] = _bytes(recipe)
        case "cut":
            del data[recipe["at"] :]
        case "text":
            data = bytearray('{"[\x00ü\ud7ff\n'.encode() * 300)
        case "empty":
            data = bytearray()
    return bytes(data)
