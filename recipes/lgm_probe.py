r"""Heads on frozen features, with and without Local Gradient Matching, on right and on wrong labels.

    accelerate launch recipes/lgm_probe.py                   # embedded text, minutes on 2 cores, no network
    accelerate launch recipes/lgm_probe.py --source reviews.csv --test_source test.csv --column label \
        --prompt "{text} this movie is" --model sentence-transformers/all-MiniLM-L6-v2 --pooling mean
    accelerate launch recipes/lgm_probe.py --source pets.parquet --image_column image --model resnet18
    accelerate launch recipes/lgm_probe.py --source labels.csv --features train.npy --test_fraction 0.2 --ratio 0 0.5 1
    accelerate launch recipes/lgm_probe.py --scale paper --source 'sst2/*.parquet' --prompt "{text} this movie is"
"""

from hf_noise.studies.door import door
from hf_noise.studies.probe.study import main

if __name__ == "__main__":
    door(main)
