"""Contrastive losses: softmax and sigmoid, with the whole batch at hand or round a ring of devices.

One function, `contrastive_loss`. Its result does not depend on the sharding of the batch: on one
device, sharded under `jit`, or as one device's rows under `shard_map`. Value and gradients are
those of the whole batch.

Pair i of the batch has the unit vectors x_i and y_i, L_ij = exp(logit_scale) x_i.y_j (+ bias), and
j belongs to i (E_ij = 1) if their groups are equal. n_i counts the pairs of i's group, s is the
label smoothing and b the number of pairs.

softmax
    T_ij = (1 - s) E_ij / n_i + s / b. The loss is half the mean over i of two cross-entropies:
    of row i of L to row i of T, and of column i of L to column i of T, which is symmetric (Radford
    et al. 2021, figure 3, where each pair is a group and s = 0; with the category as group, the
    co-occurrence target of FLAIR, Silva-Rodríguez et al. 2025).
sigmoid
    T_ij = (1 - s) E_ij + s / 2. The loss is the mean over i of the sum over j of the binary
    cross-entropies of L_ij to T_ij (Zhai et al. 2023, algorithm 1, where each pair is a group and
    s = 0).

In a ring (`softmax_ring`, `sigmoid_ring`) each device keeps its images, and texts pass from device
to device; a device holds only its rows against the columns of one device, O((b / devices)^2)
numbers, and computes them again for the gradients. A softmax over columns is completed on the way
by the columns' running maximum and sum (Milakov and Gimelshein 2018; tiles and devices as in Cheng
et al. 2024, "Breaking the Memory Barrier").
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vclip_jax.models.layers import at_least_float32

KINDS = ("softmax", "softmax_ring", "sigmoid", "sigmoid_ring")
INITIAL_SIGMOID_BIAS = -10.0
INITIAL_SIGMOID_SCALE = 10.0
"""Zhai et al. 2023, section 3.2: nearly all of a batch's combinations are negative at first."""

Axes = tuple[str, ...]
Precision = jax.lax.PrecisionLike


class _Form(NamedTuple):
    """Settings of a loss that hold for all pairs."""

    smoothing: float
    axes: Axes
    precision: Precision


def contrastive_loss(
    image: jax.Array,
    text: jax.Array,
    logit_scale: jax.Array,
    *,
    kind: str = "softmax",
    logit_bias: jax.Array | None = None,
    group: jax.Array | None = None,
    label_smoothing: float = 0.0,
    mesh: Mesh | None = None,
    axes: Axes = (),
    precision: Precision = jax.lax.Precision.HIGHEST,
) -> jax.Array:
    """Return the loss of a batch of pairs.

    Args:
        image, text: unit vectors float32 `[b, d]`; row i of both belong together. Bfloat16 is
            multiplied as such and summed in float32.
        logit_scale: float32 scalar, the logarithm of the inverse temperature.
        kind: one of `KINDS`.
        logit_bias: float32 scalar, added to the logits of the sigmoid.
        group: int `[b]`; pairs with the same number belong to each other, as those with the same
            caption or category do. None: each pair is a group.
        label_smoothing: the share, in [0, 1), of the target that is spread evenly.
        mesh: the mesh, for arrays of the global batch: each of its devices computes its rows. The
            ring needs either `mesh` or `axes`; without them it is a ring of one device.
        axes: the mesh axes, for arrays of one device's rows of the global batch, in a call under
            `shard_map` over these axes (with `check_vma`, its default). The loss is the same on all
            of them, and `jax.grad` inside or outside gives its exact gradients.
        precision: precision of the products of embeddings. The default is that of float32 on every
            platform; "default" multiplies in bfloat16 on TPUs and in TF32 on GPUs.

    Returns:
        float32 scalar in nats.

    Raises:
        ValueError: an argument is out of range, or arguments do not go together.

    Examples:
        >>> import jax
        >>> import numpy as np
        >>> from vclip_jax.models.losses import contrastive_loss
        >>> loss = jax.jit(contrastive_loss)
        >>> images = np.eye(4, dtype=np.float32)  # at right angles to each other
        >>> round(float(loss(images, images, np.float32(0))), 4)  # each text on its image
        0.7437
        >>> round(float(loss(images, images[::-1], np.float32(0))), 4)  # on another's
        1.7437
    """
    _check(image, text, kind, logit_bias, group, label_smoothing, mesh, axes)
    if mesh is not None:
        local_loss = functools.partial(
            contrastive_loss, kind=kind, label_smoothing=label_smoothing, precision=precision
        )
        return _over_mesh(local_loss, mesh, image, text, logit_scale, logit_bias, group)
    local = len(image)
    if group is None:
        first = jax.lax.axis_index(axes) * local if axes else 0
        group = first + jnp.arange(local)
    scale = jnp.exp(_per_device(logit_scale, axes))
    form = _Form(label_smoothing, axes, precision)
    if kind.startswith("softmax"):
        statistics = _softmax_ring if kind.endswith("_ring") else _softmax_gathered
        rows, columns, matching = statistics(image, text, scale, group, form)
        # Subtract first: the differences are small even if the terms are not.
        losses = ((rows - matching) + (columns - matching)) / 2
    else:
        assert logit_bias is not None  # see _check
        sigmoid = _sigmoid_ring if kind.endswith("_ring") else _sigmoid_gathered
        losses = sigmoid(image, text, scale, _per_device(logit_bias, axes), group, form)
    total = losses.sum()
    if axes:
        total = jax.lax.psum(total, axes)
    return total / (local * _devices(axes))


