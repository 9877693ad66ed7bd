"""The cache against an OrderedDict: bounded whatever is put, and who was used least recently makes room."""

from collections import OrderedDict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tidings.cache import Cache

keys = st.integers(0, 12).map(lambda number: f"user-{number}")
steps = st.lists(st.tuples(st.sampled_from(["put", "use", "find", "replace", "drop", "clear"]), keys), max_size=60)


@given(st.integers(1, 8), steps)
def test_a_small_cache_is_an_ordered_dict(most: int, asked: Sequence[tuple[str, str]]) -> None:
    """Any calls in any order: each answer is what an OrderedDict would have said, and so is what is held in the end."""
    cache, model = Cache[str](most), OrderedDict[str, str]()
    for number, (call, key) in enumerate(asked):
        value = f"value-{number}"
        if call == "put":
            cache.put(key, value)
            model[key] = value
            model.move_to_end(key)
            if len(model) > most:
                model.popitem(last=False)
        elif call == "use":
            assert cache.use(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif call == "find":
            assert cache.find(key) == model.get(key)
        elif call == "replace" and key in model:
            cache.replace(key, value)
            model[key] = value
        elif call == "drop":
            cache.drop(key)
            model.pop(key, None)
        elif call == "clear":
            cache.clear()
            model.clear()
        assert len(cache) == len(model)
    everybody = [f"user-{number}" for number in range(13)]
    assert [cache.find(key) for key in everybody] == [model.get(key) for key in everybody]


def test_a_large_cache_holds_as_many_as_it_may() -> None:
    """Of 30,000 put into room for 10,000, exactly 10,000 are held, the last 1,000 and those in use among them."""
    cache = Cache[str](10_000)
    in_use = [f"busy-{n}" for n in range(100)]
    for key in in_use:
        cache.put(key, key)
    for number in range(30_000):
        cache.put(f"user-{number}", f"name-{number}")
        cache.use(in_use[number % 100])
        assert len(cache) == min(number + 101, 10_000)
    assert sum(cache.find(f"user-{n}") == f"name-{n}" for n in range(30_000)) == 9_900
    assert all(cache.find(f"user-{n}") for n in range(29_000, 30_000))
    assert all(cache.find(key) == key for key in in_use)
    for number in range(30_000):
        cache.drop(f"user-{number}")
    assert len(cache) == 100


def test_one_too_many_leaves_though_its_dictionary_has_nobody_else() -> None:
    """Most are dropped, then others put: whichever dictionary they fall into, the bound holds and the newest stays."""
    cache = Cache[str](4_000)
    for number in range(4_000):
        cache.put(f"user-{number}", "old")
    for number in range(4_000):
        if number % 8:
            cache.drop(f"user-{number}")
    for number in range(10_000):
        cache.put(f"other-{number}", "new")
        assert cache.find(f"other-{number}") == "new"
        assert len(cache) <= 4_000
