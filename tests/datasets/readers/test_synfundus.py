import shutil
from collections import Counter

import numpy as np
import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import synfundus as fixture
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.readers import synfundus

TABLE = "SynFundus-1M_annotation.csv"


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotated")
    fixture.write(folder)
    return folder


@pytest.fixture(scope="module")
def conditions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditions")
    fixture.write_conditions(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    fixture.write_parquet(folder)
    return folder


@pytest.fixture(scope="module")
def listing(annotated):
    return synfundus.scan(annotated)


@pytest.fixture
def copy(annotated, tmp_path):
    shutil.copytree(annotated, tmp_path, dirs_exist_ok=True)
    return tmp_path


def by_key(listing):
    return {item.key: item for item in listing.items}


def row(listing, key):
    return dict(zip(listing.columns, by_key(listing)[key].values, strict=True))


def reasons(listing):
    return Counter(reject.reason for reject in listing.rejects)


def test_the_label_is_the_one_disease_that_the_columns_have(listing):
    labels = Counter(item.label for item in listing.items)
    # One of the two with AMD has an empty description, one of the normal ones tells a finding.
    assert labels == {-1: 3, **dict.fromkeys(range(12), 2), 0: 1, 2: 1}
    assert synfundus.CLASSES[by_key(listing)["2"].label] == "diabetic retinopathy"
    assert row(listing, "2")["dr_grade"] > 0


def test_descriptions_are_the_captions(listing):
    items = by_key(listing)
    assert items["0"].caption == "疑似高血压性视网膜病变（中度）。"
    assert items["0"].label == -1  # the columns say nothing of it
    assert all(item.caption for item in listing.items)


HEADER = (
    "file_name,is_abnormal,dr_grade,is_amd,is_aon,is_crp,is_dm,is_dme,is_em,is_gc,is_htr,"
    "is_pm,is_rvo,is_md,is_mh,has_lesion,is_tessellated,is_treated,diagnosticAdvice"
)


def scan_row(folder, delimiter=",", encoding="utf-8", **cells):
    """The label of one row, whose columns hold 0 but for `cells`."""
    names = HEADER.split(",")
    row = {**dict.fromkeys(names, "0"), "file_name": "1.png", "diagnosticAdvice": "眼底正常。"}
    row |= {name: str(value) for name, value in cells.items()}
    lines = [delimiter.join(names), delimiter.join(row[name] for name in names), ""]
    (folder / TABLE).write_text("\n".join(lines), encoding)
    (folder / "1.png").touch()
    return synfundus.scan(folder)


@pytest.mark.parametrize(
    "cells",
    [
        {"is_md": 1, "diagnosticAdvice": "疑似黄斑区域病变。"},
        {"has_lesion": 1, "diagnosticAdvice": "可见出血斑。"},
        {"diagnosticAdvice": "疑似高血压性视网膜病变（中度）。"},
        {"is_mh": 1},
        {"is_treated": 1},
        {"is_tessellated": 1},
        {"is_abnormal": 1},
        {"is_md": ""},
        {"diagnosticAdvice": "可见出血斑。"},
        {"diagnosticAdvice": "未见青光眼，黄斑区渗出。"},
    ],
)
def test_an_eye_with_a_finding_is_not_normal(tmp_path, cells):
    listing = scan_row(tmp_path, **cells)
    assert [item.label for item in listing.items] == [-1]
    assert any("1 rows without a disease in the columns" in note for note in listing.notes)


@pytest.mark.parametrize(
    "words",
    [
        "眼底未见明显异常。",
        "未见出血及渗出，黄斑中心凹反光可见，杯盘比约0.4。",
        "正常",
        "无糖尿病视网膜病变。",
    ],
)
def test_an_eye_in_which_nothing_is_found_is_normal(tmp_path, words):
    listing = scan_row(tmp_path, diagnosticAdvice=words)
    assert [item.label for item in listing.items] == [0]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_table_may_have_tabs_and_any_encoding(tmp_path, delimiter, encoding):
    (item,) = scan_row(
        tmp_path, delimiter, encoding, is_gc=1, diagnosticAdvice="疑似青光眼。"
    ).items
    assert (item.label, item.caption) == (synfundus.CLASSES.index("glaucoma"), "疑似青光眼。")


def test_a_description_with_a_bare_comma_is_rejected_not_cut(tmp_path):
    listing = scan_row(tmp_path, diagnosticAdvice="正常,未见异常")
    assert [(r.key, r.reason) for r in listing.rejects] == [("1", "surplus cells")]


def test_a_stray_quote_does_not_swallow_rows(tmp_path):
    with pytest.raises(ValueError, match="is one too many"):
        scan_row(tmp_path, diagnosticAdvice='"正常\n1.png,0"')


def test_every_column_is_kept_with_its_type(listing):
    values = row(listing, "50000")
    assert len(values) == 25
    assert values["file_name"] == "50000.png"
    assert isinstance(values["file_md5"], str)
    assert values["is_fundus"] == values["is_macular_readable"] == 1
    assert isinstance(values["retinal_region_quality_score"], float)
    for item in listing.items:
        assert [type(value) for value in item.values] == list(listing.columns.values())


def test_every_row_and_every_image_is_kept_or_rejected(listing):
    assert len(listing.items) == 25
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("5", "duplicate row"),
        ("777", "missing image"),
        ("888", "missing row"),
        ("4", "empty caption"),
    }


