"""A mixture's batches are those of its seed and step, whoever reads them and from where."""

import pickle
from fractions import Fraction

import cv2
import numpy as np
import pytest

from vclip_jax.data.mixture import Joined, Mixture
from vclip_jax.data.pipeline import record_keys, train_batches
from vclip_jax.data.shares import Group
from vclip_jax.data.text.wordpiece import WordPiece

SIZE = 16
TOKENIZER = WordPiece.from_captions(["abc"])


class Source(list):
    """Records of one dataset."""

    def __init__(self, name, count, class_names=("a", "b"), digest="1234"):
        image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
        super().__init__(
            {"image": image, "caption": "abc", "key": f"k{index}", "label": index % 2}
            for index in range(count)
        )
        self.name, self.split, self.splits = name, "train", ("train",)
        self.class_names, self._digest = class_names, digest

    def digest(self):
        return self._digest


def mixture(**weights) -> Mixture:
    joined = Joined(tuple(Source(name, 10 + 7 * n) for n, name in enumerate(weights)))
    groups = [
        Group(name, joined.rows_of(number), Fraction(str(weight)))
        for number, (name, weight) in enumerate(weights.items())
    ]
    return Mixture(joined.sources, tuple(groups), tuple(weights))


SOURCE = mixture(one=3, two=1, three=0.4)


def batches(rows=None, start_step=0, count=9, **changes):
    stream = train_batches(
        SOURCE,
        TOKENIZER,
        **{"seed": 7, "global_batch_size": 8, "size": SIZE, "context_length": 8, "num_threads": 1}
        | changes,
        rows=rows,
        start_step=start_step,
    )
    taken = [next(stream) for _ in range(count)]
    stream.close()
    return taken


WHOLE = batches()


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_global_batch_is_the_same_on_any_number_of_hosts(hosts):
    share = 8 // hosts
    parts = [batches(range(host * share, (host + 1) * share)) for host in range(hosts)]
    for step, whole in enumerate(WHOLE):
        for name, array in whole.items():
            together = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(together, array)


@pytest.mark.parametrize("start", range(1, 9))
def test_a_run_that_goes_on_at_any_step_gets_the_same_batches(start):
    for batch, whole in zip(batches(start_step=start, count=9 - start), WHOLE[start:], strict=True):
        assert batch.keys() == whole.keys()
        for name in whole:
            np.testing.assert_array_equal(batch[name], whole[name])


def test_a_seed_has_an_order_of_its_own():
    assert any(
        (one["key_hash"] != other["key_hash"]).any()
        for one, other in zip(WHOLE, batches(seed=8), strict=True)
    )


def test_keys_of_a_step_name_the_dataset_and_a_worker_gets_the_same_order():
    keys = [record_keys(SOURCE, seed=7, global_batch_size=8, step=step) for step in range(100)]
    again = pickle.loads(pickle.dumps(SOURCE))
    assert keys[3] == record_keys(again, seed=7, global_batch_size=8, step=3)
    counted = dict.fromkeys(("one", "two", "three"), 0)
    for key in (key for step in keys for key in step):
        counted[key.partition("/")[0]] += 1
    assert counted == SOURCE.drawn_from(800, 7)
    assert [round(count / 800 * 4.4, 1) for count in counted.values()] == [3.0, 1.0, 0.4]


def test_the_order_of_earlier_versions_has_no_mixture():
    with pytest.raises(ValueError, match="shuffle='grain' is for one dataset as it is"):
        batches(shuffle="grain")


def test_joined_records_stand_one_source_after_another():
    joined = Joined((Source("one", 3), Source("two", 2, class_names=("a", "c"))))
    assert [record["key"] for record in joined] == [
        "one/k0",
        "one/k1",
        "one/k2",
        "two/k0",
        "two/k1",
    ]
    assert joined[-1]["key"] == "two/k1"
    with pytest.raises(IndexError):
        joined[5]
    assert (joined.name, joined.split, joined.class_names) == ("one, two", "train", ())
    alone = Joined(joined.sources[:1])
    assert (alone[0]["key"], alone.class_names, alone.digest()) == ("k0", ("a", "b"), "1234")
    assert joined.digest() not in ("", "1234")
    assert Joined((Source("one", 1), Source("two", 1, digest=""))).digest() == ""
