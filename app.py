"""Difix3D Studio in the browser: python app.py [CAPTURE or SCENE] [--scenes DIR] [--port P] ..."""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  must come before anything touches CUDA

from difix3d.errors import Difix3DError
from difix3d.ui.serve import arguments, serve


def main() -> int:
    """Serve until stopped; 2 where the flags or the folders do not allow it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("alembic", "httpx", "httpx2", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        serve(arguments())
    except Difix3DError as error:
        print(f"app.py: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
