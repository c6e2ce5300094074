"""Order, resumption, hosts, filling, errors and the way to the device."""

import dataclasses
import threading
import time
import zlib

import cv2
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.data.choices import MODES, ORDERS
from vclip_jax.data.images import gate
from vclip_jax.data.images.augment import AUGMENTATIONS, Policy
from vclip_jax.data.images.decode import decode, decode_whole
from vclip_jax.data.images.enhance import enhance
from vclip_jax.data.images.fit import FITS
from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.pipeline import eval_batches, step_records, train_batches
from vclip_jax.data.prefetch import prefetch_to_device
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.synthetic.case import Quality
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render

SIZE = 16
CAPTIONS = ("未见异常。", "疑似青光眼。", "糖尿病视网膜病变3级。")


def records(count: int) -> list[dict]:
    made = []
    for index in range(count):
        image = np.full((20, 24, 3), 40 + index, np.uint8)
        image[index % 20, :] = 255
        png = cv2.imencode(".png", image)[1].tobytes()
        caption = CAPTIONS[index % 3]
        made.append({"image": png, "caption": caption, "key": f"k{index}", "label": index % 4})
    return made


RECORDS = records(11)
GRAIN_ORDER = [9, 3, 2, 6, 4, 0, 7, 1, 10, 5, 8, 0, 7, 1, 8, 4, 3, 2, 10, 9]
TOKENIZER = WordPiece.from_captions(CAPTIONS)


OPTIONS = {
    "seed": 7,
    "global_batch_size": 4,
    "size": SIZE,
    "augment": AUGMENTATIONS["fundus"],
    "context_length": 16,
    "num_threads": 2,
}


def batches(**changes):
    return train_batches(RECORDS, TOKENIZER, **{**OPTIONS, **changes})


def take(iterator, count: int) -> list[dict]:
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def assert_equal(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batches_have_the_promised_shapes_and_types():
    (batch,) = take(batches(), 1)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((4, SIZE, SIZE, 3), "uint8"),
        "tokens": ((4, 16), "int32"),
        "key_hash": ((4,), "uint32"),
        "caption_id": ((4,), "int32"),
    }


def joined(shares: list[list[dict]], rows: list[list[int]]) -> list[dict]:
    """Global batches of the hosts' batches, of which each has its rows."""
    order = np.argsort(np.concatenate(rows))
    return [
        {name: np.concatenate([own[name] for own in step])[order] for name in step[0]}
        for step in zip(*shares, strict=True)
    ]


@pytest.mark.parametrize(
    "rows", [[[0, 1], [2, 3]], [[0], [1], [2], [3]], [[0, 2], [1, 3]], [[1, 2], [0, 3]]]
)
def test_global_batches_do_not_depend_on_the_hosts_and_their_places(rows):
    shares = [take(batches(rows=own), 9) for own in rows]  # more than three epochs
    assert_equal(take(batches(), 9), joined(shares, rows))


@pytest.mark.parametrize("start", [1, 3, 6])
def test_resuming_continues_the_uninterrupted_stream(start):
    assert_equal(take(batches(start_step=start), 7 - start), take(batches(), 7)[start:])


def test_hosts_may_change_on_resuming():
    half = take(batches(start_step=5, rows=[1, 3]), 1)[0]
    whole = take(batches(), 6)[5]
    np.testing.assert_array_equal(half["image"], whole["image"][[1, 3]])


