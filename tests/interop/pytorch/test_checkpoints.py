"""Checkpoints of PyTorch: what is read and written, and above all what is refused."""

import collections
import contextlib
import mmap
import os
import pickle
import pickletools
import random
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.pytorch.pickles import (
    Call,
    Global,
    Persistent,
    RefusedPickleError,
    dumps,
    loads,
)

HOOKS = Call("collections.OrderedDict", ())


def tensor(size, stride, offset=0, *, storage="FloatStorage", key="0", numel=6) -> Call:
    identity = ("storage", Global(f"torch.{storage}", None), key, "cpu", numel)
    return Call(
        "torch._utils._rebuild_tensor_v2",
        (Persistent(identity), offset, size, stride, False, HOOKS),
    )


SIX = np.arange(6, dtype=np.float32)


# --- What is written is read.


@pytest.mark.parametrize("dtype", checkpoints.STORAGES.values(), ids=str)
def test_arrays_of_every_type_come_back(tmp_path, dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, (3, 5)).astype(dtype)
    checkpoints.write(tmp_path / "a.pt", {"a": array})
    read = checkpoints.read(tmp_path / "a.pt")["a"]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


def test_plain_data_comes_back(tmp_path):
    content = {
        "epoch": 3,
        "step": 2**40,
        "name": "眼底",
        "none": None,
        "flags": [True, False, -1],
        "betas": (0.9, 0.999),
        "empty": [{}, [], ()],
        "nested": {"lr": {0: 1e-3}},
    }
    checkpoints.write(tmp_path / "a.pt", content)
    assert checkpoints.read(tmp_path / "a.pt") == content


def test_scalars_and_empty_and_permuted_arrays_come_back(tmp_path):
    arrays = {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "permuted": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    }
    checkpoints.write(tmp_path / "a.pt", arrays)
    read = checkpoints.read(tmp_path / "a.pt")
    for name, array in arrays.items():
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


def test_tensors_are_read_only_views_of_the_file(tmp_path):
    checkpoints.write(tmp_path / "a.pt", {"a": SIX})
    read = checkpoints.read(tmp_path / "a.pt")["a"]
    assert not read.flags.writeable
    while hasattr(read, "base"):
        read = read.base
    assert isinstance(read, mmap.mmap)


