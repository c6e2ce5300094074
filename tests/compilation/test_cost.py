"""Costs of short programs whose answers were worked out by hand.

v5e: 1.5e9 cycles and 737e9 bytes a second.
"""

import numpy as np
import pytest

from vclip_jax.compilation.cost import Traffic, cost_of, ms_by_scope, scope_of
from vclip_jax.devices.chips import chip_named

V5E, H100 = chip_named("v5e"), chip_named("h100")


def entry(*lines: str, before: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule jit_f\n\n{before}\nENTRY %main (p: f32[]) -> f32[] {{\n{body}\n}}\n"


def test_bytes_are_those_of_operands_and_result():
    program = entry(
        "%a = f32[1000,256]{1,0} parameter(0)",
        "%b = bf16[1000,256]{1,0} parameter(1)",
        "ROOT %c = f32[1000,256]{1,0} fusion(%a, %b), kind=kLoop, calls=%x",
    )
    cost = cost_of(program, V5E)
    assert cost.hbm_bytes == 256_000 * (4 + 2 + 4)
    assert cost.predicted_ms == pytest.approx(1e3 * cost.hbm_bytes / 737e9, rel=1e-12)
    assert (cost.estimated_cycles, cost.flops, cost.collectives, cost.notes) == (0, 0, {}, ())


def test_layouts_pad_to_their_first_tile():
    # Axis 0 varies fastest, and so is padded to 128, axis 1 to 8; what has one axis to 256.
    program = entry(
        "%a = bf16[130,9]{0,1:T(8,128)(2,1)} parameter(0)",
        "%b = pred[] parameter(1)",
        "ROOT %c = bf16[7]{0:T(256)} custom-call(%a, %b)",
    )
    assert cost_of(program, V5E).hbm_bytes == 256 * 16 * 2 + 1 + 256 * 2


def test_what_lies_on_the_chip_is_free():
    program = entry(
        "%a = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)",
        "ROOT %c = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}) fusion(%a, %a)",
    )
    assert cost_of(program, V5E).hbm_bytes == 8 * 128 * 4


def test_names_of_values_take_no_time():
    program = entry(
        "%a = (f32[8,128]{1,0}, f32[8,128]{1,0}) parameter(0)",
        "%b = f32[8,128]{1,0} get-tuple-element(%a), index=0",
        "%c = f32[1024]{0} bitcast(%b)",
        "ROOT %d = (f32[1024]{0}) tuple(%c)",
    )
    assert cost_of(program, V5E).kernels == ()


PRODUCT = """
%product (x: bf16[512,256], y: bf16[256,128]) -> f32[512,128] {
  %x = bf16[512,256]{1,0:T(8,128)(2,1)} parameter(0)
  %y = bf16[256,128]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %z = f32[512,128]{1,0:T(8,128)} convolution(%x, %y), dim_labels=bf_io->bf
}
"""


@pytest.mark.parametrize("cycles", [100, 90_000])
def test_a_product_takes_its_cycles_or_its_bytes_whichever_is_longer(cycles):
    program = entry(
        "%a = bf16[512,256]{1,0:T(8,128)(2,1)} parameter(0)",
        "%b = bf16[256,128]{1,0:T(8,128)(2,1)} parameter(1)",
        "ROOT %c = f32[512,128]{1,0:T(8,128)} fusion(%a, %b), kind=kOutput, calls=%product, "
        f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}",'
        '"cost_model_type":"COST_MODEL_TYPE_CLASSIC"}}',
        before=PRODUCT,
    )
    size = 2 * 512 * 256 + 2 * 256 * 128 + 4 * 512 * 128
    cost = cost_of(program, V5E)
    assert cost.predicted_ms == pytest.approx(1e3 * max(cycles / 1.5e9, size / 737e9), rel=1e-12)
    assert cost.flops == 2 * 512 * 256 * 128
    assert cost.estimated_cycles == cycles


