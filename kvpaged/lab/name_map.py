"""What four other systems call the parts of this one, where they keep them, and what they do differently.

What is said of vLLM, SGLang and transformers was read in those releases, as pip installs them. nano-vllm makes no
releases: it was read as it stood at one commit, as far as public notes on its source quote it with line numbers.
"""

from typing import NamedTuple


class System(NamedTuple):
    """Another system, at the version that was read. `source` and a file's path make an address."""

    name: str
    version: str
    source: str


class Place(NamedTuple):
    """Where a system keeps a part, the names there, as `Class.method`, and what is different about it."""

    file: str
    names: tuple[str, ...]
    difference: str


class Part(NamedTuple):
    """A part of this package, or (`ours` empty) something that this package leaves out."""

    name: str
    ours: tuple[str, ...]  # dotted, as they are imported
    does: str
    elsewhere: dict[str, Place]  # by the system's name; a system that has none is not there


VLLM = System("vLLM", "0.33.0", "https://github.com/vllm-project/vllm/blob/v0.33.0/")
NANO_VLLM = System(
    "nano-vllm",
    "commit bb823b3",
    "https://github.com/GeeeekExplorer/nano-vllm/blob/bb823b3e06983d71485a8e1f23715ebd87d98ef8/",
)
SGLANG = System("SGLang", "0.5.23", "https://github.com/sgl-project/sglang/blob/v0.5.23/python/")
TRANSFORMERS = System("transformers", "5.23.0", "https://github.com/huggingface/transformers/blob/v5.23.0/src/")
SYSTEMS = (VLLM, NANO_VLLM, SGLANG, TRANSFORMERS)

_BATCHING = "transformers/generation/continuous_batching/"

