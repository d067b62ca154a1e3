"""The recipe `seq2seq_noise.py` whose teacher keeps what it writes every few rows."""

from hf_noise.data import teacher_parts
from hf_noise.studies.door import door
from hf_noise.studies.seq2seq.study import main

PART = 16

if __name__ == "__main__":
    teacher_parts.ROWS_PER_PART = PART
    door(main)
