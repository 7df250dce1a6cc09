"""Makes the pickles beside it, of a scikit-learn that can no longer be installed here. They are committed, for they are
small and never change. Once, anywhere:

uv run --no-project --python 3.11 --with scikit-learn==1.2.2 --with "numpy<2" --with "pandas<2.2" recipe.py
"""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

assert sklearn.__version__ == "1.2.2"
rows = pd.DataFrame({"amt": np.arange(40.0), "city_pop": np.arange(40.0) % 7})
truth = (rows["amt"] > 20).astype(int)
for model in (
    make_pipeline(SimpleImputer(), LogisticRegression()),
    RandomForestClassifier(n_estimators=1, max_depth=2, random_state=0),
    GradientBoostingClassifier(n_estimators=1, max_depth=1, random_state=0),
    HistGradientBoostingClassifier(max_iter=1, random_state=0),
):
    name = type(model).__name__
    Path(__file__).with_name(f"{name}.pickle").write_bytes(pickle.dumps(model.fit(rows, truth)))
