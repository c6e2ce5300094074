"""The signs of each condition: their number, size, severity and exclusions.

The first part draws one condition's fields of a `Case` from a generator; the second returns the
findings of a finished case, for both the labels and the caption.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from vclip_jax.datasets.synthetic.case import (
    Amd,
    Case,
    Chorioretinal,
    Dme,
    Glaucoma,
    Hypertensive,
    Myopia,
    OpticNerve,
    Quality,
    Retinopathy,
    VeinOcclusion,
    Vertical,
)

Choice = TypeVar("Choice")


def retinopathy(rng: np.random.Generator, grade: int) -> Retinopathy:
    """Draw the signs of exactly grade 1-4 by the international scale."""
    if grade == 1:
        return Retinopathy(grade=1, microaneurysms=_count(rng, 8, 0.7, 1, 30))
    moderate = Retinopathy(
        grade=2,
        microaneurysms=_count(rng, 16, 0.6, 1, 60),
        # Fewer than 20 in at least one quadrant: short of the 4-2-1 rule.
        blot_haemorrhages=_count(rng, 12, 0.8, 1, 55),
        flame_haemorrhages=_count(rng, 2, 0.8, 0, 8),
        hard_exudates=_count(rng, 5, 0.7, 1, 16) if rng.random() < 0.75 else 0,
        cotton_wool_spots=_count(rng, 2, 0.6, 1, 6) if rng.random() < 0.4 else 0,
    )
    if grade == 2:
        return moderate
    rules = rng.random(3) < (0.65, 0.55, 0.50)
    if grade == 3 and not rules.any():
        rules[0] = True
    severe = replace(
        moderate,
        grade=3,
        microaneurysms=_count(rng, 28, 0.5, 8, 80),
        blot_haemorrhages=_count(rng, 110, 0.2, 84, 170)
        if rules[0]
        else _count(rng, 40, 0.3, 15, 75),
        flame_haemorrhages=_count(rng, 6, 0.6, 0, 20),
        cotton_wool_spots=_count(rng, 4, 0.6, 1, 12) if rng.random() < 0.7 else 0,
        venous_beading=span(rng, 0.5, 1.0) if rules[1] else 0.0,
        irma=_between(rng, 2, 8) if rules[2] else 0,
    )
    if grade == 3:
        return severe
    disc, elsewhere, bleeding = rng.random(3) < (0.5, 0.65, 0.35)
    return replace(
        severe,
        grade=4,
        blot_haemorrhages=_count(rng, 35, 0.6, 4, 150),
        neovascular_disc=bool(disc),
        neovascular_elsewhere=_between(rng, 1, 4) if elsewhere or not (disc or bleeding) else 0,
        preretinal_haemorrhage=bool(bleeding),
        laser_scars=_count(rng, 220, 0.4, 80, 500) if rng.random() < 0.4 else 0,
    )


def dme(rng: np.random.Generator, retinopathy_grade: int) -> Dme:
    """Draw macular oedema at the rate of the retinopathy's grade."""
    if rng.random() >= (0.0, 0.06, 0.34, 0.50, 0.45)[retinopathy_grade]:
        return Dme()
    if rng.random() < 0.33:
        return Dme(grade=1, exudates=_between(rng, 1, 4), circinate=rng.random() < 0.3)
    return Dme(grade=2, exudates=_between(rng, 3, 10), circinate=rng.random() < 0.35)


def amd(rng: np.random.Generator, present: bool, age: int) -> Amd:
    """Draw one AREDS stage, or the drusen of a healthy eye of that age."""
    if not present:
        # Any number of small hard drusen (below 63 micrometres) without changes of the pigment is
        # normal ageing, not macular degeneration (Ferris et al., Ophthalmology 2013;120:844).
        hard = rng.random() < (0.45 if age >= 50 else 0.08)
        return Amd(drusen_small=_count(rng, 3, 0.8, 1, 15) if hard else 0)
    stage = choose(
        rng, {"early": 0.24, "intermediate": 0.34, "geographic_atrophy": 0.18, "neovascular": 0.24}
    )
    early = Amd(
        stage="early",
        drusen_small=_count(rng, 20, 0.5, 6, 60),
        drusen_medium=_count(rng, 7, 0.5, 3, 20),
    )
    if stage == "early":
        return early
    intermediate = replace(
        early,
        stage="intermediate",
        drusen_medium=_count(rng, 14, 0.5, 3, 40),
        drusen_large=_count(rng, 6, 0.6, 2, 20),
    )
    if stage == "intermediate":
        return intermediate
    late = replace(intermediate, drusen_large=_between(rng, 0, 8))
    if stage == "geographic_atrophy":
        return replace(late, stage="geographic_atrophy", atrophy_radius=span(rng, 0.4, 1.4))
    bleeds, scars = rng.random(2) < (0.75, 0.8)
    return replace(
        late,
        stage="neovascular",
        macular_haemorrhage=span(rng, 0.35, 1.5) if bleeds else 0.0,
        membrane=span(rng, 0.35, 1.2) if scars or not bleeds else 0.0,
    )


