"""Probes and adapters on embeddings, against scikit-learn and NumPy; the command."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vclip_jax import datasets, prompts
from vclip_jax.evaluation import labelled
from vclip_jax.evaluation.metrics import classification, retrieval
from vclip_jax.evaluation.probe import __main__ as command
from vclip_jax.evaluation.probe import experiment as probe
from vclip_jax.evaluation.probe import few_shot
from vclip_jax.predict.embeddings import SplitEmbeddings

pytestmark = pytest.mark.slow  # minutes of compiling on 2 cores

METHODS = tuple(few_shot.METHODS)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def clouds(n, classes, width, seed, spread=0.5):
    """Unit vectors around a centre a class, and labels; class by class."""
    centres = np.random.default_rng(0).standard_normal((classes, width))
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(n) % classes)
    return unit(centres[labels] + spread * 3 * rng.standard_normal((n, width))), labels


@pytest.fixture(scope="module")
def task():
    """Four shots of three classes; prompts that know little."""
    train, labels = clouds(12, 3, 16, 1)
    test, _ = clouds(60, 3, 16, 2)
    prompts = unit(np.random.default_rng(3).standard_normal((3, 16)))
    return few_shot.FewShot(train, labels, test, prompts, 20.0, 0)


def wide(task):
    names = ("train", "test", "classes")
    return [getattr(task, name).astype(np.float64) for name in names]


# --- shots


def test_shots_are_drawn_again_the_same_and_differ_between_folds():
    labels = np.random.default_rng(0).integers(0, 3, 90)
    drawn = few_shot.draw_shots(labels, 4, 7, 0)
    np.testing.assert_array_equal(drawn, few_shot.draw_shots(labels, 4, 7, 0))
    assert labels[drawn].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(drawn)) == 12
    for other in (few_shot.draw_shots(labels, 4, 7, 1), few_shot.draw_shots(labels, 4, 8, 0)):
        assert set(other) != set(drawn)


def test_fewer_shots_are_among_more_and_a_small_class_gives_all_it_has():
    labels = np.array([0] * 10 + [1] * 3)
    few, many = (few_shot.draw_shots(labels, shots, 0, 2) for shots in (2, 8))
    assert set(few) <= set(many)
    assert (labels[many] == 1).sum() == 3
    assert sorted(few_shot.draw_shots(labels, None, 0, 2)) == list(range(13))


def test_the_shots_of_a_class_do_not_depend_on_other_classes_and_unlabelled_ones_are_not_drawn():
    labels = np.array([0, 1, 2] * 20)
    alone = np.where(labels == 2, 2, -1)
    drawn = few_shot.draw_shots(labels, 5, 1, 0)
    np.testing.assert_array_equal(drawn[10:], few_shot.draw_shots(alone, 5, 1, 0))


# --- the linear probe


@pytest.mark.parametrize(
    ("n", "classes", "width", "inverse_penalty"),
    [(8, 4, 64, 0.316), (300, 4, 64, 0.316), (300, 4, 64, 100.0), (60, 2, 32, 1.0)],
)
def test_the_linear_probe_is_scikit_learns(n, classes, width, inverse_penalty):
    train, labels = clouds(n, classes, width, 1)
    test, _ = clouds(100, classes, width, 2)
    reference = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=10_000)
    expected = reference.fit(train.astype(np.float64), labels).predict_proba(test)
    prompts = np.zeros((classes, width), np.float32)
    given = few_shot.linear(
        few_shot.FewShot(train, labels, test, prompts, 1.0, 0), inverse_penalty=inverse_penalty
    )
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4)


# --- adapters


def test_zero_shot_is_the_softmax_of_scaled_cosines(task):
    _, test, classes = wide(task)
    np.testing.assert_allclose(few_shot.zero_shot(task), softmax(20 * test @ classes.T), atol=1e-5)


def test_the_adapter_mixes_a_fifth_of_its_output_in(task):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((16, 4)), rng.standard_normal((4, 16))
    _, test, classes = wide(task)
    mixed = 0.2 * np.maximum(np.maximum(test @ first, 0) @ second, 0) + 0.8 * test
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    weights = first.astype(np.float32), second.astype(np.float32)
    given = few_shot._adapter_logits(weights, task.test, task.classes, task.scale)
    np.testing.assert_allclose(given, 20 * mixed @ classes.T, atol=1e-4)


def tip_reference(train, one_hot, test, classes, alpha, beta):
    votes = np.exp(-beta * (1 - test @ train.T)) @ one_hot
    return 20 * test @ classes.T + alpha * votes


def test_tip_adapter_adds_the_votes_of_the_shots(task):
    train, test, classes = wide(task)
    alpha, beta = few_shot._choose(task)
    expected = softmax(tip_reference(train, task.one_hot, test, classes, alpha, beta))
    np.testing.assert_allclose(few_shot.tip_adapter(task), expected, atol=1e-5)


def test_alpha_and_beta_do_best_on_the_shots_held_out_whatever_is_tested(task):
    train, _, classes = wide(task)
    held = few_shot.held_out(task.labels)
    assert held.tolist() == [False, False, False, True] * 3
    losses = {}
    for alpha in few_shot.ALPHAS:
        for beta in few_shot.BETAS:
            logits = tip_reference(
                train[~held], task.one_hot[~held], train[held], classes, alpha, beta
            )
            wanted = softmax(logits)[np.arange(3), task.labels[held]]
            losses[alpha, beta] = -np.log(wanted).mean()
    chosen = few_shot._choose(task)
    assert losses[chosen] == pytest.approx(min(losses.values()), abs=1e-6)
    assert few_shot._choose(replace(task, test=task.test[:1] * -1)) == chosen
    for method in (few_shot.tip_adapter, few_shot.tip_adapter_f):
        part = method(replace(task, test=task.test[:7]))
        np.testing.assert_allclose(part, method(task)[:7], atol=1e-5)


def test_one_shot_leaves_nothing_to_hold_out(task):
    one = replace(task, train=task.train[::4], labels=task.labels[::4])
    assert not few_shot.held_out(one.labels).any()
    assert few_shot._choose(one) == few_shot.USUAL
    assert few_shot.held_out(np.array([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2])).tolist() == [
        False,
        True,
        False,
        *[False] * 6,
        True,
        True,
    ]


@pytest.mark.parametrize("method", ["linear", "clip_adapter", "tip_adapter", "tip_adapter_f"])
def test_shots_help_prompts_that_know_little_and_the_answer_is_repeatable(method):
    train, labels = clouds(48, 3, 16, 1)
    test, truth = clouds(150, 3, 16, 2)
    prompts = unit(np.random.default_rng(3).standard_normal((3, 16)))
    task = few_shot.FewShot(train, labels, test, prompts, 10.0, 5)
    before = -np.log(few_shot.zero_shot(task)[np.arange(150), truth]).mean()
    given = few_shot.METHODS[method](task)
    assert given.shape == (150, 3)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    assert -np.log(given[np.arange(150), truth]).mean() < before - 0.1
    np.testing.assert_array_equal(given, few_shot.METHODS[method](task))


def test_tip_adapter_f_without_steps_is_tip_adapter_and_training_lowers_the_loss(task):
    alpha, beta = few_shot._choose(task)
    np.testing.assert_allclose(
        jax.nn.softmax(few_shot._tip_f_logits(task, alpha, beta, 0)),
        few_shot.tip_adapter(task),
        atol=1e-6,
    )
    own = replace(task, test=task.train)
    losses = []
    for steps in (0, 100):
        wanted = softmax(np.asarray(few_shot._tip_f_logits(own, alpha, beta, steps)))
        losses.append(-np.log(wanted[np.arange(12), task.labels]).mean())
    assert losses[1] < losses[0]


# --- the experiment


def split(n, seed, prefix):
    images, labels = clouds(n, 3, 16, seed)
    return SplitEmbeddings(
        images=images,
        texts=images[:1],
        caption_ids=np.zeros(n, np.int32),
        labels=labels.astype(np.int32),
        gate=np.zeros(n, np.int32),
        captions=("",),
        keys=tuple(f"{prefix}{i}" for i in range(n)),
        class_names=("a", "b", "c"),
    )


@pytest.fixture(scope="module")
def splits():
    return split(30, 1, "train"), split(45, 2, "test")


def classes():
    return unit(np.random.default_rng(3).standard_normal((3, 16)))


def test_mean_and_deviation_are_over_the_folds(splits):
    train, test = splits
    unlabelled = replace(test, labels=np.where(np.arange(45) % 9 == 0, -1, test.labels))
    rows = probe.probe(
        train,
        unlabelled,
        classes(),
        10.0,
        methods=("linear", "zero_shot"),
        shots=(2, None),
        folds=3,
        ordered=True,
    )
    assert [(row["method"], row["shots"], row["train_images"]) for row in rows] == [
        ("zero_shot", 0, 0),
        ("linear", 2, 6),
        ("linear", None, 30),
    ]
    assert len(rows[0]["folds"]) == 1
    assert rows[0]["accuracy"]["std"] == 0
    known = unlabelled.labels >= 0
    for key in probe.REPORTED:
        values = []
        for fold in range(3):
            drawn = few_shot.draw_shots(train.labels, 2, 0, fold)
            task = few_shot.FewShot(
                train.images[drawn], train.labels[drawn], test.images[known], classes(), 1.0, 0
            )
            answers = few_shot.linear(task)
            figures = classification.classification(answers, test.labels[known], ordered=True)
            values.append(figures[key])
        assert rows[1][key]["mean"] == pytest.approx(np.mean(values))
        assert rows[1][key]["std"] == pytest.approx(np.std(values, ddof=1))
        assert [fold[key] for fold in rows[1]["folds"]] == pytest.approx(values)
        assert rows[2][key]["std"] == pytest.approx(0)  # there is only one choice of all
    assert "zero_shot" in probe.format_table(rows)


def test_labels_are_numbered_as_the_prompts_and_diseases_have_no_kappa(splits):
    _, test = splits
    prompt_set = prompts.from_phrases({name: name for name in ("c", "a", "b")})
    moved = labelled.renumbered(test, prompt_set)
    names = np.array(test.class_names)[test.labels]
    np.testing.assert_array_equal(np.array(prompt_set.class_names)[moved.labels], names)
    want, found = (
        probe.probe(None, task, vectors, 10.0, methods=("zero_shot",), ordered=prompt_set.ordered)
        for task, vectors in ((test, classes()), (moved, classes()[[2, 0, 1]]))
    )
    assert found[0]["accuracy"] == want[0]["accuracy"]
    assert found[0]["kappa"] is None
    assert probe.format_table(found).splitlines()[-1].endswith(" -")


def test_what_would_mislead_is_refused(splits):
    train, test = splits
    ask = {"methods": ("linear",), "shots": (1,), "folds": 1}
    with pytest.raises(ValueError, match="30 images are in both the training and the test split"):
        probe.probe(train, train, classes(), 1.0, **ask)
    lacking = replace(train, labels=np.where(train.labels == 1, -1, train.labels))
    with pytest.raises(ValueError, match="no image of class 1"):
        probe.probe(lacking, test, classes(), 1.0, **ask)
    with pytest.raises(ValueError, match="label 2, of 2 classes"):
        probe.probe(train, test, classes()[:2], 1.0, **ask)
    with pytest.raises(ValueError, match="only zero_shot does without a training split"):
        probe.probe(None, test, classes(), 1.0, **ask)
    with pytest.raises(ValueError, match="no image of the test split has a label"):
        probe.probe(train, replace(test, labels=test.labels * 0 - 1), classes(), 1.0, **ask)


# --- the command


NAME = "synthetic/messidor_like-32px-60-s1"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    datasets.prepare(NAME, "", str(path))
    return path


def run(capsys, portable_folder, data_dir, *arguments):
    status = command.main(
        [
            "--model",
            str(portable_folder),
            "--dataset",
            NAME,
            "--data-dir",
            str(data_dir),
            *map(str, arguments),
        ]
    )
    captured = capsys.readouterr()
    return status, captured.out, captured.err


HALVES = ("--train-split", "test[:50%]", "--test-split", "test[50%:]")


def test_the_command_prints_a_table_and_writes_probe_json(
    capsys, portable_folder, data_dir, tmp_path
):
    arguments = (*HALVES, "--method", ",".join(METHODS), "--shots", "1,2", "--folds", 2)
    status, out, err = run(capsys, portable_folder, data_dir, *arguments, "--out", tmp_path)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 1 + 1 + 4 * 2
    content = json.loads((tmp_path / "probe.json").read_text("utf-8"))
    assert content["n"] == 30
    assert content["prompts"] == "zh/messidor"
    assert [row["method"] for row in content["results"]] == [
        "zero_shot",
        *[name for name in METHODS[1:] for _ in range(2)],
    ]
    run(capsys, portable_folder, data_dir, *arguments, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "probe.json").read_text("utf-8")) == content
    assert len(list((data_dir / ".embeddings").iterdir())) == 2


def test_what_the_model_does_not_read_of_captions_is_said_where_they_are_scored(
    capsys, portable_folder, data_dir, tmp_path, caplog
):
    cache = ("--cache", tmp_path)
    arguments = (*HALVES, "--shots", 1, "--folds", 1, *cache)
    assert run(capsys, portable_folder, data_dir, *arguments)[0] == 0
    assert not caplog.messages
    for _ in range(2):  # also where their embeddings are kept
        caplog.clear()
        run(
            capsys,
            portable_folder,
            data_dir,
            "--test_split",
            "test[50%:]",
            "--method",
            "retrieval",
            *cache,
        )
        assert [text.startswith("captions: ") for text in caplog.messages] == [True] * 2


def test_retrieval_of_any_split_is_that_of_metrics(capsys, portable_folder, data_dir, tmp_path):
    status, out, _ = run(
        capsys, portable_folder, data_dir, "--method", "retrieval", "--out", tmp_path
    )
    assert status == 0
    assert out.startswith("60 images, ")
    import vclip_jax

    clip = vclip_jax.load(portable_folder)
    records = list(datasets.open_source(NAME, str(data_dir), "test"))
    captions = sorted({record["caption"] for record in records})
    expected = retrieval.retrieval(
        clip.encode_image([_pixels(record["image"]) for record in records]),
        clip.encode_text(captions),
        np.array([captions.index(record["caption"]) for record in records]),
    )
    content = json.loads((tmp_path / "retrieval.json").read_text("utf-8"))
    for direction in ("image_to_text", "text_to_image"):
        assert content[direction] == pytest.approx(expected[direction])
    assert content["n"] == 60


def _pixels(data):
    from vclip_jax.data.images.decode import read_rgb

    return read_rgb(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "has no split 'train'"),
        (("--train-split", "test"), "are in both the training and the test split"),
        ((*HALVES, "--prompts", "zh/fives"), "is for the classes normal"),
        ((*HALVES, "--prompts", "zh/fivs"), "did you mean zh/fives"),
    ],
)
def test_mistakes_are_one_line(capsys, portable_folder, data_dir, arguments, message):
    status, out, err = run(
        capsys, portable_folder, data_dir, "--shots", "1", "--folds", "1", *arguments
    )
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--shots", "0", "'0' is not a positive"), ("--method", "svm", "'svm' is none of zero_shot")],
)
def test_wrong_options_are_named(capsys, portable_folder, data_dir, option, value, message):
    with pytest.raises(SystemExit):
        run(capsys, portable_folder, data_dir, option, value)
    assert message in capsys.readouterr().err
