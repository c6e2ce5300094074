"""The whole system in small: generated fundus images in, zero-shot tables out.

    make quickstart
    python -m vclip_jax.main --config configs/quickstart.py --workdir runs/quickstart

Hardware: 2 CPU cores, about 10 minutes with the installation.
"""

from vclip_jax import config as config_lib

SIZE = 128
TRAIN = f"synthetic/synfundus_like-{SIZE}px-12000-s0"


def get_config():
    config = config_lib.default()
    config.total_steps = 250
    config.global_batch_size = 96
    config.eval_batch_size = 96
    config.checkpoint_every = 100

    config.data.dataset = TRAIN
    config.data.image_size = SIZE
    config.data.fit = "fundus"
    config.data.augment = "fundus"

    config.model.embed_dim = 256
    config.model.vision_layers = (1, 1, 1, 1)
    config.model.vision_width = 16
    config.model.text_width = 128
    config.model.text_layers = 2
    config.model.text_heads = 4
    config.model.text_mlp_width = 256
    config.model.text_max_positions = 64
    config.model.text_dropout = 0.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.beta2 = 0.98
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_grad_norm = 1.0

    for domain, prompts in (("messidor", "messidor"), ("fives", "fives"), ("refuge", "refuge")):
        config.evals[f"{domain}_like"] = config_lib.zero_shot_eval(
            f"synthetic/{domain}_like-{SIZE}px-600-s1", f"zh/{prompts}"
        )
    # Real photographs, if somebody has them: --config.evals.idrid.source=DIR.
    config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="train+holdout")
    return config
