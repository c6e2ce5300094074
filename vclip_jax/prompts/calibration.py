"""The calibration of answers: a temperature, an offset for each class, and their file.

With p the probabilities of a zero-shot answer, the calibrated probabilities are proportional to
p^(1/T) exp(b): the logits are divided by a temperature T, and an offset b of the class is added.
Sources: C. Guo et al., On calibration of modern neural networks, ICML 2017 (T); A. Alexandari,
A. Kundaje and A. Shrikumar, Maximum likelihood with bias-corrected calibration is hard-to-beat at
label shift adaptation, ICML 2020 (T and b).

A file holds an entry for each prompt set of one model. Commands use `calibration.json` beside a
model by default; other files are named. An entry is refused for another model or other prompts.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vclip_jax.files.errors import few
from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_json
from vclip_jax.prompts import PromptSet

FILE: Final = "calibration.json"
"""The name of the file in a portable folder or a run's workdir."""
OFF: Final = "off"
"""The word that stands for no calibration in place of a file."""
FORMAT: Final = 1
LABELS, PREVALENCE = "labels", "prevalence"
"""The sources of a calibration: labelled photographs, or a stated prevalence."""
_LEAST: Final = 1e-38
"""The least probability in a logarithm, as float32 may round a probability to 0."""
_MOST_TEMPERATURE: Final = 1e4
_MOST_OFFSET: Final = 1e4


