"""`python -m hf_noise.studies.classifier`, or `accelerate launch -m`: the study without the repository."""

from hf_noise.studies.classifier.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
