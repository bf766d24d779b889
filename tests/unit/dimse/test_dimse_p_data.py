"""Fragments out of bytes, however they arrive."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.dimse.inflow import Inflow
from dicomnode.dimse.p_data import encode_fragments, read_fragments
from dicomnode.dimse.pdu import HEADER
from dicomnode.dimse.peer_errors import PeerClosed, ProtocolViolation


def arriving(data: bytes, sizes: Sequence[int], buffer_bytes: int = 64) -> Inflow:
    """`data` in pieces of these sizes, repeated as long as there are bytes."""
    position = 0
    step = 0

    def receive_into(view: memoryview) -> int:
        nonlocal position, step
        size = min(sizes[step % len(sizes)], len(view), len(data) - position)
        view[:size] = data[position : position + size]
        position += size
        step += 1
        return size

    return Inflow(receive_into, buffer_bytes)


VALUES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 3), st.binary(max_size=200)), max_size=8
)
SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=5)


@given(VALUES, SIZES)
def test_fragments_do_not_depend_on_how_the_bytes_arrive(
    values: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    body = b"".join(
        struct.pack(">IBB", len(data) + 2, context, control) + data
        for context, control, data in values
    )
    found: list[list[object]] = []
    continues = False
    for fragment in read_fragments(arriving(body, sizes), len(body)):
        if continues:
            found[-1][3] = bytes(found[-1][3]) + bytes(fragment.data)  # type: ignore[call-overload]
            found[-1][2] = fragment.is_last
        else:
            found.append(
                [fragment.context_id, fragment.is_command, fragment.is_last, bytes(fragment.data)]
            )
        expected = values[len(found) - 1]
        continues = len(found[-1][3]) < len(expected[2])  # type: ignore[arg-type]
    assert found == [
        [context, bool(control & 1), bool(control & 2), data] for context, control, data in values
    ]


@given(st.binary(max_size=300), SIZES)
def test_any_bytes_are_fragments_or_a_violation(body: bytes, sizes: list[int]) -> None:
    total = 0
    try:
        for fragment in read_fragments(arriving(body, sizes), len(body)):
            total += len(fragment.data)
    except ProtocolViolation:
        pass
    assert total <= len(body)


@given(st.binary(min_size=1, max_size=100), st.integers(1, 50))
def test_a_pdu_that_is_cut_short_is_a_closed_connection(data: bytes, missing: int) -> None:
    body = struct.pack(">IBB", len(data) + 2, 1, 2) + data
    cut = body[: max(0, len(body) - missing)]
    with pytest.raises(PeerClosed):
        list(read_fragments(arriving(cut, [7]), len(body)))


@given(st.binary(max_size=500), st.sampled_from([0, 70, 100, 16384]))
def test_what_is_encoded_fits_and_is_read_back(data: bytes, maximum_length: int) -> None:
    pdus = list(encode_fragments(5, data, is_command=True, maximum_length=maximum_length))
    joined = b""
    for number, pdu in enumerate(pdus):
        _, length = HEADER.unpack(pdu[:6])
        assert length == len(pdu) - 6
        assert maximum_length == 0 or length <= maximum_length
        for fragment in read_fragments(arriving(pdu[6:], [1000], 100_000), length):
            assert fragment.is_command
            assert fragment.is_last == (number == len(pdus) - 1)
            joined += fragment.data
    assert joined == data


def test_the_buffer_is_all_the_memory_that_is_used() -> None:
    inflow = arriving(struct.pack(">IBB", 10_002, 1, 2) + bytes(10_000), [1000], buffer_bytes=64)
    assert all(len(f.data) <= 64 for f in read_fragments(inflow, 10_006))
