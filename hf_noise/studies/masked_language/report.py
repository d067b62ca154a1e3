"""Tables and figure of the study: those of `hf_noise.studies.documents`, whose records these are too."""

from hf_noise.studies.documents.report import show

__all__ = ["show"]
