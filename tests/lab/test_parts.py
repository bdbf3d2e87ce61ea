"""The lab's small parts: line breaking, headers of a frame, filters, recordings in JSON, addresses."""

from __future__ import annotations

import ipaddress
import json
import socket
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.lab import filters, headers, interfaces
from towline.lab.exhibits.layers import wrap as wrap_frame
from towline.lab.recording import Event, Kernel, Recording, Scene, Table, from_json, to_json
from towline.lab.texts import language, pick
from towline.lab.wrapping import column_widths, columns, wrap, wrap_spans

_MIXED = st.text(alphabet=" abc，。（）你好界12-", max_size=60)


@given(text=_MIXED, width=st.integers(4, 30))
def test_lines_are_never_too_wide_and_nothing_is_lost(text: str, width: int) -> None:
    lines = wrap(text, width)
    # Closing punctuation may not begin a line, so at most one of them hangs over.
    assert all(columns(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_chinese_breaks_anywhere_but_before_closing_punctuation() -> None:
    assert wrap("你好世界，再见", 8) == ["你好世", "界，再见"]
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("收到5个字节", 6) == ["收到5", "个字节"]


def test_a_solid_span_is_not_broken_where_it_fits() -> None:
    lines = wrap_spans([("recv(1) ", ""), ("A‹你 好›", "chip")], 10, ["chip"])
    assert [[text for text, _ in line] for line in lines] == [["recv(1)"], ["A‹你 好›"]]


def test_a_wide_table_gives_way_where_it_is_widest() -> None:
    assert column_widths([["a", "x" * 50], ["bb", "y"]], 20) == [2, 16]


def test_a_frame_is_named_to_the_last_byte() -> None:
    frame = wrap_frame(b"hello", ("127.0.0.1", 1234), ("127.0.0.2", 80))
    layers = headers.layers(frame)
    assert [layer.name for layer in layers] == ["Ethernet", "IPv4", "TCP", "payload"]
    assert [layer.offset for layer in layers] == [0, 14, 34, 54]
    part = headers.segment(frame)
    assert part is not None
    assert (part.source, part.target, part.flags) == (("127.0.0.1", 1234), ("127.0.0.2", 80), ("PSH", "ACK"))
    assert part.payload == b"hello"
    for layer in layers:
        assert layer.fields[0].offset == layer.offset
        assert sum(field.length for field in layer.fields) == layer.length


@given(cut=st.integers(0, 59), noise=st.binary(max_size=80))
def test_naming_never_raises(cut: int, noise: bytes) -> None:
    headers.segment(wrap_frame(b"hello", ("127.0.0.1", 1), ("127.0.0.1", 2))[:cut])
    headers.segment(noise)
    headers.segment(bytes(12) + b"\x08\x00" + noise)
    headers.segment(bytes(12) + b"\x86\xdd" + noise)


def test_the_internet_checksum_of_the_rfc() -> None:
    # RFC 1071, section 3: the sum of these words is ddf2.
    assert headers.checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


@pytest.mark.skipif(not filters.can_deafen(), reason="this system lets only an administrator filter a socket")
def test_a_deaf_socket_hears_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
            with filters.deaf(listener):
                speaker.sendto(b"unheard", listener.getsockname())
            speaker.sendto(b"heard", listener.getsockname())
            assert listener.recv(100) == b"heard"


@pytest.mark.parametrize("count", [1, 2, 59, 60, 200])
def test_a_filter_on_ports_fits_the_machine(count: int) -> None:
    program = filters.keep_ports(range(1000, 1000 + count), link=14)
    for at, (code, if_true, if_false, _) in enumerate(program):
        assert if_true <= 255
        assert if_false <= 255
        if code & 7 == 5:
            assert at + 1 + max(if_true, if_false) < len(program)


_RECORDING = Recording(
    "test",
    (
        Scene(
            "one",
            {"en": "one", "zh": "一"},
            events=(
                Event(0.5, "client", "send", 2, 2, "a→b", 0, data=b"\x00\xff", kernel=Kernel("ESTABLISHED", 0, 2, 0)),
                Event(0.6, "server", "recv", 9, 0, "a→b", 2, waiting=0),
                Event(0.7, "server", "remark", text={"en": "hm", "zh": "嗯"}),
            ),
            facts={"list": [1, "two"], "nothing": ""},
            tables=(
                Table({"en": "t", "zh": "表"}, ({"en": "c", "zh": "列"},), (("x",), ({"en": "y", "zh": "丫"},))),
            ),
        ),
    ),
    segments_shown=True,
)


def test_a_recording_survives_json() -> None:
    assert from_json(json.loads(json.dumps(to_json(_RECORDING)))) == _RECORDING


def test_a_reader_skips_what_it_does_not_know() -> None:
    values = to_json(_RECORDING)
    values["colour"] = "blue"
    values["scenes"][0]["events"][0]["smell"] = "roses"
    assert from_json(values) == _RECORDING


@pytest.mark.parametrize("values", [{}, {"v": 2}, {"v": 1, "name": "x", "scenes": [7]}, {"v": 1, "scenes": []}])
def test_what_is_no_recording_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="recording"):
        from_json(values)


def test_payload_can_be_taken_out() -> None:
    bare = _RECORDING.without_payload()
    assert bare.redacted
    assert bare.scenes[0].events[0].data == b""
    assert bare.scenes[0].events[0].returned == 2


@given(one=st.ip_addresses(v=4), two=st.ip_addresses(v=4), prefix=st.integers(0, 32))
def test_one_network_or_two(one: ipaddress.IPv4Address, two: ipaddress.IPv4Address, prefix: int) -> None:
    found = interfaces.compare(str(one), str(two), prefix)
    assert found.same == (two in ipaddress.ip_network(f"{one}/{prefix}", strict=False))
    assert found.bits_mask.replace(" ", "").count("1") == prefix


def test_the_default_gateway_is_read_from_the_routes() -> None:
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
    gateway = socket.ntohl(0xC0000201) if __import__("sys").byteorder == "little" else 0xC0000201
    line = f"eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    assert interfaces.parse_routes(f"{header}\n{line}\n") == [("eth0", "0.0.0.0", "192.0.2.1", "0.0.0.0")]


def test_texts_and_their_language() -> None:
    assert pick({"en": "a\n    b", "zh": "甲\n乙"}, "en") == "a b"
    assert pick({"en": "a\n    b", "zh": "甲\n乙"}, "zh") == "甲乙"
    assert language({}) == "en"
    assert language({"LC_ALL": "", "LANG": "zh"}) == "zh"


def test_combining_marks_take_no_column() -> None:
    assert columns(unicodedata.normalize("NFD", "é")) == 1
    assert columns("你好") == 4
