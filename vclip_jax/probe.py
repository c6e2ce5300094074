"""What a few labelled photographs add: probes and adapters on frozen embeddings, and retrieval.

    python -m vclip_jax.probe --checkpoint W --dataset fives --data_dir D \\
        --method zero_shot,linear,clip_adapter,tip_adapter,tip_adapter_f --shots 1,2,4,8,16,all
    python -m vclip_jax.probe --checkpoint W --dataset synfundus --data_dir D --method retrieval

Every fold draws its own k photographs of each class from the training split; all folds are scored
on the whole test split, and the table shows their mean and standard deviation. Images are embedded
once and kept (`vclip_jax.embeddings`). A dataset with one split is cut in TFDS's notation:
--train_split 'test[:50%]' --test_split 'test[50%:]'. Not for diagnosis.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from vclip_jax import metrics, prompts
from vclip_jax.models.clip import normalise

if TYPE_CHECKING:
    from vclip_jax.embeddings import SplitEmbeddings

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

REPORTED = ("accuracy", "balanced_accuracy", "auc", "kappa")
INVERSE_PENALTY = 0.316
"""Of the linear probe: the value of CLIP's published example and of FLAIR's probe (which, unlike
this one, also weighs classes by their rarity)."""

# Embeddings of retinas are much alike: no half precision in products on accelerators.
_matmul = partial(jnp.matmul, precision="highest")


# --- Which photographs: k of each class.


def draw_shots(labels: Ints, shots: int | None, seed: int, fold: int) -> npt.NDArray[np.int64]:
    """Rows of `shots` images of each class; all of a class that has no more, and of None.

    A function of (seed, fold, class) and the rows of that class alone, whatever the other classes
    are; the images of fewer shots are among those of more. Rows come class by class.

    Args:
        labels: int `[n]`; images with -1 are never drawn.
    """
    rows = []
    for label in np.unique(labels[labels >= 0]):
        sequence = np.random.SeedSequence((seed, fold, int(label)))
        own = np.flatnonzero(labels == label)
        rows.append(np.random.Generator(np.random.Philox(sequence)).permutation(own)[:shots])
    return np.concatenate(rows)


# --- The linear probe.


@jax.jit
def fit_linear(
    x: jax.Array, y: jax.Array, inverse_penalty: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Multinomial logistic regression with an L2 penalty on the weights, not on the intercept.

    The minimum of inverse_penalty * sum of the cross-entropies + |weights|^2 / 2, which is that of
    scikit-learn's `LogisticRegression(C=inverse_penalty)`, found by L-BFGS (J. Nocedal, Mathematics
    of Computation 35 (1980) 773-782). As there, the weights of two classes are one vector, the
    difference of those returned.

    Args:
        x: float32 `[n, d]`.
        y: one-hot float32 `[n, c]`.

    Returns:
        Weights `[d, c]` and intercepts `[c]`, float32.
    """
    n, classes = y.shape
    # Of two classes the weights are w / 2 and -w / 2, whose squares are half of w's.
    penalty = (2 if classes == 2 else 1) / (2 * inverse_penalty * n)

    def loss(parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        weights, intercepts = parameters
        cross_entropy = optax.softmax_cross_entropy(_matmul(x, weights) + intercepts, y).mean()
        return cross_entropy + penalty * jnp.sum(jnp.square(weights))

    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)
    start = jnp.zeros((x.shape[1], classes)), jnp.zeros(classes)

    def step(carry: tuple[Any, Any, jax.Array, jax.Array]) -> tuple[Any, Any, jax.Array, jax.Array]:
        parameters, state, count, _ = carry
        value, grad = value_and_grad(parameters, state=state)
        updates, state = optimizer.update(
            grad, state, parameters, value=value, grad=grad, value_fn=loss
        )
        parameters = optax.apply_updates(parameters, updates)
        return parameters, state, count + 1, optax.tree.norm(grad)

    def unfinished(carry: tuple[Any, Any, jax.Array, jax.Array]) -> jax.Array:
        _, _, count, norm = carry
        return (count < 1000) & (norm > 1e-7)

    first = (start, optimizer.init(start), jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
    return jax.lax.while_loop(unfinished, step, first)[0]


def linear(task: "FewShot", inverse_penalty: float = INVERSE_PENALTY) -> Floats:
    """The linear probe's probabilities."""
    weights, intercepts = fit_linear(task.train, task.one_hot, inverse_penalty)
    return np.asarray(jax.nn.softmax(_matmul(task.test, weights) + intercepts))


# --- Adapters: the zero-shot classifier and what the shots add to it.


@dataclass(frozen=True)
class FewShot:
    """One fold: what an adapter learns from, and the images that it is asked about.

    Attributes:
        train: unit vectors float32 `[n, d]`, class by class as `draw_shots` orders them.
        labels: int `[n]`.
        test: unit vectors float32 `[q, d]`.
        classes: the prompts' vectors, float32 `[c, d]`.
        scale: what cosines are multiplied by.
        seed: of whatever is drawn at random.
    """

    train: Floats
    labels: Ints
    test: Floats
    classes: Floats
    scale: float
    seed: int

    @property
    def one_hot(self) -> Floats:
        """float32 `[n, c]`."""
        return np.eye(len(self.classes), dtype=np.float32)[self.labels]


def zero_shot(task: FewShot) -> Floats:
    """The prompts alone."""
    return np.asarray(jax.nn.softmax(task.scale * _matmul(task.test, task.classes.T)))


ADAPTER_RATIO = 0.2
ADAPTER_STEPS = 300


def clip_adapter(task: FewShot) -> Floats:
    """CLIP-Adapter: a small residual network on the image's vector, trained on the shots.

    f* = 0.2 relu(relu(f W1) W2) + 0.8 f with a bottleneck of a quarter, then cosines with the
    prompts. Source: P. Gao et al., "CLIP-Adapter", arXiv:2110.04544, section 3.2. Trained with Adam
    on all shots at once, 300 steps, learning rate 0.001 falling as a cosine.
    """
    key = jax.random.key(task.seed)
    adapter = _fit_adapter(key, task.train, task.one_hot, task.classes, task.scale)
    logits = _adapter_logits(adapter, task.test, task.classes, task.scale)
    return np.asarray(jax.nn.softmax(logits))


@jax.jit
def _adapter_logits(
    adapter: tuple[jax.Array, jax.Array], x: jax.Array, classes: jax.Array, scale: jax.Array
) -> jax.Array:
    changed = jax.nn.relu(_matmul(jax.nn.relu(_matmul(x, adapter[0])), adapter[1]))
    mixed = ADAPTER_RATIO * changed + (1 - ADAPTER_RATIO) * x
    return scale * _matmul(normalise(mixed), classes.T)


@jax.jit
def _fit_adapter(
    key: jax.Array, x: jax.Array, y: jax.Array, classes: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    width = x.shape[1]
    hidden = max(1, width // 4)
    init = jax.nn.initializers.he_normal()
    first, second = jax.random.split(key)
    adapter = init(first, (width, hidden)), init(second, (hidden, width))

    def loss(adapter: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = _adapter_logits(adapter, x, classes, scale)
        return optax.softmax_cross_entropy(logits, y).mean()

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, ADAPTER_STEPS))
    return _descend(optimizer, ADAPTER_STEPS, lambda adapter, _: loss(adapter), adapter)


def _descend(
    optimizer: optax.GradientTransformation,
    steps: int | jax.Array,
    loss: Callable[[Any, jax.Array], jax.Array],
    parameters: Any,
) -> Any:
    """`parameters` after so many steps on `loss(parameters, number of the step)`."""

    def step(number: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        parameters, state = carry
        grad = jax.grad(loss)(parameters, number)
        updates, state = optimizer.update(grad, state, parameters)
        return optax.apply_updates(parameters, updates), state

    return jax.lax.fori_loop(0, steps, step, (parameters, optimizer.init(parameters)))[0]


ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
BETAS = (0.5, 1.0, 2.0, 5.5, 10.0, 20.0, 50.0, 100.0)
"""Wider than the paper's 0.1 to 7: photographs of retinas are more alike than those of ImageNet."""
USUAL = (1.0, 5.5)
"""alpha and beta where there is nothing to choose them on: the best of the paper's ablation."""
TIP_STEPS = (0, 25, 50, 100, 200)
"""Of training, that are tried on the shots held out."""
TIP_BATCH = 256


def tip_adapter(task: FewShot) -> Floats:
    """Tip-Adapter: the prompts' logits and votes of the shots by their likeness; no training.

    scale f C' + alpha exp(-beta (1 - f K')) L, with prompts C, the shots' vectors K and one-hot
    labels L. Source: R. Zhang et al., "Tip-Adapter", ECCV 2022, arXiv:2207.09519, equations 4 to 6.
    alpha and beta are those of the least cross-entropy on a quarter of each class's shots (at least
    one) with the others as K; with one shot a class they are `USUAL`. The test split has no say.
    """
    alpha, beta = _choose(task)
    logits = _tip_logits(task.train, task.one_hot, task.test, task.classes, task.scale, alpha, beta)
    return np.asarray(jax.nn.softmax(logits))


def tip_adapter_f(task: FewShot) -> Floats:
    """Tip-Adapter-F: `tip_adapter` whose K is trained on the shots (section 3.3 there).

    AdamW on batches of at most 256 shots, learning rate 0.001 falling as a cosine over 200 steps,
    epsilon 1e-4; alpha and beta are `tip_adapter`'s. How many of the steps are made is chosen on
    the same shots held out, as a few shots are soon learnt by heart; 50 with one shot a class.
    """
    alpha, beta = _choose(task)
    held = held_out(task.labels)
    steps = 50
    if held.any():
        tried = replace(
            task, train=task.train[~held], labels=task.labels[~held], test=task.train[held]
        )
        one_hot = task.one_hot[held]
        losses = []
        for number in TIP_STEPS:
            logits = _tip_f_logits(tried, alpha, beta, number)
            losses.append(float(optax.softmax_cross_entropy(logits, one_hot).mean()))
        steps = TIP_STEPS[int(np.argmin(losses))]
    return np.asarray(jax.nn.softmax(_tip_f_logits(task, alpha, beta, steps)))


def _tip_f_logits(task: FewShot, alpha: float, beta: float, steps: int) -> jax.Array:
    key = jax.random.key(task.seed)
    keys = _fit_keys(key, task.train, task.one_hot, task.classes, task.scale, alpha, beta, steps)
    return _tip_logits(keys, task.one_hot, task.test, task.classes, task.scale, alpha, beta)


@jax.jit
def _tip_logits(
    keys: jax.Array,
    values: jax.Array,
    x: jax.Array,
    classes: jax.Array,
    scale: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
) -> jax.Array:
    affinity = _matmul(x, keys.T)
    votes = _matmul(jnp.exp(-beta * (1 - affinity)), values)
    return scale * _matmul(x, classes.T) + alpha * votes


@jax.jit
def _fit_keys(
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    classes: jax.Array,
    scale: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
    steps: jax.Array,
) -> jax.Array:
    batch = min(TIP_BATCH, len(x))

    def loss(keys: jax.Array, number: jax.Array) -> jax.Array:
        rows = jax.random.choice(jax.random.fold_in(key, number), len(x), (batch,), replace=False)
        logits = _tip_logits(keys, y, x[rows], classes, scale, alpha, beta)
        return optax.softmax_cross_entropy(logits, y[rows]).mean()

    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, TIP_STEPS[-1]), eps=1e-4)
    return _descend(optimizer, steps, loss, x)


def held_out(labels: Ints) -> npt.NDArray[np.bool_]:
    """Which shots choose alpha and beta: the last quarter of each class, at least one of two.

    Args:
        labels: int `[n]`, class by class.
    """
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) > 1:
            held[own[-max(1, len(own) // 4) :]] = True
    return held


def _choose(task: FewShot) -> tuple[float, float]:
    held = held_out(task.labels)
    if not held.any():
        return USUAL
    losses = _grid_losses(
        task.train[~held],
        task.one_hot[~held],
        task.train[held],
        task.one_hot[held],
        task.classes,
        task.scale,
    )
    row, column = np.unravel_index(int(np.argmin(losses)), losses.shape)
    return ALPHAS[row], BETAS[column]


@jax.jit
def _grid_losses(
    keys: jax.Array,
    values: jax.Array,
    x: jax.Array,
    y: jax.Array,
    classes: jax.Array,
    scale: jax.Array,
) -> jax.Array:
    """float32 `[alphas, betas]`: the cross-entropy with each of them."""

    def loss(alpha: jax.Array, beta: jax.Array) -> jax.Array:
        logits = _tip_logits(keys, values, x, classes, scale, alpha, beta)
        return optax.softmax_cross_entropy(logits, y).mean()

    grid = [jnp.array(values, jnp.float32) for values in (ALPHAS, BETAS)]
    return jax.lax.map(lambda a: jax.lax.map(lambda b: loss(a, b), grid[1]), grid[0])


METHODS: dict[str, Callable[[FewShot], Floats]] = {
    "zero_shot": zero_shot,
    "linear": linear,
    "clip_adapter": clip_adapter,
    "tip_adapter": tip_adapter,
    "tip_adapter_f": tip_adapter_f,
}
WITHOUT_PROMPTS = ("linear",)


# --- The experiment: methods x shots x folds.


def probe(
    train: "SplitEmbeddings | None",
    test: "SplitEmbeddings",
    classes: Floats,
    scale: float,
    *,
    methods: Sequence[str],
    shots: Sequence[int | None] = (1, 2, 4, 8, 16, None),
    folds: int = 5,
    seed: int = 0,
    inverse_penalty: float = INVERSE_PENALTY,
) -> list[dict[str, Any]]:
    """Score methods on a test split, with k shots of a training split, fold by fold.

    Args:
        train, test: see `embeddings.embed_split`; `train` may be None for "zero_shot" alone.
        classes: the prompts' vectors, float32 `[c, d]`; only their number counts for "linear".
        scale: what cosines are multiplied by.
        methods: of `METHODS`.
        shots: images of a class; None for all.
        folds: how many times shots are drawn.
        seed: of the drawing, and of what adapters start from.
        inverse_penalty: of the linear probe, see `fit_linear`.

    Returns:
        A dict for each method and number of shots: `method`, `shots` (0 for "zero_shot", None for
        all), `train_images`, `folds` (the figures of each) and each of `REPORTED` as
        `{"mean", "std"}`, `std` with n - 1 below, 0 for one fold; None where a fold's is.

    Raises:
        ValueError: one line: a class without a training image, the same image in both splits,
            labels beyond the classes.
    """
    known = test.labels >= 0
    wanted = test.labels[known]
    asked = test.images[known]
    _check_labels(test.labels, len(classes), "test")
    rows: list[dict[str, Any]] = []
    if "zero_shot" in methods:
        task = FewShot(asked[:0], wanted[:0], asked, classes, scale, seed)
        rows.append(_row("zero_shot", 0, 0, [zero_shot(task)], wanted))
    learning = [name for name in METHODS if name in methods and name != "zero_shot"]
    if not learning:
        return rows
    if train is None:
        raise ValueError("only zero_shot does without a training split")
    _check_labels(train.labels, len(classes), "training")
    if missing := sorted(set(range(len(classes))) - set(train.labels.tolist())):
        raise ValueError(f"the training split has no image of class {missing[0]}")
    if common := set(train.keys) & set(test.keys):
        raise ValueError(
            f"{len(common)} images are in the training and in the test split, {min(common)} among "
            "them: the figures would be too good"
        )
    functions = METHODS | {"linear": partial(linear, inverse_penalty=inverse_penalty)}
    for name in learning:
        for number in shots:
            answers = []
            for fold in range(folds):
                drawn = draw_shots(train.labels, number, seed, fold)
                task = FewShot(
                    train.images[drawn], train.labels[drawn], asked, classes, scale, seed + fold
                )
                answers.append(functions[name](task))
            rows.append(_row(name, number, len(drawn), answers, wanted))
    return rows


def _check_labels(labels: Ints, classes: int, split: str) -> None:
    if not (labels >= 0).any():
        raise ValueError(f"no image of the {split} split has a label")
    if labels.max() >= classes:
        raise ValueError(f"the {split} split has the label {labels.max()}, of {classes} classes")


def _row(
    method: str, shots: int | None, train_images: int, answers: Sequence[Floats], labels: Ints
) -> dict[str, Any]:
    folds = []
    for probabilities in answers:
        figures = metrics.classification(probabilities, labels)
        folds.append({key: figures[key] for key in REPORTED})
    row: dict[str, Any] = {"method": method, "shots": shots, "train_images": train_images}
    for key in REPORTED:
        values = [fold[key] for fold in folds]
        if any(value is None for value in values):
            row[key] = None
            continue
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row[key] = {"mean": float(np.mean(values)), "std": spread}
    return {**row, "folds": folds}


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `probe` for people: percentages, kappa as it is."""
    headings = ("method", "shots", "images", "accuracy", "balanced", "AUC", "kappa")
    lines = [headings]
    for row in rows:
        shots = "all" if row["shots"] is None else str(row["shots"])
        cells = [row["method"], shots, str(row["train_images"])]
        for key in REPORTED:
            factor, digits = (1, 3) if key == "kappa" else (100, 1)
            value = row[key]
            cells.append(
                "-"
                if value is None
                else f"{factor * value['mean']:.{digits}f} ± {factor * value['std']:.{digits}f}"
            )
        lines.append(tuple(cells))
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# --- The command.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vclip_jax.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a run's workdir, a portable folder, or hub:OWNER/NAME"
    )
    parser.add_argument("--dataset", required=True, help="a built dataset, NAME or NAME/CONFIG")
    parser.add_argument("--data_dir", default="data", help="where it was built (default: data)")
    parser.add_argument(
        "--method",
        type=_methods,
        default=("zero_shot", "linear"),
        help=f"of {', '.join(METHODS)}, several with commas; or retrieval alone "
        "(default: zero_shot,linear)",
    )
    parser.add_argument(
        "--shots",
        type=_shots,
        default=(1, 2, 4, 8, 16, None),
        help="images of a class, several with commas (default: 1,2,4,8,16,all)",
    )
    parser.add_argument("--folds", type=_positive, default=5, help="(default: 5)")
    parser.add_argument("--train_split", default="train", help="(default: train)")
    parser.add_argument("--test_split", default="test", help="(default: test)")
    parser.add_argument(
        "--prompts", help="a prompt set or a JSON file (default: zh/DATASET), for all but linear"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--C", type=float, default=INVERSE_PENALTY, dest="inverse_penalty",
        help=f"inverse penalty of the linear probe (default: {INVERSE_PENALTY})",
    )  # fmt: skip
    parser.add_argument("--cache", help="of embeddings (default: .embeddings in the data_dir)")
    parser.add_argument("--out", help="folder for probe.json or retrieval.json")
    return parser


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if names == ("retrieval",):
        return names
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is none of {', '.join(METHODS)}, or retrieval alone"
        )
    return names


def _shots(text: str) -> tuple[int | None, ...]:
    return tuple(None if item == "all" else _positive(item) for item in text.split(","))


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and write the file that `--out` asks for; returns its content."""
    # Imported here: --help should not wait for them.
    from vclip_jax.embeddings import embed_split
    from vclip_jax.pretrained import load

    clip = load(options.checkpoint)
    embed = partial(embed_split, clip, options.dataset, options.data_dir, cache=options.cache)
    test = embed(options.test_split)
    about = {
        "checkpoint": str(options.checkpoint),
        "model": clip.fingerprint,
        "dataset": options.dataset,
        "test_split": options.test_split,
    }
    if options.method == ("retrieval",):
        found = metrics.retrieval(test.images, test.texts, test.caption_ids)
        _print_retrieval(found)
        return _write(options.out, "retrieval.json", {**about, **found})

    if set(options.method) <= set(WITHOUT_PROMPTS) and options.prompts is None:
        names = test.class_names
        if not names:
            raise ValueError(f"{options.dataset} does not name its classes: give --prompts")
        classes = np.zeros((len(names), clip.embed_dim), np.float32)
    else:
        prompt_set = prompts.load(options.prompts or _usual_prompts(options.dataset))
        names = prompt_set.class_names
        if test.class_names and test.class_names != names:
            raise ValueError(
                f"prompt set {prompt_set.name} is for the classes {', '.join(names)}, but those of "
                f"{options.dataset} are {', '.join(test.class_names)}, in this order"
            )
        classes = clip.class_embeddings(prompt_set)
        about["prompts"] = prompt_set.name
    learns = set(options.method) != {"zero_shot"}
    rows = probe(
        embed(options.train_split) if learns else None,
        test,
        classes,
        float(np.exp(clip.logit_scale)),
        methods=options.method,
        shots=options.shots,
        folds=options.folds,
        seed=options.seed,
        inverse_penalty=options.inverse_penalty,
    )
    print(format_table(rows))
    about |= {"train_split": options.train_split} if learns else {}
    content = {
        **about,
        "classes": list(names),
        "n": int((test.labels >= 0).sum()),
        "seed": options.seed,
        "inverse_penalty": options.inverse_penalty,
        "results": rows,
    }
    return _write(options.out, "probe.json", content)


def _usual_prompts(dataset: str) -> str:
    """`zh/fives` for "fives", "fives/512px-q92" and "synthetic/fives_like-128px-600-s1"."""
    name, _, config = dataset.partition("/")
    return f"zh/{config.partition('_like')[0] if name == 'synthetic' else name}"


def _print_retrieval(found: dict[str, Any]) -> None:
    print(f"{found['n']} images, {found['texts']} different captions")
    for direction in ("image_to_text", "text_to_image"):
        cells = [
            f"R@{k} {100 * found[direction][f'r{k}']:.1f} "
            f"(chance {100 * found['chance'][direction][f'r{k}']:.1f})"
            for k in metrics.RECALL_AT
        ]
        print(f"{direction}:  " + "  ".join(cells))


def _write(out: str | None, name: str, content: dict[str, Any]) -> dict[str, Any]:
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.part"
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(part, folder / name)
    return content


if __name__ == "__main__":
    sys.exit(main())
