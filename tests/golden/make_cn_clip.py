"""Writes `cn_clip_tiny.npz`: what Chinese-CLIP's model makes of seeded weights and inputs.

    python tests/golden/make_cn_clip.py

Needs the [parity] extra; `tests/models/test_golden.py` reads the file and does not. Weights and
inputs are NumPy's and are made again there, so the file holds results alone.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import tiny


def main() -> None:
    import torch
    from cn_clip.clip.model import CLIP

    from vclip_jax.interop import names

    model = CLIP(
        embed_dim=tiny.EMBED_DIM,
        image_resolution=tiny.IMAGE_SIZE,
        vision_layers=list(tiny.VISION_LAYERS),
        vision_width=tiny.VISION_WIDTH,
        vision_patch_size=None,
        vocab_size=tiny.TEXT["vocab_size"],
        text_attention_probs_dropout_prob=0.0,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.0,
        text_hidden_size=tiny.TEXT["width"],
        text_initializer_range=0.02,
        text_intermediate_size=tiny.TEXT["mlp_width"],
        text_max_position_embeddings=tiny.TEXT["max_positions"],
        text_num_attention_heads=tiny.TEXT["heads"],
        text_num_hidden_layers=tiny.TEXT["layers"],
        text_type_vocab_size=2,
    )
    weights = tiny.weights()
    state = {
        name: torch.from_numpy(np.array(array))
        for name, array in names.to_reference(weights).items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("pooler" in name for name in missing), missing
    batch = tiny.batch()
    image = torch.from_numpy(np.ascontiguousarray(batch["pixels"].transpose(0, 3, 1, 2)))
    tokens = torch.from_numpy(batch["tokens"]).long()

    model.eval()
    with torch.no_grad():
        results = {
            "image_eval": model.encode_image(image).numpy(),
            "text": model.encode_text(tokens).numpy(),
        }
    model.train()
    unit_image, unit_text, scale = model(image, tokens)
    logits = scale * unit_image @ unit_text.T
    labels = torch.arange(len(image))
    entropy = torch.nn.functional.cross_entropy
    loss = (entropy(logits, labels) + entropy(logits.T, labels)) / 2
    loss.backward()
    results["logits_train"] = logits.detach().numpy()
    results["loss"] = np.array(loss.item())

    parameters = {name: value for name, value in weights.items() if not tiny.is_statistic(name)}
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    gradients = names.from_reference(gradients, parameters, origin="gradients")
    results["gradients"] = tiny.sketch(gradients)
    statistics = {name: value for name, value in weights.items() if tiny.is_statistic(name)}
    buffers = {n: b.numpy() for n, b in model.named_buffers() if "running" in n}
    results["statistics"] = tiny.sketch(names.from_reference(buffers, statistics, origin="buffers"))
    path = Path(__file__).with_name("cn_clip_tiny.npz")
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in results.items()})
    print(f"{path}: {path.stat().st_size} bytes, loss {results['loss']:.6f}")


if __name__ == "__main__":
    main()
