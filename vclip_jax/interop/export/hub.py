"""The upload of portable folders to the Hugging Face Hub.

`vclip_jax.load("hub:OWNER/NAME")` downloads them. The Hub identifies users by the environment's
HF_TOKEN or by `hf auth login`. HF_ENDPOINT names another server.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vclip_jax.files.errors import first_line
from vclip_jax.files.foreign import check_inside
from vclip_jax.interop import folder
from vclip_jax.interop.export import FORMATS, towers


def push(source: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a portable folder, with its exported towers, in one commit; skip all other files.

    Args:
        source: a portable folder.
        repository: OWNER/NAME, created if it does not exist.
        private: create a private repository.

    Returns:
        The commit's address.

    Raises:
        ValueError: one line: `source` is not a portable folder, its towers belong to other
            weights, a file is a link that leads out of the folder, the repository is public in
            spite of `private`, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    source = Path(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"--repo is {repository!r}, expected OWNER/NAME")
    paths = _files(source)
    api = HfApi()
    with _in_one_line(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        # `private` does not change the visibility of an existing repository.
        public = private and not api.repo_info(repository).private
    if public:
        raise ValueError(
            f"{repository} exists already and is public: make it private in its settings, or "
            "push without --private; nothing was uploaded"
        )
    with _in_one_line(repository):
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(path.name, path) for path in paths],
            commit_message=f"Upload {source.name} with vclip_jax",
        )
    return str(commit.commit_url)


def _files(source: Path) -> list[Path]:
    if not folder.is_portable(source):
        raise ValueError(
            f"{source} is not a portable folder: make one with `vclip export "
            f"--format safetensors --model {source} --out FOLDER` and push that"
        )
    folder.load(source)  # refuses files that do not belong together
    paths = [source / name for name in folder.POSSIBLE_FILES if (source / name).is_file()]
    for kind in FORMATS:
        if (source / f"{kind}.json").exists():
            towers.read_info(source, kind)
            paths += towers.files(source, kind)
    for path in paths:
        check_inside(path)
    return paths


@contextmanager
def _in_one_line(repository: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the Hub's client raises a dozen unrelated types
        reason = first_line(error)
        raise ValueError(
            f"cannot push to {repository!r} on the Hub ({reason}): is HF_TOKEN set, or `hf auth "
            "login` done, with the right to write there?"
        ) from error
