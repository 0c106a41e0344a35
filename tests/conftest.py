"""Eight virtual CPU devices and exact matrix products for every test; must precede JAX's import."""

import os
from importlib.metadata import version

# Programs are compiled more often than run here, so they are compiled in less time.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # XLA exits on a flag that it does not know
    FLAGS += " --xla_cpu_use_fusion_emitters=false"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("NPROC", "16")  # threads: collectives of the devices wait for each other

import jax  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")
