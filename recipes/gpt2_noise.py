"""GPT-2 under token noise: what wrong targets do to a language model, and how to lose almost nothing to them.

    accelerate launch recipes/gpt2_noise.py                  # embedded text, minutes on 2 cores, no network
    accelerate launch recipes/gpt2_noise.py --scale gpu --source corpus.parquet --tokenizer gpt2
    accelerate launch recipes/gpt2_noise.py --scale paper --ratio 0.5 --output runs/r0.5 --push_to_hub user/name
"""

from hf_noise.studies.door import door
from hf_noise.studies.language.study import main

if __name__ == "__main__":
    door(main)
