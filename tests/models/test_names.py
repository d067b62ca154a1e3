"""The names of networks, which are listed apart so that a command's help needs none of them."""

from hf_noise.models import bert, names
from hf_noise.models.edm_unet import EDM_UNETS
from hf_noise.models.gpt2 import SIZES
from hf_noise.models.image import SMALL
from hf_noise.models.time_classifier import ARCHITECTURES


def test_the_names_are_those_of_the_networks():
    assert tuple(SIZES) == names.GPT2_SIZES
    assert tuple(bert.SIZES) == names.BERT_SIZES
    assert tuple(SMALL) == names.SMALL_CLASSIFIERS
    assert tuple(ARCHITECTURES) == names.TIME_CLASSIFIERS
    assert tuple(EDM_UNETS) == names.EDM_NETWORKS
