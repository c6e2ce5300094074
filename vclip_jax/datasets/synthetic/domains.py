"""The eyes of a synthetic dataset: conditions, their rates, their signs and the camera's view.

A domain is a population and a way of photographing it. `sample_case` draws one eye of it as a
function of (domain, seed, index) alone: no state, no order, any number of processes. A case first
gets one leading condition (or none), then perhaps a second one that is associated with it, and then
the signs. Definitions of disease are strict; severities and counts overlap:

* diabetic retinopathy: international clinical scale (Wilkinson et al., Ophthalmology
  2003;110:1677), with the 4-2-1 rule of severe non-proliferative disease;
* macular degeneration: early, intermediate and late stages as in AREDS (Ferris et al.,
  Ophthalmology 2013;120:844);
* hypertensive retinopathy: Keith, Wagener and Barker's grades 1-4;
* glaucoma: a large vertical cup-to-disc ratio with a notch, a nerve fibre defect or a haemorrhage.

The rates of the external domains follow the public datasets that they are named after: MESSIDOR
(546/153/247/254 of 1200 for grades 0-3), FIVES (four classes, 200 each) and REFUGE (10 % glaucoma).
Each of the three has a stand-in with a camera like the dataset's (`messidor_like`), and a domain
with cameras far outside of the training cameras (`messidor_far`).
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from vclip_jax.datasets.synthetic import chance, signs
from vclip_jax.datasets.synthetic.case import Case


@dataclass(frozen=True)
class Domain:
    """A population of eyes and the way they are photographed. Weights need not sum to one."""

    stream: int
    """Separates the random numbers of the domains; never reused, never changed."""
    classes: tuple[str, ...]
    """English names of the values of `label_of`."""
    conditions: Mapping[str, float]
    """Weight of each leading condition; "normal" means none."""
    second_conditions: frozenset[str]
    """Conditions that may accompany the leading one."""
    retinopathy_grades: tuple[float, float, float, float]
    """Weights of grades 1-4 among eyes with diabetic retinopathy."""
    centred_on: Mapping[str, float]
    field_of_view: Mapping[float, float]
    """Degrees -> weight."""
    pigmentation: tuple[float, float]
    """Mean and standard deviation, 0 light to 1 dark."""
    defects: float
    """Scale of blur, bad exposure and occlusion; 1 is a mixed clinic, 0 is perfect."""
    disc_alone: float = 0.0
    """Share of pictures of the disc alone, among eyes with no disease elsewhere."""


_SECONDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "normal": {},
        "retinopathy": {
            "hypertensive": 0.09,
            "epiretinal_membrane": 0.05,
            "glaucoma": 0.04,
            "amd": 0.02,
            "vein_occlusion": 0.02,
            "degenerative_myopia": 0.02,
        },
        "amd": {
            "retinopathy": 0.06,
            "epiretinal_membrane": 0.05,
            "glaucoma": 0.05,
            "hypertensive": 0.04,
        },
        "glaucoma": {
            "retinopathy": 0.08,
            "degenerative_myopia": 0.07,
            "amd": 0.04,
            "vein_occlusion": 0.03,
            "hypertensive": 0.03,
        },
        "vein_occlusion": {
            "hypertensive": 0.20,
            "retinopathy": 0.08,
            "epiretinal_membrane": 0.05,
            "glaucoma": 0.04,
        },
        "hypertensive": {"retinopathy": 0.15, "vein_occlusion": 0.05, "glaucoma": 0.03},
        "pathologic_myopia": {"glaucoma": 0.07, "epiretinal_membrane": 0.05, "macular_hole": 0.05},
        "degenerative_myopia": {"glaucoma": 0.09, "epiretinal_membrane": 0.03},
        "optic_nerve": {"hypertensive": 0.03, "retinopathy": 0.03},
        "chorioretinal": {"epiretinal_membrane": 0.05, "degenerative_myopia": 0.05},
        "epiretinal_membrane": {
            "retinopathy": 0.08,
            "macular_hole": 0.06,
            "glaucoma": 0.04,
            "amd": 0.03,
        },
        "macular_hole": {"epiretinal_membrane": 0.20, "degenerative_myopia": 0.05},
    }
)
"""P(second condition | leading condition): known associations, else background rates."""

_AGES: Mapping[str, tuple[float, float, int, int]] = MappingProxyType(
    {
        "normal": (48, 15, 18, 85),
        "retinopathy": (58, 10, 25, 85),
        "amd": (73, 8, 52, 95),
        "glaucoma": (64, 11, 30, 92),
        "vein_occlusion": (63, 10, 35, 90),
        "hypertensive": (57, 11, 30, 88),
        "pathologic_myopia": (54, 12, 25, 85),
        "degenerative_myopia": (42, 13, 18, 80),
        "optic_nerve": (40, 15, 18, 85),
        "chorioretinal": (42, 15, 18, 85),
        "epiretinal_membrane": (67, 9, 40, 90),
        "macular_hole": (67, 8, 45, 88),
    }
)
"""Mean, standard deviation, least and greatest age by leading condition."""

TRAINING_DOMAIN = "synfundus_like"

_NEAR: Mapping[str, Domain] = MappingProxyType(
    {
        "synfundus_like": Domain(
            stream=1,
            classes=(
                "no diabetic retinopathy",
                "mild non-proliferative diabetic retinopathy",
                "moderate non-proliferative diabetic retinopathy",
                "severe non-proliferative diabetic retinopathy",
                "proliferative diabetic retinopathy",
            ),
            conditions={
                "normal": 0.26,
                "retinopathy": 0.25,
                "glaucoma": 0.14,
                "amd": 0.08,
                "degenerative_myopia": 0.05,
                "vein_occlusion": 0.04,
                "pathologic_myopia": 0.04,
                "optic_nerve": 0.05,
                "chorioretinal": 0.05,
                "epiretinal_membrane": 0.04,
                "hypertensive": 0.04,
                "macular_hole": 0.02,
            },
            second_conditions=frozenset(_SECONDS) - {"normal"},
            retinopathy_grades=(0.25, 0.33, 0.20, 0.22),
            centred_on={"macula": 0.6, "between": 0.3, "disc": 0.1},
            field_of_view={45.0: 0.5, 50.0: 0.25, 40.0: 0.1, 35.0: 0.08, 60.0: 0.07},
            pigmentation=(0.50, 0.22),
            defects=1.0,
            disc_alone=0.25,
        ),
        "messidor_like": Domain(
            stream=2,
            classes=(
                "no diabetic retinopathy",
                "mild diabetic retinopathy",
                "moderate diabetic retinopathy",
                "severe or proliferative diabetic retinopathy",
            ),
            conditions={
                "normal": 528,
                "amd": 8,
                "epiretinal_membrane": 6,
                "glaucoma": 4,
                "retinopathy": 153 + 247 + 254,
            },
            second_conditions=frozenset({"hypertensive", "epiretinal_membrane"}),
            retinopathy_grades=(153, 247, 160, 94),
            centred_on={"macula": 0.8, "between": 0.2},
            field_of_view={45.0: 1.0},
            pigmentation=(0.38, 0.14),
            defects=0.6,
        ),
        "fives_like": Domain(
            stream=3,
            classes=(
                "normal",
                "age-related macular degeneration",
                "diabetic retinopathy",
                "glaucoma",
            ),
            conditions={"normal": 1, "amd": 1, "retinopathy": 1, "glaucoma": 1},
            second_conditions=frozenset(),
            retinopathy_grades=(0.1, 0.4, 0.25, 0.25),
            centred_on={"macula": 0.9, "between": 0.1},
            field_of_view={50.0: 1.0},
            pigmentation=(0.65, 0.12),
            defects=0.8,
        ),
        "refuge_like": Domain(
            stream=4,
            classes=("no glaucoma", "glaucoma"),
            conditions={
                "normal": 0.80,
                "degenerative_myopia": 0.06,
                "pathologic_myopia": 0.02,
                "amd": 0.02,
                "glaucoma": 0.10,
            },
            second_conditions=frozenset(),
            retinopathy_grades=(1, 1, 1, 1),
            centred_on={"between": 0.6, "disc": 0.4},
            field_of_view={45.0: 1.0},
            pigmentation=(0.60, 0.12),
            defects=0.4,
        ),
    }
)

# The people of the stand-ins in front of far cameras, see `far_makes`.
_FAR = {
    f"{name}_far": replace(_NEAR[f"{name}_like"], stream=stream)
    for name, stream in {"messidor": 5, "fives": 6, "refuge": 7}.items()
}

DOMAINS: Mapping[str, Domain] = MappingProxyType({**_NEAR, **_FAR})


def sample_case(domain: str, seed: int, index: int) -> Case:
    """Draw eye number `index` of a domain, always the same case for the same three arguments.

    The leading conditions of consecutive indices follow a golden-ratio sequence instead of
    independent draws, so that any run of n cases holds each condition within a few of n times its
    rate (Kronecker sequence; discrepancy O(log n / n)).

    Args:
        domain: a key of `DOMAINS`.
        seed: non-negative; another seed is another dataset of the same domain.
        index: non-negative. Both are below 2**32, one word of the seed sequence each.

    Raises:
        ValueError: unknown domain, or a seed or index out of range.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown synthetic domain {domain!r}: use one of {', '.join(DOMAINS)}")
    if not (0 <= seed < 2**32 and 0 <= index < 2**32):
        raise ValueError(f"seed and index must be in [0, 2**32), got seed={seed}, index={index}")
    d = DOMAINS[domain]
    start = _start(d.stream, seed)
    leading = signs.choose_at(d.conditions, (start + index * (math.sqrt(5) - 1) / 2) % 1.0)
    rng = chance.generator(d.stream, seed, index)
    has = {leading} | {
        name
        for name, rate in _SECONDS[leading].items()
        # Draw in any case, so that a domain's list does not shift the later random numbers.
        if rng.random() < rate and name in d.second_conditions
    }
    mean, spread, youngest, oldest = _AGES[leading]
    age = int(np.clip(round(rng.normal(mean, spread)), youngest, oldest))
    pigmentation = float(np.clip(rng.normal(*d.pigmentation) - 0.003 * (age - 55), 0.02, 0.98))
    case = Case(
        domain=domain,
        seed=seed,
        index=index,
        eye="right" if rng.random() < 0.5 else "left",
        centred_on=signs.choose(rng, d.centred_on),  # type: ignore[arg-type]
        field_of_view=signs.choose(rng, d.field_of_view),
        age=age,
        pigmentation=pigmentation,
        quality=signs.quality(rng, d.defects, age),
        myopia=signs.myopia(rng, has, age, pigmentation),
        cup_to_disc=_healthy_cup(rng),
        amd=signs.amd(rng, "amd" in has, age),
    )
    if "retinopathy" in has:
        grade = 1 + signs.choose(rng, dict(enumerate(d.retinopathy_grades)))
        case = replace(case, retinopathy=signs.retinopathy(rng, grade), dme=signs.dme(rng, grade))
    if "hypertensive" in has:
        case = replace(
            case, hypertensive=signs.hypertensive(rng, not has & {"glaucoma", "optic_nerve"})
        )
    if "vein_occlusion" in has:
        case = replace(case, vein_occlusion=signs.vein_occlusion(rng))
    if "optic_nerve" in has:
        case = replace(case, optic_nerve=signs.optic_nerve(rng))
    if "chorioretinal" in has:
        case = replace(case, chorioretinal=signs.chorioretinal(rng))
    if "epiretinal_membrane" in has:
        case = replace(case, epiretinal_membrane=signs.span(rng, 0.35, 1.0))
    if "macular_hole" in has:
        case = replace(case, macular_hole=signs.span(rng, 0.15, 0.45))
    if "glaucoma" in has:
        ratio = float(np.clip(rng.normal(0.76, 0.08), 0.60, 0.95))
        case = replace(case, cup_to_disc=ratio, glaucoma=signs.glaucoma(rng, ratio))
    elif case.hypertensive.disc_swelling or case.optic_nerve.kind in ("swelling", "drusen"):
        # A swollen or crowded disc has almost no cup.
        case = replace(case, cup_to_disc=min(case.cup_to_disc, 0.15))
    # A separate generator keeps the numbers of all other pictures.
    rng = chance.generator(d.stream, seed, index, 2)
    if rng.random() < d.disc_alone and not signs.beyond_disc(case):
        alone = replace(case.quality, macula_readable=False)
        field = signs.span(rng, 14, 30)
        case = replace(case, centred_on="disc", field_of_view=field, quality=alone)
    return case


@functools.lru_cache(maxsize=64)
def _start(domain: int, seed: int) -> float:
    """Return the start of a dataset's sequence of leading conditions, 0 to 1."""
    return float(chance.generator(domain, seed, 0, 1).random())


def _healthy_cup(rng: np.random.Generator) -> float:
    """Draw a vertical cup-to-disc ratio without glaucoma; one in a dozen is large."""
    usual = float(np.clip(rng.normal(0.33, 0.11), 0.10, 0.65))
    return signs.span(rng, 0.5, 0.65) if rng.random() < 0.08 else usual


def label_of(domain: str, case: Case) -> int:
    """Return the class of a case in a domain's own zero-shot task, an index into its `classes`."""
    match domain:
        case "synfundus_like":
            return case.retinopathy.grade
        case "messidor_like" | "messidor_far":
            return min(case.retinopathy.grade, 3)
        case "fives_like" | "fives_far":
            if case.glaucoma.present:
                return 3
            if case.retinopathy.grade > 0:
                return 2
            return int(case.amd.stage != "none")
        case "refuge_like" | "refuge_far":
            return int(case.glaucoma.present)
    raise ValueError(f"unknown synthetic domain {domain!r}: use one of {', '.join(DOMAINS)}")
