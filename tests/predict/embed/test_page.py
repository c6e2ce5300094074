"""The programs of docs/embeddings.md run on a file that `vclip embed` wrote."""

import re
from pathlib import Path

import pytest

from vclip_jax import datasets
from vclip_jax.data.images import preprocess
from vclip_jax.predict.embed import __main__ as embed

PAGE = Path(__file__).parents[3] / "docs/embeddings.md"


def test_the_programs_of_the_page_run(portable_folder, write_idrid, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas", reason="needs the [notebooks] extra")
    monkeypatch.chdir(tmp_path)
    datasets.prepare("idrid", str(write_idrid(tmp_path / "source", train=10, test=5)), "data")
    monkeypatch.setattr(preprocess, "judge", lambda _: ())  # the photographs are noise
    assert embed.main([str(portable_folder), "idrid", "--out", "idrid.parquet"]) == 0
    capsys.readouterr()
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    names: dict = {}
    for program in programs:
        exec(program, names)
    assert names["vectors"].shape == (15, 10)
    assert names["regression"].coef_.shape == (5, 10)
    model, score = capsys.readouterr().out.split()
    assert model == portable_folder.name
    assert 0 <= float(score) <= 1
