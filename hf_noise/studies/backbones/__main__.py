"""`python -m hf_noise.studies.backbones`: the study without the repository."""

from hf_noise.studies.backbones.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