def test_cycles_of_other_fusions_are_told_but_take_no_time():
    program = entry(
        "%a = f32[8,128]{1,0:T(8,128)} parameter(0)",
        "ROOT %c = f32[8,128]{1,0:T(8,128)} fusion(%a), kind=kLoop, calls=%x, "
        'backend_config={"window_config":{"estimated_cycles":"90000",'
        '"cost_model_type":"COST_MODEL_TYPE_INVALID"}}',
    )
    cost = cost_of(program, V5E)
    assert cost.estimated_cycles == 90_000
    assert cost.predicted_ms == pytest.approx(1e3 * 2 * 4096 / 737e9, rel=1e-12)


def test_without_estimated_cycles_a_product_takes_its_operations_over_the_peak():
    program = entry(
        "%a = bf16[4096,4096]{1,0} parameter(0)",
        "ROOT %c = bf16[4096,4096]{1,0} dot(%a, %a), lhs_contracting_dims={1}, "
        "rhs_contracting_dims={0}",
    )
    assert cost_of(program, H100).predicted_ms == pytest.approx(1e3 * 2 * 4096**3 / 989e12)


# --- loops ---------------------------------------------------------------------------------------

LOOP = """
%inner_body (p: (s32[], f32[3,1024])) -> (s32[], f32[3,1024]) {
  %p = (s32[], f32[3,1024]{1,0}) parameter(0)
  %stack = f32[3,1024]{1,0} get-tuple-element(%p), index=1
  %whole = f32[5,1024]{1,0} constant({...})
  ROOT %work = f32[1024]{0} fusion(%stack, %whole), kind=kLoop, calls=%x
}
%inner_condition (p: (s32[], f32[3,1024])) -> pred[] {
  %p = (s32[], f32[3,1024]{1,0}) parameter(0)
  %one = s32[] constant(1)
  %bound = s32[] constant(3)
  ROOT %less = pred[] compare(%bound, %one), direction=LT
}
%outer_body (p: (s32[], f32[3,1024])) -> (s32[], f32[3,1024]) {
  %p = (s32[], f32[3,1024]{1,0}) parameter(0)
  ROOT %again = (s32[], f32[3,1024]{1,0}) while(%p), condition=%inner_condition, body=%inner_body
}
"""
INNER = 4 * (1024 + 5 * 1024 + 1024)
"""Bytes of a trip: the stack's slice, a whole array, the result."""


def test_loops_multiply_and_read_a_slice_of_what_has_a_row_for_each_trip():
    program = entry(
        "%p = (s32[], f32[3,1024]{1,0}) parameter(0)",
        "ROOT %loop = (s32[], f32[3,1024]{1,0}) while(%p), condition=%none, body=%outer_body, "
        'backend_config={"known_trip_count":{"n":"7"}}',
        before=LOOP,
    )
    cost = cost_of(program, V5E)
    assert [(kernel.name, kernel.runs) for kernel in cost.kernels] == [("work", 21)]
    assert cost.hbm_bytes == 21 * INNER
    assert cost.notes == ()


def test_a_loop_of_unknown_trips_counts_once_and_is_reported():
    program = entry(
        "%p = (s32[], f32[3,1024]{1,0}) parameter(0)",
        "ROOT %loop = (s32[], f32[3,1024]{1,0}) while(%p), condition=%none, body=%outer_body",
        before=LOOP,
    )
    cost = cost_of(program, V5E)
    assert cost.hbm_bytes == 3 * INNER
    assert cost.notes == ("loop: unknown number of trips, counted once",)


def test_branches_of_a_tpu_are_reported_and_calls_of_a_gpu_are_followed():
    program = entry(
        "%a = f32[256]{0} parameter(0)",
        "ROOT %c = f32[256]{0} call(%a), to_apply=%inner_body",
        before=LOOP,
    )
    assert cost_of(program, V5E).notes == ("c: a call, not counted",)
    assert cost_of(program, H100).hbm_bytes == 4 * (3 + 5 + 1) * 1024


# --- collectives ---------------------------------------------------------------------------------


