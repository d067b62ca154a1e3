"""Fine-tuned encoders under wrong labels: LoRA or all weights, with cures of the loss and regularisers beside them.

    accelerate launch recipes/finetune_noise.py                # which module is a passage from? offline, minutes
    accelerate launch recipes/finetune_noise.py --model minilm --source train.parquet --test_source test.parquet
    accelerate launch recipes/finetune_noise.py --scale gpu --source train.parquet --weak_column weak_label
    accelerate launch recipes/finetune_noise.py --source crowd.csv --test_source test.csv --as_they_come
    accelerate launch recipes/finetune_noise.py --scale paper --source rte.parquet --text_column sentence1 sentence2
"""

from hf_noise.studies.door import door
from hf_noise.studies.finetune.study import main

if __name__ == "__main__":
    door(main)
