"""Invite codes: short, forgiving about form, unforgiving about content."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.base import ids
from towline.base.errors import BadInvite, LimitExceeded, UsageError
from towline.trust.invites import Code, decode_code, encode_code, secret_hash

_PLAIN = Code(("127.0.0.1:7440",), "ab" * 32, "home", bytes(range(16)))
_NAMES = st.text(alphabet="abcXYZ019-_.小é", min_size=1, max_size=64).map(lambda text: ("n" + text)[:64])
_ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 65535)).map(lambda pair: f"[{pair[0]}]:{pair[1]}"),
    st.sampled_from(["node.example:7440", "unix:/run/tow/node.sock", "127.0.0.1:07440", "1.2.3.4:99999", "[::01]:1"]),
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=60),
)
_CODES = st.builds(
    Code,
    addresses=st.lists(_ADDRESSES, min_size=1, max_size=8).map(tuple),
    fingerprint=st.binary(min_size=32, max_size=32).map(bytes.hex),
    name=_NAMES,
    secret=st.binary(min_size=16, max_size=16),
)


@given(_CODES)
def test_text_and_back(code: Code) -> None:
    assert decode_code(encode_code(code)) == code


def test_the_form_is_fixed() -> None:
    """Codes outlive versions: what was printed yesterday is redeemed today."""
    code = Code(("127.0.0.1:7440", "[::1]:7440", "unix:/run/tow"), "ab" * 32, "home", bytes(range(16)))
    text = (
        "tow1-000g40r40m30e209185gr38e1yntqaxbnentqaxbnentqaxbnentqaxbnentqaxbnentqaxbnentp0v8dxppa13z0000278g0r00000"
        "00000000000000000000ht4001ntpwtbr78qq4xbe5xt6yxy7ddd1j"
    )
    assert encode_code(code) == text
    assert decode_code(text) == code


def test_a_code_is_one_word_of_modest_length() -> None:
    text = encode_code(_PLAIN)
    assert text.startswith("tow1-")
    assert text.split() == [text]
    assert len(text) <= 120
    assert repr(_PLAIN.secret) not in repr(_PLAIN)


@given(_CODES, st.data())
@settings(max_examples=200)
def test_any_one_wrong_character_is_found(code: Code, data: st.DataObject) -> None:
    text = encode_code(code)
    at = data.draw(st.integers(0, len(text) - 1).filter(lambda index: text[index] != "-"))
    wrong = data.draw(st.sampled_from([char for char in ids.ALPHABET + "u!é=" if char != text[at]]))
    with pytest.raises(BadInvite, match="mistyped"):
        # `tow1` is as much of the code as the rest; o is 0 there, and t0w1 is the same prefix.
        decode_code(_without_twins(text[:at] + wrong + text[at + 1 :], text))


@pytest.mark.parametrize("code", [_PLAIN, Code(("[::1]:1", "h:2"), "07" * 32, "小", b"\xff" * 16)])
def test_every_single_wrong_character_lost_or_doubled_or_swapped_is_found(code: Code) -> None:
    text = encode_code(code)
    broken = {text[:at] + char + text[at + 1 :] for at in range(5, len(text)) for char in ids.ALPHABET}
    broken |= {text[:at] + text[at + 1 :] for at in range(5, len(text))}
    broken |= {text[:at] + text[at] + text[at:] for at in range(5, len(text))}
    broken |= {text[:at] + text[at + 1] + text[at] + text[at + 2 :] for at in range(5, len(text) - 1)}
    broken |= {text + digit for digit in ids.ALPHABET}
    broken |= {text[:end] for end in range(len(text))}
    broken.discard(text)
    for wrong in broken:
        with pytest.raises(BadInvite, match="mistyped"):
            decode_code(wrong)


def test_form_is_forgiven() -> None:
    text = encode_code(_PLAIN)
    digits = text.removeprefix("tow1-")
    for same in (
        f"  {text}\n",
        text.upper(),
        text.replace("-", ""),
        "tow1-" + "-".join(digits[start : start + 4] for start in range(0, len(digits), 4)),
        "tow1\u2013" + "\u200b".join(digits),
        "\r\n> ".replace("> ", "  ").join([text[:50], text[50:]]),
        text.replace("0", "O").replace("1", "l"),
    ):
        assert decode_code(same) == _PLAIN


@given(st.text(max_size=200) | st.text(alphabet=ids.ALPHABET, max_size=200).map(lambda text: "tow1-" + text))
def test_noise_is_a_mistyped_code(text: str) -> None:
    with pytest.raises(BadInvite, match="mistyped"):
        decode_code(text)


@given(st.binary(max_size=120))
def test_a_right_checksum_over_nonsense_is_refused_too(body: bytes) -> None:
    import zlib

    text = "tow1-" + ids.encode(body + zlib.crc32(body).to_bytes(4, "little"))
    try:
        code = decode_code(text)
    except BadInvite:  # anything else fails the test
        return
    assert encode_code(code)  # nothing is accepted that could not be made


def test_a_very_long_code_is_refused_at_once() -> None:
    with pytest.raises(BadInvite):
        decode_code("tow1-" + "0" * 5_000_000)


def test_what_does_not_fit_is_refused_when_the_code_is_made() -> None:
    def make(*addresses: str, name: str = "home") -> str:
        return encode_code(Code(addresses, "00" * 32, name, bytes(16)))

    with pytest.raises(UsageError, match="at least one"):
        make()
    with pytest.raises(LimitExceeded, match="code_addresses"):
        make(*["h:1"] * 9)
    with pytest.raises(UsageError, match="does not fit"):
        make("unix:/" + "x" * 300)
    with pytest.raises(UsageError, match="does not fit"):
        make("unix:/\x1b[2J")
    with pytest.raises(UsageError, match="name for a node"):
        make("h:1", name="a/b")
    with pytest.raises(ValueError, match="16 bytes"):
        encode_code(Code(("h:1",), "00" * 32, "home", b"short"))


def test_the_hash_says_nothing_of_the_secret() -> None:
    secret = bytes(range(16))
    assert secret_hash(secret) == hashlib.sha256(b"towline invite v1" + secret).hexdigest()
    assert secret_hash(secret) != secret_hash(secret[::-1])


def _without_twins(wrong: str, right: str) -> str:
    same = str.maketrans("oil", "011")
    if wrong.lower().translate(same) == right.lower().translate(same):
        return "tow1-u"  # t0w1: not a change at all; anything wrong will do
    return wrong
