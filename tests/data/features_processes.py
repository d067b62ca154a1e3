"""What each process of `torchrun --nproc_per_node 2 features_processes.py cache` does in `test_features.py`.

Three shards on two processes: rank 0 makes the first and the last. With a third argument, a process is killed after
its first shard, as by a machine that goes away.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from hf_noise.data import features
from hf_noise.data.features import extract_features

features.SHARD_ROWS = 4
CONTENTS = [f"{'x' * (i % 5)}{i}" for i in range(11)]


class Lengths:
    """A backbone without a network: features that tell which text they are of."""

    identity = {"kind": "lengths"}

    def __init__(self, dies_after=None):
        self.seen, self.left = [], dies_after

    def cost(self, content):
        return len(content)

    def __call__(self, contents):
        if self.left is not None and not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += contents
        if self.left is not None:
            self.left -= len(contents)
        return torch.tensor([[len(one), sum(map(ord, one))] for one in contents], dtype=torch.float64), 0


def main(cache, dies_after=None):
    backbone = Lengths(dies_after)
    found = extract_features(backbone, CONTENTS, batch_size=2, cache=cache, progress=False)
    return {"features": found.features.tolist(), "seen": backbone.seen, "made": found.made, "key": found.key}


if __name__ == "__main__":
    told = main(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else None)
    Path(sys.argv[1], f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(told))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