PARTS = (
    Part(
        "naive caches",
        ("kvpaged.naive_cache.GrowingCache", "kvpaged.naive_cache.ReservedCache"),
        "K and V of a request in one piece, which grows by copying or is reserved beforehand.",
        {
            "transformers": Place(
                "transformers/cache_utils.py",
                ("DynamicCache", "DynamicLayer.update", "StaticCache", "StaticLayer"),
                "Still the default of `generate`: one `torch.cat` for each layer and step, for a batch padded to one "
                "length. The static one is for compiling, which wants shapes that never change.",
            ),
        },
    ),
    Part(
        "page storage",
        ("kvpaged.page.PageStorage",),
        "The bytes: for each layer, K and V as [page, kv head, slot, head_dim].",
        {
            "vLLM": Place(
                "vllm/v1/kv_cache_layout.py",
                ("KVCacheLayout",),
                "One logical shape, and six orders of its axes in memory, of which the attention backend's kernel gets "
                "the one it wants. New rows are written by a kernel, `reshape_and_cache_flash`.",
            ),
            "nano-vllm": Place(
                "nanovllm/layers/attention.py",
                ("store_kvcache",),
                "One tensor for all: [2, layer, block, slot, kv head, head_dim], blocks of 256. A Triton kernel writes "
                "rows by the slot mapping.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/memory_pool.py",
                ("MHATokenToKVPool",),
                "Rows of tokens, a K and a V buffer for each layer. Page 0 (slot 0, with pages of one) takes the "
                "writes of padding.",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/full_attention.py",
                ("FullAttentionCacheAllocator.register_cache_tensor",),
                "One flat tensor. A page is one layer's share, a block has a page for each layer, K and then V; the "
                "default is 256 tokens. The first two sectors take the writes of padding.",
            ),
        },
    ),
    Part(
        "page pool",
        ("kvpaged.page_pool.PagePool",),
        "Who owns which page: allocate, share, release, with a count for each page.",
        {
            "vLLM": Place(
                "vllm/v1/core/block_pool.py",
                ("BlockPool.get_new_blocks", "BlockPool.touch", "BlockPool.free_blocks"),
                "`get_new_blocks` is our allocate, `touch` our share. An object for each block, and free ones in a "
                "linked list (`FreeKVCacheBlockQueue`) so that one can leave its middle: a cached block that nobody "
                "uses counts as free, and stays findable until somebody gets it. Block 0 is never handed out.",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/block_manager.py",
                ("BlockManager", "Block"),
                "A `deque` of free ids and a set of used ones. A hit on a free block removes it from the middle of "
                "the deque, in time proportional to the pool.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/allocator/paged.py",
                ("PagedTokenToKVPoolAllocator",),
                "A tensor of free pages, and no counts: slots belong to a request or to the tree, and the tree's nodes "
                "count who needs them (`lock_ref`).",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/cache_pool.py",
                ("CachePool.get_free_blocks", "CachePool.free_blocks"),
                "Sectors that are cut into blocks, so that layers of different kinds can grow at different rates. "
                "Counts are beside it, in a `BlockLedger`, for shared blocks only.",
            ),
        },
    ),
    Part(
        "page table",
        ("kvpaged.page_table.PageTable",),
        "Where token i is, and the flat slots to which new tokens go.",
        {
            "vLLM": Place(
                "vllm/v1/worker/gpu/block_table.py",
                ("BlockTables.append_block_ids", "BlockTables.compute_slot_mappings"),
                "A tensor on the GPU, a row for each request, to which only new ids are sent; the slot mapping is "
                "computed there too. (`vllm/v1/worker/block_table.py` is the older model runner's.)",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/model_runner.py",
                ("ModelRunner.prepare_block_tables", "ModelRunner.prepare_prefill", "ModelRunner.prepare_decode"),
                "`Sequence.block_table` is a list; each step makes tensors of the lists anew, padded with -1, and the "
                "slot mapping in Python.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/memory_pool.py",
                ("ReqToTokenPool",),
                "`req_to_token` has an entry for each *token*, the slot itself: nothing is left to divide, for more "
                "memory. `out_cache_loc` is the slot mapping.",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/cache_allocator.py",
                ("CacheAllocator.fill_block_table", "CacheAllocator.get_write_indices"),
                "A dictionary from request to block ids; tensors of read and write indices are made for each batch.",
            ),
        },
    ),
    Part(
        "paged attention",
        ("kvpaged.attention.paged_attention", "kvpaged.attention.paged_attention_decode"),
        "Attention that finds K and V through the table: gathered at prefill, read in place at decode.",
        {
            "vLLM": Place(
                "vllm/v1/attention/backends/flash_attn.py",
                ("FlashAttentionBackend", "FlashAttentionImpl.forward"),
                "One call for prefill and decode alike, in place, with the block table as an argument. It is one of "
                "many backends; `cpu_attn.py` beside it is the one for processors.",
            ),
            "nano-vllm": Place(
                "nanovllm/layers/attention.py",
                ("Attention.forward",),
                "Two kernels of FlashAttention, one for prefill and one for decode. A prefill that hit nothing attends "
                "to the fresh K and V and reads no page.",
            ),
            "SGLang": Place(
                "sglang/srt/layers/radix_attention.py",
                ("RadixAttention.forward",),
                "A layer that calls the backend in use (`FlashInferAttnBackend` is one). The name is the prefix "
                "cache's, but a backend sees slots only, whoever shares them.",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/full_attention.py",
                ("FullAttentionCacheAllocator.update", "FullAttentionCacheAllocator.get_cache_for_block_table"),
                "`update` writes, then gathers all K and V by `index_select` for any attention function; where "
                "FlashAttention can read a block table, decode reads pages in place.",
            ),
        },
    ),
    Part(
        "prefix cache",
        ("kvpaged.prefix_cache.PrefixCache",),
        "Pages found again by the tokens that lead to them, compared one by one; hits end at any token.",
        {
            "vLLM": Place(
                "vllm/v1/core/kv_cache_utils.py",
                ("hash_block_tokens", "FreeKVCacheBlockQueue"),
                "A chain of hashes (SHA-256), a dictionary from hash to block in `BlockPool`, tokens not compared. "
                "Whole blocks, at most `num_tokens - 1` tokens; blocks enter when they are scheduled. Duplicates stay.",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/block_manager.py",
                ("BlockManager.compute_hash", "BlockManager.can_allocate", "BlockManager.hash_blocks"),
                "A chain of 64-bit xxHash *and* a comparison of the block's tokens. The last block never hits; a later "
                "duplicate takes the earlier one's place.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/unified_radix_cache.py",
                ("UnifiedRadixCache.match_prefix", "UnifiedRadixCache.insert", "UnifiedRadixCache.evict"),
                "A radix tree: runs of pages in one node, split where prompts part, tokens compared, hits of whole "
                "pages. One tree for full attention, windows and recurrent states. `RadixCache`, beside it, is the "
                "plain one: read it first.",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/cache_allocator.py",
                ("compute_block_hash", "BlockLedger.register_new_hash", "BlockLedger.evict_cached_blocks"),
                "A chain of 64-bit BLAKE2b, tokens not compared. A block that completes as a duplicate is given up for "
                "the first. Under pressure all unused cached blocks go at once.",
            ),
        },
    ),
    Part(
        "fork and copy-on-write",
        ("kvpaged.sequence.Sequence.fork",),
        "A second owner of every page. Who must write first copies the slots in use.",
        {
            "vLLM": Place(
                "vllm/v1/engine/parallel_sampling.py",
                ("ParentRequest",),
                "No fork: n samples are n requests, and find each other's whole blocks in the prefix cache. Beam "
                "search is made outside of the engine, of new requests. Copy-on-write (`KVCacheBlockCopy`) serves hits "
                "that end inside a block, for models with Mamba layers.",
            ),
            "SGLang": Place(
                "sglang/srt/beam_search/beam_group.py",
                ("BeamGroup",),
                "Samples are requests. Beams are rows of `req_to_token` that name the same slots; since a slot is one "
                "token's, nobody has to copy. The group owns them together, and frees them once.",
            ),
            "transformers": Place(
                _BATCHING + "cache.py",
                ("PagedAttentionCache.prepare_fork_request", "PagedAttentionCache.perform_cache_copy"),
                "Full blocks are shared, and an incomplete one is copied at the fork, all of it, whoever writes later.",
            ),
        },
    ),
    Part(
        "the face of the memory",
        ("kvpaged.cache.PagedKVCache",),
        "Pool, prefix cache and storage behind one object that begins sequences.",
        {
            "vLLM": Place(
                "vllm/v1/core/kv_cache_manager.py",
                ("KVCacheManager.get_computed_blocks", "KVCacheManager.allocate_slots", "KVCacheManager.free"),
                "The drawing in the docstring of `allocate_slots` is the one to understand first. Below it, a manager "
                "for each kind of layer and a coordinator over them (`kv_cache_coordinator.py`).",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/block_manager.py",
                ("BlockManager.allocate", "BlockManager.may_append", "BlockManager.deallocate"),
                "Pool and prefix cache are one class of some 120 lines.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/registry.py",
                ("default_radix_cache_factory", "create_unified_radix_cache"),
                "No single face: the scheduler holds tree, allocator and `ReqToTokenPool`, and this chooses the tree.",
            ),
            "transformers": Place(
                _BATCHING + "cache.py",
                ("PagedAttentionCache",),
                "An allocator for each kind of attention below it, all drawing from one pool of sectors.",
            ),
        },
    ),
    Part(
        "scheduler",
        ("kvpaged.engine.scheduler.Scheduler",),
        "Who computes what in the next step, and who gives way.",
        {
            "vLLM": Place(
                "vllm/v1/core/sched/scheduler.py",
                ("Scheduler.schedule", "Scheduler._preempt_request", "Scheduler.update_from_output"),
                "The same single rule, and no phases: computed tokens catch up with known ones, running requests "
                "first. A request is let in if its whole prompt fits, and gets blocks chunk by chunk, where ours has "
                "them all at once.",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/scheduler.py",
                ("Scheduler.schedule", "Scheduler.postprocess"),
                "A step is all prefill or all decode, and prefill goes first.",
            ),
            "SGLang": Place(
                "sglang/srt/managers/schedule_policy.py",
                ("PrefillAdder", "SchedulePolicy"),
                "Prefill and decode are separate batches, unless mixed. The queue can be ordered by how much of a "
                "prompt is cached. `ScheduleBatch.retract_decode` sends back first who has generated least.",
            ),
            "transformers": Place(
                _BATCHING + "scheduler.py",
                ("FIFOScheduler", "PrefillFirstScheduler"),
                "Decodes first, or started prompts first. `OffloadingManager` moves a victim's K and V to the CPU, or "
                "drops them.",
            ),
        },
    ),
    Part(
        "engine",
        ("kvpaged.engine.Engine",),
        "Schedule, pack, one forward pass, sample, again.",
        {
            "vLLM": Place(
                "vllm/v1/engine/core.py",
                ("EngineCore.step",),
                "In a process of its own by default, so that HTTP and tokenizing never hold up the GPU. "
                "`GPUModelRunner`, in the workers, packs the batch.",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/llm_engine.py",
                ("LLMEngine.step",),
                "Three calls: schedule, run, postprocess.",
            ),
            "SGLang": Place(
                "sglang/srt/managers/scheduler.py",
                ("Scheduler.event_loop_normal", "Scheduler.event_loop_overlap"),
                "The overlapped loop schedules the next batch while the GPU computes this one.",
            ),
            "transformers": Place(
                _BATCHING + "continuous_api.py",
                ("ContinuousBatchProcessor", "ContinuousBatchingManager"),
                "Behind `model.generate_batch`; a thread of its own, any model of the library.",
            ),
        },
    ),
    Part(
        "guessing ahead",
        ("kvpaged.engine.ngram.PromptLookup",),
        "Speculative decoding by looking the last words up in the text so far.",
        {
            "vLLM": Place(
                "vllm/v1/spec_decode/ngram_proposer.py",
                ("NgramProposer",),
                "Compiled with numba. The other proposers, small models for the most part, are in the same folder.",
            ),
            "SGLang": Place(
                "sglang/srt/speculative/ngram_worker.py",
                ("NGRAMWorker",),
                "Drafts from a trie of the n-grams seen so far: several continuations at once, checked as a tree.",
            ),
            "transformers": Place(
                "transformers/generation/candidate_generator.py",
                ("PromptLookupCandidateGenerator",),
                "`prompt_lookup_num_tokens` of `generate`; not in continuous batching.",
            ),
        },
    ),
    Part(
        "events",
        ("kvpaged.events.EventLog", "kvpaged.engine.EngineMetrics"),
        "What happened to the memory, in order; metrics are folds over it.",
        {
            "vLLM": Place(
                "vllm/distributed/kv_events.py",
                ("BlockStored", "BlockRemoved", "AllBlocksCleared"),
                "Events tell a *router outside* which prefixes this server has cached, so that alike prompts go to the "
                "same server. Metrics are counters (`vllm/v1/metrics/stats.py`), in Prometheus' format.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/events.py",
                ("KVCacheEventRecorder",),
                "The same purpose: nodes of the tree that were stored and removed.",
            ),
        },
    ),
)

