"""Chinese-CLIP's two layouts in miniature."""

import base64
import json
import pickle

import numpy as np

from ...audit.photographs import jpeg


def picture(number):
    """An encoded photograph of one colour and a mark, different for each number."""
    pixels = np.full((40, 48, 3), (number * 37 % 256, number // 7 * 37 % 256, 90), np.uint8)
    pixels[:4, : 1 + number % 40] = 255
    return jpeg(pixels)


def files(folder, split, images, texts):
    """`images` is [(id, bytes)] and `texts` [(text id, text, image ids)]."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{one}\t{base64.b64encode(data).decode()}\n" for one, data in images)
    (folder / f"{split}_imgs.tsv").write_text("".join(lines))
    lines = (
        json.dumps({"text_id": one, "text": text, "image_ids": ids}, ensure_ascii=False) + "\n"
        for one, text, ids in texts
    )
    (folder / f"{split}_texts.jsonl").write_text("".join(lines), "utf-8")


def database(folder, entries):
    """An LMDB database as Chinese-CLIP's script opens it."""
    import lmdb

    folder.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(folder), map_size=1 << 40) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in entries.items():
            transaction.put(key, value)


def databases(folder, split, images, texts):
    """The databases that the script makes of the files of the same arguments."""
    values = {str(one).encode(): base64.b64encode(data) for one, data in images}
    database(folder / split / "imgs", values | {b"num_images": str(len(images)).encode()})
    pairs = [(image, one, text) for one, text, ids in texts for image in ids]
    values = {str(n).encode(): pickle.dumps(pair) for n, pair in enumerate(pairs)}
    database(folder / split / "pairs", values | {b"num_samples": str(len(pairs)).encode()})