def _over_mesh(
    local_loss: Callable[..., jax.Array],
    mesh: Mesh,
    image: jax.Array,
    text: jax.Array,
    logit_scale: jax.Array,
    logit_bias: jax.Array | None,
    group: jax.Array | None,
) -> jax.Array:
    """Return the loss of global arrays: each device of the mesh computes its rows."""
    axes = tuple(mesh.axis_names)
    by_row, everywhere = PartitionSpec(axes), PartitionSpec()

    def shard(image, text, logit_scale, logit_bias, group) -> jax.Array:
        return local_loss(image, text, logit_scale, logit_bias=logit_bias, group=group, axes=axes)

    return jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(by_row, by_row, everywhere, everywhere, by_row),
        out_specs=everywhere,
    )(image, text, logit_scale, logit_bias, group)


def _check(
    image: jax.Array,
    text: jax.Array,
    kind: str,
    logit_bias: jax.Array | None,
    group: jax.Array | None,
    label_smoothing: float,
    mesh: Mesh | None,
    axes: Axes,
) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
    if image.ndim != 2 or image.shape != text.shape:
        raise ValueError(
            f"image and text must have one shape [b, d], got {image.shape} and {text.shape}"
        )
    if group is not None and (
        group.shape != image.shape[:1] or not jnp.issubdtype(group.dtype, jnp.integer)
    ):
        raise ValueError(
            f"group must be integers of the shape {image.shape[:1]}, got {group.dtype} "
            f"{group.shape}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1)")
    if kind.startswith("sigmoid") and logit_bias is None:
        raise ValueError(f"kind={kind!r} needs a logit_bias, initially {INITIAL_SIGMOID_BIAS}")
    if kind.startswith("softmax") and logit_bias is not None:
        raise ValueError(f"a logit_bias has no effect with kind={kind!r}: leave it out")
    if mesh is not None and axes:
        raise ValueError("give a mesh for global arrays, or axes for one device's rows, not both")
    if mesh is not None and len(image) % mesh.size:
        raise ValueError(f"{len(image)} pairs do not divide by the mesh's {mesh.size} devices")


# --- Parts of both losses. From here on `image` and `text` are one device's b rows of the global
# batch.


def _devices(axes: Axes) -> int:
    return jax.lax.axis_size(axes) if axes else 1


def _zeros(shape: tuple[int, ...], dtype: Any, axes: Axes) -> jax.Array:
    """Return zeros that differ between devices as far as `shard_map` can tell."""
    zeros = jnp.zeros(shape, dtype)
    return zeros + (0 * jax.lax.axis_index(axes)).astype(dtype) if axes else zeros


def _per_device(x: jax.Array, axes: Axes) -> jax.Array:
    """Return a scalar of all devices as one value a device, whose gradients are summed."""
    return x + _zeros((), x.dtype, axes)


def _gather(x: jax.Array, axes: Axes) -> jax.Array:
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x


def _product(formula: str, left: jax.Array, right: jax.Array, precision: Precision) -> jax.Array:
    """Multiply two matrices, summing in float32 or wider."""
    dtype = jnp.promote_types(at_least_float32(left), at_least_float32(right))
    return jnp.einsum(formula, left, right, preferred_element_type=dtype, precision=precision)


