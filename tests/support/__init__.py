"""What the tests and `tools/long_checks.py` stand on: a model to compare with, failures on demand, traffic."""
