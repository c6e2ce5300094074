"""Methods that learn from k labelled photographs of each class, on frozen embeddings.

Each method takes a `FewShot` task and returns class probabilities float32 `[n, classes]` of its
test images; `METHODS` lists them all. Methods choose their hyperparameters only on the shots.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from vclip_jax.evaluation.probe import INVERSE_PENALTY
from vclip_jax.models.clip import normalise

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

# Embeddings of retinas are similar, so products need full precision on accelerators.
_matmul = partial(jnp.matmul, precision="highest")


# --- The shots: k photographs of each class.


def draw_shots(labels: Ints, shots: int | None, seed: int, fold: int) -> npt.NDArray[np.int64]:
    """Draw the rows of `shots` images of each class, or of all if there are fewer or for None.

    The rows of a class depend only on (seed, fold, class) and the images of this class. Fewer shots
    are a subset of more shots. Rows come class by class.

    Args:
        labels: int `[n]`; images with -1 are never drawn.
        shots: images of each class; None for all.
        seed: the seed.
        fold: the number of the fold.
    """
    rows = []
    for label in np.unique(labels[labels >= 0]):
        sequence = np.random.SeedSequence((seed, fold, int(label)))
        candidates = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.Philox(sequence))
        rows.append(generator.permutation(candidates)[:shots])
    return np.concatenate(rows)


# --- The linear probe.


@jax.jit
def fit_linear(
    x: jax.Array, y: jax.Array, inverse_penalty: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Fit a multinomial logistic regression with an L2 penalty on the weights, not the intercept.

    The result is the minimum of inverse_penalty * sum of the cross-entropies + |weights|^2 / 2, as
    for scikit-learn's `LogisticRegression(C=inverse_penalty)`, found by L-BFGS (J. Nocedal,
    Mathematics of Computation 35 (1980) 773-782). As in scikit-learn, two classes have one vector
    of weights, which is the difference of the two returned here.

    Args:
        x: float32 `[n, d]`.
        y: one-hot float32 `[n, c]`.

    Returns:
        Weights `[d, c]` and intercepts `[c]`, float32.
    """
    n, classes = y.shape
    # Two classes have the weights w / 2 and -w / 2, whose squares sum to half of that of w.
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
    """Return the probabilities of the linear probe."""
    weights, intercepts = fit_linear(task.train, task.one_hot, inverse_penalty)
    return np.asarray(jax.nn.softmax(_matmul(task.test, weights) + intercepts))


# --- Adapters: the zero-shot classifier, improved with the shots.


@dataclass(frozen=True)
class FewShot:
    """A fold: the shots, and the test images.

    Attributes:
        train: unit vectors float32 `[n, d]`, class by class as `draw_shots` orders them.
        labels: int `[n]`.
        test: unit vectors float32 `[q, d]`.
        classes: the classes' vectors, float32 `[c, d]`.
        scale: the factor of cosines.
        seed: the seed of the method's random numbers.
    """

    train: Floats
    labels: Ints
    test: Floats
    classes: Floats
    scale: float
    seed: int

    @property
    def one_hot(self) -> Floats:
        """Return the labels as one-hot float32 `[n, c]`."""
        return np.eye(len(self.classes), dtype=np.float32)[self.labels]


def zero_shot(task: FewShot) -> Floats:
    """Return the probabilities from the prompts, without the shots."""
    return np.asarray(jax.nn.softmax(task.scale * _matmul(task.test, task.classes.T)))


ADAPTER_RATIO = 0.2
ADAPTER_STEPS = 300


def clip_adapter(task: FewShot) -> Floats:
    """Train CLIP-Adapter, a small residual network on the image's vector, on the shots.

    f* = 0.2 relu(relu(f W1) W2) + 0.8 f with a bottleneck of a quarter, then cosines with the
    prompts. Source: P. Gao et al., "CLIP-Adapter", arXiv:2110.04544, section 3.2. Here f is a unit
    vector, because only those are cached; in their code f is the vector before normalisation.
    Trained with Adam on all shots at once, 300 steps, learning rate 0.001 falling as a cosine.
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
    """Return `parameters` after `steps` steps on `loss(parameters, number of the step)`."""

    def step(number: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        parameters, state = carry
        grad = jax.grad(loss)(parameters, number)
        updates, state = optimizer.update(grad, state, parameters)
        return optax.apply_updates(parameters, updates), state

    return jax.lax.fori_loop(0, steps, step, (parameters, optimizer.init(parameters)))[0]


ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
BETAS = (0.5, 1.0, 2.0, 5.5, 10.0, 20.0, 50.0, 100.0)
"""Candidates of beta, wider than the paper's 0.1 to 7, because photographs of retinas are more
similar than those of ImageNet."""
USUAL = (1.0, 5.5)
"""alpha and beta if there are no shots to choose them on: the best of the paper's ablation."""
TIP_STEPS = (0, 25, 50, 100, 200)
"""Candidates of the number of training steps, compared on the held-out shots."""
TIP_BATCH = 256


def tip_adapter(task: FewShot) -> Floats:
    """Apply Tip-Adapter: the prompts' logits plus votes of similar shots; no training.

    scale f C' + alpha exp(-beta (1 - f K')) L, with prompts C, the shots' vectors K and one-hot
    labels L. Source: R. Zhang et al., "Tip-Adapter", ECCV 2022, arXiv:2207.09519, equations 4 to 6.
    alpha and beta minimise the cross-entropy on a quarter of each class's shots (at least one) with
    the others as K; with one shot of each class they are `USUAL`. The test split is not used for
    the choice.
    """
    alpha, beta = _choose(task)
    logits = _tip_logits(task.train, task.one_hot, task.test, task.classes, task.scale, alpha, beta)
    return np.asarray(jax.nn.softmax(logits))


def tip_adapter_f(task: FewShot) -> Floats:
    """Apply Tip-Adapter-F: `tip_adapter` with K trained on the shots (section 3.3 of the paper).

    AdamW on batches of at most 256 shots, learning rate 0.001 falling as a cosine over 200 steps,
    epsilon 1e-4; alpha and beta are `tip_adapter`'s. A few shots are soon overfitted, so the number
    of steps is chosen on the same held-out shots; with one shot of each class it is 50.
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
    """Mark the shots on which alpha and beta are chosen: the last quarter of each class.

    A class with two or three shots gives one, a class with one gives none.

    Args:
        labels: int `[n]`, class by class.
    """
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            held[rows[-max(1, len(rows) // 4) :]] = True
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
    """Return float32 `[alphas, betas]`: the cross-entropy for each pair of alpha and beta."""

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
