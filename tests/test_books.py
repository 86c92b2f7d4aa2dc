"""The engine's books without a model: who is on them, how requests end, and what an error or an interrupt leaves."""

import pytest

from kvpaged.engine.books import Books
from kvpaged.engine.request import Branch, Request
from support.scheduling import compute, new_request, new_scheduler


def new_books(*requests: Request) -> Books:
    """Books on which these requests stand, each with its prompt computed and one token."""
    scheduler = new_scheduler()
    books = Books(scheduler, scheduler._counters)
    for request in requests:
        books.queue(request)
    compute(scheduler.schedule())
    return books


def two_requests() -> tuple[Request, Request]:
    return new_request(7, range(9)), new_request(8, range(20, 25))


def break_off(books: Books, error: type[BaseException], computing: bool = False) -> None:
    """Let an error break off what is done on the books: the model's pass, or something else."""
    with books.whole():
        books.is_computing = computing
        raise error


def test_new_books_are_empty_and_nothing_in_them_is_half_done_or_undone() -> None:
    books = new_books()
    assert (books.requests, books.ended, books.unwanted) == ({}, {}, set())
    assert (books.half_done, books.is_computing, books.is_undone) == (False, False, False)


def test_a_request_that_is_queued_stands_on_the_books_waits_and_is_written_down() -> None:
    scheduler = new_scheduler()
    books, request = Books(scheduler, scheduler._counters), new_request(7, range(9))
    books.queue(request)
    assert books.requests == {7: request}
    assert scheduler.waiting == request.branches
    assert list(scheduler.cache.events) == [("queue", None, (), tuple(range(9)), 7)]


def test_requests_that_finish_are_struck_off_kept_for_the_report_counted_and_written_down() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    books.finish([first])
    assert (books.requests, books.ended) == ({8: second}, {7: first})
    assert (first.finished, second.finished) == (True, False)
    assert first.metrics.finished is not None
    books.finish([second])
    assert (books.requests, books.ended) == ({}, {7: first, 8: second})
    assert books._counters.requests_finished == 2
    written = [event for event in books._cache.events if event.kind == "finish"]
    assert written == [("finish", None, (), (), 7), ("finish", None, (), (), 8)]


def test_a_request_that_fails_ends_with_its_error_and_gives_its_pages_back() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    first.branches.append(Branch(first, 1))
    first.branches[1].finish_reason = "stop"
    books.fail(first, ValueError("no such text"))
    assert [branch.finish_reason for branch in first.branches] == ["error", "error"]
    assert first.error == "ValueError: no such text"
    assert (books.requests, books.ended) == ({8: second}, {7: first})
    assert books._cache.sequences == {second.branches[0].sequence}
    assert not books.half_done


def test_requests_that_nobody_wants_end_when_things_are_settled() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    books.unwanted |= {first, new_request(9)}  # one that is finished long ago
    books.settle()
    assert first.branches[0].finish_reason == "abort"
    assert (books.requests, books.ended, books.unwanted) == ({8: second}, {7: first}, set())
    books.settle()
    assert not books.half_done


def test_what_succeeds_wholly_leaves_everything_as_it_made_it() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    with books.whole():
        assert books.half_done
    assert (books.half_done, books.is_undone) == (False, False)
    assert books._scheduler.running == [first.branches[0], second.branches[0]]


def test_a_pass_that_fails_preempts_everybody_and_leaves_the_prefix_cache_and_what_is_others() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    other = books._cache.sequence([60, 61])
    with pytest.raises(MemoryError):
        break_off(books, MemoryError, computing=True)
    assert (books.half_done, books.is_undone) == (False, True)
    assert books._scheduler.waiting == [first.branches[0], second.branches[0]]
    assert books._cache.sequences == {other}
    assert books._cache.prefix.match(range(9)).num_tokens == 9
    books._scheduler.check(books.requests.values(), [other])
    books._cache.check()
    with books.whole():
        assert (books.is_computing, books.is_undone) == (False, False)


@pytest.mark.parametrize(("computing", "error"), [(True, KeyboardInterrupt), (False, MemoryError)])
def test_anything_else_that_goes_wrong_leaves_only_what_is_others(computing: bool, error: type[BaseException]) -> None:
    first, second = two_requests()
    books = new_books(first, second)
    other = books._cache.sequence(range(9))
    with pytest.raises(error):
        break_off(books, error, computing)
    assert (books.half_done, books.is_undone) == (False, False)
    assert books._scheduler.waiting == [first.branches[0], second.branches[0]]
    assert books._cache.sequences == {other}
    assert len(books._cache.prefix) == 0
    books._scheduler.check(books.requests.values(), [other])
    books._cache.check()


def test_a_request_of_which_nothing_more_will_come_is_struck_off_after_an_interrupt() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    first.branches[0].finish_reason = "length"
    with pytest.raises(KeyboardInterrupt):
        break_off(books, KeyboardInterrupt)
    assert (books.requests, books.ended) == ({8: second}, {7: first})


def test_what_even_the_salvage_could_not_mend_is_mended_when_things_are_settled() -> None:
    first, second = two_requests()
    books = new_books(first, second)
    other = books._cache.sequence([60, 61])
    unfinished = books.whole()
    unfinished.__enter__()  # and there it is interrupted: nobody leaves
    assert books.half_done
    books.settle()
    assert not books.half_done
    assert books._scheduler.waiting == [first.branches[0], second.branches[0]]
    assert books._cache.sequences == {other}
    del unfinished  # it is collected, and mends nothing a second time
    assert not books.half_done
