"""BINARY: records of merge trees -> a trained click model, its checkpoints and metrics.

`mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME --config.field=value]`. Everything
between two batches is one compiled program: simulated clicks, augmentation, losses, update. A run
stopped at any moment goes on from its last checkpoint, with the batches it would have seen.
"""

import contextlib
import math
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grain
import jax
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from mis_jax import features, options, records
from mis_jax.datasets import Reading
from mis_jax.errors import InputError, Stopped
from mis_jax.models import licences, loading
from mis_jax.records import propose
from mis_jax.training import checkpoint, evidence_step, made_up, monitor, sharding, signals
from mis_jax.training.composite_stream import composite_stream
from mis_jax.training.input import Source, train_stream
from mis_jax.training.train_step import EXPLODED, State, make_look, make_step

FREE = (  # fields that may change when a run is resumed
    "train.log_every", "train.checkpoint_every", "train.keep", "train.picture_every",
    "train.noc_every", "train.noc_objects", "train.tensorboard", "train.made_up", "data.threads",
    "data.prefetch", "optim.steps", "mesh.fsdp", "features.", "propose.", "eval.",
)  # fmt: skip


def define_flags() -> None:
    """The flags of `mis-jax train`."""
    flags.DEFINE_string("workdir", "", "The run's folder; a run that is there is resumed.")
    found = "host:port of process 0, where no launcher says it, or auto."
    flags.DEFINE_string("coordinator", "", found)
    flags.DEFINE_integer("num_processes", 1, "Processes of the run, with --coordinator.")
    flags.DEFINE_list("held_out", [], "NAME=FOLDER, ...: objects whose NoC is shown on the way.")
    flags.DEFINE_integer("process_id", 0, "Number of this process, with --coordinator.")
    options.define_masks()
    options.define_config("sbd_vitb16")


def main(argv: list[str]) -> None:
    """Trains on argv[1]: a folder of records, or images to make records of first."""
    if len(argv) != 2 or not flags.FLAGS.workdir:
        raise InputError("usage: mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME].")
    f = flags.FLAGS
    sharding.start(f.coordinator, f.num_processes, f.process_id)
    run = pathlib.Path(f.workdir)
    if run.is_file():
        raise InputError(f"--workdir={run} is a file; give a folder, new or of a run.")
    settings: Any = jax.config  # some versions' types lack names that JAX defines as it runs
    if not settings.jax_compilation_cache_dir:  # a run that goes on need not compile again
        settings.update("jax_compilation_cache_dir", str(run.absolute() / "xla_cache"))
    train(shards(argv[1], run, f.config), run, f.config, f.held_out, f.masks)


def shards(source: str, run: pathlib.Path, config: ConfigDict) -> list[str]:
    """The shards of a records folder; of images, they are made first, in RUN/records.

    Raises:
        InputError: the images have changed since a run that is there began, or the config has.
    """
    if (pathlib.Path(source) / records.INDEX).exists():
        return records.shard_files(source)
    folder = run / "records"
    checkpoint.agree(run, config, FREE)
    if loading.has_begun(run) and (changes := str(propose.changes(source, folder))):
        raise InputError(
            f"{source} has changed since {run} was trained ({changes}); give {folder} in its "
            "place to go on with the images as they were, or another --workdir, where "
            f"--config.model.start={run} begins from the parameters of this run."
        )
    summary = propose.propose(
        source,
        folder,
        extractor=features.make_extractor(**config.features),
        batch_size=config.features.batch_size,
        shard=(jax.process_index(), jax.process_count()),
        reading=Reading.of(config.images),
        **config.propose,
    )
    if jax.process_index() == 0:
        print(summary)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("records")
    return records.shard_files(folder)


def train(
    files: list[str],
    run: pathlib.Path,
    config: ConfigDict,
    held_out: Sequence[str] = (),
    masks: Collection[str] = (),
) -> State:
    """Trains to `config.optim.steps`, from the last checkpoint of `run` if there is one.

    An evidence network is then compared with what it began from, on made-up targets.

    Args:
        files: shards of records.
        run: the run's folder.
        config: see mis_jax/config.py.
        held_out: NAME=FOLDER of benchmarks, clicked on every `config.train.noc_every` steps.
        masks: of these, what `--masks` says.

    Raises:
        InputError: a run that is there has another config, size or other records, a checkpoint
            cannot be written or read, all targets are empty, or the loss is not finite or
            explodes; what the run had before is kept.
        Stopped: after SIGTERM or a preemption notice; the run has saved.
    """
    checkpoint.agree(run, config, FREE)
    data = {
        "records": len(Source(files)),
        "digest": records.fingerprint(files),
        "folder": str(pathlib.Path(files[0]).parent.absolute()),
    }
    older = checkpoint.agree_records(run, data)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    if bool(held_out) != bool(config.train.noc_every):
        raise InputError("--held_out and config.train.noc_every need each other; give both.")
    clicked = monitor.HeldOut(held_out, config, masks) if held_out else None
    made = evidence_step.make_step if config.model.evidence else make_step
    step_fn, init, shapes, places = made(config, mesh)
    first = jax.process_index() == 0
    stream = make_stream(files, config, print if first else lambda _: None)
    with contextlib.closing(stream), checkpoint.writing(run):
        run.mkdir(parents=True, exist_ok=True)
        if first:
            checkpoint.write_config(run, config)
            checkpoint.write_records(run, data)
            if older:
                print(older)
        with checkpoint.checkpointer(
            run, config.train.checkpoint_every, config.train.keep
        ) as saver:
            state = _restore(saver, run, shapes, places, stream) or init()
            state = _loop(state, step_fn, stream, saver, run, config, mesh, clicked)
    if config.model.evidence and config.train.made_up:
        _compare(files, run, config, init, state)
    return state


