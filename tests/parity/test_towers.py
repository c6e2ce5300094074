"""Features, logits, loss, gradients and running statistics against Chinese-CLIP's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.models import resnet
from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.clip import normalise, normalise_image
from vclip_jax.models.losses import contrastive_loss

torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")

# size -> seeds, batch, bound of relative errors
RUNS = {
    "tiny": ((0, 1, 2), 8, 1e-5),
    "tiny ViT": ((0, 1, 2), 8, 1e-5),
    "RN50 + RoBERTa-base": ((0, 1), 4, 1e-4),
    "ViT-B/16 + RBT3": ((0,), 2, 1e-4),
    "ViT-L/14 + RoBERTa-large": ((0,), 2, 1e-4),
}
CASES = [(size, seed) for size, (seeds, _, _) in RUNS.items() for seed in seeds]


def theirs(batch):
    """The same batch as the reference takes it."""
    image = np.array(normalise_image(jnp.asarray(batch["image"]))).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(batch["tokens"]).long()


@pytest.mark.parametrize(("size", "seed"), CASES)
def test_both_towers_give_the_references_embeddings(
    size, seed, reference, ours, batch, table, relative_error
):
    _, n, bound = RUNS[size]
    model, data = reference(size, seed), batch(size, n, seed)
    graphdef, params, batch_stats = ours(size, model)
    image, tokens = theirs(data)

    @jax.jit
    def embed(params, batch_stats, data):
        clip = nnx.merge(graphdef, params, batch_stats)
        pixels = normalise_image(data["image"])
        text = clip.bert(data["tokens"]) @ clip.text_projection[...]
        evaluated = clip.visual(pixels, train=False)
        trained = clip.visual(pixels, train=True)
        unit = normalise(evaluated), normalise(text)
        logits = jnp.exp(clip.logit_scale[...]) * unit[0] @ unit[1].T
        return {
            "image tower, evaluating": evaluated,
            "image tower, training": trained,
            "text tower, padded": text,
            "unit image features": unit[0],
            "unit text features": unit[1],
            "logits": logits,
        }

    got = embed(params, batch_stats, data)
    with torch.no_grad():
        trained = model.encode_image(image)
        model.load_state_dict(reference(size, seed).state_dict())  # undo the running statistics
        model.eval()
        evaluated, text = model.encode_image(image), model.encode_text(tokens)
        unit_image, unit_text, scale = model(image, tokens)
    want = {
        "image tower, evaluating": evaluated,
        "image tower, training": trained,
        "text tower, padded": text,
        "unit image features": unit_image,
        "unit text features": unit_text,
        "logits": scale * unit_image @ unit_text.T,
    }
    for what in got:
        table.check(what, size, "relative error", relative_error(got[what], want[what]), bound)


def autograd(model, image, tokens):
    """Loss, running statistics after it, and gradients, under the reference's names."""
    unit_image, unit_text, scale = model(image, tokens)
    logits = scale * unit_image @ unit_text.T
    labels = torch.arange(len(image))
    cross_entropy = torch.nn.functional.cross_entropy
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    loss.backward()
    buffers = {name: value.numpy() for name, value in model.named_buffers() if "running" in name}
    gradients = {
        name: value.grad.numpy()
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    return loss.item(), buffers, gradients


def our_gradients(graphdef, params, batch_stats, data):
    """Loss, running statistics after it, and gradients, all by dotted name."""

    @jax.jit
    def run(params, batch_stats, data):
        def loss_fn(params):
            clip = nnx.merge(graphdef, params, batch_stats)
            unit = clip.encode_image(data["image"], train=True), clip.encode_text(data["tokens"])
            loss = contrastive_loss(*unit, clip.logit_scale[...])
            return loss, nnx.to_pure_dict(nnx.state(clip, nnx.BatchStat))

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    (loss, stats), gradients = jax.device_get(run(params, batch_stats, data))
    return loss, names.flatten(stats), names.flatten(gradients)


def compare(what, size, got, want, table, cosine_bound=1e-5, norm_bound=1e-3):
    """Note how far apart the gradients of every parameter are."""
    total = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in want.values()))
    for name, reference_gradient in want.items():
        a, b = np.float64(got[name]).ravel(), np.float64(reference_gradient).ravel()
        if ".key.bias" in name or "k_proj.bias" in name:
            share = np.linalg.norm(a) / total
            table.check("gradient of the keys' bias", size, "share of the norm", share, 1e-6)
            continue
        if "in_proj.bias" in name:  # the middle third is the keys'
            third = len(a) // 3
            a, b = (np.concatenate([x[:third], x[2 * third :]]) for x in (a, b))
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        ratio = np.linalg.norm(a) / np.linalg.norm(b)
        table.check(what, size, "1 - cosine", 1 - cosine, cosine_bound)
        table.check(what, size, "norm ratio off by", abs(ratio - 1), norm_bound)


