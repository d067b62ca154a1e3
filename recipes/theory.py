"""What theory says of noise documents and noisy labels: figures 7 and 9 of paper B, 3 of paper A, and a table.

    python recipes/theory.py                                          # seconds
    python recipes/theory.py --clean runs/x/clean-seed0 --mixed runs/x/alpha0.05-seed0  # and k of a pair of runs
"""

from hf_noise.studies.door import door
from hf_noise.studies.theory.study import main

if __name__ == "__main__":
    door(main)
