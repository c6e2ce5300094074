"""PyTorch's checkpoints (`.pt`, `.pth`, `.bin`), read without PyTorch and without running pickles.

Since version 1.6 `torch.save` writes a zip: `NAME/data.pkl` describes the content, and
`NAME/data/KEY` hold the bytes of the storages, which are not compressed. Reading does not copy
them: tensors are views of the mapped file. (Layout: `torch/serialization.py` and
`caffe2/serialize/inline_container.cc` of PyTorch.)
"""

import reprlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import check_regular
from vclip_jax.files.writing import replacing
from vclip_jax.interop.pytorch.pickles import (
    NUMPY_SCALARS,
    Call,
    Global,
    Persistent,
    RefusedPickleError,
    dumps,
    loads,
)

STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
}
ALIGNMENT = 64
LARGEST_PICKLE = 2**25
"""The largest accepted pickle in bytes. Usual ones have some kilobytes; a pickle in memory takes up
to a hundred times its bytes."""
OPCODES_PER_STORAGE = 100
"""The opcodes of a pickle that each storage allows; a tensor takes about 40, with its part in an
optimizer's state."""
OPCODES_BESIDE = 100_000
"""The opcodes for other content, such as a list of losses."""
MOST_OPCODES = 2_000_000
"""The opcodes of 50,000 tensors; the slowest kind takes 13 s on one core of an AMD EPYC."""
MOST_PACKED = 50
"""The highest accepted compression ratio: weights hardly compress, zeros a thousandfold."""
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LOCAL_HEADER = 30


def read(path: str | Path) -> Any:
    """Read the content of a checkpoint.

    Args:
        path: a file written by `torch.save` of PyTorch 1.6 or newer.

    Returns:
        The saved dictionaries, lists, tuples, sets, strings and numbers. Ordered dictionaries
        become dictionaries, and tensors become read-only arrays that keep the file open. The
        arrays are views of the file, unless the file was compressed afterwards. Checksums are not
        verified; PyTorch does not verify them either.

    Raises:
        ValueError: one line: the file is of another kind or truncated, its pickle names anything
            but tensors, or a tensor lies outside its storage.
        OSError: the file cannot be read.
    """
    path = Path(path)
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    if start == _LEGACY:
        raise ValueError(
            f"{path} has the format of PyTorch before 1.6: with PyTorch installed, convert it by "
            f"torch.save(torch.load({path.name!r}, map_location='cpu', weights_only=True), "
            "'new.pt'), then import new.pt"
        )
    if not start.startswith(b"PK"):
        pointer = start[:7] == b"version"
        what = "a pointer of Git LFS, not the file itself" if pointer else "not a zip"
        raise ValueError(f"{path} is not a PyTorch checkpoint ({what}): get the file again")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, np.asarray(np.memmap(path, np.uint8, "r")))
    except RefusedPickleError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # zipfile raises a dozen unrelated types for damaged files
        raise ValueError(
            f"{path} is truncated or damaged ({one_line(error)}): get it again"
        ) from error