@dataclass(frozen=True)
class Calibration:
    """A temperature and offsets for one model and one prompt set.

    Examples:
        >>> from vclip_jax.prompts.calibration import Calibration, digest_of
        >>> asked = clip.asked(["正常", "青光眼"])
        >>> halved = Calibration(
        ...     model=clip.weights_digest,
        ...     prompts=asked.name,
        ...     prompts_digest=digest_of(asked),
        ...     classes=asked.class_names,
        ...     temperature=2.0,
        ...     offsets=(0.0, 0.0),
        ...     method="labels",
        ...     data="idrid:test",
        ...     n=50,
        ... )
        >>> clip.classify([photograph], asked, calibration=halved).shape
        (1, 2)
    """

    model: str
    """The digest of the model, see `interop.weights.digest`."""
    prompts: str
    """The name of the prompt set."""
    prompts_digest: str
    """The digest of the prompt set, see `digest_of`."""
    classes: tuple[str, ...]
    temperature: float
    offsets: tuple[float, ...]
    """The offset of each class; their sum is 0."""
    method: str
    """`LABELS` or `PREVALENCE`."""
    data: str
    """The photographs of the fit, in a few words."""
    n: int
    """The number of these photographs."""
    seed: int = 0
    """The seed of the draw of labelled photographs."""
    prevalence: Mapping[str, float] | None = None
    """The stated prevalence, class name -> share."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The figures that `vclip calibrate` measured."""

    def apply(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return calibrated probabilities `[..., classes]`, in the dtype of `probabilities`.

        Examples:
            >>> import numpy as np
            >>> from vclip_jax.prompts.calibration import Calibration
            >>> origin = dict(model="", prompts="", prompts_digest="", method="labels", data="")
            >>> halved = Calibration(
            ...     classes=("no", "yes"), temperature=2.0, offsets=(0.0, 0.0), n=1, **origin
            ... )
            >>> halved.apply(np.array([[0.9, 0.1]])).round(3).tolist()
            [[0.75, 0.25]]
        """
        return calibrated(probabilities, self.temperature, np.asarray(self.offsets))

    def check(self, model: str, prompt_set: PromptSet) -> None:
        """Raise ValueError, one line, unless the calibration is for this model and these prompts.

        Examples:
            >>> from vclip_jax.prompts.calibration import Calibration, digest_of
            >>> asked = clip.asked("zh/fives")
            >>> entry = Calibration(
            ...     model=clip.weights_digest,
            ...     prompts=asked.name,
            ...     prompts_digest=digest_of(asked),
            ...     classes=asked.class_names,
            ...     temperature=1.0,
            ...     offsets=(0.0, 0.0, 0.0, 0.0),
            ...     method="labels",
            ...     data="idrid:test",
            ...     n=50,
            ... )
            >>> entry.check(clip.weights_digest, asked)
            >>> try:
            ...     entry.check(clip.weights_digest, clip.asked("zh/refuge"))
            ... except ValueError as error:
            ...     print(str(error).partition(":")[0])
            the calibration is for other prompts (zh/fives) than these (zh/refuge)
        """
        self.check_model(model)
        if self.prompts_digest != digest_of(prompt_set):
            raise ValueError(
                f"the calibration is for other prompts ({self.prompts}) than these "
                f"({prompt_set.name}): use those, calibrate these (vclip calibrate), or switch "
                "calibration off (--calibration off)"
            )
        if self.classes != prompt_set.class_names:
            raise ValueError(
                f"the calibration is for the classes {few(self.classes, 20)} in this order, not "
                f"for {few(prompt_set.class_names, 20)}: calibrate these prompts (vclip calibrate)"
            )

    def check_model(self, model: str) -> None:
        """Raise ValueError, one line, unless the calibration is for the model of this digest.

        Examples:
            >>> from vclip_jax.prompts.calibration import Calibration
            >>> origin = dict(prompts="", prompts_digest="", method="labels", data="", n=1)
            >>> entry = Calibration(
            ...     model="a1", classes=("no", "yes"), temperature=1.0, offsets=(0, 0), **origin
            ... )
            >>> entry.check_model("a1")
        """
        if self.model != model:
            raise ValueError(
                f"the calibration is for the model {self.model[:12]}, not for this one "
                f"({model[:12]}): calibrate this one (vclip calibrate), or switch calibration off "
                "(--calibration off)"
            )


def calibrated(
    probabilities: npt.NDArray[np.floating], temperature: float, offsets: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """Return softmax(log p / T + b) of probabilities `[..., c]` and offsets `[c]`, in p's dtype."""
    given = np.asarray(probabilities)
    logits = np.log(np.maximum(given.astype(np.float64), _LEAST)) / temperature + offsets
    logits -= logits.max(axis=-1, keepdims=True)
    shares = np.exp(logits)
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(given.dtype)


def digest_of(prompt_set: PromptSet) -> str:
    """Return the SHA-256 of the parts of a prompt set that decide answers, in hexadecimal."""
    asked = [prompt_set.class_names, prompt_set.prompts, prompt_set.renormalise]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def matching(found: Sequence[Calibration], prompt_set: PromptSet) -> Calibration | None:
    """Return the entry for a prompt set, or None."""
    wanted = digest_of(prompt_set)
    return next((entry for entry in found if entry.prompts_digest == wanted), None)


# --- The file.


def save(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Put an entry into a file, in place of an entry for the same prompts.

    Raises:
        ValueError: one line: the existing file is not a calibration, or is another model's.
        OSError: the file cannot be written.

    Examples:
        >>> import pathlib, tempfile
        >>> from vclip_jax.prompts.calibration import Calibration, load, save
        >>> entry = Calibration(
        ...     model="of no model",
        ...     prompts="typed",
        ...     prompts_digest="of no prompts",
        ...     classes=("no", "yes"),
        ...     temperature=2.0,
        ...     offsets=(0.5, -0.5),
        ...     method="labels",
        ...     data="idrid:test",
        ...     n=50,
        ... )
        >>> path = pathlib.Path(tempfile.mkdtemp(), "calibration.json")
        >>> save(path, entry)
        >>> load(path) == (entry,)
        True
    """
    path = Path(path)
    there = load(path) if path.exists() else ()
    if any(entry.model != calibration.model for entry in there):
        raise ValueError(
            f"{path} holds the calibration of another model: remove the file, or name another"
        )
    kept = [e for e in there if e.prompts_digest != calibration.prompts_digest]
    _write(path, [*kept, calibration])


def keep(folder: Path, entries: Sequence[Calibration]) -> None:
    """Write the file beside a model with these entries, or remove the file if there are none."""
    if entries:
        _write(folder / FILE, entries)
    else:
        (folder / FILE).unlink(missing_ok=True)


def _write(path: Path, entries: Sequence[Calibration]) -> None:
    sets = []
    for entry in entries:
        content = {key: value for key, value in asdict(entry).items() if value is not None}
        del content["model"]
        sets.append(content)
    write_json(path, {"format": FORMAT, "model": entries[0].model, "sets": sets})


def beside(folder: Path) -> tuple[Calibration, ...]:
    """Return the entries of the file in a model's folder, `()` without such a file."""
    return load(folder / FILE) if (folder / FILE).is_file() else ()


def load(path: str | os.PathLike[str]) -> tuple[Calibration, ...]:
    """Return the entries of a file, one for each prompt set.

    Raises:
        ValueError: one line: the file is damaged, or is not a calibration.
        OSError: the file cannot be read.

    Examples:
        >>> import pathlib, tempfile
        >>> from vclip_jax.prompts.calibration import load
        >>> path = pathlib.Path(tempfile.mkdtemp(), "other.json")
        >>> _ = path.write_text("{}")
        >>> try:
        ...     load(path)
        ... except ValueError as error:
        ...     print(str(error).rpartition("other.json ")[2])
        is not a calibration: it has no "format": 1
    """
    raw = read_json(path)
    try:
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise ValueError(f'it has no "format": {FORMAT}')
        entries = tuple(_entry(raw["model"], entry) for entry in raw["sets"])
        if not entries:
            raise ValueError("the file holds no prompt set")
        digests = [entry.prompts_digest for entry in entries]
        if twice := next((e.prompts for e in entries if digests.count(e.prompts_digest) > 1), ""):
            raise ValueError(f"it holds two calibrations of {twice}")
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{os.fspath(path)} is not a calibration: {what}") from None
    return entries


def _entry(model: Any, raw: Any) -> Calibration:
    """Read one entry of a file; raises KeyError, TypeError or ValueError if it is not valid."""
    if not isinstance(raw, dict):
        raise TypeError("an entry is not an object")
    texts = {key: raw[key] for key in ("prompts", "prompts_digest", "method", "data")}
    texts["model"] = model
    for key, value in texts.items():
        if not isinstance(value, str):
            raise TypeError(f"{key} is not text")
    classes, offsets = raw["classes"], raw["offsets"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("classes are not a list of names")
    if not isinstance(offsets, list) or len(offsets) != len(classes) or len(classes) < 2:
        raise TypeError("offsets are not a list with a number for each class")
    numbers = [raw["temperature"], *offsets]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise TypeError("temperature and offsets must be numbers")
    if not 1 / _MOST_TEMPERATURE <= numbers[0] <= _MOST_TEMPERATURE:
        raise ValueError(f"the temperature {numbers[0]:g} is out of range")
    if max(map(abs, offsets)) > _MOST_OFFSET:
        raise ValueError("an offset is out of range")
    counts = [raw["n"], raw.get("seed", 0)]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError("n and seed must be whole numbers")
    prevalence, figures = raw.get("prevalence"), raw.get("figures", {})
    if not isinstance(prevalence, dict | None) or not isinstance(figures, dict):
        raise TypeError("prevalence and figures must be objects")
    return Calibration(
        **texts,
        classes=tuple(classes),
        temperature=float(numbers[0]),
        offsets=tuple(map(float, offsets)),
        n=counts[0],
        seed=counts[1],
        prevalence=prevalence,
        figures=figures,
    )
