"""`python -m hf_noise.studies.audit`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.audit.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
