"""Finished rows on the disk until the file is whole, so that a killed command resumes.

Beside X.parquet, the folder X.parquet.parts/ holds a manifest, which says what is embedded by which
model, and one Parquet file for every `ROWS` photographs. The name of a part holds the SHA-256 of
its content: a part that was cut off or damaged is made again. A part appears in one step, and so
does the joined file, which does not depend on how often the command was killed.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow
import pyarrow.parquet

from vclip_jax.files.csv_lines import csv_line
from vclip_jax.files.errors import shown
from vclip_jax.files.foreign import read_bytes, read_json
from vclip_jax.files.writing import check_no_link, replacing, write_bytes, write_json, write_text
from vclip_jax.predict.embed import columns

ROWS: Final = 512
"""Photographs of a part, and of a row group; a multiple of the model's batches."""
MANIFEST: Final = "manifest.json"
_MOST: Final = 1 << 30
"""The largest accepted part in bytes; one has about a megabyte."""


@dataclass(frozen=True)
class Parts:
    """The parts of a file."""

    target: Path
    """The file."""
    photographs: int
    """The number of photographs, those that cannot be read included."""

    @property
    def folder(self) -> Path:
        """The folder of the parts."""
        return self.target.with_name(f"{self.target.name}.parts")

    @property
    def rejects(self) -> Path:
        """The list of photographs that cannot be read."""
        return self.target.with_suffix(".rejects.csv")

    def __len__(self) -> int:
        return -(-self.photographs // ROWS)

    def rows(self, number: int) -> range:
        """Return the photographs of a part."""
        return range(number * ROWS, min((number + 1) * ROWS, self.photographs))

    def begin(self, job: Mapping[str, Any]) -> None:
        """Make the folder, or check that the folder of a killed command is of the same job.

        Args:
            job: everything that the rows depend on, as JSON: what it is -> value.

        Raises:
            ValueError: one line: the file is there, or the folder is of another job.
        """
        check_no_link(self.folder)
        job = {**job, "size of parts": ROWS}
        manifest = self.folder / MANIFEST
        if manifest.exists():
            found = read_json(manifest)
            known = found if isinstance(found, dict) else {}
            if other := [name for name, value in job.items() if known.get(name) != value]:
                raise ValueError(
                    f"{self.folder} has rows of an unfinished file with another "
                    f"{', '.join(other)}: name another --out, or remove the folder"
                )
            return
        if self.target.exists():
            raise ValueError(f"{self.target} exists: name another --out, or remove the file")
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(not path.name.startswith(MANIFEST) for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder} has files of something else: name another --out")
        write_json(manifest, job)

    def missing(self) -> tuple[list[int], int]:
        """Return the numbers of the parts to make, and the number of damaged files removed."""
        missing = [number for number in range(len(self)) if self._read(number) is None]
        damaged = [path for number in missing for path in self._files(number)]
        for path in damaged:
            path.unlink()
        return missing, len(damaged)

    def write(self, number: int, rows: pyarrow.Table) -> None:
        """Write a part in one step."""
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(rows, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        write_bytes(self.folder / _name(number, content), content)

    def join(self, schema: pyarrow.Schema) -> tuple[Counter[str], int]:
        """Write the file, and the list of rejects if there are any.

        Args:
            schema: columns and metadata.

        Returns:
            The reasons of the gate -> number of embedded photographs, and the number of rejects.
        """
        refused: Counter[str] = Counter()
        rejects: list[tuple[str, str]] = []
        with replacing(self.target, sync=True) as unfinished:
            with pyarrow.parquet.ParquetWriter(
                unfinished, schema, compression="zstd", use_dictionary=columns.texts(schema)
            ) as writer:
                for rows in self._each():
                    kept = columns.kept(rows).cast(schema)
                    if kept.num_rows:
                        writer.write_table(kept)
                    refused.update(kept["gate"].to_pylist())
                    rejects += columns.rejects(rows)
            self.rejects.unlink(missing_ok=True)  # of an earlier file of this name
            if rejects:
                lines = [csv_line(["key", "reason"])]
                lines += [csv_line([key, shown(reason)]) for key, reason in rejects]
                write_text(self.rejects, "".join(f"{line}\n" for line in lines))
        return refused, len(rejects)

    def pictures(self) -> str:
        """Return the SHA-256 of the lines that `sha256sum` prints for the embedded photographs."""
        digest = hashlib.sha256()
        for rows in self._each():
            digest.update(columns.sums(rows))
        return digest.hexdigest()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _each(self) -> Iterator[pyarrow.Table]:
        for number in range(len(self)):
            rows = self._read(number)
            if rows is None:
                raise ValueError(f"{self.folder}: part {number} was damaged just now: start again")
            yield rows

    def _read(self, number: int) -> pyarrow.Table | None:
        """Return a part, or None if it is not there whole."""
        for path in self._files(number):
            try:
                content = read_bytes(path, _MOST)
            except (OSError, ValueError):
                continue
            if path.name == _name(number, content):
                return pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        return None

    def _files(self, number: int) -> list[Path]:
        return sorted(self.folder.glob(_name(number)))


def _name(number: int, content: bytes | None = None) -> str:
    """Return the name of a part with this content, or the pattern of all its names."""
    digest = "*" if content is None else hashlib.sha256(content).hexdigest()
    return f"{number:06}-{digest}.parquet"
