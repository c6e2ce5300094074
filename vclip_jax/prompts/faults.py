"""Find the faults of a prompt set's JSON, each told in one line."""

import difflib
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_KEYS = (
    "dataset",
    "language",
    "source",
    "renormalise",
    "templates",
    "classes",
    "ordered",
    "groups",
)


def problems(raw: Any) -> Iterator[str]:
    """Yield the faults of a prompt set, basic ones first; later checks rely on the earlier ones."""
    if not isinstance(raw, dict):
        yield "expected an object with classes and prompts"
        return
    for key in raw:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            yield f"unknown key {key!r}" + (f", did you mean {close[0]!r}?" if close else "")
    for key in ("dataset", "language"):
        if not _is_text(raw.get(key)):
            yield f"{key!r} must be a non-empty string"
    if "source" in raw and not _is_text(raw["source"]):
        yield "'source' must be a non-empty string that says where the words come from"
    if type(raw.get("renormalise", True)) is not bool:
        yield f"'renormalise' must be true or false, got {raw['renormalise']!r}"
    if type(raw.get("ordered", True)) is not bool:
        yield f"'ordered' must be true or false, got {raw['ordered']!r}"
    yield from _template_problems(raw.get("templates", ["{}"]))
    yield from _class_problems(raw.get("classes"))
    if raw.get("groups"):
        yield from _group_problems(raw["groups"], [entry["name"] for entry in raw["classes"]])


def _template_problems(templates: Any) -> Iterator[str]:
    if not isinstance(templates, list) or not templates:
        yield "'templates' must be a non-empty list; leave it out for the bare phrases"
        return
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            yield f"template {template!r} must hold {{}} exactly once"
    if len(set(map(str, templates))) != len(templates):
        yield "a template is given twice"


def _class_problems(classes: Any) -> Iterator[str]:
    if not isinstance(classes, list) or len(classes) < 2:
        yield "'classes' must list at least two classes, each with 'name' and 'prompts'"
        return
    for index, entry in enumerate(classes):
        if not _is_named(entry):
            yield f"class {index} has no name"
            continue
        if entry["name"] != entry["name"].strip():
            yield f"class {index} ({entry['name']!r}) has white space around its name: remove it"
        called = f"class {index} ({entry['name']})"
        phrases = entry.get("prompts")
        if not isinstance(phrases, list) or not phrases or not all(map(_is_text, phrases)):
            yield f"{called} needs at least one prompt, and none of them empty"
            continue
        if broken := [text for text in phrases if re.search("[\ud800-\udfff]", text)]:
            yield (
                f"{called} has a prompt that is not Unicode, {broken[0]!a}: give it in UTF-8 "
                "(in a terminal: LC_ALL=C.UTF-8)"
            )
        if len(set(phrases)) != len(phrases):
            yield f"{called} has a prompt twice, which would weigh it double"
        absent = entry.get("absent", ["-"])
        if not isinstance(absent, list) or not absent or not all(map(_is_text, absent)):
            yield f"{called}: 'absent' must list at least one prompt, and none of them empty"
        for key in entry.keys() - {"name", "prompts", "absent"}:
            yield f"{called} has an unknown key {key!r}"
    seen: dict[str, str] = {}
    for name in (entry["name"] for entry in classes if _is_named(entry)):
        before = seen.get(plain_name(name))
        if before == name:
            yield f"two classes are called {name!r}"
        elif before is not None:
            yield (
                f"the classes {before!r} and {name!r} differ in case or white space alone: give "
                "them different names, or join their prompts"
            )
        seen[plain_name(name)] = name


def _group_problems(groups: Any, class_names: list[str]) -> Iterator[str]:
    if not isinstance(groups, list) or len(groups) < 2:
        yield "'groups' must list at least two groups, each with 'name' and 'members'"
        return
    seen: dict[int, str] = {}
    for index, group in enumerate(groups):
        if not _is_named(group):
            yield f"group {index} has no name"
            continue
        called = f"group {index} ({group['name']})"
        members = group.get("members")
        if not isinstance(members, list) or not members:
            yield f"{called} has no members"
            continue
        for member in members:
            if type(member) is not int or not 0 <= member < len(class_names):
                yield f"{called}: member {member!r} is not a class index 0..{len(class_names) - 1}"
            elif member in seen:
                yield f"{called}: class {member} is already in group {seen[member]}"
            else:
                seen[member] = group["name"]
    for index, name in enumerate(class_names):
        if index not in seen:
            yield f"class {index} ({name}) is in no group"


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and _is_text(entry.get("name"))


def plain_name(name: str) -> str:
    """Return a name without case, width and surplus white space."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