def test_disagreement_of_columns_and_descriptions_is_counted(listing):
    notes = " ".join(listing.notes)
    # The planted one, two with oedema that name retinopathy too, and two that name signs alone.
    assert "5 of 25 captions name other diseases" in notes
    assert "is_abnormal is 1 in 0 of" in notes


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("疑似青光眼。", {"glaucoma"}),
        ("未见青光眼征象，糖尿病性黄斑水肿。", {"diabetic macular oedema"}),
        (
            "疑似糖尿病视网膜病变（中度），黄斑前膜。",
            {"diabetic retinopathy", "epiretinal membrane"},
        ),
        ("无糖尿病视网膜病变。", set()),
        ("左眼未见青光眼征象。", set()),
        ("青光眼性视神经病变。", {"glaucoma"}),
        ("视神经萎缩。", {"anomaly of the optic nerve"}),
        ("疑似高血压性视网膜病变（中度）。", {"hypertensive retinopathy"}),
    ],
)
def test_a_description_names_the_diseases_that_it_does_not_deny(caption, named):
    bits = synfundus._named(caption, {})
    assert {synfundus.CLASSES[b + 1] for b in range(11) if bits >> b & 1} == named


def test_unreadable_photographs_can_be_left_out(annotated):
    fundus = synfundus.scan(annotated, readable="fundus")
    assert [r.key for r in fundus.rejects if r.reason == "not readable"] == ["3"]
    strict = synfundus.scan(annotated, readable="strict")
    assert [r.key for r in strict.rejects if r.reason == "not readable"] == ["2", "3"]
    assert strict.variant == "strict"
    assert len(strict.items) == 23


def test_the_split_is_by_key_or_by_a_seeded_permutation(annotated, listing):
    assert all(item.split == split_by_hash(item.key) for item in listing.items)
    first, second = (synfundus.scan(annotated, split="random") for _ in range(2))
    assert first.variant == "random"
    assert [i.split for i in first.items] == [i.split for i in second.items]
    assert Counter(i.split for i in first.items) == {"train": 20, "validation": 3, "test": 2}
    # Nothing but the split is another.
    assert [(i.key, i.caption, i.values) for i in first.items] == [
        (i.key, i.caption, i.values) for i in listing.items
    ]


def test_conditions_are_written_out_and_their_images_lie_in_zips(conditions):
    listing = synfundus.scan(conditions)
    assert listing.variant == "gen_cond"
    assert listing.rejects == []
    assert Counter(item.label for item in listing.items) == {
        -1: 2,
        **dict.fromkeys(range(12), 2),
    }
    for item in listing.items:
        assert blobs.read(item.image).startswith(b"\x89PNG")
        named = synfundus._named(item.caption, {})
        if item.label > 0:
            assert named == 1 << (item.label - 1)
        eye = "左眼" if row(listing, item.key)["eye_side"] == 0 else "右眼"
        assert eye in item.caption or "眼：" not in item.caption
    assert {item.image.path.rpartition("/")[2] for item in listing.items} == {
        "Part0.zip",
        "Part1.zip",
        "Part18.zip",
        "Part19.zip",
    }


def test_shards_hold_images_and_texts(shards, annotated):
    listing = synfundus.scan(shards)
    assert listing.variant == "parquet"
    assert len(listing.items) == 26
    assert {item.label for item in listing.items} == {-1}
    items, others = by_key(listing), by_key(synfundus.scan(annotated))
    assert items.keys() > others.keys()
    assert blobs.read(items["999999"].image) == (annotated / "Part19/999999.png").read_bytes()
    assert items["7"].caption == others["7"].caption


def test_a_photograph_has_the_same_key_and_split_in_every_form(annotated, conditions, shards):
    keys = [
        {item.key: item.split for item in synfundus.scan(folder).items}
        for folder in (annotated, conditions, shards)
    ]
    common = keys[0].keys() & keys[1].keys() & keys[2].keys()
    assert len(common) == 25
    assert all(keys[0][key] == keys[1][key] == keys[2][key] for key in common)


def test_annotations_go_before_conditions_unless_told_otherwise(copy, conditions, listing):
    shutil.copy(conditions / "SynFundus-1M_gen_cond.csv", copy)
    assert [i.caption for i in synfundus.scan(copy).items] == [i.caption for i in listing.items]
    assert synfundus.scan(copy, table="gen_cond").variant == "gen_cond"


