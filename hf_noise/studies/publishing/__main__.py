"""`python -m hf_noise.studies.publishing`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.door import door
from hf_noise.studies.publishing.study import main

if __name__ == "__main__":
    door(main)
