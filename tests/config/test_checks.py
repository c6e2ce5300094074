"""What is refused before anything is spent, and what the refusal names."""

from contextlib import nullcontext

import pytest

from vclip_jax.config import default, small
from vclip_jax.config.checks import check_overrides, validate


def test_an_unknown_way_to_decode_is_refused_with_those_there_are():
    config = small()
    config.data.decode = "quick"
    with pytest.raises(ValueError, match=r"config\.data\.decode='quick' .* exact, fast"):
        validate(config, devices=1)


@pytest.mark.parametrize(
    ("size", "parts", "norm", "message"),
    [
        (1, 1, "global", r"global_batch_size=1 must be at least 2: a contrast needs two pairs"),
        (8, 8, "global", r"micro_batches=8: each part of .*=8 has one photograph, too few"),
        (8, 2, "device", r"micro_batches=2: .* one photograph on each device, too few"),
        (8, 4, "global", ""),
        (16, 2, "device", ""),
    ],
)
def test_every_contrast_and_every_statistic_needs_two(size, parts, norm, message):
    config = small()
    config.data.dataset = "idrid"
    config.global_batch_size, config.micro_batches, config.model.batch_norm = size, parts, norm
    devices = 4 if norm == "device" else 1
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        validate(config, devices=devices)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "ring", "'ring' must be one of softmax, softmax_ring, sigmoid, sigmoid_ring"),
        ("targets", "label", "'label' must be one of pair, caption"),
        ("label_smoothing", 1.0, r"1\.0 must be in \[0, 1\)"),
        ("label_smoothing", -0.1, r"-0\.1 must be in \[0, 1\)"),
    ],
)
def test_a_loss_that_there_is_not_is_refused_with_those_there_are(key, value, message):
    config = default()
    config.data.dataset = "idrid"
    config.loss[key] = value
    with pytest.raises(ValueError, match=rf"config\.loss\.{key}={message}"):
        validate(config, devices=1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.learning_rate", float("nan"), r"learning_rate=nan must be positive"),
        ("optimizer.warmup_steps", -5, r"warmup_steps=-5 must be at least 0"),
        ("seed", -1, r"seed=-1 must be at least 0"),
        ("optimizer.beta2", 1.0, r"beta2=1\.0 must be in \[0, 1\)"),
        ("model.vision_layers", (3, 4), r"vision_layers=\(3, 4\) must be four stages"),
        ("model.vision_layers", (3, 4, 0, 3), r"vision_layers=\(3, 4, 0, 3\) must be four stages"),
        ("mesh.rules", ("foo",), r"config\.mesh\.rules=.* must be pairs like .*; 'foo' is not one"),
        ("mesh.rules", (("(", "fsdp"),), r"'\(' is not a regular expression: missing"),
        ("optimizer.learning_rate_factors", (("a", "b"),), r"; \('a', 'b'\) is not one"),
        ("optimizer.layer_decay", 0.0, r"layer_decay=0\.0 must be in \(0, 1\]"),
        (
            "train.image",
            "lora:0",
            r"train\.image='lora:0' must be full, frozen, head, last:N or lora",
        ),
        ("train.lora_targets", "(", r"lora_targets='\(' must be a regular expression; '\(' is not"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_own_key(key, value, message):
    config = small()
    config.data.dataset = "idrid"
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = value
    with pytest.raises(ValueError, match=message):
        validate(config, devices=1)


# --- Names of keys.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("learningRate", "optimizer.learning_rate"),
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("num_train_epochs", "epochs"),
        ("max-epochs", "epochs"),
        ("optimizer.epochs", "epochs"),
        ("max_steps", "total_steps"),
        ("warmup_epochs", "optimizer.warmup_steps (steps, not epochs)"),
        ("totl_steps", "total_steps"),
        ("batch_size", "global_batch_size"),
        ("data.batch_size", "global_batch_size"),
        ("per_device_train_batch_size", "global_batch_size"),
        ("wd", "optimizer.weight_decay"),
        ("warmup", "optimizer.warmup_steps"),
        ("precision", "compute_dtype"),
        ("accum-freq", "micro_batches"),
        ("context_length", "tokenizer.context_length"),
        ("grad_checkpointing", "remat.image"),
        ("random_seed", "seed"),
        ("resume", "restore_from"),
        ("evals.fives.promts", "evals.fives.prompts"),
    ],
)
def test_names_of_other_frameworks_lead_to_the_key(written, meant):
    with pytest.raises(ValueError, match=f"config.{written}: did you mean config.") as caught:
        check_overrides([f"--config.{written}=1"])
    assert str(caught.value).endswith(f"did you mean config.{meant}?")


@pytest.mark.parametrize("written", ["foo", "optimizer.foo", "beam", "momentum", "data.zoom"])
def test_no_suggestion_is_better_than_a_wrong_one(written):
    with pytest.raises(ValueError, match=rf"unknown key config\.{written}: ") as caught:
        check_overrides([f"--config.{written}=1"])
    assert "did you mean" not in str(caught.value)


def test_layers_in_a_loop_have_no_parts_of_their_own():
    config = small()
    config.data.dataset = "idrid"
    config.scan_text_layers, config.train.text = True, "lora:4"
    with pytest.raises(ValueError, match=r"scan_text_layers=True needs layers that are all alike"):
        validate(config, devices=1)
