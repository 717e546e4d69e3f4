"""`difix3d finetune` in one of several processes: accelerate launch -m difix3d.training --data ... --from ... --out ...

On CPUs that launcher needs MPI; torchrun --nproc-per-node 2 -m difix3d.training ... does not.

The main process tells how it goes. The others keep silent, but for a crash, and for what is wrong on another machine.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

from difix3d.cli import main


def _run() -> int:
    arguments = ["finetune", *sys.argv[1:]]
    if os.environ.get("RANK", "0") == "0":
        return main(arguments)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as told:
        status = main(arguments)
    is_first_of_machine = os.environ.get("LOCAL_RANK") == "0"
    if status == 1 or (status and is_first_of_machine):
        sys.stderr.write(told.getvalue())
    return status


if __name__ == "__main__":
    exit_status = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Past all destructors: that of gloo's process group waits for its threads with Python's lock held, and one of them
    # may still want that lock, to let go of the last tensors it sent (seen with torch 2.13, once in ten runs).
    os._exit(exit_status)