def _equal(left: jax.Array, right: jax.Array) -> jax.Array:
    return left[:, None] == right[None, :]


def _soft_target(equal: jax.Array, count: jax.Array, smoothing: float, total: int) -> jax.Array:
    """Return T of the softmax: `equal` `[b, c]`, `count` `[b]` the sizes of the rows' groups."""
    return jnp.where(equal, (1 - smoothing) / count[:, None], 0.0) + smoothing / total


def _binary_target(equal: jax.Array, smoothing: float, dtype: Any) -> jax.Array:
    """Return T of the sigmoid."""
    return (1 - smoothing) * equal.astype(dtype) + smoothing / 2


def _binary_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the binary cross-entropy of each logit, without differences of large numbers."""
    return target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)


# --- The texts of all devices gathered.


def _softmax_gathered(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    group: jax.Array,
    form: _Form,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return statistics of the device's rows and columns of L, each `[b]`.

    They are the logsumexp of rows, the logsumexp of columns, and the mean of a row's logits under
    its target.
    """
    logits = scale * _product("id,td->it", image, _gather(text, form.axes), form.precision)
    equal = _equal(group, _gather(group, form.axes))
    count = equal.sum(axis=1).astype(logits.dtype)
    target = _soft_target(equal, count, form.smoothing, logits.shape[1])
    matching = (target * logits).sum(axis=1)
    rows = jax.nn.logsumexp(logits, axis=1)
    if not form.axes:
        return rows, jax.nn.logsumexp(logits, axis=0), matching
    # A column is divided among all devices.
    peak = jax.lax.pmax(jax.lax.stop_gradient(logits).max(axis=0), form.axes)
    total = jax.lax.psum_scatter(jnp.exp(logits - peak).sum(axis=0), form.axes, tiled=True)
    first = jax.lax.axis_index(form.axes) * len(text)
    return rows, jax.lax.dynamic_slice_in_dim(peak, first, len(text)) + jnp.log(total), matching


def _sigmoid_gathered(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    group: jax.Array,
    form: _Form,
) -> jax.Array:
    """Return the losses of the device's rows, `[b]`."""
    logits = scale * _product("id,td->it", image, _gather(text, form.axes), form.precision) + bias
    target = _binary_target(_equal(group, _gather(group, form.axes)), form.smoothing, logits.dtype)
    return _binary_loss(logits, target).sum(axis=1)


# --- The ring.


def _ring(body: Callable[[Any, Any], tuple[Any, Any]], local: Any, visitor: Any, axes: Axes) -> Any:
    """Call `local, visitor = body(local, visitor)` with the visitor of each device in turn.

    In the end each device holds its own visitor again.
    """
    devices = _devices(axes)
    to_next = [(device, (device + 1) % devices) for device in range(devices)]

    def step(carry: Any, _: None) -> tuple[Any, None]:
        local, visitor = body(*carry)
        if devices > 1:
            visitor = jax.tree.map(lambda x: jax.lax.ppermute(x, axes, to_next), visitor)
        return (local, visitor), None

    return jax.lax.scan(step, (local, visitor), length=devices)[0]


def _with_logits(
    state: tuple[jax.Array, jax.Array], logits: jax.Array, axis: int
) -> tuple[jax.Array, jax.Array]:
    """Update a running (maximum, sum of exponentials relative to it) with `logits`."""
    peak, total = state
    higher = jnp.maximum(peak, logits.max(axis))
    new = jnp.exp(logits - jnp.expand_dims(higher, axis)).sum(axis)
    return higher, total * jnp.exp(peak - higher) + new


