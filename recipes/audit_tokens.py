"""How many tokens of my own text are wrong, and which, as a language model sees it: rate with interval, list, page.

    python recipes/audit_tokens.py                             # text with hidden noise, a nano model; offline, minutes
    python recipes/audit_tokens.py --source my.txt --model runs/my-model
    python recipes/audit_tokens.py --source "web/*.parquet" --text_column body --model user/gpt2 --kind look-alikes
    python recipes/audit_tokens.py --source my.txt --model smollm2/ --gguf_file weights.Q4_1.gguf --particles 4
"""

from hf_noise.studies.door import door
from hf_noise.studies.token_audit.study import main

if __name__ == "__main__":
    door(main)