def test_a_table_with_further_columns_and_all_images_in_one_folder_is_read(copy, listing):
    (copy / "Fundus").mkdir()
    for image in copy.glob("Part*/*.png"):
        image.rename(copy / "Fundus" / image.name)
    lines = (copy / TABLE).read_text().splitlines()
    lines = [
        f"{i - 1 if i else ''},{line},{'True' if i else 'is_readable'}"
        for i, line in enumerate(lines)
    ]
    (copy / TABLE).unlink()
    (copy / "SynFundus-1M_annotation_with_is_readable.csv").write_bytes(
        "\r\n".join(lines).encode("gb18030")
    )
    found = synfundus.scan(copy)
    assert {i.key: i.caption for i in found.items} == {i.key: i.caption for i in listing.items}
    assert row(found, "0")["is_readable"] == 1


def test_a_file_goes_before_a_zip_with_the_same_picture(copy, conditions):
    shutil.copy(conditions / "Part0.zip", copy)
    listing = synfundus.scan(copy)
    assert not by_key(listing)["0"].image.member
    (copy / "Part0/0.png").unlink()
    assert by_key(synfundus.scan(copy))["0"].image.member == "Part0/0.png"


def test_two_files_of_one_name_are_not_guessed_at(copy):
    shutil.copy(copy / "Part0/0.png", copy / "Part1/0.png")
    with pytest.raises(ValueError, match="two images are called 0"):
        synfundus.scan(copy)


def test_a_cell_that_is_no_number_rejects_the_row(copy):
    text = (copy / TABLE).read_text().replace("7.png,left,0,", "7.png,left,?,", 1)
    text = text.replace("7.png,right,0,", "7.png,right,?,", 1)
    (copy / TABLE).write_text(text)
    assert reasons(synfundus.scan(copy))["invalid label"] >= 1


def test_an_empty_cell_is_unknown_and_so_is_the_label(copy, listing):
    header, *lines = (copy / TABLE).read_text().splitlines()
    place = header.split(",").index("is_gc")
    cells = lines[0].split(",")
    cells[place] = ""
    (copy / TABLE).write_text("\n".join([header, ",".join(cells), *lines[1:]]))
    found = synfundus.scan(copy)
    assert row(found, "0")["is_gc"] == -1
    assert by_key(found)["0"].label == -1


def test_conditions_vary_in_their_wording_but_not_from_run_to_run():
    glaucoma = 1 << synfundus.CLASSES.index("glaucoma") - 1
    captions = {synfundus.compose(str(key), glaucoma, 0, key % 2) for key in range(200)}
    assert len(captions) > 10
    assert captions == {synfundus.compose(str(key), glaucoma, 0, key % 2) for key in range(200)}
    assert all("青光眼" in caption for caption in captions)
    unknown = {synfundus.compose(str(key), 0, 0, None) for key in range(200)}
    assert not any("左眼" in caption or "右眼" in caption for caption in unknown)


def test_the_random_split_is_8_1_1():
    items = synfundus._randomly([synfundus.Item(str(i), "", None, "", -1) for i in range(1000)])
    counts = Counter(item.split for item in items)
    assert counts == {"train": 800, "validation": 100, "test": 100}
    tests = np.array([item.split == "test" for item in items])
    assert 0.3 < tests[:500].mean() / tests.mean() < 1.7  # not by order


def test_the_prompt_set_has_its_classes():
    assert prompts.load("zh/synfundus").class_names == synfundus.CLASSES


@pytest.mark.parametrize("option", ["table", "split", "readable"])
def test_an_unknown_option_is_answered_with_the_known(annotated, option):
    with pytest.raises(ValueError, match=r"use one of .*, not 'no'"):
        synfundus.scan(annotated, **{option: "no"})


def test_a_wrong_layout_says_what_is_missing(tmp_path, conditions):
    with pytest.raises(ValueError, match="no such folder"):
        synfundus.scan(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"lacks SynFundus-1M_annotation\.csv or .* or \.parquet"):
        synfundus.scan(tmp_path)
    with pytest.raises(ValueError, match=r"lacks SynFundus-1M_gen_cond\.csv$"):
        synfundus.scan(tmp_path, table="gen_cond")
    (tmp_path / TABLE).write_text("file_name,advice\n0.png,x\n")
    with pytest.raises(ValueError, match="expected the columns diagnosticAdvice"):
        synfundus.scan(tmp_path)
    (tmp_path / TABLE).write_text("file_name,diagnosticAdvice\n0.png,正常\n")
    with pytest.raises(ValueError, match="there is no image in it"):
        synfundus.scan(tmp_path)
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="readable=strict needs is_fundus"):
        synfundus.scan(tmp_path, readable="strict")
    (tmp_path / "bad.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad\.zip: not a readable \.zip"):
        synfundus.scan(tmp_path)
