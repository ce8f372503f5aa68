"""pool.json: what a pool is. Written once, when the pool is made; readable by a person."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import FORMAT_VERSION
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable


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
        try:
            content = json.loads(path.read_bytes())
            version = content["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedPoolError(f"{path} is not readable as a pool's description: {error}") from error
        if version != FORMAT_VERSION:
            raise DamagedPoolError(
                f"{path} has format version {version}; this jobpool knows version {FORMAT_VERSION}",
                "use the jobpool that made it, or a newer one",
            )
        try:
            return cls(
                id=str(content["id"]),
                name=str(content["name"]),
                created=datetime.fromisoformat(content["created"]),
                n_jobs=int(content["n_jobs"]),
                udf=str(content["udf"]),
                folder=str(content["folder"]),
                source=str(content["source"]),
                options=PoolOptions(**content["options"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedPoolError(f"{path} lacks or garbles something that every pool has: {error!r}") from error
