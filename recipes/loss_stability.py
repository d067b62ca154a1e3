"""How steady the training loss is, by the size of the macro-batch: table 5 of paper A, or any checkpoint of yours.

    python recipes/loss_stability.py                 # trains a small GPT clean and at e = 0.5, minutes on 2 cores
    python recipes/loss_stability.py --model runs/gpt2-demo/r1-nll-batch-seed0 --order stored
    accelerate launch recipes/loss_stability.py --scale paper --model user/gpt2-owt-r0 user/gpt2-owt-r1
"""

from hf_noise.studies.door import door
from hf_noise.studies.stability.study import main

if __name__ == "__main__":
    door(main)