BEYOND = (
    Part(
        "GPU kernels",
        (),
        "Thousands of threads hide the wait for memory; the work is to have enough for all of them.",
        {
            "vLLM": Place(
                "vllm/v1/attention/backends/registry.py",
                ("AttentionBackendEnum",),
                "The list of attention backends. Their kernels are FlashAttention, FlashInfer and Triton, and C++ and "
                "CUDA under `csrc/`.",
            ),
            "nano-vllm": Place(
                "nanovllm/engine/model_runner.py",
                ("ModelRunner.capture_cudagraph",),
                "FlashAttention's kernels, and a decode step recorded as a CUDA graph: one launch for hundreds.",
            ),
            "SGLang": Place(
                "sglang/srt/layers/attention/attention_registry.py",
                ("register_attention_backend",),
                "As in vLLM: backends by name. `triton_backend.py` is the one to read, for its kernels are Python.",
            ),
        },
    ),
    Part(
        "tensor parallelism",
        (),
        "Each GPU has some of the kv heads of every page. The bookkeeping is one, and page ids mean the same on all.",
        {
            "vLLM": Place(
                "vllm/model_executor/layers/linear.py",
                ("QKVParallelLinear", "RowParallelLinear"),
                "The matrices are cut so that attention needs no talk between GPUs, and one sum after it; groups are "
                "in `vllm/distributed/parallel_state.py`.",
            ),
            "nano-vllm": Place(
                "nanovllm/layers/linear.py",
                ("QKVParallelLinear", "RowParallelLinear"),
                "The same idea in a file that can be read in one sitting.",
            ),
            "SGLang": Place(
                "sglang/srt/distributed/parallel_state.py",
                ("GroupCoordinator",),
                "Every GPU runs the scheduler, and all decide the same.",
            ),
            "transformers": Place(
                _BATCHING + "distributed.py",
                ("DistributedHelper",),
                "Keeps the processes of a tensor-parallel model in step.",
            ),
        },
    ),
    Part(
        "disaggregation",
        (),
        "Prompts are computed on some machines and answers on others; pages travel between them.",
        {
            "vLLM": Place(
                "vllm/distributed/kv_transfer/kv_connector/v1/base.py",
                ("KVConnectorBase_V1",),
                "One interface for all who bring K and V from elsewhere; its docstring tells the life of a transfer.",
            ),
            "SGLang": Place(
                "sglang/srt/disaggregation/prefill.py",
                ("PrefillBootstrapQueue", "SchedulerDisaggregationPrefillMixin"),
                "The file begins with the stages that a request goes through; `decode.py` is the other side.",
            ),
        },
    ),
    Part(
        "offload",
        (),
        "Pages that nobody uses move to the host's memory, or to a disk, instead of being forgotten.",
        {
            "vLLM": Place(
                "vllm/distributed/kv_transfer/kv_connector/v1/offloading_connector.py",
                ("OffloadingConnector",),
                "A connector like any other; what is kept, and for how long, is under `vllm/v1/kv_offload/`.",
            ),
            "SGLang": Place(
                "sglang/srt/managers/cache_controller.py",
                ("HiCacheController",),
                "A tree with tiers (`UnifiedRadixCache.init_hicache`): GPU, host, storage.",
            ),
            "transformers": Place(
                _BATCHING + "offloading_manager.py",
                ("OffloadingManager",),
                "For requests that must give way, not for cached prefixes.",
            ),
        },
    ),
    Part(
        "quantised K and V",
        (),
        "Fewer bits for each number, so twice or four times the tokens in the same bytes, less exactly.",
        {
            "vLLM": Place(
                "vllm/config/cache.py",
                ("CacheDType",),
                "The list of formats, from bfloat16 to three bits; each must be known to the attention kernel.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/memory_pool.py",
                ("MHATokenToKVPoolFP4", "MHATokenToKVPoolMXFP8"),
                "A storage class for each format: the page table does not notice.",
            ),
            "transformers": Place(
                "transformers/cache_utils.py",
                ("QuantizedCache", "QuantizedLayer"),
                "For the contiguous cache: the newest tokens stay exact, the others are packed.",
            ),
        },
    ),
    Part(
        "layers of several kinds",
        (),
        "Sliding windows forget their oldest pages; recurrent layers have one state instead of pages.",
        {
            "vLLM": Place(
                "vllm/v1/core/single_type_kv_cache_manager.py",
                ("FullAttentionManager", "SlidingWindowManager", "MambaManager"),
                "A manager for each kind, one pool, and `HybridKVCacheCoordinator` to find a hit that suits all.",
            ),
            "SGLang": Place(
                "sglang/srt/mem_cache/allocator/swa.py",
                ("SWATokenToKVPoolAllocator",),
                "Two pools, for full layers and for those with a window, under one index.",
            ),
            "transformers": Place(
                _BATCHING + "cache_allocators/sliding_attention.py",
                ("SlidingAttentionCacheAllocator",),
                "A window is a ring of blocks; sectors let both kinds share one tensor.",
            ),
        },
    ),
)


