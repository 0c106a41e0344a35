"""Objects that are done, on disk: what a killed evaluation, or another process, need not redo."""

import json
import threading
import time
from pathlib import Path

from mis_jax.files import write_file


class Journal:
    """A folder with a file for each process that evaluates, one JSON line for each object.

    Args:
        folder: of all that is clicked under the same settings; made if need be.
        name: of the clicker.
        shard: (i, n), this process of all.
    """

    def __init__(self, folder: Path, name: str, shard: tuple[int, int] = (0, 1)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        of = f"-{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
        self._own = folder / f"{name}{of}.jsonl"
        self._lock = threading.Lock()
        if self._own.exists():
            text = self._own.read_text()
            if not text.endswith("\n"):  # its writer was killed
                write_file(self._own, text[: text.rfind("\n") + 1])
        self._known = self._read()
        self._latest = {id: digest for id, digest in self._known}

    def recall(self, id: str, digest: int) -> bool:
        """Whether an object of these pixels was done before this process began; then it counts.

        Where something else is known of the object since, its record is added once more.
        """
        record = self._known.get((id, digest))
        if record and self._latest[id] != digest:
            self.add(record)
        return record is not None

    def add(self, record: dict) -> None:
        """Appends {"id", "digest", "ious", "clicks", "seconds"}, or {"id", "skipped": why}."""
        line = json.dumps({**record, "time": time.time()}) + "\n"
        with self._lock, self._own.open("a") as file:
            file.write(line)

    def latest(self) -> dict[str, dict]:
        """The last record of each object, by whatever process."""
        return {id: record for (id, _), record in self._read().items()}

    def _read(self) -> dict[tuple[str, int | None], dict]:
        """All records by id and digest, the last ones last."""
        records: list[dict] = []
        files = [self._folder / f"{self._name}.jsonl"]
        for file in [*files, *self._folder.glob(f"{self._name}-*of*.jsonl")]:
            text = file.read_text() if file.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # without a line that is being written
            records += map(json.loads, whole.splitlines())
        found: dict[tuple[str, int | None], dict] = {}
        for record in sorted(records, key=lambda r: r["time"]):
            key = record["id"], record.get("digest")
            found.pop(key, None)
            found[key] = record
        return found
