"""Materialise a noisy data set at several rates: Parquet, one configuration per setting, with a data card.

    python recipes/publish_dataset.py --name hf_noise/docs-noisy --ratios 0 0.1 0.3 0.5 1.0 --output runs/docs-noisy
    python recipes/publish_dataset.py --name hf_noise/docs-noisy --protocol random-documents --alpha 0.01 0.05 0.2
    python recipes/publish_dataset.py --name hf_noise/digits-noisy --protocol symmetric cyclic --output runs/digits
"""

from hf_noise.studies.door import door
from hf_noise.studies.publishing.study import main

if __name__ == "__main__":
    door(main)
