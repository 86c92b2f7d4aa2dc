"""Page storage: what is written is what is read, and nothing else moves."""

import resource
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpaged.page import PageStorage

LAYERS, HEADS, DIM = 3, 2, 8
STATM = Path("/proc/self/statm")


def storage_of(num_pages: int = 6, page_size: int = 4, dtype: torch.dtype = torch.float32) -> PageStorage:
    """A storage where every number differs from every other."""
    storage = PageStorage(num_pages, page_size, LAYERS, HEADS, DIM, dtype)
    for layer in range(LAYERS):
        keys = storage.keys(layer)
        keys.copy_(torch.arange(keys.numel()).view(keys.shape) % 251 + layer / 4)
        storage.values(layer).copy_(-keys)
    return storage


def snapshot(storage: PageStorage) -> tuple[torch.Tensor, torch.Tensor]:
    layers = range(storage.num_layers)
    return torch.stack([storage.keys(i) for i in layers]), torch.stack([storage.values(i) for i in layers])


def unchanged(storage: PageStorage, before: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(now, then) for now, then in zip(snapshot(storage), before, strict=True))


def test_keys_and_values_are_laid_out_page_head_slot_dim() -> None:
    storage = PageStorage(num_pages=5, page_size=4, num_layers=3, num_kv_heads=2, head_dim=8)
    assert storage.keys(2).shape == storage.values(2).shape == (5, 2, 4, 8)
    assert storage.keys(0).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_written_token_is_found_in_its_slot_and_nowhere_else(dtype: torch.dtype, as_tensor: bool) -> None:
    storage = storage_of(dtype=dtype)
    keys, values = snapshot(storage)
    slots = [9, 0, 23]
    new_keys, new_values = torch.randn(2, 3, HEADS, DIM).to(dtype)
    storage.write(1, torch.tensor(slots, dtype=torch.int32) if as_tensor else slots, new_keys, new_values)
    for row, slot in enumerate(slots):
        keys[1, slot // 4, :, slot % 4] = new_keys[row]
        values[1, slot // 4, :, slot % 4] = new_values[row]
    assert unchanged(storage, (keys, values))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_writes_in_any_order_read_back_token_by_token(data: st.DataObject) -> None:
    page_size = data.draw(st.integers(1, 64))
    num_pages = data.draw(st.integers(1, 8))
    slots = data.draw(st.lists(st.integers(0, num_pages * page_size - 1), unique=True, max_size=40))
    storage = PageStorage(num_pages, page_size, 1, HEADS, DIM)
    keys, values = torch.randn(2, len(slots), HEADS, DIM)
    storage.write(0, slots, keys, values)
    for row, slot in enumerate(slots):
        page_id, offset = divmod(slot, page_size)
        assert torch.equal(storage.keys(0)[page_id, :, offset], keys[row])
        assert torch.equal(storage.values(0)[page_id, :, offset], values[row])


def test_a_write_of_strided_keys_stores_what_they_show() -> None:
    storage = storage_of()
    keys, values = torch.randn(2, HEADS, 3, DIM).transpose(1, 2)
    assert not keys.is_contiguous()
    storage.write(0, [1, 2, 3], keys, values)
    assert torch.equal(storage.keys(0)[0, :, 1:], keys.transpose(0, 1))
    assert torch.equal(storage.values(0)[0, :, 1:], values.transpose(0, 1))


def test_a_write_of_no_tokens_changes_nothing() -> None:
    storage = storage_of()
    before = snapshot(storage)
    storage.write(0, [], torch.empty(0, HEADS, DIM), torch.empty(0, HEADS, DIM))
    assert unchanged(storage, before)


def test_a_write_keeps_no_autograd_history() -> None:
    storage = storage_of()
    storage.write(0, [0], torch.randn(1, HEADS, DIM, requires_grad=True), torch.randn(1, HEADS, DIM))
    assert not storage.keys(0).requires_grad


TOKEN = torch.zeros(1, HEADS, DIM)
PAIR = torch.zeros(2, HEADS, DIM)


@pytest.mark.parametrize(
    ("layer", "slots", "keys", "values", "error", "message"),
    [
        (3, [0], TOKEN, TOKEN, IndexError, "layer 3 does not exist"),
        (-1, [0], TOKEN, TOKEN, IndexError, "layer -1 does not exist"),
        (0, [1, 24], PAIR, PAIR, IndexError, "slot 24 does not exist; the storage has slots 0..23"),
        (0, [-1], TOKEN, TOKEN, IndexError, "slot -1 does not exist"),
        (0, [5, 5], PAIR, PAIR, ValueError, "slot 5 is named twice"),
        (0, [0.5], TOKEN, TOKEN, TypeError, "slot_mapping holds float64"),
        (0, [[0]], TOKEN, TOKEN, ValueError, r"slot_mapping has shape \(1, 1\)"),
        (0, [0, 1], TOKEN, TOKEN, ValueError, r"keys have shape \(1, 2, 8\), expected \(2, 2, 8\)"),
        (0, [0], TOKEN, PAIR, ValueError, r"values have shape \(2, 2, 8\), expected \(1, 2, 8\)"),
        (0, [0], TOKEN[:, :1], TOKEN, ValueError, r"keys have shape \(1, 1, 8\)"),
        (0, [0], TOKEN.half(), TOKEN, TypeError, "keys are torch.float16, the pages hold torch.float32"),
        (0, [0], TOKEN, TOKEN.bfloat16(), TypeError, "values are torch.bfloat16"),
    ],
)
def test_a_write_that_does_not_fit_says_why_and_writes_nothing(
    layer: int, slots: list[int], keys: torch.Tensor, values: torch.Tensor, error: type[Exception], message: str
) -> None:
    storage = storage_of()
    before = snapshot(storage)
    with pytest.raises(error, match=message):
        storage.write(layer, slots, keys, values)
    assert unchanged(storage, before)


@pytest.mark.parametrize("num_slots", [0, 1, 3, 4])
def test_copy_moves_the_first_slots_of_a_page_in_every_layer_and_leaves_the_rest(num_slots: int) -> None:
    storage = storage_of()
    keys, values = snapshot(storage)
    storage.copy(source=2, target=5, num_slots=num_slots)
    keys[:, 5, :, :num_slots] = keys[:, 2, :, :num_slots]
    values[:, 5, :, :num_slots] = values[:, 2, :, :num_slots]
    assert unchanged(storage, (keys, values))


def test_copies_are_counted_in_pages_and_bytes() -> None:
    storage = storage_of()
    storage.copy(source=2, target=5, num_slots=3)
    storage.copy(source=2, target=4, num_slots=1)
    assert (storage.num_copies, storage.bytes_copied) == (2, 4 * storage.bytes_per_token)


@pytest.mark.parametrize(
    ("source", "target", "num_slots", "error", "message"),
    [
        (6, 0, 1, IndexError, "page 6 does not exist; the storage has pages 0..5"),
        (0, -1, 1, IndexError, "page -1 does not exist"),
        (True, 0, 1, IndexError, "page True does not exist"),
        (0, 1, 5, ValueError, "num_slots is 5; a page has 4 slots"),
        (0, 1, -1, ValueError, "num_slots is -1"),
        (2, 2, 1, ValueError, "source and target are both page 2"),
    ],
)
def test_a_copy_that_does_not_fit_says_why_and_copies_nothing(
    source: int, target: int, num_slots: int, error: type[Exception], message: str
) -> None:
    storage = storage_of()
    before = snapshot(storage)
    with pytest.raises(error, match=message):
        storage.copy(source, target, num_slots)
    assert unchanged(storage, before)


def test_a_page_is_a_view_through_which_the_storage_is_read_and_written() -> None:
    storage = storage_of()
    page = storage[4]
    assert page.page_id == 4
    assert page.keys.shape == page.values.shape == (LAYERS, HEADS, 4, DIM)
    assert torch.equal(page.keys[2], storage.keys(2)[4])
    page.values[1, 0, 3] = 77.0
    assert (storage.values(1)[4, 0, 3] == 77.0).all()


@pytest.mark.parametrize("page_id", [-1, 6])
def test_a_page_that_does_not_exist_cannot_be_taken(page_id: int) -> None:
    with pytest.raises(IndexError, match=f"page {page_id} does not exist"):
        storage_of()[page_id]


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_that_does_not_exist_cannot_be_read(layer: int) -> None:
    with pytest.raises(IndexError, match=f"layer {layer} does not exist"):
        storage_of().keys(layer)
    with pytest.raises(IndexError, match=f"layer {layer} does not exist"):
        storage_of().values(layer)


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_bytes_are_counted_as_the_tensors_hold_them(dtype: torch.dtype, itemsize: int) -> None:
    storage = storage_of(dtype=dtype)
    assert storage.bytes_per_token == 2 * LAYERS * HEADS * DIM * itemsize
    assert storage.bytes_per_page == 4 * storage.bytes_per_token
    assert storage.num_bytes == sum(tensor.nbytes for tensor in snapshot(storage))


def test_unwritten_slots_read_as_zero_even_where_memory_was_used_before() -> None:
    for _ in range(20):
        storage = PageStorage(num_pages=3, page_size=4, num_layers=1, num_kv_heads=2, head_dim=8)
        assert not storage.keys(0).any()
        assert not storage.values(0).any()
        storage.keys(0).fill_(7.0)
        storage.values(0).fill_(7.0)


@pytest.mark.skipif(not STATM.exists(), reason="reads resident memory from /proc")
def test_pages_cost_no_memory_before_they_are_touched() -> None:
    def resident_bytes() -> int:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    before = resident_bytes()
    storage = PageStorage(num_pages=1_000_000, page_size=16, num_layers=1, num_kv_heads=1, head_dim=16)
    storage.write(0, [15_999_999], torch.ones(1, 1, 16), torch.ones(1, 1, 16))
    assert storage[999_999].keys[0, 0, 15].eq(1).all()
    assert storage.num_bytes > 2e9
    assert resident_bytes() - before < 100e6


@pytest.mark.parametrize("name", ["num_pages", "page_size", "num_layers", "num_kv_heads", "head_dim"])
def test_every_size_must_be_at_least_one(name: str) -> None:
    sizes = dict.fromkeys(("num_pages", "page_size", "num_layers", "num_kv_heads", "head_dim"), 1)
    with pytest.raises(ValueError, match=f"{name} is 0"):
        PageStorage(**(sizes | {name: 0}))
    with pytest.raises(TypeError, match=f"{name} is 1.5"):
        PageStorage(**(sizes | {name: 1.5}))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"dtype is {dtype}; pages hold torch.float32"):
        PageStorage(1, 1, 1, 1, 1, dtype)


def test_a_storage_says_how_much_it_holds_of_what() -> None:
    many = PageStorage(num_pages=20, page_size=4, num_layers=2, num_kv_heads=3, head_dim=8)
    assert repr(many) == "PageStorage(20 pages of 4 slots, 2 layers, 3 kv heads of 8, torch.float32, 30,720 bytes)"
    one = PageStorage(num_pages=1, page_size=1, num_layers=1, num_kv_heads=1, head_dim=2)
    assert repr(one) == "PageStorage(1 page of 1 slot, 1 layer, 1 kv head of 2, torch.float32, 16 bytes)"
