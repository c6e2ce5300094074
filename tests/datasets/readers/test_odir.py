import shutil
from collections import Counter

import openpyxl
import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import odir as fixture
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.readers import odir


@pytest.fixture(scope="module")
def items(listing):
    return {item.key: item for item in listing.items}


def row(listing, item):
    return dict(zip(listing.columns, item.values, strict=True))


def test_an_eye_has_the_classes_of_its_own_keywords(listing, items):
    def letters(key):
        return "".join(letter for letter in odir.LETTERS if row(listing, items[key])[letter])

    assert (letters("0_left"), letters("0_right")) == ("C", "N")
    assert letters("2_left") == "DO"
    assert letters("6_left") == "G"  # suspected
    assert letters("23_right") == "DH"
    assert letters("17_left") == ""


def test_the_label_is_the_one_class_that_applies(items):
    def name(key):
        label = items[key].label
        return odir.CLASSES[label] if label >= 0 else ""

    assert name("0_left") == "cataract"
    assert name("13_right") == "pathologic myopia"  # lens dust decides nothing
    assert name("23_left") == "normal"
    assert name("31_right") == "other diseases"
    assert name("2_left") == name("17_left") == ""
    labels = Counter(item.label for item in items.values())
    assert min(labels[label] for label in range(8)) >= 1


def test_captions_are_the_keywords_in_chinese(items):
    assert "激光斑" in items["2_left"].caption
    assert "中度" in items["2_left"].caption
    assert "疑似青光眼" in items["6_left"].caption
    assert "灰尘" not in items["13_right"].caption
    assert "图像质量" in items["17_left"].caption  # nothing else is known
    assert items["31_right"].caption.count("其他") <= 1
    assert all(item.caption.endswith("。") for item in items.values())


def test_patient_eye_age_and_sex_come_along(listing, items):
    values = row(listing, items["4_right"])
    assert {k: values[k] for k in ("patient", "eye", "age", "sex", "keywords")} == {
        "patient": "4",
        "eye": "right",
        "age": 48,
        "sex": "female",
        "keywords": "mild nonproliferative retinopathy",
    }
    assert blobs.read(items["4_right"].image)[:2] == b"\xff\xd8"
    assert {item.split for item in items.values()} == {"train"}


def test_nothing_is_lost(listing):
    assert len(listing.items) == 22
    assert Counter((reject.key, reject.reason) for reject in listing.rejects) == {
        ("20_right", "no fundus photograph"): 1,
        ("31_left", "no fundus photograph"): 1,
        ("1_left", "duplicate row"): 1,
        ("1_right", "duplicate row"): 1,
        ("99_left", "missing image"): 1,
        ("99_right", "missing image"): 1,
        ("100_left", "missing row"): 1,
    }


def test_kaggles_table_gives_the_same_items(items, tmp_path):
    fixture.write_kaggle(tmp_path)
    listing = odir.scan(tmp_path)
    found = {item.key: item for item in listing.items}
    assert found.keys() == items.keys()
    for key, item in found.items():
        assert (item.caption, item.label, item.values) == (
            items[key].caption,
            items[key].label,
            items[key].values,
        )
    assert Counter(reject.reason for reject in listing.rejects) == {"missing row": 2}


def test_the_whole_table_is_read_rather_than_kaggles(source, items, tmp_path):
    fixture.write_kaggle(tmp_path)
    shutil.copy(next(source.glob("*.xlsx")), tmp_path / "ODIR-5K/ODIR-5K/data.xlsx")
    assert {item.key for item in odir.scan(tmp_path).items} == items.keys()


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("Laser Spot，  drusen", ["laser spot", "drusen"]),
        ("drusen, drusen，", ["drusen"]),
        ("suspected abnormal color of  optic disc", ["suspected abnormal color of optic disc"]),
        ("", []),
    ],
)
def test_keywords_are_separated_by_commas_of_any_width(text, keywords):
    assert odir.split_keywords(text) == keywords


@pytest.mark.parametrize(
    ("keyword", "letter"),
    [
        ("suspicious diabetic retinopathy", "D"),
        ("moderate nonproliferative retinopathy", "D"),
        ("suspected cataract", "C"),
        ("exudative macular degeneration", "A"),
        ("high myopia", "M"),
        ("image offset", ""),
        ("whatever", "O"),
    ],
)
def test_rare_keywords_are_told_by_their_words(keyword, letter):
    assert odir.class_of(keyword) == letter
    assert odir.phrases_of(keyword)


def test_the_prompt_set_has_its_classes():
    assert prompts.load("zh/odir").class_names == odir.CLASSES


def test_a_wrong_layout_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"lacks \*Annotations\*\.xlsx or data\.xlsx or full_df"):
        odir.scan(tmp_path)
    book = openpyxl.Workbook()
    book.active.append(("ID", "Left-Fundus"))
    book.active.append((1, "1_left.jpg"))
    book.save(tmp_path / "data.xlsx")
    with pytest.raises(ValueError, match="lacks ODIR-5K_Training_Dataset or"):
        odir.scan(tmp_path)
    (tmp_path / "Training Images").mkdir()
    (tmp_path / "Training Images/1_left.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="expected the columns Patient Age, Patient Sex"):
        odir.scan(tmp_path)
