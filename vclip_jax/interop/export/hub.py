"""A portable folder to the Hugging Face Hub; `vclip_jax.load("hub:OWNER/NAME")` gets it back.

Who is asking is the Hub's own affair: the environment's HF_TOKEN or `hf auth login`. HF_ENDPOINT
names another server.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vclip_jax.files.errors import first_line
from vclip_jax.interop import folder
from vclip_jax.interop.export import FORMATS, towers


def push(source: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a portable folder in one commit, with its exported towers; other files stay here.

    Args:
        source: a portable folder.
        repository: OWNER/NAME; made if it is not there.
        private: who has no access to the repository does not see it.

    Returns:
        The commit's address.

    Raises:
        ValueError: one line: it is no portable folder, towers in it belong to other weights, the
            repository is public though `private` was asked for, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    source = Path(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"--repo is {repository!r}, expected OWNER/NAME")
    paths = _files(source)
    api = HfApi()
    with _in_one_line(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        # An old repository stays as visible as it was, whatever is asked for.
        public = private and not api.repo_info(repository).private
    if public:
        raise ValueError(
            f"{repository} is there already and is public: make it private in its settings, or "
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
    if not (source / folder.MODEL).is_file():
        raise ValueError(
            f"{source} is not a portable folder: make one with `vclip export "
            f"--format safetensors --model {source} --out FOLDER` and push that"
        )
    folder.load(source)  # refuses what does not belong together
    paths = [source / name for name in folder.POSSIBLE_FILES if (source / name).is_file()]
    for kind in FORMATS:
        if (source / f"{kind}.json").exists():
            towers.read_info(source, kind)
            paths += towers.files(source, kind)
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
