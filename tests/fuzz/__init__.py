"""Coverage-guided fuzzing with Atheris: ``python -m tests.fuzz TARGET [-runs=N] [libFuzzer options]``."""
