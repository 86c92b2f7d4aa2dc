"""Mooncake: a real server's trace, summed up; what was published about it; and what came out when it was run again.

Qin et al., "Mooncake", FAST 2025. The trace is not here. `python tools/check_traces.py`, with the traces at hand, runs
the figures again, and stores what it finds in `mooncake.json`.
"""

from kvpaged.lab.measured import MeasuredLengths

_PROMPTS = (
    "895 900 916 1009 1198 1415 1699 2064 2592 3186 3870 4381 4829 5312 5933 6579 7274 8076 8915 9862 10902 12030 "
    "13346 14620 16010 17697 19640 22574 26158 30771 40904 72717"
)
_OUTPUTS = (
    "3 9 17 27 39 68 105 138 177 210 237 265 285 306 324 342 359 373 389 403 418 433 448 463 481 502 525 550 584 633 "
    "712 961"
)
_ARRIVALS = (
    "162 177 217 175 187 164 144 183 162 179 218 186 186 204 184 162 189 169 190 220 203 206 218 208 172 240 179 210 "
    "216 209 235 197 194 188 225 208 247 176 228 234 207 234 206 224 218 215 196 230 227 235 219 247 222 216 200 238 "
    "218 225"
)
# The Conversation trace: an hour of a chat service, 12,031 requests. Of each 32nd part of them, the one in its middle.
PROMPTS = MeasuredLengths([int(each) for each in _PROMPTS.split()])
OUTPUTS = MeasuredLengths([int(each) for each in _OUTPUTS.split()])
# Requests that came in each of its whole minutes.
ARRIVALS = [int(each) for each in _ARRIVALS.split()]

# Figure 9: hit rate of LRU by capacity in tokens, read from the paper's vector drawing.
CAPACITIES = (10_000, 100_000, 10**6, 2 * 10**6, 4 * 10**6, 5 * 10**6, 8 * 10**6, 10**7, 5 * 10**7, 10**8)
FIGURE_9 = {
    "conversation": (0.0451, 0.0733, 0.0868, 0.1204, 0.2150, 0.2472, 0.2998, 0.3264, 0.3983, 0.4007),
    "synthetic": (0.0005, 0.0119, 0.1462, 0.2346, 0.3805, 0.4352, 0.5446, 0.5886, 0.6582, 0.6582),
}
# Figure 10: hit rate of ten caches of 3 million tokens, each for itself, and of one for all.
FIGURE_10 = {"conversation": {"local": 0.17, "global": 0.376}, "synthetic": {"local": 0.264, "global": 0.623}}
