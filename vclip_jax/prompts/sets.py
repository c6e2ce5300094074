"""The words of a zero-shot classifier: the texts that the text tower embeds for each class.

A prompt set is a JSON file:

    {"dataset": "fives", "language": "zh", "source": "who chose these words, and after what",
     "templates": ["{}", "眼底彩照，{}"],
     "classes": [{"name": "glaucoma", "prompts": ["青光眼", "视盘杯盘比增大"]}, ...],
     "ordered": false,
     "groups": [{"name": "healthy", "members": [0]}, ...]}

- `templates` (default `["{}"]`): each is filled with every phrase of every class.
- `classes` are matched with a dataset's classes by name; their order is that of the file.
- `ordered`: true if the classes are grades in rising order; only then is there a quadratic kappa.
  The default is a guess from the names (`rises`).
- `groups` (optional) merges classes after scoring. If a dataset's labels are the groups, coarser
  than the prompts, an evaluation scores the groups alone. If the labels are the classes, it scores
  the classes, and the groups under a second name, which ends in the last group's name.
- a class may list prompts for its absence, `"absent": ["未见青光眼"]`, which only `findings` uses.
- `source` may be left out in a user's own file.
- `renormalise` (default true): make the mean of a class's unit vectors a unit vector again (CLIP);
  false leaves it as short as it is (FLAIR).

The sets of the package, as FOLDER/DATASET: `zh` (names and signs, in the words of the synthetic
captions), `zh_findings` (the findings of BRSET and RFMiD, see `findings`), `zh_grammar` (all names
of those captions and nothing else), `en` and `en_findings` (the same in English), `flair` and
`flair_ek` (FLAIR's own, naive and with expert knowledge).
"""

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax.files.errors import few
from vclip_jax.files.foreign import MOST_JSON, parse_json, read_bytes
from vclip_jax.files.text import decode_text
from vclip_jax.prompts.faults import plain_name, problems
from vclip_jax.prompts.order import rises


