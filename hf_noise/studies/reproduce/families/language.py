"""Tables of language models under token noise: their rows are read as the tables say."""

from hf_noise.studies.reproduce.cells import Trained

FAMILY = Trained("hf_noise.studies.language.study")
