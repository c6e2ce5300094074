"""Score a trained model on external datasets.

    vclip eval --config configs/external.py:messidor,fives,refuge \
        --workdir runs/external --model runs/quickstart \
        --config.evals.messidor.source=DIR

Take the names from `vclip datasets list --data-dir data`: names of the catalogue, or of your own
built datasets. For your own dataset, the run scores the split `test` and asks for the classes by
their names. Change that with --config.evals.NAME.split and --config.evals.NAME.prompts. The run
skips and names a dataset of the catalogue that is neither built nor has a source. `--model` is a
workdir, a portable folder, or hub:OWNER/NAME. Model and preprocessing come from the checkpoint.

Hardware: 2 CPU cores embed about 150 photographs a second with the quickstart's model.
"""

from vclip_jax import config as config_lib


def get_config(names: str = "messidor,fives,refuge"):
    config = config_lib.default()
    for name in names.split(","):
        config.evals[name.partition("/")[0]] = config_lib.published_eval(name)
    return config
