"""Diffusion models under label noise: what wrong labels do to the images of a class, and TDSM that learns through them.

    accelerate launch recipes/edm_noise.py                   # handwritten digits, ten minutes on 2 cores, no network
    accelerate launch recipes/edm_noise.py --scale gpu --source 'cifar10/*.parquet'
    accelerate launch recipes/edm_noise.py --scale paper --data hf_noise/cifar100-noisy --ratio 0 1 --loss dsm
    accelerate launch recipes/edm_noise.py --scale paper_c --loss tdsm --classifier user/cifar10-classifier
"""

from hf_noise.studies.diffusion.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
