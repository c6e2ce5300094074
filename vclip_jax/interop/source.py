"""The weights behind a name: a workdir, a portable folder, a packaged model, or one on the Hub."""

import os
from pathlib import Path

from vclip_jax.console.terminal import without_others_warnings
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files import packaged
from vclip_jax.files.errors import first_line
from vclip_jax.files.foreign import hub_name
from vclip_jax.interop import folder
from vclip_jax.interop.weights import Weights, digest
from vclip_jax.prompts import calibration
from vclip_jax.prompts.calibration import Calibration


def load_weights(
    path: str | os.PathLike[str], step: int | str = "latest"
) -> tuple[Weights, Tokenizer, int | None]:
    """Read the weights, tokeniser and step (None if unknown) behind a name, see `folder_of`."""
    return read_folder(folder_of(path), step)


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder behind a path, the name of a packaged model, or hub:OWNER/NAME[@REVISION].

    A folder on the Hub is downloaded. See `packaged.path_of` for paths and names.

    Raises:
        ValueError: one line: there is no such folder, or a packaged model is damaged.
    """
    name = os.fspath(path)
    if name.startswith("hub:"):
        return _from_hub(name)
    packaged.check_named(name)
    return packaged.path_of(name)


def read_folder(source: Path, step: int | str) -> tuple[Weights, Tokenizer, int | None]:
    """Read the weights, tokeniser and step (None if unknown) of a workdir or portable folder.

    Raises:
        ValueError: one line: a file is missing or damaged, or there is no such step.
    """
    with without_others_warnings():
        if not folder.is_portable(source):
            from vclip_jax.interop import workdir  # imports Orbax: a portable folder needs none

            return workdir.load(source, step)
        if step != "latest":
            raise ValueError(
                f"{source} is a portable folder, which has one model and no step {step}"
            )
        return *folder.load(source), None


def calibrations(
    path: str | os.PathLike[str], weights: Weights, tokenizer: Tokenizer, named: str = ""
) -> tuple[Calibration, ...]:
    """Return the calibrations of a model's answers, one for each prompt set.

    Args:
        path: the model, as for `load_weights`.
        weights, tokenizer: the result of `load_weights`.
        named: a file; "" for the file beside the model, if there is one; "off" for none.

    Raises:
        ValueError, OSError: one line: the file is for other weights, damaged or missing.
    """
    if named == calibration.OFF:
        return ()
    found = calibration.load(named) if named else calibration.beside(folder_of(path))
    if found:
        found[0].check_model(digest(weights.config, weights.arrays, tokenizer))
    return found


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, revision = hub_name(name)
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(folder.POSSIBLE_FILES)
            )
        )
    except Exception as error:  # the Hub's client raises a dozen unrelated types
        reason = first_line(error)
        at = f" at {revision!r}" if revision else ""
        raise ValueError(f"cannot get {repository!r}{at} from the Hub ({reason})") from error
