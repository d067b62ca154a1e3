"""Faces of trainers as scikit-learn knows them: fit, predict, score."""
