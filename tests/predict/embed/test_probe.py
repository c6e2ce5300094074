"""scikit-learn on files of `vclip embed` gives the figures of `vclip probe`."""

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.linear_model import LogisticRegression

import vclip_jax
from vclip_jax import datasets
from vclip_jax.evaluation.probe import INVERSE_PENALTY, few_shot
from vclip_jax.predict.embed import __main__ as embed
from vclip_jax.predict.embeddings import embed_split

NAME = "synthetic/fives_like-32px-80-s1"


@pytest.mark.slow
def test_a_logistic_regression_on_the_file_is_the_linear_probe(portable_folder, tmp_path):
    datasets.prepare(NAME, "", str(tmp_path))
    clip = vclip_jax.load(portable_folder)
    halves, tables = [], []
    for half in ("test[:50%]", "test[50%:]"):
        target = tmp_path / f"{len(halves)}.parquet"
        words = [str(portable_folder), NAME, "--data-dir", str(tmp_path), "--split", half]
        assert embed.main([*words, "--out", str(target)]) == 0
        tables.append(pyarrow.parquet.read_table(target))
        halves.append(embed_split(clip, NAME, tmp_path, half))
    names = halves[0].class_names
    (x, y), (asked, _) = (
        (np.stack(t["vector"].to_numpy()), [names.index(name) for name in t["label"].to_pylist()])
        for t in tables
    )
    train, test = halves
    assert y == train.labels.tolist()
    np.testing.assert_allclose(x, train.images, atol=1e-5)
    classes = np.zeros((len(names), clip.embed_dim), np.float32)
    task = few_shot.FewShot(train.images, train.labels, test.images, classes, 1.0, 0)
    fitted = LogisticRegression(C=INVERSE_PENALTY, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(fitted.predict_proba(asked), few_shot.linear(task), atol=1e-3)
