"""`python -m hf_noise.studies.seq2seq`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.door import door
from hf_noise.studies.seq2seq.study import main

if __name__ == "__main__":
    door(main)
