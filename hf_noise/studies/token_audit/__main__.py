"""`python -m hf_noise.studies.token_audit`: the study without the repository."""

from hf_noise.studies.door import door
from hf_noise.studies.token_audit.study import main

if __name__ == "__main__":
    door(main)