@dataclasses.dataclass(frozen=True)
class Group:
    """Classes that count as one: `members` are indices into `PromptSet.class_names`.

    Examples:
        >>> from vclip_jax import prompts
        >>> prompts.Group("referable", (2, 3))
        Group(name='referable', members=(2, 3))
    """

    name: str
    members: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Class names and their prompts.

    `prompts[c]` holds every template filled with every phrase: all phrases of the class in the
    first template, then all in the second, and so on.

    Examples:
        >>> from vclip_jax import prompts
        >>> fives = prompts.load("zh/fives")
        >>> fives.class_names
        ('normal', 'age-related macular degeneration', 'diabetic retinopathy', 'glaucoma')
        >>> fives.prompts[3][0]
        '青光眼。'
    """

    name: str
    language: str
    class_names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    groups: tuple[Group, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    renormalise: bool = True
    """True to normalise the mean of a class's unit vectors."""
    source: str = ""
    """The origin of the words."""
    ordered: bool = False
    """True if the classes are grades in rising order; two classes are so in any order."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of `group`: the groups if there are any, else the classes."""
        return tuple(group.name for group in self.groups) or self.class_names

    @property
    def labels_ordered(self) -> bool:
        """True if `label_names` is in rising order."""
        if len(self.label_names) == 2:
            return True
        members = [member for group in self.groups for member in group.members]
        return self.ordered and members == sorted(members)

    def numbers(self, class_names: Sequence[str], *, groups: bool = False) -> npt.NDArray[np.int32]:
        """Map a dataset's classes to the classes (or groups) of this prompt set.

        Args:
          class_names: the dataset's classes; empty if they are not known by name, which gives the
            indices in their own order.
          groups: match the names with the groups.

        Returns:
          int32 `[classes]`: the index here of each of the dataset's classes.

        Examples:
            >>> from vclip_jax import prompts
            >>> asked = prompts.from_phrases({"healthy": "正常", "glaucoma": "青光眼"})
            >>> asked.numbers(["glaucoma", "healthy"]).tolist()  # in a dataset's own order
            [1, 0]
        """
        names = self.label_names if groups else self.class_names
        return np.array([names.index(name) for name in class_names or names], np.int32)

    def group(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Sum probabilities `[n, classes]` into `[n, groups]`; without groups change nothing.

        Examples:
            >>> from vclip_jax import prompts
            >>> idrid = prompts.load("zh/idrid")
            >>> idrid.label_names
            ('non-referable diabetic retinopathy', 'referable diabetic retinopathy')
            >>> idrid.group([[0.4, 0.3, 0.1, 0.1, 0.1]]).round(2).tolist()
            [[0.7, 0.3]]
        """
        probabilities = np.asarray(probabilities)
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.class_names):
            raise ValueError(
                f"prompt set {self.name} has {len(self.class_names)} classes, "
                f"got probabilities {list(probabilities.shape)}"
            )
        if not self.groups:
            return probabilities
        columns = [probabilities[:, list(g.members)].sum(axis=1) for g in self.groups]
        return np.stack(columns, axis=1)


def known() -> tuple[str, ...]:
    """List the prompt sets that come with the package, such as `zh/messidor`.

    Examples:
        >>> from vclip_jax import prompts
        >>> "zh/fives" in prompts.known()
        True
    """
    folders = [d for d in resources.files("vclip_jax.prompts").iterdir() if d.is_dir()]
    return tuple(
        sorted(
            f"{folder.name}/{entry.name.removesuffix('.json')}"
            for folder in folders
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        )
    )


def load(name_or_path: str | os.PathLike[str]) -> PromptSet:
    """Read a prompt set that comes with the package (`zh/messidor`), or a JSON file by its path.

    A name that ends in `.json` is a path; its prompt set is named after the file.

    Raises:
      ValueError: one line that says where and what: the name is not known, or the file is not a
        valid prompt set.
      FileNotFoundError: the path does not exist.

    Examples:
        >>> from vclip_jax import prompts
        >>> prompts.load("en/fives").class_names
        ('normal', 'age-related macular degeneration', 'diabetic retinopathy', 'glaucoma')
    """
    return parse(*text_of(name_or_path))


def text_of(name_or_path: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Return the JSON text of a prompt set, its name, and how messages call it; see `load`."""
    name = os.fspath(name_or_path)
    if name.endswith(".json"):
        content = read_bytes(name, MOST_JSON)
        try:
            text = decode_text(content)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return text, Path(name).stem, name
    if name == "labels":
        raise ValueError(
            "'labels' stands for the class names of a dataset, and there is no dataset here: give "
            "a prompt set such as zh/fives, a JSON file or the classes themselves (--prompt TEXT "
            "for each), or leave it out for the model's own prompts"
        )
    names = known()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names) or 'none'}"
        raise ValueError(f"no prompt set is called {name!r}; {hint} (a file must end in .json)")
    folder, stem = name.split("/")
    path = resources.files("vclip_jax.prompts").joinpath(folder, f"{stem}.json")
    return path.read_text(encoding="utf-8"), name, f"prompt set {name}"


def for_classes(
    name: str, class_names: Sequence[str], dataset: str, *, groups: bool = False
) -> PromptSet:
    """Return the prompts of a dataset, whose classes are matched by name.

    The prompts keep their own order, which may differ from that of the labels: see
    `PromptSet.numbers`.

    Args:
      name: see `load`; or "labels", for the class names as they are.
      class_names: the names of the dataset's labels; empty if they are not known.
      dataset: the dataset's name in error messages.
      groups: accept labels that are the prompts' groups, see `labels_are_groups`.

    Raises:
      ValueError: the prompts are for other classes; see also `load`.

    Examples:
        >>> from vclip_jax import prompts
        >>> prompts.for_classes("labels", ["healthy", "glaucoma"], "mine").prompts
        (('healthy',), ('glaucoma',))
    """
    if name == "labels":
        if len(class_names) < 2:
            raise ValueError(
                f"{dataset} has names for {len(class_names)} classes, too few for 'labels': give a "
                "prompt set such as zh/fives, or a JSON file"
            )
        return from_phrases({label: label for label in class_names}, name)
    prompt_set = load(name)
    if groups and labels_are_groups(prompt_set, class_names):
        return prompt_set
    if class_names and set(class_names) != set(prompt_set.class_names):
        merged = f" (groups {few(prompt_set.label_names)})" if prompt_set.groups else ""
        alike = set(map(plain_name, class_names)) == set(map(plain_name, prompt_set.class_names))
        almost = " (they differ in case or white space alone)" if alike else ""
        raise ValueError(
            f"prompt set {prompt_set.name} is for the classes {few(prompt_set.class_names, 20)}"
            f"{merged}, but the labels of {dataset} are {few(class_names, 20)}{almost}: give "
            "a prompt set with these names, or build the dataset with --classes"
        )
    return prompt_set