def test_collectives_count_once_by_kind_with_the_bytes_of_their_results():
    program = entry(
        "%a = f32[64]{0} parameter(0)",
        "%r = f32[64]{0:T(256)} all-reduce(%a), channel_id=1",
        "%s = (f32[64]{0}, bf16[8]{0}) all-reduce-start(%a, %a), channel_id=1",
        "%sd = (f32[64]{0}, bf16[8]{0}) all-reduce-done(%s)",
        "%g = (f32[64]{0}, f32[256]{0}) all-gather-start(%a), channel_id=1",
        "%gd = f32[256]{0} all-gather-done(%g)",
        "%p = (f32[64]{0}, f32[64]{0}, u32[], u32[]) collective-permute-start(%a)",
        "%x = f32[4,16]{1,0} all-to-all(%a)",
        "%n = (f32[64]{0}, u32[], token[]) send(%a), channel_id=2",
        "ROOT %f = f32[16]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1",
        before="%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {\n"
        "  %p = f32[64]{0} parameter(0)\n"
        "  %r = f32[64]{0} all-reduce(%p)\n"
        "  ROOT %d = f32[16]{0} dynamic-slice(%r)\n}\n",
    )
    assert cost_of(program, V5E).collectives == {
        "all-reduce": Traffic(2, 256 + 256 + 16),
        "all-gather": Traffic(1, 1024),
        "collective-permute": Traffic(1, 256),
        "all-to-all": Traffic(1, 256),
        "send": Traffic(1, 256),
        "reduce-scatter": Traffic(1, 64),
    }


def test_a_collective_that_goes_on_beside_several_fusions_counts_once():
    step = (
        "%step{0} (p: f32[64]) -> f32[256] {{\n"
        "  %p = f32[64]{{0}} parameter(0)\n"
        '  ROOT %g{0} = f32[256]{{0}} all-gather(%p), channel_id=9, chain_id="{1}"\n}}\n'
    )
    program = entry(
        "%a = f32[64]{0} parameter(0)",
        "%f0 = f32[256]{0} fusion(%a), kind=kCustom, calls=%step0",
        "%f1 = f32[256]{0} fusion(%a), kind=kCustom, calls=%step1",
        "ROOT %f2 = f32[256]{0} fusion(%a), kind=kCustom, calls=%step2",
        before=step.format(0, 0) + step.format(1, 0) + step.format(2, 1),
    )
    assert cost_of(program, V5E).collectives == {"all-gather": Traffic(2, 2048)}


def test_what_runs_beside_the_rest_takes_no_time():
    program = entry(
        "%a = f32[1024]{0} parameter(0)",
        "%s = (f32[1024]{0}, f32[1024]{0}, u32[]) copy-start(%a)",
        "ROOT %d = f32[1024]{0} copy-done(%s)",
    )
    assert cost_of(program, V5E).predicted_ms == 0


# --- operations ----------------------------------------------------------------------------------


def convolution(image, kernel, result, attributes: str, target: str = "") -> float:
    shapes = [f"bf16[{','.join(map(str, dims))}]{{0}}" for dims in (image, kernel, result)]
    opcode = "custom-call" if target else "convolution"
    target = f', custom_call_target="{target}"' if target else ""
    program = entry(
        f"%a = {shapes[0]} parameter(0)",
        f"%b = {shapes[1]} parameter(1)",
        f"ROOT %c = {shapes[2]} {opcode}(%a, %b), {attributes}{target}",
    )
    return cost_of(program, V5E).flops


def meeting_positions(image: int, kernel: int, result: int, stride: int, pad: int) -> int:
    places = stride * np.arange(result)[:, None] + np.arange(kernel) - pad
    return int(((places >= 0) & (places < image)).sum())


def test_a_convolution_counts_what_is_inside_the_image():
    got = convolution(
        (2, 9, 9, 3),
        (3, 3, 3, 16),
        (2, 5, 5, 16),
        "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
    )
    assert got == 2 * 2 * 3 * 16 * meeting_positions(9, 3, 5, 2, 1) ** 2


def test_the_gradient_of_an_image_counts_what_the_convolution_does():
    # Of stride 2: zeros between the incoming gradient's pixels are not multiplied.
    got = convolution(
        (2, 5, 5, 16),
        (3, 3, 3, 16),
        (2, 9, 9, 3),
        "window={size=3x3 pad=1_1x1_1 lhs_dilate=2x2 rhs_reversal=1x1}, dim_labels=b01f_01oi->b01f",
    )
    assert got == 2 * 2 * 3 * 16 * meeting_positions(9, 3, 5, 2, 1) ** 2


