"""The SynFundus-1M columns say what the case says."""

from vclip_jax.datasets.synthetic.annotation import (
    ANNOTATION_COLUMNS,
    CONDITION_COLUMNS,
    DISEASES,
    annotate,
    generation_conditions,
)
from vclip_jax.datasets.synthetic.caption import caption
from vclip_jax.datasets.synthetic.case import (
    Amd,
    Case,
    Chorioretinal,
    Glaucoma,
    Hypertensive,
    Myopia,
    OpticNerve,
    Quality,
    Retinopathy,
    VeinOcclusion,
)
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case

HEADER = (
    "file_md5,file_name,eyes_side,is_abnormal,is_amd,is_aon,is_crp,is_dm,is_dme,dr_grade,is_em,"
    "is_gc,is_md,is_mh,is_htr,has_lesion,is_pm,is_rvo,is_tessellated,is_treated,is_fundus,"
    "is_macular_readable,is_optic_disc_readable,is_retinal_region_readable,"
    "retinal_region_quality_score,diagnosticAdvice"
)


def _eye(**conditions: object) -> Case:
    return Case(TRAINING_DOMAIN, 0, 7, eye="left", **conditions)  # type: ignore[arg-type]


def test_the_header_is_that_of_synfundus() -> None:
    assert ",".join(ANNOTATION_COLUMNS) == HEADER
    assert tuple(annotate(_eye())) == ANNOTATION_COLUMNS
    assert tuple(generation_conditions(_eye())) == CONDITION_COLUMNS
    assert len(DISEASES) + 1 == 11


def test_a_healthy_eye_is_all_zeros() -> None:
    row = annotate(_eye(myopia=Myopia(tessellation=0.4)), file_md5="0123")
    assert row["file_md5"] == "0123"
    assert row["file_name"] == "7.jpg"
    assert row["eyes_side"] == "left"
    assert row["is_tessellated"] == 1
    flags = {*DISEASES, "dr_grade", "is_md", "is_mh", "has_lesion", "is_treated", "is_abnormal"}
    assert {row[column] for column in flags} == {0}


def test_each_condition_sets_its_columns_and_no_other() -> None:
    conditions: dict[str, dict[str, object]] = {
        "is_amd is_md": {"amd": Amd(stage="early", drusen_medium=5)},
        "is_amd is_md has_lesion": {"amd": Amd(stage="neovascular", macular_haemorrhage=1.0)},
        "is_aon": {"optic_nerve": OpticNerve(kind="pallor", severity=1.0)},
        "is_crp": {"chorioretinal": Chorioretinal(kind="scar", lesions=1, size=1.0)},
        "is_crp is_md": {
            "chorioretinal": Chorioretinal(kind="scar", quadrant="macula", lesions=1, size=1.0)
        },
        "is_dm is_tessellated": {"myopia": Myopia(degenerative=True, tessellation=0.5)},
        "is_pm is_md": {"myopia": Myopia(pathologic=True, atrophy_patches=2)},
        "is_em is_md": {"epiretinal_membrane": 0.5},
        "is_mh is_md": {"macular_hole": 0.3},
        "is_gc": {"glaucoma": Glaucoma(present=True), "cup_to_disc": 0.8},
        "is_htr": {"hypertensive": Hypertensive(grade=1, arteriolar_narrowing=0.5)},
        "is_rvo has_lesion": {"vein_occlusion": VeinOcclusion(kind="branch", severity=0.5)},
    }
    flags = [c for c in ANNOTATION_COLUMNS if c.startswith("is_") or c == "has_lesion"]
    flags = [c for c in flags if "readable" not in c and c != "is_fundus"]
    for columns, fields in conditions.items():
        row = annotate(_eye(**fields))
        expected = {*columns.split(), "is_abnormal"}
        assert {column for column in flags if row[column]} == expected, columns


def test_retinopathy_gives_its_grade_lesions_and_treatment() -> None:
    mild = annotate(_eye(retinopathy=Retinopathy(grade=1, microaneurysms=5)))
    assert (mild["dr_grade"], mild["has_lesion"], mild["is_abnormal"]) == (1, 0, 1)
    treated = Retinopathy(grade=4, neovascular_disc=True, blot_haemorrhages=9, laser_scars=200)
    row = annotate(_eye(retinopathy=treated))
    assert (row["dr_grade"], row["has_lesion"], row["is_treated"]) == (4, 1, 1)


def test_what_cannot_be_read_is_marked() -> None:
    row = annotate(_eye(quality=Quality(blur=0.8, macula_readable=False, score=2)))
    assert row["is_macular_readable"] == 0
    assert row["is_optic_disc_readable"] == 1
    assert row["retinal_region_quality_score"] == 2


def test_both_tables_agree_on_what_they_share() -> None:
    for index in range(300):
        case = sample_case(TRAINING_DOMAIN, 5, index)
        row, conditions = annotate(case), generation_conditions(case)
        shared = set(row) & set(conditions)
        assert shared == set(CONDITION_COLUMNS) - {"idx", "eye_side"}
        assert all(row[column] == conditions[column] for column in shared)
        assert conditions["idx"] == index
        assert conditions["eye_side"] == ("left", "right").index(case.eye)
        assert row["diagnosticAdvice"] == caption(case)
        sick = row["dr_grade"] or row["is_md"] or any(row[column] for column in DISEASES)
        assert row["is_abnormal"] == bool(sick)
