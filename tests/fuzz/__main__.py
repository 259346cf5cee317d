"""Run one fuzz target: ``python -m tests.fuzz pdu -runs=1000000``; without a target, list them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run the target that the command line names."""
    names = sys.argv[1:2]
    try:
        import atheris
    except ImportError:
        print("fuzzing needs Atheris: pip install 'asyncdicom[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["asyncdicom"]):
        from . import session, targets
    every = {**targets.TARGETS, "session": session.fuzz_session}
    from .corpus import seeds

    if not names or names[0] not in every:
        print("targets:", ", ".join(every), file=sys.stderr)
        return 2
    name = names[0]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds(name)):
            (Path(folder) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], folder], every[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
