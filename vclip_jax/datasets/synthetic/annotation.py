"""A case in SynFundus-1M's own columns.

SynFundus-1M has two tables: `SynFundus-1M_annotation.csv`, its models' findings in a picture, and
`SynFundus-1M_gen_cond.csv`, the conditions from which the pictures were generated. Here both follow
from the case, so they agree with each other, with the picture and with the caption. One column is
corrected: `is_abnormal` is 0 in SynFundus-1M's rows even for diseased eyes; here it has the meaning
of its name.
"""

from typing import Final

from vclip_jax.datasets.synthetic import signs
from vclip_jax.datasets.synthetic.caption import caption
from vclip_jax.datasets.synthetic.case import Case

DISEASES: Final = {
    "is_amd": "age-related macular degeneration",
    "is_aon": "anomaly of the optic nerve",
    "is_crp": "chorioretinal disease",
    "is_dm": "degenerative myopia",
    "is_dme": "diabetic macular oedema",
    "is_em": "epiretinal membrane",
    "is_gc": "glaucoma",
    "is_htr": "hypertensive retinopathy",
    "is_pm": "pathologic myopia",
    "is_rvo": "retinal vein occlusion",
}
"""Column -> disease; with `dr_grade` these are SynFundus-1M's eleven."""

READABLE: Final = (
    "is_fundus",
    "is_macular_readable",
    "is_optic_disc_readable",
    "is_retinal_region_readable",
)

ANNOTATION_COLUMNS: Final = (
    "file_md5",
    "file_name",
    "eyes_side",
    "is_abnormal",
    "is_amd",
    "is_aon",
    "is_crp",
    "is_dm",
    "is_dme",
    "dr_grade",
    "is_em",
    "is_gc",
    "is_md",
    "is_mh",
    "is_htr",
    "has_lesion",
    "is_pm",
    "is_rvo",
    "is_tessellated",
    "is_treated",
    *READABLE,
    "retinal_region_quality_score",
    "diagnosticAdvice",
)
"""The header of `SynFundus-1M_annotation.csv`, in its order."""

CONDITION_COLUMNS: Final = ("idx", "dr_grade", "eye_side", *DISEASES, *READABLE)
"""The columns of `SynFundus-1M_gen_cond.csv`."""


def annotate(case: Case, file_md5: str = "") -> dict[str, str | int]:
    """Return one row of `SynFundus-1M_annotation.csv`.

    Args:
        case: the eye.
        file_md5: MD5 of the encoded image, which the case does not hold.

    Returns:
        `ANNOTATION_COLUMNS`, in order: strings for `file_md5`, `file_name`, `eyes_side` ("left",
        "right") and `diagnosticAdvice` (the caption), integers for the others. `is_md` is any
        disease of the macula, `is_mh` a macular hole, `has_lesion` a haemorrhage of any cause
        (SynFundus-1M's advice for such rows reads "haemorrhages visible"), `is_treated` laser
        scars, `retinal_region_quality_score` 0 to 9.
    """
    row = {
        **_diseases(case),
        **_readable(case),
        "file_md5": file_md5,
        "file_name": f"{case.index}.jpg",
        "eyes_side": case.eye,
        "is_abnormal": int(signs.diseased(case)),
        "is_md": int(signs.macula_diseased(case)),
        "is_mh": int(case.macular_hole > 0),
        "has_lesion": int(signs.bleeds(case)),
        "is_tessellated": int(signs.tessellated(case)),
        "is_treated": int(case.retinopathy.laser_scars > 0),
        "retinal_region_quality_score": case.quality.score,
        "diagnosticAdvice": caption(case),
    }
    return {column: row[column] for column in ANNOTATION_COLUMNS}


def generation_conditions(case: Case) -> dict[str, int]:
    """Return one row of `SynFundus-1M_gen_cond.csv`: `CONDITION_COLUMNS`, `eye_side` 0 is left."""
    row = {
        **_diseases(case),
        **_readable(case),
        "idx": case.index,
        "eye_side": int(case.eye == "right"),
    }
    return {column: row[column] for column in CONDITION_COLUMNS}


def _diseases(case: Case) -> dict[str, int]:
    return {
        "dr_grade": case.retinopathy.grade,
        "is_amd": int(case.amd.stage != "none"),
        "is_aon": int(case.optic_nerve.kind != "none"),
        "is_crp": int(case.chorioretinal.kind != "none"),
        "is_dm": int(case.myopia.degenerative),
        "is_dme": int(case.dme.grade > 0),
        "is_em": int(case.epiretinal_membrane > 0),
        "is_gc": int(case.glaucoma.present),
        "is_htr": int(case.hypertensive.grade > 0),
        "is_pm": int(case.myopia.pathologic),
        "is_rvo": int(case.vein_occlusion.kind != "none"),
    }


def _readable(case: Case) -> dict[str, int]:
    return {
        "is_fundus": 1,
        "is_macular_readable": int(case.quality.macula_readable),
        "is_optic_disc_readable": int(case.quality.disc_readable),
        "is_retinal_region_readable": int(case.quality.retina_readable),
    }
