"""`python -m hf_noise.studies.stability`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.door import door
from hf_noise.studies.stability.study import main

if __name__ == "__main__":
    door(main)
