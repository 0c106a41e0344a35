"""Eight virtual CPU devices and exact matrix products for every test; must precede JAX's import."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "16")  # threads: collectives of the devices wait for each other
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax

jax.config.update("jax_default_matmul_precision", "highest")