def make_stream(
    files: list[str], config: ConfigDict, say: Callable[[str], object] | None = None
) -> grain.DatasetIterator:
    """This process's part of the training stream of `config.data` and `config.clicks`.

    `say` is told if many targets are empty.
    """
    batch = config.optim.batch_size
    if batch % (jax.device_count() * config.optim.accumulate):
        raise InputError(
            f"config.optim.batch_size={batch} is no multiple of the {jax.device_count()} devices "
            f"times config.optim.accumulate={config.optim.accumulate}."
        )
    if config.model.evidence:
        return composite_stream(
            files,
            seed=config.seed,
            images=evidence_step.GROUPS * batch // evidence_step.OBJECTS,
            size=config.data.crop,
            shares=config.data.targets,
            threads=config.data.threads,
            prefetch=config.data.prefetch,
        )
    own = {name: x for name, x in config.data.items() if name != "targets"}
    return train_stream(
        files,
        seed=config.seed,
        batch_size=batch,
        shard=(jax.process_index(), jax.process_count()),
        max_points=config.clicks.max_points,
        gamma=config.clicks.gamma,
        say=say,
        **own,
    )


def _loop(
    state, step_fn, stream, saver, run: pathlib.Path, config: ConfigDict, mesh, held_out
) -> State:
    """Steps until done. Metrics are read one step late, so that the device rarely waits."""
    first, steps, fields = int(state["step"]), config.optim.steps, config.train
    place = sharding.batch_sharding(mesh)
    made = evidence_step.make_look if config.model.evidence else make_look
    look = made(config, mesh) if fields.picture_every else None
    pending = []
    with signals.Signals() as asked, monitor.Monitor(run, config, first) as shown:
        if first >= steps:
            shown.say(f"{run} has been trained for {first} steps; config.optim.steps is no more.")
        for step in range(first + 1, steps + 1):
            shown.before(step, asked.trace())
            host = next(stream)
            batch = host if config.model.evidence else sharding.to_devices(host, place)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, batch)
            pending.append((step, metrics, host))
            stopping = asked.stop(step)
            # All is reported before a checkpoint: none is kept of a step that went wrong, and a
            # killed run's metrics reach as far as its checkpoint.
            saves = stopping or step == steps or step % fields.checkpoint_every == 0
            while len(pending) > (0 if saves else 1):
                _report(shown, run, state, *pending.pop(0))
            if saves:
                items = {**state, "data": stream.get_state()}
                said = licences.origin(config)
                saver.save_checkpointables_async(step, items, force=True, custom_metadata=said)
            if look and step % fields.picture_every == 0:
                shown.picture(step, jax.device_get(look(state["params"], step, batch)))
            if held_out and step % fields.noc_every == 0:
                shown.noc(step, held_out(sharding.gathered(state.get("ema", state["params"]))))
            if stopping and step < steps:
                saver.wait()
                raise Stopped(f"stopped and saved at step {step} of {run}")
    return state


def _compare(files: list[str], run: pathlib.Path, config: ConfigDict, init, state: State) -> None:
    """Clicks on made-up targets with the parameters of the start and the end, unless it is done.

    The checkpoint is on the disk, so whatever ends this loses nothing: the same command does it.
    """
    step = int(state["step"])
    if made_up.is_there(run, step, config.train.made_up):
        return
    try:
        before, after = init()["params"], state.get("ema", state["params"])
        found = made_up.measure(files, config, before, after)
    except InputError as error:  # such as a config.model.start that is no longer there
        print(f"{run} is trained, and made-up targets were not clicked on: {error}")
        return
    made_up.write(run, step, found)
    print(made_up.sentence(found))


def _report(shown: monitor.Monitor, run: pathlib.Path, state, step, metrics, host: dict) -> None:
    """Shows the metrics of a step; one that went wrong ends the run, and leaves what it saw."""
    values = {k: round(float(v), 7) for k, v in jax.device_get(metrics).items()}
    shown.step(step, values)
    bad = [k for k in ("loss", "grad_norm") if not math.isfinite(values[k])]
    if not bad and values["loss"] < EXPLODED:
        return
    name, folder = (bad or ["loss"])[0], run / "failed" / str(step)
    checkpoint.save_failed(folder, state, host)
    raise InputError(
        f"{name} is {values[name]} at step {step} (records {sorted(map(int, host['index']))}); the "
        f"last checkpoint is kept, and the state before this step and its batch are in {folder}: "
        "train in a new --workdir with a lower config.optim.lr."
    )


def _restore(saver: ocp.training.Checkpointer, run, shapes, places, stream) -> State | None:
    if saver.latest is None:
        return None
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )
    state = loading.restore(run, saver.latest.step, {**abstract, "data": None})
    stream.set_state(state.pop("data"))
    return state
