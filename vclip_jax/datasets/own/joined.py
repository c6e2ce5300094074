"""The rows of one photograph: joined across tables, or rejected as repeated or contradicting."""

from collections.abc import Sequence

from vclip_jax.datasets.own.found import Found
from vclip_jax.files.errors import few


def join(found: Sequence[Found]) -> tuple[list[Found], int]:
    """Return one entry a photograph, and the number of joined rows.

    Rows of several tables are joined; rows that repeat are rejects, and so are all rows that
    contradict each other.
    """
    groups: dict[str, list[Found]] = {}
    for one in found:
        if not one.reason and one.image is not None:
            groups.setdefault(one.key, []).append(one)
    joined: set[int] = set()
    for rows in groups.values():
        if len(rows) > 1:
            joined.update(_join_rows(rows))
    return [one for one in found if id(one) not in joined], len(joined)


def _join_rows(rows: list[Found]) -> list[int]:
    labels = list(dict.fromkeys(one.label for one in rows if one.label))
    splits = list(dict.fromkeys(one.split for one in rows if one.split))
    people = list(dict.fromkeys(one.person for one in rows if one.person))
    for what, values in (("labels", labels), ("splits", splits), ("patients", people)):
        if len(values) > 1:
            for one in rows:
                one.reason = f"conflicting {what}"
                one.detail = f"{one.detail}: {few(map(repr, values))}"
            return []
    first, joined = rows[0], []
    for one in rows[1:]:
        if one.image != first.image:  # in shards, whose keys are not paths
            one.reason = "second sample of a key"
        elif one.caption and first.caption and one.caption != first.caption:
            one.reason = "second caption"
        elif one.source == first.source:
            one.reason = "duplicate row"
        else:
            joined.append(id(one))
        first.caption = first.caption or one.caption
        first.person = first.person or one.person
        first.group = first.group or one.group
        first.facts = one.facts | first.facts
        first.label, first.split = "".join(labels), "".join(splits)
    return joined
