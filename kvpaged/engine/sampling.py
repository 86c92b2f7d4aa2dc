"""What a request asks for, under the name it had: see `kvpaged.engine.sampling_params`."""

from kvpaged.engine.sampling_params import *  # noqa: F403
