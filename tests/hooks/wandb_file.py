"""Read W&B's offline files: a LevelDB log of protobuf records after a header of 7 bytes."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32_768
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Record]:
    content, position, parts = path.read_bytes(), HEADER, b""
    while position < len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        parts += content[position : position + length]
        position += length
        if kind in {FULL, LAST}:
            yield Record.FromString(parts)
            parts = b""


class OfflineRun:
    """All parts of a run, in the order in which they would be uploaded."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("offline-run-*/*.wandb"))

    @classmethod
    def of(cls, files: list[Path]) -> "OfflineRun":
        """Return a run with only these parts."""
        run = cls(Path())
        run.files = files
        return run

    @property
    def records(self) -> list[Record]:
        return [record for path in self.files for record in records(path)]

    @property
    def ids(self) -> set[str]:
        return {record.run.run_id for record in self.records if record.HasField("run")}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return one row per call of ``log``."""
        return [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in self.records
            if record.HasField("history")
        ]

    @property
    def summary(self) -> dict[str, Any]:
        return {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for record in self.records
            if record.HasField("summary")
            for item in record.summary.update
        }

    @property
    def config(self) -> dict[str, Any]:
        return {
            item.key: json.loads(item.value_json)
            for record in self.records
            if record.HasField("run")
            for item in record.run.config.update
        }

    @property
    def artifacts(self) -> dict[str, set[str]]:
        """The files of each artifact, by its type."""
        return {
            record.request.log_artifact.artifact.type if record.HasField("request") else record.artifact.type: {
                entry.path
                for entry in (
                    record.request.log_artifact.artifact if record.HasField("request") else record.artifact
                ).manifest.contents
            }
            for record in self.records
            if record.HasField("artifact") or record.request.HasField("log_artifact")
        }
