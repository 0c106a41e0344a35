"""Devices: distributed start-up, the mesh, where parameters live, host batches to global arrays."""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mis_jax.errors import InputError

# Set by launchers of several processes: SLURM, TPUs on GKE, Open MPI.
CLUSTER = ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES", "OMPI_COMM_WORLD_SIZE")
SMALL = 2**14  # arrays of fewer elements are replicated


def start(coordinator: str, processes: int, process: int) -> None:
    """Joins the other processes of a run.

    Without a coordinator's address a cluster is joined where a launcher left its mark (CLUSTER);
    on a single machine nothing happens. "auto" joins whatever JAX detects, which may take a look
    into the network, as on the hosts of a TPU pod.
    """
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise InputError(
                f"--coordinator=auto finds no cluster ({error}); leave it out on a single machine."
            ) from None
    elif coordinator:
        jax.distributed.initialize(coordinator, processes, process)
    elif any(name in os.environ for name in CLUSTER):
        jax.distributed.initialize()


def make_mesh(fsdp: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices, all there are if not given, as a ('data', 'fsdp') mesh.

    `fsdp` of them share one copy of the parameters.
    """
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or count % fsdp:
        raise InputError(
            f"config.mesh.fsdp={fsdp} does not divide the {count} devices of this run; "
            "choose a divisor, or 1."
        )
    shape, kinds = (count // fsdp, fsdp), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, ("data", "fsdp"), kinds, devices=devices)


def state_sharding(mesh: Mesh, shapes):
    """Sharding per array: the largest axis that 'fsdp' divides is split, small arrays are not."""

    def place(x) -> NamedSharding:
        parts = mesh.shape["fsdp"]
        axes = [i for i in np.argsort(x.shape)[::-1] if x.shape[i] % parts == 0]
        if parts == 1 or not axes or x.size < SMALL:
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, PartitionSpec(*[None] * int(axes[0]), "fsdp"))

    return jax.tree.map(place, shapes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples are spread over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def each_on_its_own(function: Callable, mesh: Mesh | None) -> Callable:
    """`function` of arrays whose first axis is the samples; each device computes that of its own.

    Inside it no device waits for another. Without a mesh it is the function itself.
    """
    if mesh is None:
        return function
    samples = batch_sharding(mesh).spec
    return jax.shard_map(function, mesh=mesh, in_specs=samples, out_specs=samples)


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This host's rows of a batch -> global arrays."""
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def gathered(params: dict) -> dict:
    """Parameters that this process can compute with alone: all of them, on any mesh."""
    if jax.process_count() == 1:
        return params
    return multihost_utils.process_allgather(params, tiled=True)
