"""Why a larger batch bears more noise: clean gradients agree, corrupt ones do not (paper A, table 4).

    python recipes/gradient_coherence.py                          # a tiny GPT-2 at initialisation; offline, minutes
    python recipes/gradient_coherence.py --source my.txt --tokenizer runs/my-model --model runs/my-model
    python recipes/gradient_coherence.py --scale paper --source web.parquet         # GPT-2 124M; hours without a GPU
"""

from hf_noise.studies.door import door
from hf_noise.studies.gradient_coherence.study import main

if __name__ == "__main__":
    door(main)
