"""Train the packaged model `retina-small` on rendered fundus photographs alone.

    vclip train --config configs/retina_small.py --workdir runs/retina_small

The model sees 192 px, and its deep stages have more blocks than the quickstart's: on CPUs nearly
all time goes to the first stage, so they cost little.

The packaged folder is made from the run. Calibrations are for the rounded weights, so they come
second; their labels are those of drawings, and the stated shares those of a screening clinic. The
second export writes them into the card:

    vclip export --format safetensors --dtype float16 --model runs/retina_small --out F
    vclip calibrate --model F synthetic/fives_like-192px-600-s1 --prompts zh/fives \\
        --at 'normal=.6,amd=.05,dr=.25,glaucoma=.1' --out F/calibration.json
    vclip calibrate --model F synthetic/messidor_like-192px-600-s1 --prompts zh/messidor \\
        --out F/calibration.json
    vclip export --format safetensors --dtype float16 --model F --out retina-small
    vclip weights pack --model retina-small

Hardware: 2 CPU cores. The packaged weights took one and a half hours beside other programs, and the
rendering of their drawings six minutes more (docs/retina-small.md).
"""

from vclip_jax import config as config_lib


def get_config():
    config = config_lib.small()
    config.total_steps = 1600
    config.global_batch_size = 96
    config.eval_batch_size = 96
    config.checkpoint_every = 100

    config.data.dataset = "synthetic/synfundus_like-192px-28000-s2"
    config.data.test_split = "test"
    config.data.image_size = 192
    config.model.vision_layers = (1, 2, 4, 2)
    config.optimizer.warmup_steps = 100
    for domain in ("messidor", "fives", "refuge"):
        for cameras in ("like", "far"):
            config.evals[f"{domain}_{cameras}"] = config_lib.zero_shot_eval(
                f"synthetic/{domain}_{cameras}-192px-600-s1", f"zh/{domain}"
            )
    # Real photographs are scored with --config.evals.idrid.source=DIR, and skipped otherwise.
    config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="train+holdout")
    return config
