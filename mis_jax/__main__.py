"""`python -m mis_jax COMMAND ...` is `mis-jax COMMAND ...`."""

from mis_jax.cli import main

if __name__ == "__main__":
    main()
