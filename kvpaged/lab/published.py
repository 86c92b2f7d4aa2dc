"""Figures that others published, each in one place: what chapters repeat, and compare their own with.

Of the PagedAttention paper (Kwon et al. 2023): OPT-13B on a GPU with 40 GB, unless it says otherwise.
"""

TOKEN_BYTES = 800 * 1024  # K and V of a token of OPT-13B (section 3)
KV_BYTES = 12 * 2**30  # what is left for K and V (Table 1)
SLOTS = KV_BYTES // TOKEN_BYTES  # 15,728; the paper writes 15.7K
LONGEST = 2048  # positions of a request, prompt and output (section 3)
PAGE_SIZE = 16  # chosen in section 7.2

# Mean lengths of prompts and outputs, in tokens (Figure 11).
SHAREGPT_MEANS = 161.31, 337.99
ALPACA_MEANS = 19.31, 58.45

# Slots that hold a token, in percent; the three Orcas are the authors' own, built again (Figure 2).
FILLED = {"Orca (Max)": 20.4, "Orca (Pow2)": 26.8, "Orca (Oracle)": 38.2, "vLLM": 96.3}

# Requests at once, ShareGPT at two requests a second (Figure 13a).
AT_ONCE = {"Orca (Max)": 7.00, "Orca (Pow2)": 9.81, "Orca (Oracle)": 13.62, "vLLM": 30.42}

# Pages saved by sharing, in percent, by the number of branches. Of ShareGPT, the text gives the ends of the range only
# (section 6.3); of Alpaca, Figure 15 has all.
SAVED = {
    ("Alpaca", "samples"): {2: 6.1, 4: 8.5, 6: 9.8},
    ("Alpaca", "beams"): {2: 37.6, 4: 53.1, 6: 55.2},
    ("ShareGPT", "samples"): {2: 16.2, 6: 30.5},
    ("ShareGPT", "beams"): {2: 44.3, 6: 66.3},
}

SLOWER_ATTENTION = 20, 26  # percent that the paper's kernel takes longer than FasterTransformer's (section 7.1)
