"""Prompts for several diseases an eye: each disease is asked by itself, present or absent.

A prompt set (see `sets`) serves for findings if its classes have the findings' names. A finding is
asked by its class's prompts, against the words for its absence: those that the class lists under
`"absent"`, else all other classes of the set, healthy ones included. Negations such as "no
glaucoma" are weak words: a text tower may hardly tell them from "glaucoma" (docs/evaluation.md).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vclip_jax.files.errors import few
from vclip_jax.files.foreign import parse_json
from vclip_jax.prompts.sets import PromptSet, from_phrases, parse, text_of


@dataclass(frozen=True)
class FindingPrompts:
    """A prompt set, and which of its classes are a dataset's findings.

    Examples:
        >>> from vclip_jax.prompts.findings import for_findings
        >>> asked = for_findings("zh/odir", ["glaucoma", "cataract"], "mine")
        >>> asked.names, len(asked.prompts.class_names), asked.absent
        (('glaucoma', 'cataract'), 8, ((), ()))
    """

    prompts: PromptSet
    """The words of all classes, and after them those of absences, one class each."""
    names: tuple[str, ...]
    """The findings, in the dataset's order."""
    absent: tuple[tuple[str, ...], ...]
    """The words for the absence of each finding; empty for the other classes of the set."""

    def contrasts(self, classes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return present minus absent of each finding, `[findings, d]`.

        Args:
            classes: the vector of each class of `prompts`, `[c, d]`.
        """
        plain = [not name.startswith(_ABSENT) for name in self.prompts.class_names]
        rows = []
        for name, own in zip(self.names, self.absent, strict=True):
            present = self.prompts.class_names.index(name)
            if own:
                absent = classes[self.prompts.class_names.index(f"{_ABSENT}{name}")]
            else:
                others = np.array(plain)
                others[present] = False
                absent = classes[others].mean(axis=0)
            rows.append(classes[present] - absent)
        return np.stack(rows)


_ABSENT = "absent: "
"""Before the name of a finding: the class of the words for its absence."""


def for_findings(
    name: str | os.PathLike[str], findings: Sequence[str], dataset: str
) -> FindingPrompts:
    """Return the prompts of a dataset's findings, which are matched by name.

    Args:
        name: see `prompts.load`; or "labels", for the names of the findings as they are.
        findings: the names of the findings.
        dataset: the dataset's name in error messages.

    Raises:
        ValueError: one line: the dataset has no findings, or one that the prompts lack; see also
            `prompts.load`.
    """
    if not findings:
        raise ValueError(
            f"{dataset} has no findings: rate each disease of a photograph in a column of its own "
            "and build it again (docs/own-data.md), or leave out kind = 'findings'"
        )
    if name == "labels":
        if len(findings) < 2:
            raise ValueError(f"{dataset} has one finding, too few for 'labels': give a JSON file")
        return FindingPrompts(
            from_phrases({one: one for one in findings}, "labels"),
            tuple(findings),
            ((),) * len(findings),
        )
    text, stem, where = text_of(name)
    words = parse(text, stem, where)
    if missing := [one for one in findings if one not in words.class_names]:
        raise ValueError(
            f"prompt set {words.name} has no class {few(map(repr, missing))}, a finding of "
            f"{dataset}: it has {few(words.class_names, 20)}"
        )
    raw = parse_json(text, where)
    own = {entry["name"]: entry.get("absent", []) for entry in raw["classes"]}
    absent = tuple(
        tuple(t.replace("{}", phrase) for t in words.templates for phrase in own[one])
        for one in findings
    )
    given = [
        (f"{_ABSENT}{one}", texts) for one, texts in zip(findings, absent, strict=True) if texts
    ]
    return FindingPrompts(
        PromptSet(
            words.name,
            words.language,
            (*words.class_names, *(one for one, _ in given)),
            (*words.prompts, *(texts for _, texts in given)),
            templates=words.templates,
            renormalise=words.renormalise,
            source=words.source,
        ),
        tuple(findings),
        absent,
    )
