"""MLflow: the mirror of the run folders, the detector as its model, and its pages in the browser."""

import os

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no network unless asked for
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is away is soon known to be
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # ours are enough
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a database that was put in another's place is seen
    "GIT_PYTHON_REFRESH": "quiet",
}

for key, value in ENVIRONMENT.items():  # MLflow reads them when it is imported
    os.environ.setdefault(key, value)
