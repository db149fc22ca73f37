"""Import `datasets` configured to send only the requests for the data."""

import os
from typing import Any


def import_datasets() -> Any:
    """Return the module `datasets` with telemetry, download counts, progress bars and logs off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read at import of `huggingface_hub`
    import datasets
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets
