"""Folders to scan, and what is found in them."""

from collections import Counter

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
