from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamflow._jetstream.credit import Ask, Credit


def ask(credit: Credit, taking: int = 0) -> Ask | None:
    request = credit.next(taking)
    if request is not None:
        credit.sent(request)
    return request


def test_asks_for_all_at_first_and_again_when_half_is_free() -> None:
    credit = Credit(100, None)
    assert ask(credit) == Ask(100, None)
    credit.arrived(100, 1000)
    assert ask(credit) is None
    credit.taken(49)
    assert ask(credit) is None
    assert ask(credit, taking=1) == Ask(50, None)
    credit.taken(1)
    assert ask(credit) is None
    assert (credit.asked, credit.buffered) == (50, 50)


def test_an_ended_request_gives_its_rest_back() -> None:
    credit = Credit(100, None)
    ask(credit)
    credit.arrived(10, 100)
    credit.taken(10)
    credit.returned(90, None)
    assert ask(credit) == Ask(100, None)
    credit.returned(None, None)
    assert credit.asked == 0


def test_a_limited_request() -> None:
    credit = Credit(100, None)
    credit.batch = 10
    assert ask(credit) == Ask(10, None)


def test_a_message_larger_than_all_is_asked_for_alone() -> None:
    credit = Credit(100, 1_000_000)
    asked = []
    for _ in range(10):
        request = ask(credit)
        assert request is not None
        asked.append(request)
        if request.max_bytes is None:
            break
        credit.returned(request.messages, request.max_bytes)
        credit.did_not_fit(request.max_bytes)
    assert asked[-1] == Ask(1, None)
    assert asked[-2].max_bytes == 1_000_000  # not before all bytes were offered
    credit.arrived(1, 5_000_000)
    assert ask(credit) is None
    credit.taken(1)
    request = ask(credit)
    assert request is not None
    assert request.max_bytes == 1_000_000


sizes = st.lists(st.integers(1, 200_000), min_size=1, max_size=200)


@given(st.integers(1, 50), st.integers(1, 300_000), sizes, st.randoms(use_true_random=False))
def test_all_arrives_within_the_bounds(window: int, max_bytes: int, sizes: list[int], random: object) -> None:
    """A server that holds each request to its messages and bytes, a reader that takes now and then."""
    credit, waiting, requests, held = Credit(window, max_bytes), list(sizes), list[list[int]](), list[int]()
    taken = 0
    for _ in range(50 * len(sizes) + 100):
        request = ask(credit)
        if request is not None:
            requests.append([request.messages, request.max_bytes if request.max_bytes is not None else 10**9])
        if requests and waiting:
            first = requests[0]
            if waiting[0] > first[1]:
                requests.pop(0)
                credit.returned(first[0], first[1])
                credit.did_not_fit(first[1])
            else:
                size = waiting.pop(0)
                first[0] -= 1
                first[1] -= size
                held.append(size)
                credit.arrived(1, size)
                assert len(held) <= window
                assert sum(held) <= max_bytes or len(held) == 1
                if not first[0]:
                    requests.pop(0)
        if held and (not waiting or not requests or random.random() < 0.4):  # type: ignore[attr-defined]
            count = random.randint(1, len(held))  # type: ignore[attr-defined]
            credit.taken(count)
            taken += count
            del held[:count]
    assert taken == len(sizes), "it stalled"