def dumps(prompt_set: PromptSet) -> str:
    """Return the JSON text of a prompt set; `parse` restores it, under the name in `dataset`."""
    before, after = prompt_set.templates[0].split("{}")
    classes = []
    for name, texts in zip(prompt_set.class_names, prompt_set.prompts, strict=True):
        filled = texts[: len(texts) // len(prompt_set.templates)]
        phrases = [text[len(before) : len(text) - len(after)] for text in filled]
        classes.append({"name": name, "prompts": phrases})
    content: dict[str, Any] = {
        "dataset": prompt_set.name,
        "language": prompt_set.language,
        **({"source": prompt_set.source} if prompt_set.source else {}),
        "renormalise": prompt_set.renormalise,
        "templates": list(prompt_set.templates),
        "classes": classes,
        "ordered": prompt_set.ordered,
    }
    if prompt_set.groups:
        content["groups"] = [dataclasses.asdict(group) for group in prompt_set.groups]
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def labels_are_groups(prompt_set: PromptSet, class_names: Sequence[str]) -> bool:
    """Return whether the labels have the names of the prompts' groups, not of the classes."""
    labels = set(prompt_set.label_names)
    return bool(prompt_set.groups) and set(class_names) == labels != set(prompt_set.class_names)


def from_phrases(phrases: Mapping[str, Sequence[str] | str], name: str = "phrases") -> PromptSet:
    """Make a prompt set of class name -> phrases, in that order.

    Raises:
      ValueError: one line: there are fewer than two classes, or one without phrases.

    Examples:
        >>> from vclip_jax import prompts
        >>> asked = prompts.from_phrases({"healthy": "正常", "glaucoma": ["青光眼", "杯盘比增大"]})
        >>> asked.class_names, [len(phrases) for phrases in asked.prompts]
        (('healthy', 'glaucoma'), [1, 2])
    """
    classes = [
        {"name": key, "prompts": [texts] if isinstance(texts, str) else list(texts)}
        for key, texts in phrases.items()
    ]
    raw = {"dataset": name, "language": "any", "classes": classes}
    return parse(json.dumps(raw), name, where="prompts")


def parse(text: str | bytes, name: str, where: str = "prompt set") -> PromptSet:
    """Make a prompt set from the text of a JSON file; `where` starts every error message.

    Raises:
      ValueError: one line that says what is wrong with which class or group.
    """
    raw = parse_json(text, where)
    problem = next(problems(raw), None)
    if problem:
        raise ValueError(f"{where}: {problem}")
    templates = raw.get("templates", ["{}"])
    return PromptSet(
        name=name,
        language=raw["language"],
        class_names=tuple(entry["name"] for entry in raw["classes"]),
        prompts=tuple(
            tuple(t.replace("{}", phrase) for t in templates for phrase in entry["prompts"])
            for entry in raw["classes"]
        ),
        groups=tuple(Group(g["name"], tuple(g["members"])) for g in raw.get("groups") or ()),
        templates=tuple(templates),
        renormalise=raw.get("renormalise", True),
        source=raw.get("source", ""),
        ordered=raw.get("ordered", rises([entry["name"] for entry in raw["classes"]])),
    )
