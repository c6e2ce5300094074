"""Folders to scan, and what is found in them."""

import tarfile
from collections import Counter
from io import BytesIO

JPEG = b"\xff\xd8\xff"


def place(folder, *keys, content=JPEG):
    """Files that are photographs by their names; a scan reads none of them."""
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)


def labels(listing):
    """Key -> the name of the class, None without one."""
    return {i.key: listing.classes[i.label] if i.label >= 0 else None for i in listing.items}


def splits(listing):
    return {item.key: item.split for item in listing.items}


def reasons(listing):
    """Reason -> the number of rejects."""
    return dict(Counter(reject.reason for reject in listing.rejects))


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, BytesIO(content))


def findings(listing):
    """Key -> the findings of the photograph, by their stored names; {} for a dataset without."""
    names = [name.partition("/")[2] for name in listing.columns]
    rows = {item.key: zip(names, item.values, strict=True) for item in listing.items}
    found = {key: {name: flag for name, flag in row if name} for key, row in rows.items()}
    return found if any(names) else {}
