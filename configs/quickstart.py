"""Train a small model on rendered fundus photographs and score it zero-shot.

    make quickstart
    vclip train --config configs/quickstart.py --workdir runs/quickstart

The model is trained on one synthetic dataset. It is scored on three others with other cameras and
populations, on three whose cameras are far outside of the training cameras, and on twelve real
photographs that come with the package.

Hardware: 2 CPU cores, 9 minutes after the installation.
"""

from vclip_jax import config as config_lib

TRAIN = "synthetic/synfundus_like-128px-12000-s0"


def get_config():
    config = config_lib.small()
    config.total_steps = 288
    config.global_batch_size = 96
    config.eval_batch_size = 96
    config.checkpoint_every = 144

    config.model.text_layers = 1  # the second layer takes an eighth of a step, and gains nothing

    config.data.dataset = TRAIN
    config.data.test_split = "test"
    for domain in ("messidor", "fives", "refuge"):
        config.evals[f"{domain}_like"] = config_lib.zero_shot_eval(
            f"synthetic/{domain}_like-128px-600-s1", f"zh/{domain}"
        )
        # Its cameras are far outside of the training cameras.
        config.evals[f"{domain}_far"] = config_lib.zero_shot_eval(
            f"synthetic/{domain}_far-128px-200-s1", f"zh/{domain}"
        )
    config.evals.idrid_sample = config_lib.zero_shot_eval("idrid_sample", "zh/idrid")
    # All of IDRiD is scored with --config.evals.idrid.source=DIR, and skipped otherwise.
    config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="train+holdout")
    return config
