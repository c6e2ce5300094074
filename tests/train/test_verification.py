"""What is kept beside a checkpoint's arrays, and why one cannot be read; see `test_checkpoint.py`
for checkpoints that are damaged."""

import json

import jax.numpy as jnp
import optax

from vclip_jax.train.state import TrainState
from vclip_jax.train.verification import reason_of, sealed, small_arrays


def test_of_a_long_story_the_systems_words_are_told():
    told = 'RESOURCE_EXHAUSTED: Error writing "a/0": Failed to write 9 bytes to file 10: No space'
    error = ValueError(f"{told} left on device [os_error_code='28']")
    assert reason_of(error) == "No space left on device"
    assert reason_of(OSError("first\nlast")) == "last"


def test_a_seal_is_of_every_array_and_of_what_is_kept_beside_them():
    def seal(bias: float, step: int) -> dict:
        params = {"bias": jnp.float32(bias), "kernel": jnp.ones((2, 3))}
        state = TrainState(jnp.int32(1), params, {}, optax.EmptyState())
        return sealed(state, {"step": step})

    found = seal(0.5, 1)
    assert json.loads(json.dumps(found)) == found == seal(0.5, 1)
    assert found["step"] == 1
    kernel = found["arrays"]["params/kernel"]
    assert (kernel["shape"], kernel["dtype"]) == ([2, 3], "float32")
    for other in (seal(0.25, 1), seal(0.5, 2)):
        assert other["digest"] != found["digest"]


def test_so_many_small_arrays_are_read_back():
    tree = {
        "a": {"x": jnp.zeros(2)},
        "large": jnp.zeros(2**18),
        "b": jnp.zeros(3),
        "c": jnp.ones(1),
    }
    found = small_arrays(tree, 2)
    assert found.keys() == {"a", "b"}
    assert (found["a"]["x"].shape, found["b"].shape) == ((2,), (3,))