# The largest model's would need 20 GB.
@pytest.mark.parametrize(("size", "seed"), CASES[:-1])
def test_loss_and_gradients(size, seed, reference, ours, batch, table, relative_error):
    _, n, bound = RUNS[size]
    model, data = reference(size, seed), batch(size, n, seed)
    graphdef, params, batch_stats = ours(size, model)
    loss, buffers, theirs_by_name = autograd(model, *theirs(data))
    got_loss, running, got = our_gradients(graphdef, params, batch_stats, data)
    want = names.from_reference(theirs_by_name, names.flatten(params), origin="autograd")
    table.check("loss", size, "relative error", relative_error(got_loss, loss), bound)
    if running:
        want_running = names.from_reference(buffers, names.flatten(batch_stats), origin="buffers")
        worst = max(relative_error(running[name], want_running[name]) for name in running)
        table.check("running statistics after a step", size, "relative error", worst, bound)
    # Where signs flip at rectifiers float32 is no sharper than this, on either side: see below.
    bounds = (1e-4, 1e-2) if size == "RN50 + RoBERTa-base" else (1e-5, 1e-3)
    compare("gradient, float32", size, got, want, table, *bounds)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_agree_more_closely_without_rectifiers(
    seed, reference, ours, batch, table, monkeypatch
):
    """What is left of the difference in float32 if no sign can flip."""
    size = "RN50 + RoBERTa-base"
    model, data = reference(size, seed), batch(size, 4, seed)
    rectifiers = [
        (parent, name)
        for parent in model.visual.modules()
        for name, child in parent.named_children()
        if isinstance(child, torch.nn.ReLU)
    ]
    for parent, name in rectifiers:
        setattr(parent, name, torch.nn.SiLU())
    norm = BatchNorm.__call__

    def smooth(self, x, *, train, relu=False):
        y = norm(self, x, train=train)
        return nnx.silu(y) if relu else y

    monkeypatch.setattr(resnet, "rectified_sum", lambda x, y: nnx.silu(x + y))
    monkeypatch.setattr(BatchNorm, "__call__", smooth)
    graphdef, params, batch_stats = ours(size, model)
    _, _, theirs_by_name = autograd(model, *theirs(data))
    _, _, got = our_gradients(graphdef, params, batch_stats, data)
    want = names.from_reference(theirs_by_name, names.flatten(params), origin="autograd")
    compare("gradient, float32, SiLU for ReLU", size, got, want, table)


@pytest.mark.parametrize(("size", "n"), [("tiny", 8), ("RN50 + RoBERTa-base", 2)])
def test_gradients_agree_in_float64(size, n, reference, ours, batch, table):
    data = batch(size, n, 0)
    image, tokens = theirs(data)
    _, _, exact = autograd(reference(size, 0).double(), image.double(), tokens)
    _, _, single = autograd(reference(size, 0), image, tokens)
    with jax.enable_x64(True):
        graphdef, params, batch_stats = ours(size, reference(size, 0), np.float64)
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), (params, batch_stats))
        _, _, got = our_gradients(graphdef, *wide, data)
    expected = names.flatten(params)
    # The names' map gives float32, far sharper than the bound of a cosine.
    exact, single = (names.from_reference(g, expected, origin="autograd") for g in (exact, single))
    compare("gradient, float64", size, got, exact, table)
    compare("PyTorch's own, float32 against float64", size, single, exact, table, 1e-4, 1e-2)
