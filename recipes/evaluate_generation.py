"""Generated images against the classes they were asked for: label consistency, distances to real images, CAS.

    python recipes/evaluate_generation.py --pipeline runs/edm-demo/r1-symmetric-tdsm-seed0  # digits, minutes on 2 cores
    accelerate launch recipes/evaluate_generation.py --scale paper --images samples/r0 samples/r1 --inception owner/name
    accelerate launch recipes/evaluate_generation.py --scale paper --pipeline user/edm-cifar10-r1.0 --num_images 50000
"""

from hf_noise.studies.door import door
from hf_noise.studies.evaluation.study import main

if __name__ == "__main__":
    door(main)