def _read(archive: zipfile.ZipFile, mapped: np.ndarray) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or "/" in roots[0]:
        raise RefusedPickleError(
            "a zip, but not a PyTorch checkpoint: it should have one NAME/data.pkl"
        )
    root = roots[0]
    size = sum(info.file_size for info in entries.values())
    if size > MOST_PACKED * len(mapped) + LARGEST_PICKLE:
        raise RefusedPickleError(
            f"it unpacks to {size:,} bytes, more than {MOST_PACKED} times its own size"
        )
    read: dict[str, np.ndarray] = {}
    if f"{root}/constants.pkl" in entries:
        raise RefusedPickleError("a TorchScript program: save the model's state_dict() instead")
    order = entries.get(f"{root}/byteorder")
    if order is not None and _bytes(archive, order, 16) != b"little":
        raise RefusedPickleError("written on a big-endian machine, which is not supported")

    def storage(identity: Any) -> np.ndarray:
        match identity:
            case ("storage", Global(name=name), str(key), str(), int(count)) if count >= 0:
                kind = STORAGES.get(name.rpartition(".")[2])
            case _:
                kind = None
        if kind is None:
            what = reprlib.repr(identity)[:100]
            raise RefusedPickleError(f"its pickle has an object of an unknown kind, {what!r}")
        info = entries.get(f"{root}/data/{key}")
        if info is None:
            raise RefusedPickleError(f"the storage {key!r} is missing from the archive")
        if count * kind.itemsize > info.file_size:
            raise RefusedPickleError(
                f"the storage {key!r} has {info.file_size} bytes, not {count} x {kind.itemsize}"
            )
        if key not in read:
            read[key] = _entry(archive, info, mapped)
        return read[key][: count * kind.itemsize].view(kind)

    known: dict[str, Callable[..., Any] | None] = {
        **NUMPY_SCALARS,
        "collections.OrderedDict": dict,
        "torch.Size": tuple,
        "torch._utils._rebuild_tensor_v2": _tensor,
    }
    known |= {f"{module}.{name}": None for name in STORAGES for module in ("torch", "torch.cuda")}
    data = _bytes(archive, entries[f"{root}/data.pkl"], LARGEST_PICKLE)
    most = min(OPCODES_BESIDE + OPCODES_PER_STORAGE * len(entries), MOST_OPCODES)
    return loads(data, known, storage, most)


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    if info.flag_bits & 1:
        raise RefusedPickleError(f"{info.filename} is encrypted")
    if info.file_size > most:
        raise RefusedPickleError(f"{info.filename} has {info.file_size} bytes, more than {most}")
    return archive.read(info)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapped: np.ndarray) -> np.ndarray:
    """Return an entry's bytes, uint8 `[n]`, as a view of the file unless it is compressed."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return np.frombuffer(_bytes(archive, info, info.file_size), np.uint8)
    header = mapped[info.header_offset :][:_LOCAL_HEADER].tobytes()
    start = (
        info.header_offset
        + _LOCAL_HEADER
        + int.from_bytes(header[26:28], "little")  # the lengths of the name and the extra field,
        + int.from_bytes(header[28:30], "little")  # which differ from those in the directory
    )
    if header[:4] != b"PK\x03\x04" or start + info.file_size > len(mapped):
        raise RefusedPickleError(
            f"{info.filename} lies outside the file: it is truncated or damaged"
        )
    return mapped[start : start + info.file_size]


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> np.ndarray:  # the rest: requires_grad, hooks, metadata
    """Return a strided view of a storage `[n]`; sizes, strides and offset count elements."""
    if (
        not isinstance(storage, np.ndarray)
        or not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
        or not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride))
    ):
        raise RefusedPickleError("a tensor's size, stride or offset has a wrong type or sign")
    if 0 in size:
        return np.empty(size, storage.dtype)
    # The stride of an axis of length 1 is not used and may have any value.
    stride = tuple(step if length > 1 else 0 for length, step in zip(size, stride, strict=True))
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= storage.size:
        raise RefusedPickleError(
            f"a tensor of size {list(size)}, stride {list(stride)} and offset {offset} lies "
            f"outside its storage of {storage.size} elements"
        )
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def write(path: str | Path, content: Any) -> None:
    """Write a checkpoint that `torch.load(path, weights_only=True)` reads.

    The file appears under its name once it is complete, and replaces an existing one. The same
    content gives the same bytes. Arrays are made contiguous and written one after the other.

    Args:
        path: the file.
        content: dictionaries, lists, tuples, strings and numbers with arrays of the types in
            `STORAGES`, which become tensors.

    Raises:
        ValueError: `content` holds an object of another type.
    """
    path = Path(path)
    names = {dtype: name for name, dtype in STORAGES.items()}
    arrays: list[np.ndarray] = []

    def described(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: described(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(described(item) for item in value)
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype not in names:
            raise ValueError(f"PyTorch has no storage for arrays of {value.dtype}")
        kind = Global(f"torch.{names[value.dtype]}", None)
        storage = Persistent(("storage", kind, str(len(arrays)), "cpu", value.size))
        arrays.append(value)
        strides = tuple(int(np.prod(value.shape[axis + 1 :])) for axis in range(value.ndim))
        hooks = Call("collections.OrderedDict", ())
        return Call(
            "torch._utils._rebuild_tensor_v2", (storage, 0, value.shape, strides, False, hooks)
        )

    description = dumps(described(content))
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        _put(archive, "data.pkl", description, file.tell())
        _put(archive, "byteorder", b"little", file.tell())
        for key, array in enumerate(arrays):
            _put(archive, f"data/{key}", array, file.tell())
        _put(archive, "version", b"3\n", file.tell())


def _put(archive: zipfile.ZipFile, name: str, data: bytes | np.ndarray, position: int) -> None:
    """Append an entry whose bytes start at a multiple of `ALIGNMENT`, padded as PyTorch does."""
    info = zipfile.ZipInfo(f"archive/{name}")
    padding = -(position + _LOCAL_HEADER + len(info.filename) + 4) % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.ravel(data)
    info.file_size = flat.nbytes
    with archive.open(info, "w") as entry:
        entry.write(flat.view(np.uint8).data)
