"""Times one stage on random weights, alone or in turns with PyTorch; `--help` says more."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or torch's idle threads count as work
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from tools import jax_stages

HELP = """\
Time one stage of the pipeline on random weights, and print a line of JSON.

  t2s      greedy decoding of 64 semantic codes after 100 positions, with a cache of 512
  s2m      Euler steps of flow matching with guidance, 600 mel frames of which 200 are the prompt
  vocoder  BigVGAN, 100 mel frames (1.16 s of speech)
  w2v      w2v-BERT, 750 tokens (15 s of prompt), the 17 layers that the pipeline reads

  python tools/benchmark.py t2s --batch 4
  python tools/benchmark.py s2m --peer torch      (after: pip install 'indextts2-jax[parity]')

`wall` is elapsed time, `cpu` that of all threads of this process: medians, in `unit`. Where
other programs run, only `cpu` can be compared. A peer has the same weights and inputs, and runs in
turns with ours; `ratio` is ours / peer: below 1, ours is faster. `difference` is that of the
results, max |ours - peer| / max |peer|.
"""


def measure(sides: dict[str, jax_stages.Stage], repeats: int) -> dict[str, Any]:
    """Runs the sides in turns, after one run that does not count.

    Args:
      sides: one stage, or ours and a peer's.
      repeats: counted runs of each.

    Returns:
      Side -> median `wall` and `cpu` milliseconds; of two sides also `ratio` and `difference`.
    """
    results = [np.asarray(side.run(side.prepare()), np.float32) for side in sides.values()]
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            prepared = jax.block_until_ready(side.prepare())
            wall, cpu = time.perf_counter(), time.process_time()
            np.asarray(side.run(prepared))
            times[name].append([time.perf_counter() - wall, time.process_time() - cpu])
    medians = {k: 1000 * np.median(x, axis=0) / sides[k].count for k, x in times.items()}
    if len(sides) == 2:
        medians["ratio"] = np.divide(*medians.values())
    report: dict[str, Any] = {
        k: {"wall": round(x[0], 3), "cpu": round(x[1], 3)} for k, x in medians.items()
    }
    if len(sides) == 2:
        error = np.abs(results[0] - results[1]).max() / np.abs(results[1]).max()
        report["difference"] = float(f"{error:.1e}")
    return report


def main() -> None:
    """Runs the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=HELP, formatter_class=formatter)
    parser.add_argument("stage", choices=("t2s", "s2m", "vocoder", "w2v"))
    parser.add_argument("--size", choices=("released", "small"), default="released")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peer", choices=("torch",), help="also time PyTorch at the same task")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    args = parser.parse_args()

    ours = getattr(jax_stages, args.stage)(args.size == "small", args.batch, args.dtype)
    sides = {"ours": ours}
    if args.peer:
        from tools import torch_peers

        run, prepare = getattr(torch_peers, args.stage)(*ours.peer, dtype=args.dtype)
        sides["torch"] = dataclasses.replace(ours, run=run, prepare=prepare)
    print(json.dumps({**vars(args), "unit": f"ms per {ours.unit}", **measure(sides, args.repeats)}))


if __name__ == "__main__":
    main()
