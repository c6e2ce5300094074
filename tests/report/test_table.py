import pytest

from vclip_jax.evaluation.metrics.table import averaged
from vclip_jax.report import format_table


@pytest.fixture
def results(contents):
    return contents["zero_shot.json"]


def test_the_table_holds_every_figure_in_aligned_columns(results):
    lines = format_table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    for line, (name, result) in zip(lines[2:5], results.items(), strict=True):
        lo, hi = result["accuracy_ci95"]
        assert line.split() == [
            name,
            "300",
            str(len(result["classes"])),
            f"{result['auc']:.3f}",
            f"{result['accuracy']:.3f}",
            f"[{lo:.3f},",
            f"{hi:.3f}]",
            f"{1 / len(result['classes']):.3f}",
            f"{max(map(sum, result['confusion'])) / 300:.3f}",
            *(f"{result[key]:.3f}" for key in ("balanced_accuracy", "kappa")),
        ]
    starts = {line.index("[") for line in lines[2:5]}
    assert len(starts) == 1


def test_the_mean_runs_over_the_named_datasets(results):
    names = ["messidor_like", "fives_like"]
    last = format_table(results, names).splitlines()[-1].split()
    mean = sum(results[name]["accuracy"] for name in names) / 2
    assert last[:4] == ["mean", "of", "2", "600"]
    assert last[5] == f"{mean:.3f}"
    assert last[6] == "0.250"


def test_drawings_and_photographs_are_not_averaged(results):
    assert averaged(results) == list(results)
    assert averaged({**results, "idrid": results["fives_like"]}) == list(results)
    assert averaged({"idrid": {}, "fives": {}}) == ["idrid", "fives"]


def test_there_is_no_mean_of_one_or_none(results):
    one = {"fives_like": results["fives_like"]}
    assert "mean of" not in format_table(one)
    assert "mean of" not in format_table(results, [])
    assert format_table({}).startswith("dataset")


def test_an_undefined_figure_is_a_dash_and_so_is_its_mean(results):
    results["refuge_like"]["auc"] = None
    lines = format_table(results).splitlines()
    assert lines[4].split()[3] == "–"
    assert lines[-1].split()[4] == "–"


def test_a_mean_over_an_unknown_dataset_is_an_error(results):
    with pytest.raises(ValueError, match="no result for 'x'; there are messidor_like"):
        format_table(results, ["x"])
