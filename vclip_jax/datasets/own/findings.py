"""The findings of a photograph: whether they agree, the class and the words that follow from them.

Findings are a mapping of names to 1 (present), 0 (absent) or -1 (not rated).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from vclip_jax.datasets.own.names import is_healthy

CONFLICT: Final = "conflicting findings"
"""The reason of a reject, as the next one is."""
HEALTHY_AND_ILL: Final = "healthy with a disease"
_HAN: Final = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_SLASH: Final = "\uff0f"


def agreed(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Return the findings of two rows together, and the first that they contradict, or "".

    Examples:
        >>> from vclip_jax.datasets.own.findings import agreed
        >>> agreed({"DR": 1, "AMD": -1}, {"AMD": 0})
        ({'DR': 1, 'AMD': 0}, '')
    """
    both, fault = dict(one), ""
    for name, flag in other.items():
        if {both.get(name, -1), flag} == {0, 1}:
            fault = fault or f"{name!r} is present and absent"
        both[name] = max(both.get(name, -1), flag)
    return both, fault


def contradiction(classes: Sequence[str], findings: Mapping[str, int]) -> tuple[str, str]:
    """Return why classes and findings cannot be true together, and the names; ("", "") if they can.

    A class that is no finding, such as a grade, contradicts none.
    """
    own = [name for name in classes if len(classes) > 1 or name in findings or is_healthy(name)]
    present = [*own, *(name for name, flag in findings.items() if flag == 1)]
    healthy = [name for name in present if is_healthy(name)]
    diseases = [name for name in present if not is_healthy(name)]
    if healthy and diseases:
        return HEALTHY_AND_ILL, f"{healthy[0]!r} and {diseases[0]!r}"
    if denied := [name for name in own if findings.get(name) == 0]:
        return CONFLICT, f"{denied[0]!r} is the label and absent"
    return "", ""


def class_of(findings: Mapping[str, int]) -> str:
    """Return the one finding that is present; or the healthy one, if all diseases are absent.

    Of several findings none is the class. A photograph is not healthy if its table denies it.

    Examples:
        >>> from vclip_jax.datasets.own.findings import class_of
        >>> class_of({"normal": -1, "DR": 0, "AMD": 0})
        'normal'
        >>> class_of({"normal": 0, "DR": 0, "AMD": 0})
        ''
    """
    present = [name for name, flag in findings.items() if flag == 1]
    if present:
        return present[0] if len(present) == 1 else ""
    healthy = [name for name in findings if is_healthy(name)]
    diseases = [flag for name, flag in findings.items() if name not in healthy]
    denied = any(findings[name] == 0 for name in healthy)
    return healthy[0] if healthy and diseases and not any(diseases) and not denied else ""


def words_of(findings: Mapping[str, int]) -> str:
    """Return a caption in the language of the names; "" if nothing is known.

    It lists the findings that are present. If none is, and all are rated, it is the name of the
    healthy one, else a denial of all.

    Examples:
        >>> from vclip_jax.datasets.own.findings import words_of
        >>> words_of({"DR": 1, "AMD": 1, "glaucoma": 0})
        'DR, AMD'
        >>> words_of({"糖网": 0, "青光眼": 0})
        '未见糖网、青光眼'
    """
    present = [name for name, flag in findings.items() if flag == 1]
    if present:
        return _listed(present)
    diseases = [name for name in findings if not is_healthy(name)]
    if class_of(findings) or not diseases or any(findings.values()):
        return class_of(findings)
    text = _listed(diseases)
    return f"未见{text}" if _HAN.search(text) else f"no finding of {text}"


def _listed(names: Sequence[str]) -> str:
    return ("、" if _HAN.search("".join(names)) else ", ").join(names)


def stored_names(names: Iterable[str], dataset: str) -> dict[str, str]:
    """Return the name under which each finding is stored: "/" would part it, and is widened.

    Args:
        names: the findings.
        dataset: the dataset's name in error messages.

    Raises:
        ValueError: one line: two findings would have one name.
    """
    stored = {name: name.replace("/", _SLASH) for name in names}
    first: dict[str, str] = {}
    for name, safe in stored.items():
        if first.setdefault(safe, name) != name:
            raise ValueError(
                f"{dataset}: the findings {first[safe]!r} and {name!r} are too alike: rename one"
            )
    return stored
