"""`python -m infer.batch ...` is `indextts2 batch ...` from a checkout."""

import sys

from indextts2_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["batch", *sys.argv[1:]]))
