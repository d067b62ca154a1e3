"""Draw images from a trained EDM pipeline: PNG files with their classes, the same for any batch and process count.

    python recipes/sample_edm.py --model runs/edm-demo/r0-dsm-seed0 --num_images 500 --output runs/samples
    accelerate launch recipes/sample_edm.py --model user/edm-cifar10 --output runs/samples --bf16
"""

from hf_noise.studies.door import door
from hf_noise.studies.sampling.study import main

if __name__ == "__main__":
    door(main)