# The shortest way through each source, for who comes from here: in this order, and what to look for.
READING = {
    "vLLM": (
        Place(
            "vllm/v1/core/kv_cache_utils.py",
            ("KVCacheBlock", "FreeKVCacheBlockQueue", "hash_block_tokens"),
            "A page with its count and its hash, the queue of free ones, and the hash of a block from its parent's.",
        ),
        Place(
            "vllm/v1/core/block_pool.py",
            ("BlockPool.get_new_blocks", "BlockPool.touch", "BlockPool.free_blocks"),
            "Allocate, share, release. Look where a cached block loses its hash: that is eviction.",
        ),
        Place(
            "vllm/v1/core/single_type_kv_cache_manager.py",
            ("FullAttentionManager.find_longest_cache_hit",),
            "The match: block after block, until one is missing.",
        ),
        Place(
            "vllm/v1/core/kv_cache_manager.py",
            ("KVCacheManager.get_computed_blocks", "KVCacheManager.allocate_slots"),
            "Where one token at least is left to run, and the drawing of what is computed, hit, new and ahead.",
        ),
        Place(
            "vllm/v1/core/sched/scheduler.py",
            ("Scheduler.schedule", "Scheduler._preempt_request"),
            "Read the comment at its head, then only the loop over running requests and the one over waiting ones.",
        ),
        Place(
            "vllm/v1/worker/gpu/block_table.py",
            ("BlockTables.append_block_ids", "BlockTables.compute_slot_mappings"),
            "Ids cross to the GPU, and become flat slots.",
        ),
        Place(
            "vllm/v1/attention/backends/flash_attn.py",
            ("FlashAttentionImpl.do_kv_cache_update", "FlashAttentionImpl.forward"),
            "Write by slot mapping, read by block table.",
        ),
        Place("vllm/v1/engine/core.py", ("EngineCore.step",), "And the loop that turns it all."),
    ),
    "nano-vllm": (
        Place("nanovllm/engine/sequence.py", ("Sequence",), "Tokens, `block_table`, `num_cached_tokens`."),
        Place("nanovllm/engine/block_manager.py", ("BlockManager",), "All of it. Which laws does it keep, and where?"),
        Place("nanovllm/engine/scheduler.py", ("Scheduler.schedule", "Scheduler.postprocess"), "Two phases, a queue."),
        Place(
            "nanovllm/engine/model_runner.py",
            ("ModelRunner.prepare_prefill", "ModelRunner.prepare_decode"),
            "The slot mapping, made in Python, token by token.",
        ),
        Place("nanovllm/layers/attention.py", ("store_kvcache", "Attention.forward"), "Write, then read in place."),
    ),
    "SGLang": (
        Place(
            "sglang/srt/mem_cache/radix_cache.py",
            ("RadixCache.match_prefix", "RadixCache.insert", "RadixCache.evict", "RadixCache.inc_lock_ref"),
            "The plain tree: `TreeNode`, the split, the locks on the way to the root.",
        ),
        Place(
            "sglang/srt/mem_cache/allocator/paged.py",
            ("PagedTokenToKVPoolAllocator",),
            "Free pages as a tensor, and slots handed out for a whole batch at once.",
        ),
        Place("sglang/srt/mem_cache/memory_pool.py", ("ReqToTokenPool", "MHATokenToKVPool"), "Table and bytes."),
        Place(
            "sglang/srt/managers/schedule_policy.py",
            ("SchedulePolicy", "PrefillAdder"),
            "Who comes next, and how much of it fits.",
        ),
        Place(
            "sglang/srt/managers/schedule_batch.py",
            ("Req", "ScheduleBatch.retract_decode"),
            "A request through its life; the batch; who gives way.",
        ),
        Place(
            "sglang/srt/mem_cache/unified_radix_cache.py",
            ("UnifiedRadixCache",),
            "Last: the tree that runs by default, for all kinds of layers and tiers.",
        ),
    ),
    "transformers": (
        Place(
            "transformers/cache_utils.py",
            ("DynamicLayer.update", "Cache"),
            "The contiguous cache, and the one method that a layer of ours replaces.",
        ),
        Place(
            _BATCHING + "cache_allocators/cache_allocator.py",
            ("BlockLedger", "CacheAllocator.fork_blocks", "CacheAllocator.match_prefix_blocks"),
            "Counts, hashes and forks in 370 lines, and the drawing of page, block and sector.",
        ),
        Place(
            _BATCHING + "cache_allocators/full_attention.py",
            ("FullAttentionCacheAllocator.update",),
            "Write by index, read back by index.",
        ),
        Place(_BATCHING + "scheduler.py", ("Scheduler", "FIFOScheduler"), "The budget, in tokens and in cache."),
        Place(_BATCHING + "continuous_api.py", ("ContinuousBatchProcessor",), "The loop."),
    ),
}


def find_part(name: str) -> Part:
    """Return the part of that name. Raises ValueError, with all names, when there is none."""
    for part in (*PARTS, *BEYOND):
        if part.name == name:
            return part
    raise ValueError(f"no part is called {name!r}; there are {', '.join(part.name for part in (*PARTS, *BEYOND))}")
