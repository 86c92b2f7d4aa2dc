"""Traces are read from files of three kinds; what is wrong with a line is said with its file and number."""

import json
from pathlib import Path

import pytest

from kvpaged.lab.read_trace import MalformedLine, TraceReader, find_block_size
from kvpaged.lab.trace import Trace
from kvpaged.lab.vocabulary import load_vocabulary
from kvpaged.lab.workload import chats, json_lines
from kvpaged.model.loading import SHIPPED
from kvpaged.tokens import pack, unpack

RECALL = SHIPPED["recall"]


def read(*lines: object, **options: object) -> Trace:
    """Read lines, given as text or as what is written in JSON."""
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    block_size = options.pop("block_size", None)
    return TraceReader("some.jsonl", **options).read(written, block_size)  # type: ignore[arg-type]


def test_blocks_are_read_as_mooncake_writes_them() -> None:
    trace = read(
        {"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [46, 47, 2**70]},
        {"timestamp": 3, "input_length": 900, "output_length": 5, "hash_ids": [46, "x"]},
    )
    assert (trace.block_size, trace.in_tokens, trace.num_tokens) == (512, False, 1930)
    assert [unpack(request.units) for request in trace.requests] == [[0, 1, 2], [0, 3]]
    assert [trace.tokens_in(trace.requests[0], units) for units in range(4)] == [0, 512, 1024, 1030]
    assert [request.name for request in trace.requests] == ["line 1", "line 2"]


def test_blocks_by_part_of_the_prompt_have_no_size() -> None:
    trace = read({"input_length": 11, "hash_ids": {"system": [8, 9], "history": [], "question": [8]}})
    assert trace.block_size is None
    assert [trace.tokens_in(trace.requests[0], units) for units in range(4)] == [0, 3, 7, 11]


def test_the_size_of_blocks_follows_from_the_lengths_or_is_given() -> None:
    assert read(*({"input_length": n, "hash_ids": list(range(-(-n // 16)))} for n in (33, 47))).block_size == 16
    assert read(*({"input_length": n, "hash_ids": list(range(-(-n // 24)))} for n in (24, 25))).block_size == 24
    one = {"input_length": 100, "hash_ids": [1]}
    with pytest.raises(ValueError, match="blocks of 100 to .* tokens fit the trace: say which with --block-size"):
        read(one)
    assert read(one, block_size=128).block_size == 128
    with pytest.raises(ValueError, match="no size of blocks fits"):
        read({"input_length": 100, "hash_ids": [1]}, {"input_length": 100, "hash_ids": [1, 2, 3]})
    with pytest.raises(ValueError, match="blocks of 64 tokens do not fit"):
        read(one, block_size=64)


def test_our_own_workloads_are_traces_of_blocks_of_16() -> None:
    trace = TraceReader("chats").read(json_lines(chats(60, 2.0)))
    assert trace.block_size == 16
    assert find_block_size(trace.requests) == 16


def test_tokens_are_read_from_a_list_or_a_field_and_a_request_may_have_a_name_and_a_salt() -> None:
    trace = read(
        [5, 6, 7],
        {"prompt_token_ids": [5, 6], "request_id": "chat-9", "cache_salt": "tenant"},
        "",
        {"custom_id": "batch-3", "body": {"prompt": [1]}},
    )
    assert [unpack(request.units) for request in trace.requests] == [[5, 6, 7], [5, 6], [1]]
    assert [request.name for request in trace.requests] == ["line 1", "line 2 (chat-9)", "line 4 (batch-3)"]
    assert [request.cache_salt for request in trace.requests] == [None, "tenant", None]
    assert trace.in_tokens
    assert trace.words(trace.requests[0], 1, 3) == "6 7"


def test_chats_and_texts_need_a_tokenizer() -> None:
    chat = [
        {"role": "system", "content": "Ada hid the coin"},
        {"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "it?"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    vocabulary = load_vocabulary(RECALL)
    trace = read({"messages": chat}, {"prompt": "Ada hid the coin"}, vocabulary=vocabulary)
    text = vocabulary.encode("system: Ada hid the coin\nuser: Where is it?\nassistant: \n")
    assert unpack(trace.requests[0].units) == text
    assert trace.words(trace.requests[1], 0, 4) == "Ada hid the coin"
    with pytest.raises(MalformedLine, match="some.jsonl, line 1: it is text, .* give one with --tokenizer"):
        read({"messages": chat})


def test_a_folder_with_a_chat_template_uses_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_bytes((RECALL / "tokenizer.json").read_bytes())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{% for m in messages %}{{ m.content }}!"}
    config["chat_template"] += "{% endfor %}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary = load_vocabulary(tmp_path)
    tokens = vocabulary.encode_chat([{"role": "user", "content": "Ada hid"}, {"role": "user", "content": " the coin"}])
    assert tokens == vocabulary.encode("Ada hid! the coin!") == load_vocabulary(RECALL).encode("Ada hid! the coin!")
    assert vocabulary.decode(vocabulary.encode("Ada hid")) == "Ada hid"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a tokenizer.json, or a folder that has one"):
        load_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is no tokenizer"):
        load_vocabulary(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "it is no JSON"),
        ("7", "it has no hash_ids"),
        ("{}", "it has no hash_ids, no messages, and no tokens under"),
        ("[]", "it has no token"),
        ("[1, -1]", "at index 1: token -1 is outside"),
        ('[1, "a"]', "at index 1: token 'a' is not an int"),
        ('{"body": 3}', "its body is no object"),
        ('{"tokens": [1], "cache_salt": []}', "cache_salt is []"),
        ('{"hash_ids": [1], "input_length": 9}', "it has blocks, and those before have tokens"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_malformed_line_is_named_and_the_rest_is_read_on_request(line: str, message: str) -> None:
    with pytest.raises(MalformedLine) as raised:
        read([1, 2], line, [3])
    assert str(raised.value).startswith(f"some.jsonl, line 2: {message}")
    assert str(raised.value).endswith("; mend it, or read the rest with --skip-malformed")
    reader = TraceReader("some.jsonl", skip_malformed=True)
    trace = reader.read(["[1, 2]", line, "[3]"])
    assert [request.units for request in trace.requests] == [pack([1, 2]), pack([3])]
    assert reader.malformed[0].startswith(f"some.jsonl, line 2: {message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_length": 5}, "hash_ids is no list"),
        ({"input_length": 5, "hash_ids": [1.5]}, "hash_ids is no list of numbers or strings"),
        ({"input_length": 5, "hash_ids": {"system": 3}}, "hash_ids is no list of numbers or strings"),
        ({"input_length": "5", "hash_ids": [1]}, "input_length is '5' with 1 hash_ids"),
        ({"input_length": 1, "hash_ids": [1, 2]}, "input_length is 1 with 2 hash_ids"),
        ({"input_length": 1, "hash_ids": []}, "input_length is 1 with 0 hash_ids"),
    ],
)
def test_a_malformed_block_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(MalformedLine, match=message):
        read({"hash_ids": None, **fields})


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "messages is no list of objects"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a message has a part that is no text"),
        ([{"role": "user", "content": 3}], "a message's content is no text"),
    ],
)
def test_a_malformed_chat_is_refused(messages: object, message: str) -> None:
    with pytest.raises(MalformedLine, match=message):
        read({"messages": messages}, vocabulary=load_vocabulary(RECALL))
