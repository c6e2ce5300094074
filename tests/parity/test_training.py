"""Ten steps of the recipe's optimizer, driven by Chinese-CLIP's own loss and schedule."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vclip_jax import config
from vclip_jax.interop import names
from vclip_jax.models.clip import normalise_image
from vclip_jax.train import state
from vclip_jax.train.optim import make_optimizer
from vclip_jax.train.step import make_train_step

torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")
STEPS = 10


def excluded(name: str) -> bool:
    """Chinese-CLIP, training/main.py: no decay for names with these words in them."""
    return "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name


@pytest.mark.parametrize("size", ["tiny", "tiny ViT"])
def test_ten_steps_end_at_the_references_weights(size, reference, ours, batch, table, monkeypatch):
    training = pytest.importorskip("cn_clip.training.train", reason="needs cn-clip")
    scheduler = pytest.importorskip("cn_clip.training.scheduler")
    # Its loss moves the labels to the GPU.
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *args, **kwargs: self)

    settings = config.default().optimizer
    settings.warmup_steps = 4
    model = reference(size, 0)
    graphdef, params, batch_stats = ours(size, model)
    start = names.flatten(params)

    groups = [
        {"params": [p for n, p in model.named_parameters() if excluded(n)], "weight_decay": 0.0},
        {
            "params": [p for n, p in model.named_parameters() if not excluded(n)],
            "weight_decay": settings.weight_decay,
        },
    ]
    betas = (settings.beta1, settings.beta2)
    adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon)
    schedule = scheduler.cosine_lr(adamw, settings.learning_rate, settings.warmup_steps, STEPS)
    arguments = types.SimpleNamespace(
        accum_freq=1,
        mask_ratio=0,
        distillation=False,
        aggregate=False,
        local_device_rank=0,
        report_training_batch_acc=False,
    )
    cross_entropy = torch.nn.CrossEntropyLoss()

    optimizer = make_optimizer(settings, STEPS)
    step = jax.jit(make_train_step(graphdef, optimizer, seed=0))
    train_state = state.TrainState(
        jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params)
    )
    for index in range(STEPS):
        data = batch(size, 8, index)
        schedule(index)
        adamw.zero_grad()
        pixels = np.array(normalise_image(jnp.asarray(data["image"]))).transpose(0, 3, 1, 2)
        loss, _ = training.get_loss(
            model,
            torch.from_numpy(np.ascontiguousarray(pixels)),
            torch.from_numpy(data["tokens"]).long(),
            cross_entropy,
            cross_entropy,
            arguments,
        )
        loss.backward()
        adamw.step()
        model.logit_scale.data = torch.clamp(model.logit_scale.data, 0, 4.6052)

        train_state, metrics = step(train_state, data)
        off = abs(float(metrics["loss"]) - loss.item()) / loss.item()
        table.check("loss in ten steps of training", size, "relative error", off, 1e-4)

    want = names.from_reference(
        {
            name: value.detach().numpy()
            for name, value in model.named_parameters()
            if "bert.pooler" not in name
        },
        start,
        origin="cn_clip",
    )
    got = names.flatten(jax.device_get(train_state.params))
    # Adam moves the keys' bias, which has no gradient but rounding, at random.
    furthest = settings.learning_rate * STEPS
    for name, value in got.items():
        a, b = np.float64(value), np.float64(want[name])
        if ".key.bias" in name or "k_proj.bias" in name:
            assert np.abs(a - b).max() <= 2 * furthest
            continue
        if "in_proj.bias" in name:
            third = len(a) // 3
            a, b = (np.concatenate([x[:third], x[2 * third :]]) for x in (a, b))
        off = np.linalg.norm(a - b) / np.linalg.norm(b)
        table.check("parameters after ten steps", size, "relative error", off, 1e-3)
    # Our attention pooling has no use for that bias at all.
    moved = {name: np.abs(got[name] - np.asarray(start[name])).max() for name in got}
    assert all(moved[name] > 0 for name in got if not name.endswith("attnpool.k_proj.bias")), moved


def test_the_decay_mask_is_theirs(reference, ours):
    from vclip_jax.devices.tree import path_string
    from vclip_jax.train.optim import decay_mask

    for size in ("tiny", "tiny ViT"):
        model = reference(size, 0)
        _, params, _ = ours(size, model)
        mask = decay_mask(params, tuple(config.default().optimizer.no_decay))
        decided = {
            names.reference_name(path_string(path).replace("/", ".")): decays
            for path, decays in jax.tree_util.tree_leaves_with_path(mask)
        }
        assert decided == {
            name: not excluded(name)
            for name, _ in model.named_parameters()
            if "bert.pooler" not in name
        }
