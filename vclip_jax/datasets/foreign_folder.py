"""A check that a built dataset's folder may be given to TFDS, which runs code named in
`features.json`.

TFDS makes a dataset's features from the class names in the file: it imports a class that it does
not know, and an imported module runs. So the names are compared with a list before TFDS sees them,
together with everything else that an untrusted folder may hold besides records.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_bytes, read_json, regular_files

_TFDS: Final = "tensorflow_datasets.core.features."
FEATURES: Final = frozenset(
    _TFDS + name
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "video_feature.Video",
    )
)
"""TFDS's classes for datasets of images; none of them runs or reads anything the file names."""
MOST_NAMES: Final = 64 << 20
"""Bytes of the file of class names."""
MOST_CLASSES: Final = 1_000_000
"""Classes of a label: TFDS makes a list of their names."""


def check(directory: Path) -> None:
    """Check a dataset's folder before TFDS reads it.

    Raises:
        ValueError: one line: the folder names a class that is not TFDS's own, has more classes than
            `MOST_CLASSES`, comes from a TFDS before 4.3 (2021), has records outside the folder, or
            has a damaged file.
        OSError: a file cannot be read.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2

    regular_files(directory)
    path = directory / "features.json"
    content = read_json(path)
    if not isinstance(content, dict) or "type" in content:
        raise ValueError(f"{path} is not of TFDS 4.3 or newer: nothing of it was run")
    info_json = read_json(directory / "dataset_info.json")
    try:
        # The reader that TFDS itself uses: it accepts several spellings of a key.
        features = json_format.ParseDict(content, feature_pb2.Feature())
        info = json_format.ParseDict(info_json, dataset_info_pb2.DatasetInfo())
    except Exception as error:  # protobuf raises other types for keys that are not text
        raise ValueError(f"{directory}: {one_line(error)}") from error
    for message in _messages(features):
        kind = message.DESCRIPTOR.name
        if kind == "Feature" and message.python_class_name not in FEATURES:
            raise ValueError(
                f"{path} names the class {message.python_class_name!r}, which is not one of "
                "TFDS's own for images: nothing of it was run"
            )
        if kind == "JsonFeature":
            raise ValueError(f"{path} describes a feature by JSON within JSON: nothing was run")
        if kind == "ClassLabel" and message.num_classes > MOST_CLASSES:
            raise ValueError(f"{path} has a label of {message.num_classes} classes")
    names = [info.name, *(split.name for split in info.splits)]
    names += [split.filepath_template for split in info.splits]
    if wrong := next((name for name in names if "/" in name or name.startswith(".")), None):
        raise ValueError(f"{directory}: {wrong!r} in dataset_info.json leads out of the folder")
    # A template is filled by `str.format`, whose fields can demand a gigabyte of spaces.
    if wrong := next((n for n in names if re.search(r"{[^{}]*[^A-Z_{}]", n) or len(n) > 200), None):
        raise ValueError(f"{directory}: {wrong[:80]!r} in dataset_info.json is not a file's name")
    for labels in directory.glob("*.labels.txt"):
        _check_names(labels, features)


def _check_names(path: Path, features: Any) -> None:
    """Check that a label has as many class names in its file as classes.

    Raises:
        ValueError: one line: the numbers differ.
    """
    lines = read_bytes(path, MOST_NAMES).decode("utf-8", "replace").split("\n")
    # As TFDS counts the names: it writes an empty line if there are no classes.
    count = sum(bool(line.strip()) for line in lines)
    for name, feature in features.features_dict.features.items():
        if path.name == f"{name}.labels.txt" and feature.HasField("class_label"):
            classes = feature.class_label.num_classes
            if count != classes:
                raise ValueError(f"{path} names {count} classes, and features.json has {classes}")


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if hasattr(value, "DESCRIPTOR"):
            parts = [value]
        else:
            parts = list(value.values() if hasattr(value, "values") else value)
        for part in parts:
            if hasattr(part, "DESCRIPTOR"):
                yield from _messages(part)