def test_the_gradient_of_a_kernel_counts_what_the_convolution_does():
    # Channels of the image are the batch, and the incoming gradient is a widely spaced kernel.
    got = convolution(
        (2, 9, 9, 3),
        (2, 5, 5, 16),
        (3, 3, 3, 16),
        "window={size=5x5 pad=1_1x1_1 rhs_dilate=2x2}, dim_labels=f01b_i01o->01bf",
    )
    assert got == 2 * 2 * 3 * 16 * meeting_positions(9, 3, 5, 2, 1) ** 2


def test_a_product_of_many_matrices_is_a_convolution_that_meets_itself_only():
    # How a TPU's compiler writes [4, 8, 16] x [4, 16, 32].
    got = convolution(
        (4, 8, 16),
        (4, 16, 32),
        (4, 8, 32),
        "window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf",
    )
    assert got == 2 * 4 * 8 * 16 * 32


@pytest.mark.parametrize(
    ("shapes", "target"),
    [
        (((2, 9, 9, 3), (16, 3, 3, 3), (2, 5, 5, 16)), "__cudnn$convForward"),
        (((2, 5, 5, 16), (16, 3, 3, 3), (2, 9, 9, 3)), "__cudnn$convBackwardInput"),
        (((2, 9, 9, 3), (2, 5, 5, 16), (16, 3, 3, 3)), "__cudnn$convBackwardFilter"),
    ],
)
def test_cudnn_gradients_carry_the_labels_of_their_convolution(shapes, target):
    got = convolution(
        *shapes,
        "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f",
        target,
    )
    assert got == 2 * 2 * 3 * 16 * meeting_positions(9, 3, 5, 2, 1) ** 2


# --- scopes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_name", "scope"),
    [
        ("jit(f)/visual/layer1/dot_general", "visual/layer1"),
        ("jit(f)/jvp(visual)/layer1/while/body/closed_call/blk/jit(relu)/max", "visual/layer1/blk"),
        ("jit(f)/transpose(jvp(visual))/layer1/dot_general", "visual/layer1"),
        ("jit(f)/jvp(bert)/checkpoint/rematted_computation/bqhd,bkhd->bhqk/dot_general", "bert"),
        ("jit(f)/shard_map/loss/reduce_sum;jit(f)/add", "loss"),
        # From programs of jax 0.10.2, where a block is rematerialised, and a tower in a loop.
        (
            "jit(f)/shard_map/transpose(jvp(visual))/layer1/jvp(visual)/layer1/checkpoint/"
            "rematted_computation/block/dot_general",
            "visual/layer1/block",
        ),
        (
            "jit(f)/transpose(jvp())/while/body/closed_call/checkpoint/visual/layer1/checkpoint/"
            "rematted_computation/block/dot_general",
            "visual/layer1/block",
        ),
        ("jit(f)/step/jvp(visual)/layer1/add", "step/visual/layer1"),
        ("jit(f)/transpose(jvp())/convert_element_type", "(unnamed)"),
        ("", "(unnamed)"),
    ],
)
def test_scopes_are_what_named_scope_was_told(op_name, scope):
    assert scope_of(op_name) == scope


def test_time_by_scope_adds_up():
    program = entry(
        "%a = f32[256]{0} parameter(0)",
        '%b = f32[256]{0} copy(%a), metadata={op_name="jit(f)/jvp(visual)/layer1/0/copy"}',
        '%c = f32[256]{0} copy(%a), metadata={op_name="jit(f)/transpose(jvp(visual))/layer1/1/c"}',
        'ROOT %d = f32[256]{0} copy(%a), metadata={op_name="jit(f)/loss/copy"}',
    )
    cost = cost_of(program, V5E)
    times = ms_by_scope(cost)
    assert list(times) == ["visual/layer1", "loss"]
    assert times["visual/layer1"] == pytest.approx(2 * times["loss"])
    assert sum(times.values()) == pytest.approx(cost.predicted_ms)


def test_what_is_no_program_says_so():
    with pytest.raises(ValueError, match="no ENTRY"):
        cost_of("module @jit_f {}", V5E)
