"""The content of a folder and its subfolders: photographs, tables, archives; all else is noted.

Linked folders are entered once. Hidden files, those of macOS's archives and of file servers'
previews do not belong to the dataset.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.chinese_clip_lmdb import DATA as DATABASE
from vclip_jax.datasets.formats.chinese_clip_lmdb import LOCK
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PARQUET
from vclip_jax.files.errors import few

_TABLES = ".csv .tsv .tab .psv .xlsx .xls .xlsm .jsonl .ndjson"
TABLE_SUFFIXES: Final = (*_TABLES.split(), *PARQUET)
PERHAPS_TABLES: Final = (".json", ".txt")
_FOREIGN = ".ods .xlsb .numbers .arrow .feather .dta .sav .sas7bdat .db .sqlite .tfrecord .npz .h5"
FOREIGN_TABLES: Final = tuple(_FOREIGN.split())
ARCHIVES: Final = (".zip", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_PACKED_TABLES: Final = (*TABLE_SUFFIXES, ".json", ".tar")
_UNREAD = (
    ".gif .heic .heif .avif .jp2 .j2k .jpx .jxl .dcm .dicom .psd .raw .cr2 .cr3 .nef .dng .arw"
)
_PICTURES: Final = (*_UNREAD.split(), ".exr", ".tga", ".pcx", ".nii", ".mha", ".nrrd")
"""Suffixes of image formats that are not read; a file of such a name may still be a JPEG."""
_OTHERS = ".tar .md .xml .py .yaml .yml .html .pdf .doc .docx .ini .log .npy .pt .mat"
_NEVER_PICTURES: Final = frozenset(
    (*TABLE_SUFFIXES, *PERHAPS_TABLES, *FOREIGN_TABLES, *ARCHIVES, *_OTHERS.split())
)
_READABLE: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM")
_IMAGES: Final = frozenset(IMAGE_SUFFIXES)
_SYSTEM: Final = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
_SYSTEM_FILES: Final = frozenset(("thumbs.db", "desktop.ini", "icon\r"))


@dataclass
class Folder:
    """The files found, by paths relative to the root with "/"."""

    root: Path
    photographs: list[str] = field(default_factory=list)
    unusable: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Photographs and folders that cannot be read: reason and detail."""
    tables: list[Path] = field(default_factory=list)
    perhaps_tables: list[Path] = field(default_factory=list)
    foreign_tables: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    databases: list[Path] = field(default_factory=list)
    """LMDB's files `data.mdb`."""
    archives: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Other files, counted by suffix."""
    by_content: int = 0
    """Photographs that are recognised by content, not by name."""
    hidden: list[str] = field(default_factory=list)
    """Skipped files and folders that are photographs by their names."""

    def notes(self) -> list[str]:
        """List guesses and unread files, a sentence each."""
        notes = []
        if self.by_content:
            notes.append(
                f"{self.by_content} files are photographs by their content, not by their names."
            )
        notes += hidden_notes(self.hidden, " unless a table names them")
        others = self.others + Counter({DATABASE: len(self.databases)})
        if others:
            named = few(f"{n} {suffix}" for suffix, n in others.most_common())
            notes.append(
                f"Files that are not read: {named}. If one of them lists "
                "photographs, give its name the right suffix, such as .csv or .txt."
            )
        if self.archives:
            names = few((path.name for path in self.archives), 3)
            notes.append(f"Archives are not read, unpack them: {names}.")
        return notes


def hidden_notes(names: Sequence[str], unless: str = "") -> list[str]:
    """Return a sentence on hidden photographs, and one on files that macOS wrote next to them."""
    shadows = [name for name in names if "/._" in f"/{name}"]
    hidden = [name for name in names if "/._" not in f"/{name}"]
    notes = []
    if hidden:
        notes.append(
            f"{len(hidden)} hidden photographs are skipped{unless}, such as {hidden[0]}: "
            "rename those that belong to the dataset."
        )
    if shadows:
        notes.append(
            f"{len(shadows)} files that macOS wrote next to photographs are skipped, such as "
            f"{shadows[0]}."
        )
    return notes


def walk(root: Path) -> Folder:
    """Return the content of a folder and its subfolders, in sorted order.

    Raises:
        ValueError: one line: the folder itself cannot be read.
    """
    folder = Folder(root)
    for inner, entries in each_folder(root):
        path = root / inner
        if entries is None:
            folder.unusable[inner] = ("folder seen before", f"{path} leads to {path.resolve()}")
        elif not isinstance(entries, OSError):
            for entry in entries:
                key = _join(inner, entry.name)
                if is_passed_over(entry):
                    folder.hidden += _images_at(root, key)
                elif not is_folder(entry):
                    _note(folder, entry, key)
        elif inner:
            folder.unusable[inner] = ("unreadable folder", f"{path}: {entries.strerror or entries}")
        else:
            raise ValueError(f"{root}: cannot be read: {entries.strerror or entries}") from entries
    folder.photographs.sort()
    for kind in (
        folder.tables,
        folder.perhaps_tables,
        folder.foreign_tables,
        folder.tars,
        folder.databases,
    ):
        kind.sort()
    stems = folder.perhaps_tables and {os.path.splitext(key)[0] for key in folder.photographs}
    for path in [one for one in folder.perhaps_tables if _key(one, root) in stems]:
        folder.perhaps_tables.remove(path)
        folder.others[f"{path.suffix.lower()} named after photographs"] += 1
    return folder


def each_folder(root: Path) -> Iterator[tuple[str, list["os.DirEntry[str]"] | OSError | None]]:
    """Yield every folder from `root` on, following links, without those that `is_passed_over`.

    Real folders come first: of a folder and a link to it, the folder gives the names.

    Yields:
        The path within `root`, and all entries in sorted order; or the error if the folder cannot
        be read, or None for a folder that another path has led to.
    """
    entered: set[tuple[int, int]] = set()
    pending, links = [""], list[str]()
    while pending or links:
        inner = pending.pop() if pending else links.pop(0)
        try:
            status = (root / inner).stat()
            if (status.st_dev, status.st_ino) in entered:
                yield inner, None
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(root / inner) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            yield inner, error
            continue
        yield inner, entries
        folders = [one for one in entries if not is_passed_over(one) and is_folder(one)]
        links += [_join(inner, one.name) for one in folders if one.is_symlink()]
        pending += [_join(inner, one.name) for one in reversed(folders) if not one.is_symlink()]


def _join(inner: str, name: str) -> str:
    return f"{inner}/{name}" if inner else name


def _images_at(root: Path, key: str) -> list[str]:
    """List the photographs by name in a hidden file or folder; links are not followed."""
    if os.path.splitext(key)[1].lower() in _IMAGES and os.path.isfile(root / key):
        return [key]
    return sorted(
        os.path.relpath(os.path.join(place, name), root).replace(os.sep, "/")
        for place, _, names in ([] if os.path.islink(root / key) else os.walk(root / key))
        for name in names
        if os.path.splitext(name)[1].lower() in _IMAGES
    )


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def is_passed_over(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is hidden or belongs to the system."""
    return is_hidden(entry.name)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or belongs to the system."""
    return (name.startswith(".") and name not in (".", "..")) or name in _SYSTEM


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _note(folder: Folder, entry: "os.DirEntry[str]", key: str) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in _IMAGES and _is_file(entry):
        folder.photographs.append(key)
        return
    name, path = entry.name.lower(), folder.root / key
    like_picture = suffix in _IMAGES or suffix in _PICTURES
    if not _is_file(entry):
        if not os.path.exists(path):
            folder.unusable[key] = ("broken link", str(path))
        elif like_picture:
            folder.unusable[key] = ("not a file", str(path))
    elif name.startswith("~$") or name in _SYSTEM_FILES or name == LOCK:
        return
    elif name == DATABASE:
        folder.databases.append(path)
    elif suffix in TABLE_SUFFIXES:
        folder.tables.append(path)
    elif suffix in PERHAPS_TABLES:
        folder.perhaps_tables.append(path)
    elif suffix in FOREIGN_TABLES:
        folder.foreign_tables.append(path)
    elif suffix == ".tar":
        folder.tars.append(path)
    elif suffix in ARCHIVES and os.path.splitext(name[: -len(suffix)])[1] in _PACKED_TABLES:
        folder.foreign_tables.append(path)
    elif suffix in ARCHIVES:
        folder.archives.append(path)
    elif suffix in _NEVER_PICTURES:
        folder.others[suffix] += 1
    elif form := _form(path):
        if form == "readable":
            folder.photographs.append(key)
            folder.by_content += 1
        else:
            folder.unusable[key] = ("unsupported format", f"{path}: {form}: save it as PNG or JPEG")
    elif suffix in _PICTURES:
        folder.unusable[key] = ("unsupported format", f"{path}: save it as PNG or JPEG")
    elif not suffix and (target := _link_as_text(path)):
        folder.unusable[key] = ("broken link", f"{path}: a text in place of a link to {target}")
    else:
        folder.others[suffix or "without suffix"] += 1


def _form(path: Path) -> str:
    """Return "readable", the name of an image format that is not read, or "" for other content."""
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return ""
    if start.startswith(_READABLE) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return "readable"
    if start[:4] == b"GIF8":
        return "GIF"
    if start[4:8] == b"ftyp":
        return "HEIC or AVIF" if start[8:11] in (b"hei", b"mif", b"avi", b"hev") else ""
    if start[4:12] == b"jP  \r\n\x87\n" or start[:4] == b"\xff\x4f\xff\x51":
        return "JPEG 2000"
    return "DICOM" if start[128:132] == b"DICM" else ""


def _link_as_text(path: Path) -> str:
    """Return the target of a link that an archive or a checkout turned into a text file, or ""."""
    try:
        text = path.read_text("utf-8") if path.stat().st_size < 4096 else ""
        return text if "/" in text and (path.parent / text).is_dir() else ""
    except (OSError, ValueError):
        return ""


def left_out(
    source: str | os.PathLike[str], used: Iterable[str], no_photographs: Sequence[str] = ()
) -> list[str]:
    """Return sentences on images below a folder that are not used: one for each kind.

    Args:
        source: the folder.
        used: paths of images, or of archives that hold them.
        no_photographs: patterns of images that are no photographs, such as masks. `fnmatch` tries
            them on "/" and the lower-case path below the folder; "*" also matches "/".
    """
    real = lru_cache(None)(os.path.realpath)

    def place(path: str) -> str:
        return os.path.join(real(os.path.dirname(path)), os.path.basename(path))

    root, known = Path(source), {place(path) for path in used}
    keys = walk(root).photographs if root.is_dir() else []
    unused = [key for key in keys if place(os.path.join(root, key)) not in known]
    others = {
        key for key in unused if any(fnmatchcase(f"/{key}".lower(), one) for one in no_photographs)
    }
    folders = Counter(
        os.path.dirname(key) or "the folder itself" for key in unused if key not in others
    )
    notes = []
    if folders:
        named = few(f"{n} in {folder}" for folder, n in folders.most_common())
        notes.append(
            f"{folders.total()} images below the folder are in no record, rejected ones among "
            f"them: {named}."
        )
    if others:
        notes.append(f"{len(others)} images are no photographs, such as masks, and are not read.")
    return notes


def only_folders(root: Path, folders: Iterable[str]) -> Folder:
    """Return the content of some folders below `root`, without their subfolders."""
    folder = Folder(root)
    for inner in sorted(set(folders)):
        try:
            with os.scandir(root / inner) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if not entry.name.startswith(".") and not is_folder(entry):
                _note(folder, entry, _join(inner, entry.name))
    return folder
