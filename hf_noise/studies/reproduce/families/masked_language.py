"""Tables of masked models among noise documents."""

from hf_noise.studies.reproduce.cells import Trained
from hf_noise.studies.reproduce.families.documents import along_training

FAMILY = Trained("hf_noise.studies.masked_language.study", readers={"B.table9": along_training})
