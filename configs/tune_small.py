"""Train the packaged model further on IDRiD's photographs, and score it on held-out ones.

    vclip train --config configs/tune_small.py --workdir runs/tuned --config.data.source=DIR

DIR holds IDRiD's "B. Disease Grading" as downloaded (CC BY 4.0). A hash of the file name holds out
a fifth of the training set, which is scored. `--config.train.image=last:2` or `head` trains a part
of the image tower, and `--config.train.text=full` the text tower, too.

Hardware: 2 CPU cores, minutes.
"""

from vclip_jax import config as config_lib


def get_config():
    config = config_lib.starting_from("retina-small")
    config.total_steps = 100
    config.global_batch_size = 64
    config.eval_batch_size = 64
    config.checkpoint_every = 100
    config.validation_batches = 1

    # Few captions: the text tower has nothing to learn from them.
    config.train.text = "frozen"
    config.optimizer.warmup_steps = 10
    config.loss.targets = "caption"

    config.data.dataset = "idrid"
    config.data.validation_split = "holdout"
    config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="holdout")
    return config
