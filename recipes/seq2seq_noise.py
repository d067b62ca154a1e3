"""Sequence to sequence on targets that a half-trained teacher wrote: does a rich source protect, and what cures?

    accelerate launch recipes/seq2seq_noise.py       # docstrings, rich and sparse sources; offline, minutes
    accelerate launch recipes/seq2seq_noise.py --scale gpu --source multi30k.parquet posts.parquet \
        --source_column en document --target_column de summary --test_fraction 0.05
    accelerate launch recipes/seq2seq_noise.py --source pairs.parquet --task rich --model google/t5-efficient-tiny
    accelerate launch recipes/seq2seq_noise.py --scale paper --output runs/a-table10 --push_to_hub user/seq2seq
"""

from hf_noise.studies.door import door
from hf_noise.studies.seq2seq.study import main

if __name__ == "__main__":
    door(main)