def glaucoma(rng: np.random.Generator, cup_to_disc: float) -> Glaucoma:
    """Draw signs other than the cup, at least one if the cup alone would not prove glaucoma."""
    notch, defect, bleeding = rng.random(3) < (0.65, 0.45, 0.15)
    # Damage starts at the lower pole more often, and notch and defect belong together.
    where: Vertical = "inferior" if rng.random() < 0.62 else "superior"
    if cup_to_disc < 0.75 and not defect:  # a moderate cup alone would be physiological
        notch = True
    return Glaucoma(
        present=True,
        notch=where if notch else None,
        nerve_fibre_defect=where if defect else None,
        disc_haemorrhage=bool(bleeding),
    )


def vein_occlusion(rng: np.random.Generator) -> VeinOcclusion:
    """Draw an occlusion: more branch than central ones, most at the superotemporal crossing."""
    quadrants = {
        "superotemporal": 0.58,
        "inferotemporal": 0.32,
        "superonasal": 0.05,
        "inferonasal": 0.05,
    }
    return VeinOcclusion(
        kind="branch" if rng.random() < 0.68 else "central",
        quadrant=choose(rng, quadrants),  # type: ignore[arg-type]
        severity=span(rng, 0.35, 1.0),
    )


def hypertensive(rng: np.random.Generator, may_swell: bool) -> Hypertensive:
    """Draw one of Keith, Wagener and Barker's grades; 4 only if the disc may swell."""
    grade = choose(rng, {1: 0.20, 2: 0.34, 3: 0.30, 4: 0.16})
    if not may_swell:  # a cupped, pale or malformed disc does not swell
        grade = min(grade, 3)
    return Hypertensive(
        grade=grade,
        arteriolar_narrowing=span(rng, 0.3, 0.55) if grade == 1 else span(rng, 0.45, 1.0),
        arteriovenous_nicking=_between(rng, 2, 6) if grade >= 2 else 0,
        flame_haemorrhages=_count(rng, 7, 0.5, 2, 20) if grade >= 3 else 0,
        cotton_wool_spots=_count(rng, 4, 0.5, 1, 12) if grade >= 3 else 0,
        disc_swelling=grade == 4,
    )


def myopia(rng: np.random.Generator, has: set[str], age: int, pigmentation: float) -> Myopia:
    """Draw pathologic or degenerative myopia, or the tessellation of a healthy eye."""
    if "pathologic_myopia" in has:
        return Myopia(
            pathologic=True,
            tessellation=span(rng, 0.5, 1.0),
            crescent=span(rng, 0.4, 1.2),
            tilt=span(rng, 0.2, 0.9),
            atrophy_patches=_count(rng, 3, 0.5, 1, 8),
        )
    if "degenerative_myopia" in has:
        return Myopia(
            degenerative=True,
            tessellation=span(rng, 0.4, 0.9),
            crescent=span(rng, 0.25, 0.8),
            tilt=span(rng, 0.2, 0.8),
        )
    # A thin or lightly pigmented epithelium lets the choroidal vessels shine through.
    shows = rng.random() < 0.08 + 0.22 * (age > 60) + 0.18 * (pigmentation < 0.35)
    return Myopia(
        tessellation=span(rng, 0.2, 0.8) if shows else span(rng, 0.0, 0.12),
        # Both stay below the size at which a caption names them.
        crescent=span(rng, 0.05, 0.24) if rng.random() < 0.15 + 0.15 * (age > 55) else 0.0,
        tilt=span(rng, 0.15, 0.38) if rng.random() < 0.15 else span(rng, 0.0, 0.15),
    )


def optic_nerve(rng: np.random.Generator) -> OpticNerve:
    """Draw one anomaly of the disc that is not glaucoma."""
    kinds = {
        "pallor": 0.30,
        "swelling": 0.25,
        "myelinated_fibres": 0.20,
        "drusen": 0.13,
        "coloboma": 0.12,
    }
    return OpticNerve(kind=choose(rng, kinds), severity=span(rng, 0.45, 1.0))  # type: ignore[arg-type]


def chorioretinal(rng: np.random.Generator) -> Chorioretinal:
    """Draw scars, active foci or atrophy, mostly outside the macula."""
    places: Mapping[Any, float] = {
        "superotemporal": 0.25,
        "inferotemporal": 0.25,
        "superonasal": 0.15,
        "inferonasal": 0.15,
        "macula": 0.20,
    }
    return Chorioretinal(
        kind=choose(rng, {"scar": 0.5, "inflammation": 0.25, "atrophy": 0.25}),
        quadrant=choose(rng, places),
        lesions=_count(rng, 1.6, 0.6, 1, 5),
        size=span(rng, 0.4, 1.6),
    )


