"""`import_datasets`, imported so that it sends nothing but the requests for the data."""

import os
from typing import Any


def import_datasets() -> Any:
    """Return the library, without telemetry, counts, progress bars and warnings."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is first imported
    import datasets
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets
