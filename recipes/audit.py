"""How much of my own labels is wrong, which rows, and what to do about it: rate with interval, T, list, page, training.

    accelerate launch recipes/audit.py                              # digits with hidden noise, offline, a minute
    accelerate launch recipes/audit.py --source my.csv --column label --verify 200
    accelerate launch recipes/audit.py --source my.csv --column label --verified runs/audit/verify --train
    accelerate launch recipes/audit.py --source pictures/ --model timm/resnet18.a1_in1k --output runs/pictures
    accelerate launch recipes/audit.py --source rows.parquet --probabilities out_of_fold.npy --output runs/rows
"""

from hf_noise.studies.audit.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
