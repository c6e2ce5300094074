"""The files of a run, any of which may be missing, damaged or incomplete."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from etils import epath

from vclip_jax.files.foreign import parse_json, read_bytes
from vclip_jax.tracking.metrics_log import NO_VALUES

TABLE = "table1.json"
_MOST = 64 << 20
"""The largest accepted JSON file in bytes."""
_RESULT_KEYS = {
    "n",
    "accuracy",
    "accuracy_ci95",
    "balanced_accuracy",
    "auc",
    "kappa",
    "f1",
    "confusion",
}


_OF_A_RUN: Final = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "zero_shot.json",
    "findings.json",
    "retrieval.json",
    "examples.json",
    "scored.json",
    "predictions",
    "checkpoints",
)
"""Files and folders of which a workdir has at least one."""


@dataclass(frozen=True)
class Run:
    """The contents of a workdir's files; a missing file is empty."""

    name: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    """The rows of `metrics.jsonl`, ordered by step, with the newest value of each step."""
    zero_shot: Mapping[str, Any]
    retrieval: Mapping[str, Any]
    """Split -> figures."""
    examples: Mapping[str, Any]
    changed: float | None
    """The time of the last change of `metrics.jsonl`, in seconds since 1970."""
    notices: tuple[str, ...]
    """Sentences about files that could not be read."""
    findings: Mapping[str, Any] = field(default_factory=dict)
    """Evaluation -> its figures of several diseases an eye."""
    curves: Mapping[str, Any] = field(default_factory=dict)
    """Evaluation -> class -> its curves."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The weights that the run started from, see `vclip_jax.interop.restore.Origin`."""
    scored: Mapping[str, Any] = field(default_factory=dict)
    """The model of an evaluation without a run of its own, see `vclip_jax.interop.scored`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data of the run by role, see `vclip_jax.train.inputs.check_data`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config of the run, else that of the evaluation."""
        return self.config or _section(self.scored, "config")

    @property
    def machine(self) -> Mapping[str, Any]:
        """The environment of the run, else that of the evaluation."""
        return self.environment or _section(self.scored, "environment")


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Read a workdir (a local or `gs://` path).

    A damaged or half-written file gives a notice instead of an error, because the rest of the
    report is still useful.

    Raises:
      FileNotFoundError: `workdir` is not a folder.
      ValueError: one line: the folder has files, and none is of a run.
    """
    folder = epath.Path(workdir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{workdir} is not a folder; give the workdir of a training run")
    if any(folder.iterdir()) and not any((folder / name).exists() for name in _OF_A_RUN):
        raise ValueError(f"{workdir} has no file of a run: give the workdir of a training run")
    notices: list[str] = []
    log = folder / "metrics.jsonl"
    return Run(
        name=folder.name,
        config=_object(folder / "config.json", notices),
        environment=_object(folder / "environment.json", notices),
        metrics=_lines(log, notices),
        zero_shot=_results(_object(folder / "zero_shot.json", notices), notices),
        retrieval=_retrieval(_object(folder / "retrieval.json", notices), notices),
        examples=_object(folder / "examples.json", notices),
        findings=_findings(_object(folder / "findings.json", notices), notices),
        curves=_object(folder / "curves.json", notices),
        start=_object(folder / "start.json", notices),
        scored=_object(folder / "scored.json", notices),
        data=_object(folder / "data.json", notices),
        changed=float(log.stat().mtime) if log.exists() else None,
        notices=tuple(notices),
    )


def read_table(workdir: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Read the systems of `table1.json`, and return notices about unusable entries.

    Raises:
      ValueError: one line: the file is missing, or holds no systems.
    """
    path = epath.Path(workdir) / TABLE
    notices: list[str] = []
    if not path.exists():
        raise ValueError(f"{workdir} has no {TABLE}: it does not hold several systems")
    content = _object(path, notices)
    table = {}
    for name, row in content.items():
        if not isinstance(row, dict) or not isinstance(row.get("results"), dict):
            notices.append(f"{TABLE}: {name} is not complete and is left out.")
            continue
        missing = row.get("missing")
        table[name] = {
            "missing": None if missing is None else str(missing),
            "results": _results(row["results"], notices, f"{TABLE}, {name}"),
        }
    if not table:
        raise ValueError(" ".join([f"{path} holds no systems", *notices]))
    return table, notices


