"""Image classifiers under label noise: what wrong labels do to accuracy and to the marginal, and how to train through.

    accelerate launch recipes/classifier_noise.py            # handwritten digits, four minutes on 2 cores, no network
    accelerate launch recipes/classifier_noise.py --scale advice       # how large a batch at r = 1: advised and tried
    accelerate launch recipes/classifier_noise.py --train_rows 100 300 1000 --batch_size 16     # few and many images
    accelerate launch recipes/classifier_noise.py --scale gpu --source 'cifar10/*.parquet'
    accelerate launch recipes/classifier_noise.py --scale paper --data hf_noise/cifar100-noisy --protocol cyclic
    accelerate launch recipes/classifier_noise.py --scale imagenet --classes 100 --plan table7 --reading as_printed
    accelerate launch recipes/classifier_noise.py --scale imagenet --plan budget    # paper A, table 9
"""

from hf_noise.studies.classifier.study import main
from hf_noise.studies.door import door

if __name__ == "__main__":
    door(main)