def test_a_file_depends_on_its_content_alone_and_its_entries_are_aligned(tmp_path):
    content = {"a": SIX, "b": np.arange(3), "c": np.zeros((), np.int64)}
    checkpoints.write(tmp_path / "a.pt", content)
    checkpoints.write(tmp_path / "b.pt", content)
    data = (tmp_path / "a.pt").read_bytes()
    assert data == (tmp_path / "b.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            start = info.header_offset + 30 + len(info.filename) + len(info.extra)
            assert start % 64 == 0
            assert data[start:][: info.file_size] == archive.read(info)
    assert data.index(SIX.tobytes()) % 64 == 0


def test_a_failed_write_leaves_the_old_file(tmp_path):
    checkpoints.write(tmp_path / "a.pt", {"a": 1})
    for content in ({"a": object()}, {"a": np.array(["x"])}, {"a": np.float64(1)}):
        with pytest.raises(ValueError, match=r"cannot write|no storage"):
            checkpoints.write(tmp_path / "a.pt", content)
    assert checkpoints.read(tmp_path / "a.pt") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


# --- Files of others.


def test_strides_offsets_and_shared_storages_are_honoured(zip_of):
    content = {
        "transposed": tensor((3, 2), (1, 3)),
        "every_second": tensor((3,), (2,), 1),
        "expanded": tensor((4, 3), (0, 1)),
        "length_one": tensor((1, 2), (10**30, 3)),
        "scalar": tensor((), (), 5),
    }
    read = checkpoints.read(zip_of(dumps(content), {"0": SIX.tobytes()}))
    np.testing.assert_array_equal(read["transposed"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(read["every_second"], [1, 3, 5])
    np.testing.assert_array_equal(read["expanded"], np.tile(SIX[:3], (4, 1)))
    np.testing.assert_array_equal(read["length_one"], [[0, 3]])
    assert read["scalar"] == 5


def test_compressed_entries_are_read(zip_of):
    path = zip_of(dumps([tensor((6,), (1,))]), {"0": SIX.tobytes()}, zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(checkpoints.read(path)[0], SIX)


def test_half_precision_and_other_locations_are_read(zip_of):
    identity = ("storage", Global("torch.cuda.HalfStorage", None), "0", "cuda:3", 6)
    call = tensor((6,), (1,))
    call = Call(call.name, (Persistent(identity), *call.arguments[1:]))
    read = checkpoints.read(zip_of(dumps(call), {"0": SIX.astype(np.float16).tobytes()}))
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, SIX)


def test_brain_floats_are_read(zip_of):
    data = SIX.astype(ml_dtypes.bfloat16).tobytes()
    read = checkpoints.read(
        zip_of(dumps(tensor((6,), (1,), storage="BFloat16Storage")), {"0": data})
    )
    np.testing.assert_array_equal(read.astype(np.float32), SIX)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_plain_data_is_read(zip_of, protocol):
    content = {
        "a": [1, -2, 2**70, 0.5, None, True, "眼", "x" * 300],
        "b": ({"c": ()}, (1,), (1, 2, 3)),
        "o": collections.OrderedDict([("z", 1), ("a", 2)]),
        "deep": [[[[]]], {}],
    }
    read = checkpoints.read(zip_of(pickle.dumps(content, protocol)))
    assert read == content
    assert list(read["o"]) == ["z", "a"]


def test_state_dicts_attributes_and_numpys_scalars_are_read(zip_of):
    """Both are in what Chinese-CLIP's training saves: `_metadata`, and `lr` after the warm-up."""
    state = collections.OrderedDict(weight=1)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    content = {"state_dict": state, "optimizer": {"lr": np.float64(2.5e-4), "n": np.int32(7)}}
    read = checkpoints.read(zip_of(pickle.dumps(content, 2)))
    assert read == {"state_dict": {"weight": 1}, "optimizer": {"lr": 2.5e-4, "n": 7}}
    assert type(read["optimizer"]["lr"]) is float


# --- What is refused: code.


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil_pickles(proof: Path) -> dict[str, bytes]:
    touch = f"touch {proof}"
    code = f"open({str(proof)!r}, 'w')"
    ordered = collections.OrderedDict(a=1)
    ordered.attribute = Evil(eval, code)
    return {
        "os.system": pickle.dumps(Evil(os.system, touch), 2),
        "protocol 0": pickle.dumps(Evil(os.system, touch), 0),
        "protocol 4": pickle.dumps(Evil(os.system, touch), 4),
        "eval": pickle.dumps({"state_dict": {"a": Evil(eval, code)}}, 2),
        "in a tuple of a list": pickle.dumps([({"a": [Evil(exec, code)]},)], 2),
        "as a key": pickle.dumps({Evil(eval, code): 1}, 2),
        "in attributes": pickle.dumps(ordered, 2),
        "in a tensor's arguments": dumps(
            Call("torch._utils._rebuild_tensor_v2", (Call("os.system", (touch,)), 0, (), ()))
        ),
        "in a persistent id": dumps(
            Persistent(("storage", Call("builtins.eval", (code,)), "0", "cpu", 1))
        ),
        "torch's own loader": dumps(Call("torch.storage._load_from_bytes", ("x",))),
        "getattr": dumps(Call("builtins.getattr", ("os", "system"))),
        "inst": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85\x81.",
        "ext": b"\x80\x02\x82\x01.",
        "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x10OrderedDict.copy\x93.",
        "numpy's objects": dumps(Call("numpy.dtype", ("O8", False, True))),
    }


@pytest.mark.parametrize("kind", evil_pickles(Path("x")))
def test_code_is_refused_and_not_run(tmp_path, zip_of, kind):
    proof = tmp_path / "proof"
    path = zip_of(evil_pickles(proof)[kind])
    with pytest.raises(ValueError, match="its pickle") as caught:
        checkpoints.read(path)
    assert not proof.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_refused_name_is_in_the_error(zip_of):
    with pytest.raises(ValueError, match=r"made\.pt: its pickle names '(posix|nt)\.system'"):
        checkpoints.read(zip_of(pickle.dumps(Evil(os.system, "true"), 2)))


@pytest.mark.parametrize(
    "pickled",
    [
        # A storage's type is no function; attributes of tensors and types cannot be set; a list is
        # no dictionary; a number is no function.
        dumps(Call("torch.FloatStorage", (1,))),
        dumps(Call("numpy.dtype", ("f8",)))[:-1] + b"(K\x03X\x01\x00\x00\x00>tb.",
        dumps([1])[:-1] + b"}b.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02K\x01)R.",
        dumps(Call("_codecs.encode", ("x", "rot13"))),
        dumps(Call("numpy.core.multiarray.scalar", (1, "x"))),
    ],
)
def test_misuse_of_what_is_known_is_refused(zip_of, pickled):
    with pytest.raises(ValueError, match="its pickle"):
        checkpoints.read(zip_of(pickled))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in the random bytes
def test_damaged_pickles_are_refused_by_one_kind_of_error():
    """Whatever bytes change, there is a value or `RefusedPickleError`."""
    good = pickletools.optimize(dumps({"a": [1, 2.5, "x", None, (1, 2)], "b": HOOKS}))
    known = {"collections.OrderedDict": dict}
    rng = random.Random(0)
    for length in range(len(good)):
        with pytest.raises(RefusedPickleError):
            loads(good[:length], known, lambda identity: identity, 100)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        with contextlib.suppress(RefusedPickleError):
            loads(bytes(bad), known, lambda identity: identity, 100)


# --- What is refused: broken and foreign files.


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (3, 2), 0),
        ((2,), (10**30,), 0),
        ((1,), (1,), 6),
        ((1,), (1,), -1),
        ((2,), (-1,), 3),
        ((-2,), (1,), 0),
        ((2, 3), (3,), 0),
        ((2.0,), (1,), 0),
        ([2], [1], 0),
        ((0, 10**30), (1, 1), 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(zip_of, size, stride, offset):
    path = zip_of(dumps(tensor(size, stride, offset)), {"0": SIX.tobytes()})
    with pytest.raises(ValueError, match=r"made\.pt: (a tensor|its pickle is damaged)"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (tensor((6,), (1,), numel=7), "has 24 bytes, not 7 x 4"),
        (tensor((6,), (1,), numel=-6), "unknown kind"),
        (tensor((6,), (1,), numel=10**30), "has 24 bytes"),
        (tensor((6,), (1,), storage="DoubleStorage"), "has 24 bytes, not 6 x 8"),
        (tensor((6,), (1,), key="1"), "'1' is missing"),
        (tensor((6,), (1,), key="../data.pkl"), "is missing"),
        (tensor((6,), (1,), storage="UntypedStorage"), "names 'torch.UntypedStorage'"),
        (Persistent(("module", "x")), "unknown kind"),
    ],
)
def test_wrong_storages_are_refused(zip_of, call, message):
    with pytest.raises(ValueError, match=message):
        checkpoints.read(zip_of(dumps(call), {"0": SIX.tobytes()}))


def test_truncated_files_are_refused(tmp_path):
    checkpoints.write(tmp_path / "a.pt", {"a": np.arange(1000)})
    data = (tmp_path / "a.pt").read_bytes()
    for length in (10, 100, len(data) // 2, len(data) - 10):
        (tmp_path / "b.pt").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"b\.pt.*(truncated or damaged|no zip)"):
            checkpoints.read(tmp_path / "b.pt")


def test_an_entry_that_points_out_of_the_file_is_refused(tmp_path):
    checkpoints.write(tmp_path / "a.pt", {"a": SIX})
    data = bytearray((tmp_path / "a.pt").read_bytes())
    # The directory's record of data/0: its sizes, then where its header should be.
    record = data.rindex(b"archive/data/0") - 46
    far = data.copy()
    far[record + 20 : record + 28] = (10**6).to_bytes(4, "little") * 2
    elsewhere = data.copy()
    elsewhere[record + 42 : record + 46] = (len(data) - 8).to_bytes(4, "little")
    for bad in (far, elsewhere):
        (tmp_path / "a.pt").write_bytes(bad)
        with pytest.raises(ValueError, match="outside the file"):
            checkpoints.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.rest", "before 1.6.*weights_only=True"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        (b"", "not a PyTorch checkpoint"),
        (b"GIF89a", "not a PyTorch checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        checkpoints.read(tmp_path / "a.pt")


def test_other_zips_are_refused(tmp_path, zip_of):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ValueError, match="should have one NAME"):
        checkpoints.read(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="TorchScript"):
        checkpoints.read(zip_of(dumps(1), **{"constants.pkl": b""}))
    with pytest.raises(ValueError, match="big-endian"):
        checkpoints.read(zip_of(dumps(1), byteorder=b"big"))


def test_damaged_bytes_never_end_otherwise_than_in_a_value_error(tmp_path):
    checkpoints.write(tmp_path / "a.pt", {"a": SIX, "b": [np.arange(4), 1.5]})
    good = (tmp_path / "a.pt").read_bytes()
    rng = random.Random(0)
    for _ in range(400):
        bad = bytearray(good)
        for position in rng.sample(range(len(good)), 4):
            bad[position] = rng.randrange(256)
        (tmp_path / "b.pt").write_bytes(bad)
        with contextlib.suppress(ValueError):
            checkpoints.read(tmp_path / "b.pt")


# --- Little that makes much.


def twice(levels: int) -> bytes:
    """A tuple that holds a tuple twice, and so on: a hash or a text of it takes 2**levels steps."""
    step = pickle.BINPUT + b"\0" + pickle.BINGET + b"\0" + pickle.TUPLE2
    return pickle.PROTO + b"\x02" + pickle.NONE + step * levels


@pytest.mark.parametrize(
    "pickled",
    [
        b"}" + twice(100)[2:] + b"Ns.",
        b"}(" + twice(100)[2:] + b"Nu.",
        b"(" + twice(100)[2:] + b"Nd.",
        b"\x8f(" + twice(100)[2:] + b"\x90.",
        b"(" + twice(100)[2:] + b"\x91.",
        twice(100)[2:] + b"Q.",
        b"}((" + twice(100)[2:] + b"ttNs.",
    ],
)
def test_a_tuple_of_tuples_takes_no_time_that_doubles(zip_of, pickled):
    with pytest.raises(ValueError, match="its pickle has") as caught:
        checkpoints.read(zip_of(pickle.PROTO + b"\x04" + pickled))
    assert len(str(caught.value)) < 500


def test_keys_of_numbers_texts_and_tuples_of_them_are_read(zip_of):
    content = {(0, "a"): 1, "b": {2: 3.0}, None: {(): 4}}
    assert checkpoints.read(zip_of(pickle.dumps(content, 2))) == content


def test_calls_do_not_copy_a_little_again_and_again(zip_of):
    size = b"ctorch\nSize\n"
    many = b"]q\0(" + b"K\1" * 100_000 + b"e"
    copies = (size + b"h\0\x85R") * 10_000  # 8 GB of tuples
    with pytest.raises(ValueError, match="copies more data than"):
        checkpoints.read(zip_of(pickle.PROTO + b"\x02" + many + copies + b"."))


def test_a_storage_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", dumps({"a": tensor((6,), (1,))}))
        with archive.open("archive/data/0", "w") as entry:
            for _ in range(200):
                entry.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=r"it unpacks to 2.* bytes, more than 50 times"):
        checkpoints.read(path)


def test_a_packed_storage_is_unpacked_once(zip_of):
    found = checkpoints.read(
        zip_of(
            dumps([tensor((6,), (1,)) for _ in range(3)]),
            {"0": SIX.tobytes()},
            compression=zipfile.ZIP_DEFLATED,
        )
    )
    assert all(np.shares_memory(found[0], other) for other in found[1:])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        checkpoints.read(tmp_path / "a.pt")


def test_the_opcodes_are_bounded_by_what_the_storages_need(zip_of, monkeypatch):
    monkeypatch.setattr(checkpoints, "OPCODES_BESIDE", 100)
    endless = pickle.PROTO + b"\x02]q\0" + b"h\0Na" * 500 + b"."
    with pytest.raises(ValueError, match=r"its pickle has more than 200 opcodes, as no weights do"):
        checkpoints.read(zip_of(endless))
    assert len(checkpoints.read(zip_of(endless, {str(key): b"" for key in range(20)}))) == 500
    monkeypatch.setattr(checkpoints, "MOST_OPCODES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 opcodes"):
        checkpoints.read(zip_of(endless, {str(key): b"" for key in range(20)}))


def test_an_optimizers_state_takes_less_than_half_of_the_opcodes_that_it_may(tmp_path):
    moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    content = {
        "state_dict": {f"module.block.{i}.weight": np.zeros((1, 2, 3, 4), "f4") for i in range(30)},
        "optimizer": {i: dict.fromkeys(moments, np.zeros((1, 2, 3, 4), "f4")) for i in range(30)},
    }
    checkpoints.write(tmp_path / "a.pt", content)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        opcodes = sum(1 for _ in pickletools.genops(archive.read("archive/data.pkl")))
    assert 2 * opcodes < checkpoints.OPCODES_PER_STORAGE * 120
