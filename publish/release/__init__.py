"""A release from start to end; `runner.py` and `step.py` are its spine."""
