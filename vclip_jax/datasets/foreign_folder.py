"""Whether a built dataset's folder may be given to TFDS, which imports what `features.json` names.

TFDS makes a dataset's features of the classes that stand in the file: a class that it does not know
it imports, and a module that is imported runs. So the names are held against a list before TFDS
sees them, and with them all that a folder of strangers may hold besides records.
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
"""TFDS's own that datasets of images have; none of them runs or reads what the file says."""
MOST_NAMES: Final = 64 << 20
"""Bytes of the classes' names."""
MOST_CLASSES: Final = 1_000_000
"""Of a label: TFDS makes a list of their names."""


def check(directory: Path) -> None:
    """Look at a dataset's folder before TFDS does.

    Raises:
        ValueError: one line: it names a class that is not TFDS's own, has more classes than
            `MOST_CLASSES`, is of a TFDS before 4.3 (2021), has records outside the folder, or a
            file of it is damaged.
        OSError: a file cannot be read.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2

    regular_files(directory)
    path = directory / "features.json"
    content = read_json(path)
    if not isinstance(content, dict) or "type" in content:
        raise ValueError(f"{path} has not the form of TFDS 4.3 or newer: nothing of it was run")
    described = read_json(directory / "dataset_info.json")
    try:
        # The very reader of TFDS, which takes several spellings of a key for the same.
        features = json_format.ParseDict(content, feature_pb2.Feature())
        info = json_format.ParseDict(described, dataset_info_pb2.DatasetInfo())
    except Exception as error:  # protobuf has other errors for keys that are no text
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
    # A template is filled by `str.format`, in which a field may ask for a gigabyte of spaces.
    if wrong := next((n for n in names if re.search(r"{[^{}]*[^A-Z_{}]", n) or len(n) > 200), None):
        raise ValueError(f"{directory}: {wrong[:80]!r} in dataset_info.json is not a file's name")
    for labels in directory.glob("*.labels.txt"):
        _check_names(labels, features)


def _check_names(path: Path, features: Any) -> None:
    """Raises ValueError unless as many classes have names as the label of this name has."""
    lines = read_bytes(path, MOST_NAMES).decode("utf-8", "replace").split("\n")
    # As TFDS counts them: it writes an empty line where there are no classes.
    count = sum(bool(line.strip()) for line in lines)
    for name, feature in features.features_dict.features.items():
        if path.name == f"{name}.labels.txt" and feature.HasField("class_label"):
            classes = feature.class_label.num_classes
            if count != classes:
                raise ValueError(f"{path} names {count} classes, and features.json has {classes}")


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all that are within it."""
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
