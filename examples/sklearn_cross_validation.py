"""scikit-learn on Holdfast: the folds of a cross-validation run as durable tasks.

Needs `pip install scikit-learn`. Run `python sklearn_cross_validation.py`.
"""

from joblib import parallel_config
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import holdfast

samples, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500)

with holdfast.connect() as hf:
    holdfast.register_joblib(hf)
    with parallel_config(backend="holdfast"):
        scores = cross_val_score(model, samples, species, cv=4)
    print(f"{len(scores)} folds, {scores.mean():.0%} right")