def test_starting_at_a_late_step_reads_only_what_it_gives():
    read = []

    class Counted(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    take(train_batches(Counted(RECORDS), TOKENIZER, **{**OPTIONS, "start_step": 10**12}), 1)
    assert len(read) < 100  # a batch and what is read ahead of it


def test_threads_do_not_change_the_stream():
    assert_equal(take(batches(num_threads=1), 5), take(batches(num_threads=4), 5))


def test_a_run_that_began_with_grains_shuffle_goes_on_with_it():
    # `GRAIN_ORDER` is what it gave for this seed before there was another.
    keys = np.concatenate([b["key_hash"] for b in take(batches(shuffle="grain"), 5)])
    names = {zlib.crc32(r["key"].encode()): index for index, r in enumerate(RECORDS)}
    assert [names[key] for key in keys] == GRAIN_ORDER
    both = [
        step_records(RECORDS, seed=7, global_batch_size=4, step=2, rows=range(4), shuffle=order)
        for order in ORDERS
    ]
    assert both[0] != both[1] == [RECORDS[i] for i in GRAIN_ORDER[8:12]]


@pytest.mark.parametrize("shuffle", ORDERS)
def test_every_epoch_has_every_record_once_in_another_order(shuffle):
    keys = np.concatenate([batch["key_hash"] for batch in take(batches(shuffle=shuffle), 11)])
    epochs = keys[:44].reshape(4, 11)
    for epoch in epochs:
        assert set(epoch) == set(epochs[0])
        assert len(set(epoch)) == 11
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_neighbouring_seeds_are_unrelated():
    # Grain by itself shuffles epoch 1 of seed 7 like epoch 0 of seed 8.
    first, second = (
        np.concatenate([b["key_hash"] for b in take(batches(seed=seed), 11)]) for seed in (7, 8)
    )
    epochs = {tuple(epoch) for keys in (first, second) for epoch in keys[:44].reshape(4, 11)}
    assert len(epochs) == 8


def test_the_same_record_is_augmented_differently_in_another_epoch():
    taken = take(batches(global_batch_size=11), 2)
    at = [int(np.argmin(batch["key_hash"])) for batch in taken]
    assert (taken[0]["image"][at[0]] != taken[1]["image"][at[1]]).any()


def test_captions_belong_to_their_images():
    expected = {
        zlib.crc32(r["key"].encode()): TOKENIZER.encode([r["caption"]], 16)[0] for r in RECORDS
    }
    for batch in take(batches(), 3):
        for key, tokens in zip(batch["key_hash"], batch["tokens"], strict=True):
            np.testing.assert_array_equal(tokens, expected[int(key)])


def test_captions_are_numbered_by_their_text():
    (batch,) = take(batches(global_batch_size=11), 1)
    ids = {zlib.crc32(r["key"].encode()): zlib.crc32(r["caption"].encode()) for r in RECORDS}
    want = np.array([ids[key] for key in batch["key_hash"]], np.uint32)
    np.testing.assert_array_equal(batch["caption_id"].view(np.uint32), want)
    assert len(set(batch["caption_id"])) == len(CAPTIONS)


@pytest.mark.slow
def test_workers_do_not_change_the_stream():
    assert_equal(take(batches(num_workers=2), 5), take(batches(), 5))


@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 2], [1, 3]]])
def test_evaluation_covers_each_record_once_on_all_hosts(rows):
    options = {"global_batch_size": 4, "size": SIZE, "num_threads": 1}
    alone = list(eval_batches(RECORDS, **options))
    shares = [list(eval_batches(RECORDS, rows=own, **options)) for own in rows]
    assert [len(share) for share in shares] == [3, 3]
    assert_equal(alone, joined(shares, rows))
    flat = {name: np.concatenate([batch[name] for batch in alone]) for name in alone[0]}
    assert flat["label"].dtype == flat["index"].dtype == np.int32
    assert flat["label"].tolist() == [index % 4 for index in range(11)] + [0]
    assert flat["index"].tolist() == [*range(11), -1]
    assert not flat["image"][11].any()


def test_a_broken_image_is_named_and_the_error_stays():
    broken = [*RECORDS[:3], {**RECORDS[3], "image": b"\xff\xd8 no", "key": "bad one"}]
    iterator = train_batches(broken, TOKENIZER, seed=0, global_batch_size=4, size=SIZE)
    for _ in range(3):
        with pytest.raises(ImageError, match="source:all bad one: cannot read"):
            next(iterator)
    iterator.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": 0}, "at least 1"),
        ({"rows": [3, 4]}, "4 rows of the global batch, counted from 0, got 3, 4"),
        ({"rows": []}, "got none"),
        ({"fit": "crop"}, "squash, pad, fundus, flair"),
        ({"decode": "quick"}, "exact, fast"),
        ({"seed": -1}, "negative"),
        ({"start_step": -1}, "negative"),
        ({"num_threads": 0}, "num_threads"),
        ({"shuffle": "random"}, "permutation, grain"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="no records"):
        eval_batches([], global_batch_size=4, size=SIZE)


def sharding() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))


def test_prefetching_keeps_order_and_ends():
    host = [{"image": np.full((2, 3), step, np.uint8)} for step in range(5)]
    with prefetch_to_device(iter(host), sharding(), depth=2) as device:
        taken = list(device)
        assert [int(batch["image"][0, 0]) for batch in taken] == list(range(5))
        assert taken[0]["image"].sharding == sharding()
        with pytest.raises(StopIteration):
            next(device)
    assert device.seconds_waited >= 0


