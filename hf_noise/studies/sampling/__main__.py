"""`python -m hf_noise.studies.sampling`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.door import door
from hf_noise.studies.sampling.study import main

if __name__ == "__main__":
    door(main)
