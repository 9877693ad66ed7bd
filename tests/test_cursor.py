"""The cursor: what goes in comes out, and nothing but what was minted for this user is believed."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.cursor import Hint, Vector, digest_of, mint, pack_vector, read, unpack_vector
from tidings.errors import Malformed

MOST = 2**63 - 1

seqs = st.integers(0, 300) | st.integers(0, 2**20) | st.integers(0, MOST)
signed = st.integers(-(2**63), MOST)
vectors = st.builds(Vector, seqs, st.none() | seqs, st.dictionaries(signed, seqs, max_size=12))
hints = st.builds(Hint, signed, signed, st.integers(0, MOST), st.integers(0, 2**64 - 1), vectors.map(pack_vector))
users = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)

ANN = "user-01a20a3b32ec76328584fed232e4"
EXAMPLE = Hint(1, -2, 3, 4, pack_vector(Vector(7, None, {5: 1_000, -6: 0})))
# Of every length that base64 treats differently: what ends in one, two or no letters of padding.
EXAMPLES = [
    Hint(1, -2, 3, 4, pack_vector(Vector(seq, sent, stays)))
    for seq in (1, 70_000)
    for sent in (None, 2)
    for stays in ({}, {5: 0}, {5: 1, -6: 0})
]
every_length = pytest.mark.parametrize("hint", EXAMPLES)


@given(vectors)
def test_a_vector_comes_back_as_it_was(vector: Vector) -> None:
    """Packed and unpacked, every seq of every mailbox is the same, zeros and the largest too."""
    assert unpack_vector(pack_vector(vector)) == vector


@given(vectors)
def test_equal_vectors_are_equal_bytes(vector: Vector) -> None:
    """The order in which memberships come makes no difference to the bytes."""
    turned = Vector(vector.own, vector.sent, dict(reversed(list(vector.groups.items()))))
    assert pack_vector(turned) == pack_vector(vector)


@given(users, hints)
def test_a_cursor_comes_back_as_it_was(user: str, hint: Hint) -> None:
    """Minted for a user and read for that user: hint and vector are the same, the text is fit for a URL."""
    text = mint(user, hint)
    assert read(user, text.encode()) == hint
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in text)


@given(users, users, hints)
def test_another_users_cursor_is_refused(user: str, other: str, hint: Hint) -> None:
    """What was minted for one user is nobody else's."""
    if user != other:
        refused(other, mint(user, hint))


def refused(user: str, text: str) -> None:
    """Fails unless reading this as a cursor of that user is a 400 with its code."""
    with pytest.raises(Malformed) as caught:
        unpack_vector(read(user, text.encode()).raw)
    assert caught.value.code == "bad_cursor"


@every_length
def test_every_flipped_bit_is_found(hint: Hint) -> None:
    """Each single bit of a cursor's bytes is flipped in turn: each is refused."""
    data = base64.urlsafe_b64decode(mint(ANN, hint) + "==")
    for bit in range(len(data) * 8):
        mangled = bytearray(data)
        mangled[bit // 8] ^= 1 << bit % 8
        refused(ANN, base64.urlsafe_b64encode(mangled).rstrip(b"=").decode())


@every_length
def test_every_changed_letter_is_found(hint: Hint) -> None:
    """Each letter in turn is replaced by each other letter of the alphabet, and some beyond: each is refused."""
    text = mint(ANN, hint)
    for place, letter in enumerate(text):
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \0\né🜁":
            if other != letter:
                refused(ANN, text[:place] + other + text[place + 1 :])


@every_length
def test_every_cut_and_every_addition_is_found(hint: Hint) -> None:
    """A cursor shortened at either end, doubled, padded, or with a letter put in anywhere, is refused."""
    text = mint(ANN, hint)
    for place in range(len(text)):
        refused(ANN, text[:place])
        if place:
            refused(ANN, text[place:])
        for letter in "A_=\n ":
            refused(ANN, text[:place] + letter + text[place:])
    for added in ("A", "AA", "AAA", "AAAA", "=", "==", "\n", " ", text):
        refused(ANN, text + added)


@given(st.text(max_size=120) | st.binary(max_size=120).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_nothing_made_up_is_taken(text: str) -> None:
    """Any text at all is refused with the same code, and never by another error."""
    refused(ANN, text)


@settings(max_examples=50)
@given(users, hints)
def test_the_parts_of_two_cursors_do_not_mix(user: str, hint: Hint) -> None:
    """The head of one cursor before the tail of another of the same user is refused."""
    if hint.raw != EXAMPLE.raw or hint != EXAMPLE:
        one, two = mint(user, hint), mint(user, EXAMPLE)
        for place in (2, 12, 24, 40):
            mixed = one[:place] + two[place:]
            if mixed not in (one, two):
                refused(user, mixed)


@given(st.sets(signed, max_size=12), st.sets(signed, max_size=12))
def test_a_digest_tells_sets_of_memberships_apart(ones: set[int], others: set[int]) -> None:
    """Equal sets have equal digests in any order, different ones not, nor do those with and without copies; never 0."""
    assert digest_of(sorted(ones), with_sent=False) == digest_of(sorted(ones, reverse=True), with_sent=False) != 0
    assert digest_of(ones, with_sent=True) != digest_of(ones, with_sent=False)
    assert (digest_of(ones, with_sent=True) == digest_of(others, with_sent=True)) == (ones == others)


def test_the_longest_cursor_fits_a_request_line() -> None:
    """With 250 groups and the largest seqs a cursor is shorter than the 6,000 letters that the settings speak of."""
    stays = {key * 2**54: MOST for key in range(-125, 125)}
    raw = pack_vector(Vector(MOST, MOST, stays))
    assert len(mint(ANN, Hint(MOST, MOST, MOST, MOST, raw))) < 6_000
