"""Classifiers of noisy images at every noise level, learned from wrong labels: what TDSM takes its weights from.

    accelerate launch recipes/time_classifier.py             # handwritten digits, minutes on 2 cores, no network
    accelerate launch recipes/time_classifier.py --scale gpu --source 'cifar10/*.parquet' --transition known
    accelerate launch recipes/time_classifier.py --scale paper --data hf_noise/cifar100-noisy --model resnet34
    accelerate launch recipes/time_classifier.py --scale gpu --protocol human:worse --transition human
"""

from hf_noise.studies.door import door
from hf_noise.studies.time_classifier.study import main

if __name__ == "__main__":
    door(main)
