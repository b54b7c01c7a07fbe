"""Train classifiers that do not use what they should not know (Kim et al., *Learning Not to Learn*, CVPR 2019)."""

__version__ = "0.1.0"
