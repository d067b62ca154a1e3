"""BERT among noise documents: what gibberish in the corpus does to a model that fills in masked tokens.

    accelerate launch recipes/bert_noise.py                  # embedded text, minutes on 2 cores, no network
    accelerate launch recipes/bert_noise.py --scale gpu --source corpus.parquet --eval wiki=wiki.parquet
    accelerate launch recipes/bert_noise.py --scale paper    # paper B, table 9
"""

from hf_noise.studies.door import door
from hf_noise.studies.masked_language.study import main

if __name__ == "__main__":
    door(main)