def read_file(path: epath.Path) -> bytes:
    """Read a file of a workdir.

    Raises:
      OSError: the file cannot be read, or is not a regular file (reading a pipe may never end).
      ValueError: the file is too large.
    """
    return path.read_bytes() if "://" in os.fspath(path) else read_bytes(path, _MOST)


def _object(path: epath.Path, notices: list[str]) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse_json(read_file(path), path.name, _MOST, constants=True)
    except (ValueError, OSError) as error:
        notices.append(f"{path.name} could not be read and is left out: {error}.")
        return {}
    if not isinstance(content, dict):
        notices.append(f"{path.name} does not hold an object and is left out.")
        return {}
    return content


def _results(
    content: Mapping[str, Any], notices: list[str], where: str = "zero_shot.json"
) -> Mapping[str, Any]:
    good = {name: result for name, result in content.items() if _is_result(result)}
    for name in content.keys() - good.keys():
        notices.append(f"{where}: the result of {name} is not complete and is left out.")
    return good


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or _RESULT_KEYS - result.keys():
        return False
    rows = result["confusion"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return False
    counts = [count for row in rows for count in row]
    pair = result["accuracy_ci95"]
    # A figure that is not defined may be null.
    optional = [result[key] for key in ("balanced_accuracy", "auc", "kappa", "f1")]
    return (
        len(rows) > 1
        and all(len(row) == len(rows) for row in rows)
        and all(type(count) is int and 0 <= count < 2**53 for count in [result["n"], *counts])
        and sum(counts) > 0
        and isinstance(pair, list)
        and len(pair) == 2
        and all(type(value) in (int, float) for value in [result["accuracy"], *pair])
        and all(value is None or type(value) in (int, float) for value in optional)
    )


def _findings(content: Mapping[str, Any], notices: list[str]) -> Mapping[str, Any]:
    good = {
        name: one
        for name, one in content.items()
        if isinstance(one, dict)
        and type(one.get("n")) is int
        and isinstance(one.get("findings"), list)
    }
    for name in content.keys() - good.keys():
        notices.append(f"findings.json: the result of {name} is not complete and is left out.")
    return good


def _retrieval(content: Mapping[str, Any], notices: list[str]) -> Mapping[str, Any]:
    """Return split -> figures; the file has those of the validation pairs at its top level."""
    parts = {"validation": {k: v for k, v in content.items() if k != "test"}}
    if "test" in content:
        parts["test"] = content["test"]
    good = {split: part for split, part in parts.items() if _is_retrieval(part)}
    if any(part for split, part in parts.items() if split not in good):
        notices.append("retrieval.json is not complete and is left out.")
    return good


def _is_retrieval(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and all(type(part.get(key, 0)) is int for key in ("n", "texts"))
        and "n" in part
        and all(isinstance(part.get(key), dict) for key in ("image_to_text", "text_to_image"))
    )


def _lines(path: epath.Path, notices: list[str]) -> tuple[Mapping[str, Any], ...]:
    if not path.exists():
        return ()
    rows, bad = [], []
    try:
        text = read_file(path).decode(errors="replace")
    except (ValueError, OSError) as error:
        notices.append(f"{path.name} could not be read and is left out: {error}.")
        return ()
    *lines, tail = text.split("\n")  # a tail without a line end is still being written
    for index, line in enumerate([*lines, tail], 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, path.name, constants=True)
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError("no integer step")
            rows.append(row)
        except ValueError:
            if index <= len(lines):
                bad.append(index)
    if bad:
        notices.append(
            f"metrics.jsonl: {len(bad)} of {len(lines)} lines could not be read and are left out, "
            f"the first is line {bad[0]}."
        )
    return tuple(sorted(_newest(rows), key=lambda row: int(row["step"])))


def _newest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Drop values that a later row of the same step replaces."""
    kept: list[Mapping[str, Any]] = []
    replaced: set[tuple[int, str]] = set()
    for row in reversed(rows):
        step = row["step"]
        kept.append({k: v for k, v in row.items() if k in NO_VALUES or (step, k) not in replaced})
        replaced |= {(step, key) for key in row}
    return kept[::-1]
