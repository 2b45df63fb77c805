"""Run by a Python that has dm-reverb 0.14 and TensorFlow 2.15; it imports nothing of this repository.

    PYTHON reverb_script.py ELEMENTS PRODUCERS STEPS BATCH

Producers are processes with a Reverb client each; a step is one insert of one float32 array. Insert: from the first
insert after all have connected until the table has them all. Sample: batches from the full table, drawn uniformly through
TimestepDataset, as TensorFlow programs do. It writes one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from typing import Any

import numpy as np

SAMPLE_SECONDS = 3.0


def produce(port: int, elements: int, steps: int, together: Any) -> None:
    """Insert `steps` arrays."""
    import reverb

    client = reverb.Client(f"localhost:{port}")
    values = np.random.default_rng(0).random(elements, dtype=np.float32)
    together.wait()
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for _ in range(steps):
            writer.append({"T": values})
            writer.create_item("steps", 1.0, {"T": writer.history["T"][-1:]})
            writer.flush(block_until_num_items=64)


def main() -> None:
    """Run from the command line."""
    elements, producers, steps, batch = map(int, sys.argv[1:])
    try:
        import reverb
        import tensorflow as tf
    except ImportError as error:
        print(json.dumps({"cannot": f"{sys.executable} cannot import Reverb: {error}"}), flush=True)
        return
    table = reverb.Table(
        name="steps",
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=steps,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={"T": tf.TensorSpec((1, elements), tf.float32)},
    )
    server = reverb.Server(tables=[table])
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(producers + 1)
    each = steps // producers
    processes = [
        context.Process(target=produce, args=(server.port, elements, each, together), daemon=True)
        for _ in range(producers)
    ]
    for process in processes:
        process.start()
    client = reverb.Client(f"localhost:{server.port}")
    together.wait()
    begun = time.perf_counter()
    while client.server_info()["steps"].current_size < each * producers:
        time.sleep(0.005)
    insert = each * producers / (time.perf_counter() - begun)
    for process in processes:
        process.join()

    dataset = reverb.TrajectoryDataset.from_table_signature(f"localhost:{server.port}", "steps", 2 * batch)
    batches = iter(dataset.batch(batch))
    for _ in range(2):
        next(batches)
    begun, drawn = time.perf_counter(), 0
    while time.perf_counter() - begun < SAMPLE_SECONDS:
        next(batches)
        drawn += batch
    print(json.dumps({"insert": insert, "sample": drawn / (time.perf_counter() - begun)}), flush=True)
    server.stop()


if __name__ == "__main__":
    main()
