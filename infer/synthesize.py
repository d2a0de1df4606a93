"""`python -m infer.synthesize ...` is `indextts2 synthesize ...` from a checkout."""

import sys

from indextts2_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
