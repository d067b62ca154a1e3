r"""What theory says of noise documents and noisy labels: figures 7 and 9 of paper B, 3 of paper A, PAC, and a table.

    python recipes/theory.py                # seconds; with a pair of runs on noise documents, k along training too:
    python recipes/theory.py --clean runs/gpt2-documents-demo/clean-seed0 \
        --mixed runs/gpt2-documents-demo/random-documents-a0.05-nll-seed0
"""

from hf_noise.studies.door import door
from hf_noise.studies.theory.study import main

if __name__ == "__main__":
    door(main)
