"""The recipe of the training that the drills disturb: complete, but small enough for many runs."""

from ml_collections import ConfigDict

from vclip_jax import config as config_lib


def get_config() -> ConfigDict:
    """Return the config of the tiny training."""
    config = config_lib.default()
    config.total_steps = 8
    config.global_batch_size = 16
    config.eval_batch_size = 16
    config.log_every = 1
    config.checkpoint_every = 2
    config.keep_checkpoints = 3
    config.keep_best = "eval/validation/loss"
    config.eval_every = 4
    config.validation_batches = 1
    config.bootstrap_resamples = 0
    config.heat_maps = False
    config.data.dataset = "synthetic/synfundus_like-32px-240-s0"
    config.data.image_size = 32
    config.data.augment = "geometry"
    config.model.embed_dim = 16
    config.model.vision_layers = (1, 1, 1, 1)
    config.model.vision_width = 8
    config.model.text_width = 16
    config.model.text_layers = 1
    config.model.text_heads = 2
    config.model.text_mlp_width = 32
    config.model.text_max_positions = 52
    config.model.text_dropout = 0.1
    config.optimizer.warmup_steps = 4
    config.evals.messidor_like = config_lib.zero_shot_eval(
        "synthetic/messidor_like-32px-40-s1", "zh/messidor"
    )
    return config