def quality(rng: np.random.Generator, defects: float, age: int) -> Quality:
    """Draw defects of the photograph and the readable parts; `defects` scales all defects."""
    haze = 0.003 * max(age - 50, 0)  # lens opacities come with age
    blur = float(np.clip(defects * (rng.beta(1.2, 9) + haze * rng.random()), 0, 1))
    exposure = float(np.clip(defects * rng.normal(0, 0.25), -1, 1))
    if rng.random() < 0.08 * defects:  # a narrow pupil, or a flash at the wrong setting
        exposure = span(rng, -1, -0.3) if rng.random() < 0.7 else span(rng, 0.3, 1)
    occlusion = float(np.clip(defects * rng.beta(0.8, 8), 0, 1))
    if rng.random() < 0.025 * defects:  # a failed photograph
        blur, occlusion = max(blur, span(rng, 0.5, 1.0)), max(occlusion, span(rng, 0.2, 0.8))
    loss = blur + 0.5 * abs(exposure) + 0.6 * occlusion
    return Quality(
        blur=blur,
        exposure=exposure,
        occlusion=occlusion,
        disc_readable=loss < 0.85,
        macula_readable=loss < 0.70,
        retina_readable=loss < 0.75,
        score=int(np.clip(round(9.4 * (1 - loss)), 0, 9)),
    )


def bleeds(case: Case) -> bool:
    """Return whether there is a haemorrhage of any cause; microaneurysms do not count."""
    dr = case.retinopathy
    return bool(
        dr.blot_haemorrhages
        or dr.flame_haemorrhages
        or dr.preretinal_haemorrhage
        or case.amd.macular_haemorrhage
        or case.glaucoma.disc_haemorrhage
        or case.vein_occlusion.kind != "none"
        or case.hypertensive.flame_haemorrhages
    )


def exudes(case: Case) -> bool:
    """Return whether there are hard exudates or cotton-wool spots."""
    dr = case.retinopathy
    return bool(
        dr.hard_exudates
        or dr.cotton_wool_spots
        or case.dme.exudates
        or case.hypertensive.cotton_wool_spots
        or case.vein_occlusion.kind != "none"
    )


def macula_diseased(case: Case) -> bool:
    """Return whether any condition affects the macula."""
    return bool(
        case.amd.stage != "none"
        or case.dme.grade
        or case.epiretinal_membrane
        or case.macular_hole
        or case.myopia.pathologic
        or (case.chorioretinal.kind != "none" and case.chorioretinal.quadrant == "macula")
    )


def disc_diseased(case: Case) -> bool:
    """Return whether the disc is changed: cupped, swollen, malformed, overgrown, tilted."""
    return bool(
        case.glaucoma.present
        or case.optic_nerve.kind != "none"
        or case.hypertensive.disc_swelling
        or case.retinopathy.neovascular_disc
        or case.myopia.pathologic
        or case.myopia.degenerative
    )


def diseased(case: Case) -> bool:
    """Return whether the eye has any condition; a tessellated fundus is not one."""
    return bool(
        case.retinopathy.grade
        or macula_diseased(case)
        or disc_diseased(case)
        or case.vein_occlusion.kind != "none"
        or case.hypertensive.grade
        or case.chorioretinal.kind != "none"
    )


def beyond_disc(case: Case) -> bool:
    """Return whether a disease lies elsewhere than at the disc."""
    return bool(
        case.retinopathy.grade
        or macula_diseased(case)
        or case.vein_occlusion.kind != "none"
        or case.hypertensive.grade
        or case.myopia.degenerative
        or case.chorioretinal.kind != "none"
    )


def shows_macula(case: Case) -> bool:
    """Return whether the macula lies in the field, unlike in a picture of the disc alone."""
    return case.centred_on != "disc" or case.field_of_view >= 35


def tessellated(case: Case) -> bool:
    """Return whether the choroidal vessels are plainly visible."""
    return case.myopia.tessellation >= 0.3


def choose(rng: np.random.Generator, weights: Mapping[Choice, float]) -> Choice:
    """Draw one item by weight."""
    return choose_at(weights, rng.random())


def choose_at(weights: Mapping[Choice, float], quantile: float) -> Choice:
    """Return the item in which `quantile` (0 to 1) of the total weight falls."""
    edges = np.cumsum(list(weights.values()))
    place = int(np.searchsorted(edges, quantile * edges[-1], side="right"))
    return list(weights)[min(place, len(weights) - 1)]


def span(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw uniformly from [low, high)."""
    return float(rng.uniform(low, high))


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def _count(rng: np.random.Generator, median: float, spread: float, low: int, high: int) -> int:
    """Draw a log-normal count; `spread` is the standard deviation of its logarithm."""
    return int(np.clip(round(median * math.exp(spread * rng.standard_normal())), low, high))
