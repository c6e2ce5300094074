"""The facts about one synthetic eye that the picture, the labels and the caption share.

A `Case` is drawn from (domain, seed, index) alone. `render.py` paints it, `annotation.py` turns it
into SynFundus-1M's columns and `caption.py` into Chinese. None of them draws facts of its own.
"""

from dataclasses import dataclass, field
from typing import Literal

Side = Literal["left", "right"]
Vertical = Literal["superior", "inferior"]
Quadrant = Literal["superotemporal", "inferotemporal", "superonasal", "inferonasal"]


@dataclass(frozen=True)
class Retinopathy:
    """Signs of diabetic retinopathy; `grade` follows the international scale (ICDR) 0-4."""

    grade: int = 0
    microaneurysms: int = 0
    """Number of microaneurysms in the whole field."""
    blot_haemorrhages: int = 0
    """Number of dot and blot haemorrhages."""
    flame_haemorrhages: int = 0
    hard_exudates: int = 0
    """Number of exudate clusters outside the macula (those in the macula are in `Dme`)."""
    cotton_wool_spots: int = 0
    venous_beading: float = 0.0
    """0 (smooth) to 1 (marked calibre changes)."""
    irma: int = 0
    """Number of intraretinal microvascular abnormalities."""
    neovascular_disc: bool = False
    neovascular_elsewhere: int = 0
    """Number of new-vessel fronds away from the disc."""
    preretinal_haemorrhage: bool = False
    laser_scars: int = 0
    """Number of panretinal photocoagulation burns; > 0 means the eye is treated."""


@dataclass(frozen=True)
class Dme:
    """Diabetic macular oedema: `grade` 1 is exudates away from the centre, 2 near the fovea."""

    grade: int = 0
    exudates: int = 0
    """Number of exudate clusters in the macula."""
    circinate: bool = False
    """True if exudates form a ring around a leak."""


@dataclass(frozen=True)
class Amd:
    """Age-related macular degeneration, by the stages of AREDS."""

    stage: Literal["none", "early", "intermediate", "geographic_atrophy", "neovascular"] = "none"
    drusen_small: int = 0
    drusen_medium: int = 0
    drusen_large: int = 0
    atrophy_radius: float = 0.0
    """Radius of the atrophic area in disc diameters."""
    macular_haemorrhage: float = 0.0
    """Radius of subretinal blood in disc diameters."""
    membrane: float = 0.0
    """Radius of the greyish-yellow neovascular membrane or scar in disc diameters."""


@dataclass(frozen=True)
class Glaucoma:
    """Glaucomatous signs other than the cup-to-disc ratio, which is in `Case`."""

    present: bool = False
    notch: Vertical | None = None
    """The notched part of the neuroretinal rim."""
    nerve_fibre_defect: Vertical | None = None
    """The side of a wedge-shaped defect of the retinal nerve fibre layer (temporal)."""
    disc_haemorrhage: bool = False


@dataclass(frozen=True)
class VeinOcclusion:
    """Occlusion of the central retinal vein or of a branch."""

    kind: Literal["none", "branch", "central"] = "none"
    quadrant: Quadrant = "superotemporal"
    """The drained area of a branch occlusion (ignored otherwise)."""
    severity: float = 0.0
    """Extent of haemorrhages, venous tortuosity, cotton-wool spots and disc oedema, 0 to 1."""


@dataclass(frozen=True)
class Hypertensive:
    """Hypertensive retinopathy; `grade` 1-4 by Keith, Wagener and Barker."""

    grade: int = 0
    arteriolar_narrowing: float = 0.0
    arteriovenous_nicking: int = 0
    flame_haemorrhages: int = 0
    cotton_wool_spots: int = 0
    disc_swelling: bool = False


@dataclass(frozen=True)
class Myopia:
    """Signs of high myopia."""

    pathologic: bool = False
    """True for patchy or diffuse chorioretinal atrophy and staphyloma."""
    degenerative: bool = False
    """True for tessellation, crescent and tilt of high myopia without atrophy."""
    tessellation: float = 0.0
    """Visibility of the choroidal vessels, 0 to 1. May be above 0 in a healthy eye."""
    crescent: float = 0.0
    """Width of the temporal peripapillary crescent in disc diameters."""
    tilt: float = 0.0
    """0 (round disc) to 1 (strongly tilted, oval disc)."""
    atrophy_patches: int = 0


@dataclass(frozen=True)
class OpticNerve:
    """Optic-nerve anomalies other than glaucoma."""

    kind: Literal["none", "pallor", "swelling", "drusen", "coloboma", "myelinated_fibres"] = "none"
    severity: float = 0.0


@dataclass(frozen=True)
class Chorioretinal:
    """Chorioretinal disease: scars, active inflammation, atrophy."""

    kind: Literal["none", "scar", "inflammation", "atrophy"] = "none"
    quadrant: Quadrant | Literal["macula"] = "superotemporal"
    lesions: int = 0
    size: float = 0.0
    """Diameter of the largest lesion in disc diameters."""


@dataclass(frozen=True)
class Quality:
    """The readability of the photograph."""

    blur: float = 0.0
    """0 is sharp, 1 unrecognisable."""
    exposure: float = 0.0
    """-1 is much too dark, 0 right, +1 much too bright."""
    occlusion: float = 0.0
    """Extent of lashes, lid, glare and media haze, 0 to 1."""
    disc_readable: bool = True
    macula_readable: bool = True
    retina_readable: bool = True
    score: int = 9
    """Overall quality 0 (worst) to 9 (best), like SynFundus's `retinal_region_quality_score`."""


@dataclass(frozen=True)
class Case:
    """One eye in one photograph."""

    domain: str
    """A key of `domains.DOMAINS`: the cameras and the population."""
    seed: int
    index: int
    eye: Side
    centred_on: Literal["macula", "disc", "between"] = "macula"
    field_of_view: float = 45.0
    """Degrees across the aperture."""
    pigmentation: float = 0.5
    """0 is a very light fundus, 1 a very dark one."""
    age: int = 55
    cup_to_disc: float = 0.3
    """Vertical cup-to-disc ratio as drawn."""
    retinopathy: Retinopathy = field(default_factory=Retinopathy)
    dme: Dme = field(default_factory=Dme)
    amd: Amd = field(default_factory=Amd)
    glaucoma: Glaucoma = field(default_factory=Glaucoma)
    vein_occlusion: VeinOcclusion = field(default_factory=VeinOcclusion)
    hypertensive: Hypertensive = field(default_factory=Hypertensive)
    myopia: Myopia = field(default_factory=Myopia)
    optic_nerve: OpticNerve = field(default_factory=OpticNerve)
    chorioretinal: Chorioretinal = field(default_factory=Chorioretinal)
    epiretinal_membrane: float = 0.0
    """Density, from 0 (none) to 1 (dense, with strong folds)."""
    macular_hole: float = 0.0
    """Diameter in disc diameters, 0 for none."""
    quality: Quality = field(default_factory=Quality)