def test_prefetching_passes_errors_on_and_keeps_them():
    def failing():
        yield {"x": np.zeros(1)}
        raise ImageError("k: broken")

    device = prefetch_to_device(failing(), sharding())
    next(device)
    for _ in range(2):
        with pytest.raises(ImageError, match="k: broken"):
            next(device)
    device.close()


def test_closing_stops_the_threads_even_when_nobody_reads():
    before = threading.active_count()
    device = prefetch_to_device(batches(), sharding(), depth=1)
    next(device)
    device.close()
    device.close()
    with pytest.raises(StopIteration):
        next(device)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_enhancement_comes_after_everything_else():
    plain, enhanced = (next(batches(enhance=flag)) for flag in (False, True))
    want = np.stack([enhance(image) for image in plain["image"]])
    np.testing.assert_array_equal(enhanced["image"], want)
    np.testing.assert_array_equal(enhanced["key_hash"], plain["key_hash"])


def jpeg_records(side: int, count: int = 4) -> list[dict]:
    made = []
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST)
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        made.append({"image": data, "caption": CAPTIONS[0], "key": f"k{index}", "label": 0})
    return made


@pytest.mark.parametrize("mode", MODES)
def test_images_are_decoded_as_asked(mode):
    made = jpeg_records(96)
    want = {zlib.crc32(r["key"].encode()): decode(r["image"], SIZE, "squash", mode) for r in made}
    options = {"global_batch_size": 4, "size": SIZE, "decode": mode}
    (batch,) = take(train_batches(made, TOKENIZER, seed=0, **options), 1)
    for image, key in zip(batch["image"], batch["key_hash"], strict=True):
        np.testing.assert_array_equal(image, want[int(key)])
    # Evaluation decodes in full, as all that answers does.
    whole = [decode_whole(record["image"], SIZE, "squash", mode) for record in made]
    (batch,) = take(eval_batches(made, **options), 1)
    np.testing.assert_array_equal(batch["image"], np.stack(whole))


def test_a_gated_batch_says_why_each_photograph_is_refused_and_is_the_same_otherwise():
    made = [*jpeg_records(96)[:3]]
    case = dataclasses.replace(sample_case("fives_like", 4, 0), quality=Quality())
    _, code = cv2.imencode(".png", cv2.cvtColor(render(case, 160), cv2.COLOR_RGB2BGR))
    made[1] = {**made[1], "image": code.tobytes()}
    options = {"global_batch_size": 4, "size": SIZE, "enhance": True}
    (plain,) = take(eval_batches(made, **options), 1)
    (batch,) = take(eval_batches(made, gate=True, **options), 1)
    assert [gate.of_bits(bits) for bits in batch["gate"].tolist()] == [
        (gate.NOT_FUNDUS,),
        (),
        (gate.NOT_FUNDUS,),
        (),  # filling
    ]
    assert_equal([plain], [{k: v for k, v in batch.items() if k != "gate"}])


def test_fast_crops_lose_no_resolution():
    options = {"seed": 0, "global_batch_size": 4, "size": 32, "augment": Policy(min_crop=0.5)}
    detail = {}
    for mode in MODES:
        (batch,) = take(train_batches(jpeg_records(128), TOKENIZER, decode=mode, **options), 1)
        detail[mode] = np.abs(np.diff(batch["image"].astype(int), axis=2)).mean()
    assert detail["fast"] > 1.2 * detail["exact"]


@pytest.mark.parametrize("policy", [AUGMENTATIONS["fundus"], "chinese_clip"])
@pytest.mark.parametrize("fit", FITS)
def test_fast_augmentation_is_a_function_of_seed_and_step(policy, fit):
    made = jpeg_records(96)
    options = {"seed": 1, "global_batch_size": 4, "size": SIZE, "fit": fit, "decode": "fast"}
    first, again = (
        take(train_batches(made, TOKENIZER, augment=policy, **options), 2) for _ in range(2)
    )
    assert_equal(first, again)
    assert first[0]["image"].shape == (4, SIZE, SIZE, 3)


def test_the_references_augmentation_is_a_function_of_seed_and_step():
    first, again = (batches(augment="chinese_clip") for _ in range(2))
    for _ in range(3):
        one, other = next(first), next(again)
        assert one["image"].shape[1:] == (SIZE, SIZE, 3)
        np.testing.assert_array_equal(one["image"], other["image"])
    resumed = batches(augment="chinese_clip", start_step=2)
    np.testing.assert_array_equal(next(resumed)["image"], one["image"])