def _ring_gradients(
    logits_grad: Callable[..., jax.Array],
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    columns: Any,
    form: _Form,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the gradients of image, text, scale and bias from those of the logits.

    Args:
        logits_grad: a function of (logits, columns) that returns the gradient of one visitor's
            logits.
        columns: arrays that belong to the texts and travel with them.
    """
    dtype = scale.dtype

    def body(local: Any, visitor: Any) -> tuple[Any, Any]:
        image_grad, scale_grad, bias_grad = local
        text, columns, text_grad = visitor
        cosines = _product("id,td->it", image, text, form.precision)
        grad = logits_grad(scale * cosines + bias, columns)
        image_grad += scale * _product("it,td->id", grad, text, form.precision)
        text_grad += scale * _product("it,id->td", grad, image, form.precision)
        local = image_grad, scale_grad + (grad * cosines).sum(), bias_grad + grad.sum()
        return local, (text, columns, text_grad)

    nothing = (_zeros(image.shape, dtype, form.axes), *(_zeros((), dtype, form.axes),) * 2)
    local, visitor = _ring(
        body, nothing, (text, columns, _zeros(text.shape, dtype, form.axes)), form.axes
    )
    image_grad, scale_grad, bias_grad = local
    return image_grad.astype(image.dtype), visitor[2].astype(text.dtype), scale_grad, bias_grad


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _softmax_ring(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    group: jax.Array,
    form: _Form,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute `_softmax_gathered` in a ring."""
    return _softmax_ring_forward(image, text, scale, group, form)[0]


def _softmax_ring_forward(image, text, scale, group, form):
    def body(local: Any, visitor: Any) -> tuple[Any, Any]:
        rows, count, matched, everything = local
        text, text_group, columns = visitor
        logits = scale * _product("id,td->it", image, text, form.precision)
        equal = _equal(group, text_group)
        local = (
            _with_logits(rows, logits, 1),
            count + equal.sum(axis=1),
            matched + jnp.where(equal, logits, 0.0).sum(axis=1),
            everything + logits.sum(axis=1),
        )
        return local, (text, text_group, _with_logits(columns, logits, 0))

    zero = _zeros(group.shape, scale.dtype, form.axes)
    nothing = (zero - jnp.inf, zero)
    local, visitor = _ring(body, (nothing, zero, zero, zero), (text, group, nothing), form.axes)
    rows, columns = (peak + jnp.log(total) for peak, total in (local[0], visitor[2]))
    _, count, matched, everything = local
    total = len(text) * _devices(form.axes)
    matching = (1 - form.smoothing) * matched / count + form.smoothing / total * everything
    return (rows, columns, matching), (image, text, scale, group, rows, columns, count)


def _softmax_ring_backward(form, residuals, grads):
    image, text, scale, group, rows, columns, count = residuals
    rows_grad, columns_grad, matching_grad = grads
    total = len(text) * _devices(form.axes)

    def logits_grad(logits: jax.Array, visitor: Any) -> jax.Array:
        text_group, columns, columns_grad = visitor
        target = _soft_target(_equal(group, text_group), count, form.smoothing, total)
        return (
            rows_grad[:, None] * jnp.exp(logits - rows[:, None])
            + columns_grad * jnp.exp(logits - columns)
            + matching_grad[:, None] * target
        )

    image_grad, text_grad, scale_grad, _ = _ring_gradients(
        logits_grad,
        image,
        text,
        scale,
        jnp.zeros_like(scale),
        (group, columns, columns_grad),
        form,
    )
    return image_grad, text_grad, scale_grad, None


_softmax_ring.defvjp(_softmax_ring_forward, _softmax_ring_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _sigmoid_ring(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    group: jax.Array,
    form: _Form,
) -> jax.Array:
    """Compute `_sigmoid_gathered` in a ring."""
    return _sigmoid_ring_forward(image, text, scale, bias, group, form)[0]


def _sigmoid_ring_forward(image, text, scale, bias, group, form):
    def body(rows: Any, visitor: Any) -> tuple[Any, Any]:
        text, text_group = visitor
        logits = scale * _product("id,td->it", image, text, form.precision) + bias
        target = _binary_target(_equal(group, text_group), form.smoothing, logits.dtype)
        return rows + _binary_loss(logits, target).sum(axis=1), visitor

    rows, _ = _ring(body, _zeros(group.shape, scale.dtype, form.axes), (text, group), form.axes)
    return rows, (image, text, scale, bias, group)


def _sigmoid_ring_backward(form, residuals, rows_grad):
    image, text, scale, bias, group = residuals

    def logits_grad(logits: jax.Array, text_group: jax.Array) -> jax.Array:
        target = _binary_target(_equal(group, text_group), form.smoothing, logits.dtype)
        # Each term has one sign, as the losses do: 1 - sigmoid would lose small values.
        positive = (1 - target) * jax.nn.sigmoid(logits)
        return rows_grad[:, None] * (positive - target * jax.nn.sigmoid(-logits))

    grads = _ring_gradients(logits_grad, image, text, scale, bias, group, form)
    return *grads, None


_sigmoid_ring.defvjp(_sigmoid_ring_forward, _sigmoid_ring_backward)
