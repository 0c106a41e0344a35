"""What tools/bench/compile_ahead.py reads in a program; no accelerator's compiler needed."""

import importlib.util
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mis_jax import config
from mis_jax.training import sharding

PATH = Path(__file__).parents[2] / "tools/bench/compile_ahead.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("compile_ahead", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_facts_of_a_program_on_eight_devices(tool):
    """A sum over devices in each round of a loop, and one after it."""
    mesh = sharding.make_mesh(2)
    split, whole = (NamedSharding(mesh, PartitionSpec(x)) for x in (("data", "fsdp"), None))

    @jax.named_scope("simulated_clicks")
    def clicks(x, count):
        return jax.lax.fori_loop(0, count, lambda i, x: x / x.sum(0), x)

    def step(x, count):
        return clicks(x, count).sum(0)

    x = jax.ShapeDtypeStruct((16, 2**12), jnp.float32, sharding=split)
    program = jax.jit(step, out_shardings=whole).lower(x, 3).compile()
    found = tool.facts(program.as_text())
    sent = {"all-reduce": {"operations": 1, "MiB": round(2**14 / 2**20, 3)}}
    assert found == {
        "sent_between_devices": {"once in a step": sent, "in a simulated click": sent},
        "host_transfers": 0,
        "cudnn_attention_calls": 0,
    }


def test_calls_of_the_host_are_counted(tool):
    def step(x):
        jax.debug.callback(lambda x: None, x)
        return x

    program = jax.jit(step).lower(jnp.ones(3)).compile()
    assert tool.facts(program.as_text())["host_transfers"] == 1


PROGRAM = """HloModule jit_step

%more (p: (s32[])) -> pred[] {
  %a = pred[] fusion(%p), metadata={op_name="jit(step)/simulated_clicks/while/body/\
distance_transform/while/cond/lt"}, backend_config={"estimated_cycles":"1"}
}

%wider (p: (s32[])) -> (s32[]) {
  %b = (s32[]) fusion(%p), metadata={op_name="jit(step)/simulated_clicks/while/body/\
distance_transform/while/body/min"}, backend_config={"estimated_cycles":"10"}
}

%cond (p: (s32[])) -> pred[] {
  %c = pred[] compare(%p), direction=LT
}

%click (p: (s32[])) -> (s32[]) {
  %rows = s32[] fusion(%p), metadata={op_name="jit(step)/simulated_clicks/while/body/\
distance_transform/min"}, backend_config={"estimated_cycles":"100"}
  %w = (s32[]) while(%rows), condition=%more, body=%wider, metadata={op_name="jit(step)/\
simulated_clicks/while/body/distance_transform/while"}
  %net = (s32[]{:T(8,128)}, bf16[2,3]) fusion(%w), backend_config={"estimated_cycles":"1000"}
}

%turn (p: (s32[])) -> (s32[]) {
  %ring = (s32[]) fusion(%p), backend_config={"estimated_cycles":"2000000"}
}

%turns (p: (s32[])) -> pred[] {
  %limit = u32[]{:T(128)} constant(12), metadata={op_name="jit(step)/dot_general"}
  %ends = pred[] compare(%p, %limit), direction=LT
}

ENTRY %main (p: s32[]) -> s32[] {
  %parts = (s32[]) while(%p), condition=%turns, body=%turn, metadata={op_name="jit(step)/dot"}
  %clicks = (s32[]) while(%p), condition=%cond, body=%click, metadata={op_name="jit(step)/\
simulated_clicks/while"}
  ROOT %e = s32[] fusion(%clicks), backend_config={"estimated_cycles":"10000"}
}
"""


def test_how_often_instructions_run(tool):
    trips = {"simulated_clicks": 1.5, "distance_transform": 7}
    times = {line.split()[0]: n for line, n in tool.executed(PROGRAM, trips)}
    assert times.pop("ROOT") == 1  # the last one
    assert times == {"%a": 10.5, "%b": 10.5, "%c": 1.5, "%rows": 1.5, "%w": 1.5, "%net": 1.5,
                     "%ring": 12, "%ends": 12, "%parts": 1, "%clicks": 1, "%limit": 12}  # fmt: skip
    c = config.default()
    found = tool.estimate(PROGRAM, c, [types.SimpleNamespace(device_kind="TPU v5 lite")])
    step = 10000 + 12 * 2e6 + 1.5 * (1000 + 100 + 7 * (1 + 10))
    assert found["megacycles"] == round(step / 1e6, 1)
    distance = 1.5 * (100 + 7 * (1 + 10))
    assert found["distance_transform"]["share_of_step"] == round(distance / step, 4)


def test_a_loop_of_unknown_length_is_refused(tool):
    with pytest.raises(SystemExit, match="unknown length: %parts"):
        list(tool.executed(PROGRAM.replace("constant(12)", "parameter(0)"), {
            "simulated_clicks": 1, "distance_transform": 1}))  # fmt: skip


@pytest.mark.parametrize(
    ("line", "name", "size"),
    [
        ("  %a = f32[2,3]{1,0:T(8,128)} all-reduce(%b), channel_id=1", "all-reduce", 24),
        ("  ROOT %a = (bf16[160]{0}, pred[], s32[2]) all-reduce(%b)", "all-reduce", 329),
        ("  %a = (f32[4]{0}, f32[16]{0}, u32[]) all-gather-start(%b)", "all-gather-start", 64),
        ("ENTRY %main (p: s32[]) -> s32[] {", "", 0),
    ],
)
def test_instructions(tool, line, name, size):
    assert tool.operation(line) == name
    if name:
        assert tool.output_bytes(line) == size


@pytest.mark.slow
def test_a_step_compiles_for_the_devices_that_are_here(tool):
    """The whole way but for the accelerator, whose compiler is no dependency."""
    c = config.default()
    c.model.variant, c.data.crop, c.optim.batch_size = "Nano", 64, 8
    program = tool.compiled(c, jax.devices())
    found = tool.memory(program) | tool.facts(program.as_text())
    assert found["donated_share_of_outputs"] > 0.99
    assert found["host_transfers"] == 0
    assert found["sent_between_devices"]["in a simulated click"] == {}
    sent = found["sent_between_devices"]["once in a step"]
    weights = 4 * sum(x.size for x in jax.tree.leaves(tool.train_step.make_step(
        c, sharding.make_mesh(1))[2]["params"])) / 2**20  # fmt: skip
    assert weights < sum(x["MiB"] for x in sent.values()) < 1.2 * weights


@pytest.mark.parametrize(
    ("target", "said"), [("abacus", "tpu:TOPOLOGY"), ("gpu:nowhere.txtpb", r"nowhere.*\[cuda12\]")]
)
def test_unknown_target(tool, target, said):
    with pytest.raises(SystemExit, match=said):
        tool.devices(target)
