"""Features, logits, loss, gradients and running statistics against Chinese-CLIP's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.losses import contrastive_loss
from vclip_jax.models.clip import normalise, normalise_image

torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")

# size -> seeds, batch, bound of relative errors
RUNS = {
    "tiny": ((0, 1, 2), 8, 1e-5),
    "tiny ViT": ((0, 1, 2), 8, 1e-5),
    "RN50 + RoBERTa-base": ((0, 1), 4, 1e-4),
    "ViT-B/16 + RBT3": ((0,), 2, 1e-4),
}
CASES = [(size, seed) for size, (seeds, _, _) in RUNS.items() for seed in seeds]


def theirs(batch):
    """The same batch as the reference takes it."""
    image = np.array(normalise_image(jnp.asarray(batch["image"]))).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(batch["tokens"]).long()


@pytest.mark.parametrize(("size", "seed"), CASES)
def test_towers(size, seed, reference, ours, batch, table, relative_error):
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


@pytest.mark.parametrize(("size", "seed"), CASES)
def test_loss_and_gradients(size, seed, reference, ours, batch, table, relative_error):
    _, n, bound = RUNS[size]
    model, data = reference(size, seed), batch(size, n, seed)
    graphdef, params, batch_stats = ours(size, model)
    image, tokens = theirs(data)

    unit_image, unit_text, scale = model(image, tokens)
    logits = scale * unit_image @ unit_text.T
    labels = torch.arange(n)
    cross_entropy = torch.nn.functional.cross_entropy
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    loss.backward()

    @jax.jit
    def loss_and_gradients(params, batch_stats, data):
        def loss_fn(params):
            clip = nnx.merge(graphdef, params, batch_stats)
            unit = clip.encode_image(data["image"], train=True), clip.encode_text(data["tokens"])
            loss = contrastive_loss(*unit, clip.logit_scale[...])
            return loss, nnx.to_pure_dict(nnx.state(clip, nnx.BatchStat))

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    (got_loss, got_stats), gradients = loss_and_gradients(params, batch_stats, data)
    table.check("loss", size, "relative error", relative_error(got_loss, loss.item()), bound)

    expected = names.flatten(params)
    want = names.from_reference(
        {name: value.grad.numpy() for name, value in model.named_parameters()
         if value.grad is not None},
        expected, origin="gradients",
    )  # fmt: skip
    got = names.flatten(jax.device_get(gradients))
    total = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in want.values()))
    for name in expected:
        a, b = np.float64(got[name]).ravel(), np.float64(want[name]).ravel()
        if ".key.bias" in name or "k_proj.bias" in name:
            worst = max(np.linalg.norm(a), np.linalg.norm(b)) / total
            table.check("gradient of the keys' bias", size, "share of the norm", worst, 1e-6)
            continue
        if "in_proj.bias" in name:  # the middle third is the keys'
            third = len(a) // 3
            a, b = (np.concatenate([x[:third], x[2 * third :]]) for x in (a, b))
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        ratio = np.linalg.norm(a) / np.linalg.norm(b)
        table.check("gradient of every parameter", size, "1 - cosine", 1 - cosine, 1e-5)
        table.check("gradient of every parameter", size, "norm ratio off by", abs(ratio - 1), 1e-3)

    running = names.flatten(got_stats)
    if running:
        want = names.from_reference(
            {name: value.numpy() for name, value in model.named_buffers()
             if "running" in name}, names.flatten(batch_stats), origin="statistics",
        )  # fmt: skip
        worst = max(relative_error(running[name], want[name]) for name in running)
        table.check("running statistics after a step", size, "relative error", worst, bound)
