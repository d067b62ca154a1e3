"""Do the features of a language model get worse if gibberish was in its corpus, and does LGM help heads on them?

    accelerate launch recipes/noisy_backbones.py     # offline, embedded text, minutes on 2 CPU cores

Table 1 of paper B, with its four tasks, 124 M weights and 300,000 steps (several GPUs for days):
    accelerate launch recipes/noisy_backbones.py --scale paper
Tasks of your own: `--task reviews=train.csv,test.csv`, columns `text` and `label`.
"""

from hf_noise.studies.backbones.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
