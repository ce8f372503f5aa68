"""pool.json: what a pool is. Written once, when the pool is made; readable by a person."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jobpool_cli.errors import DamagedPoolError, OtherFormatError, UsageError
from jobpool_cli.layout import FORMAT_VERSION
from jobpool_cli.model import Cluster, PoolOptions, check_processes
from jobpool_cli.store import durable

# Beyond every number that a pool's description can hold.
MOST = 2**53
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Manifest(NamedTuple):
    """The contents of pool.json.

    Attributes:
        id: random, tells this pool from any other that ever bore its name.
        name: the pool's name.
        created: when `map` made it (UTC).
        n_jobs: number of tasks.
        udf: the entry point as ``file.py:function``, with the path that the user gave.
        folder: the working directory of `map`, and of the tasks.
        source: where the arguments came from, for people.
        options: how the pool runs.
    """

    id: str
    name: str
    created: datetime
    n_jobs: int
    udf: str
    folder: str
    source: str
    options: PoolOptions

    def write(self, path: Path) -> None:
        """Write a new pool.json."""
        content = {
            "format_version": FORMAT_VERSION,
            "id": self.id,
            "name": self.name,
            "created": self.created.isoformat(),
            "n_jobs": self.n_jobs,
            "udf": self.udf,
            "folder": self.folder,
            "source": self.source,
            "options": self.options.as_dict(),
        }
        durable.write_new(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a pool.json.

        Raises:
            DamagedPoolError: it is missing, no JSON, of another format version, or lacks something.
        """
        advice = f"restore it from a copy; what is left of the pool: jobpool doctor {path.parent.name}"
        try:
            content = json.loads(durable.read_old(path))
            version = content["format_version"]
        except KeyError as error:
            raise DamagedPoolError(
                f"{path} is not readable as a pool's description: it has no {error}", advice
            ) from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise DamagedPoolError(f"{path} is not readable as a pool's description: {why}", advice) from error
        if version != FORMAT_VERSION:
            raise OtherFormatError(
                f"{path} has format version {version}; this jobpool knows version {FORMAT_VERSION}",
                "use the jobpool that made it, or a newer one",
            )
        try:
            return cls._of(content)
        except (ValueError, KeyError, TypeError, UsageError) as error:
            raise DamagedPoolError(
                f"{path} lacks or garbles something that every pool has: {error!r}", advice
            ) from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Manifest:
        created = datetime.fromisoformat(content["created"])
        given = content["options"]
        cluster = given.get("cluster")
        options = PoolOptions(**{**given, "cluster": Cluster(**cluster) if cluster is not None else None})
        numbers = (content["n_jobs"], *(each for each in options[:-1] if each is not None))
        if created.utcoffset() is None or any(
            type(each) not in (int, float) or not 0 <= each < MOST for each in numbers
        ):
            raise ValueError("a number or a time is out of range")
        if not _ID.fullmatch(content["id"]):
            # The marks of its processes begin with it: anything else might be those of others.
            raise ValueError("its id is none")
        return cls(
            id=content["id"],
            name=str(content["name"]),
            created=created,
            n_jobs=int(content["n_jobs"]),
            udf=str(content["udf"]),
            folder=str(content["folder"]),
            source=str(content["source"]),
            options=check_processes(options),
        )
