"""People, keys and invites."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.base.errors import BadInvite, Conflict, NotFound, Revoked, TowlineError, UsageError
from towline.base.names import checked_name
from towline.store import Store
from towline.store.people import Person

_LAPTOP, _PHONE, _STRANGER = b"l" * 32, b"p" * 32, b"s" * 32
_DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path)) as opened:
        yield opened


def _joined(store: Store, name: str, key: bytes, grants: str = "chat", now: float = 100.0) -> Person:
    secret = f"secret of {name} {key!r} {now}"
    store.invites.create(name, grants, secret, now + _DAY, now)
    return store.invites.redeem(secret, key, now + 1)


def test_an_invite_lets_one_key_in(store: Store) -> None:
    store.invites.create("anna", "chat,read", "h1", 200.0, 100.0)
    assert store.people.all() == []  # nobody before it is redeemed
    assert [(invite.name, invite.grants, invite.expires) for invite in store.invites.open(150.0)] == [
        ("anna", "chat,read", 200.0)
    ]
    person = store.invites.redeem("h1", _LAPTOP, 150.0)
    assert person == Person("anna", "chat,read", 150.0, None, False)
    assert store.people.by_key(_LAPTOP) == store.people.by_name("anna") == person
    assert store.people.by_key(_STRANGER) is None
    assert store.invites.open(150.0) == []


def test_redeeming_again_with_the_same_key_gives_the_same_answer_even_after_expiry(store: Store) -> None:
    store.invites.create("anna", "chat", "h1", 200.0, 100.0)
    first = store.invites.redeem("h1", _LAPTOP, 150.0)
    assert store.invites.redeem("h1", _LAPTOP, 151.0) == first
    assert store.invites.redeem("h1", _LAPTOP, 10_000.0) == first
    assert store.people.keys("anna") == [_LAPTOP]


def test_each_way_to_be_no_good_has_its_own_sentence(store: Store) -> None:
    for secret in ("used", "expired", "cancelled"):
        store.invites.create(secret, "chat", secret, 200.0, 100.0)
    store.invites.redeem("used", _LAPTOP, 150.0)
    assert store.invites.cancel("cancelled") == 1
    sentences = {}
    for secret in ("unknown", "used", "expired", "cancelled"):
        with pytest.raises(BadInvite) as refused:
            store.invites.redeem(secret, _STRANGER, 200.0)
        sentences[secret] = refused.value.sentence
    assert "does not know" in sentences["unknown"]
    assert "used already" in sentences["used"]
    assert "expired" in sentences["expired"]
    assert "cancelled" in sentences["cancelled"]
    assert store.people.by_key(_STRANGER) is None


def test_an_invite_has_to_expire_in_the_future_and_be_new(store: Store) -> None:
    with pytest.raises(UsageError, match="future"):
        store.invites.create("anna", "chat", "h", 100.0, 100.0)
    with pytest.raises(UsageError, match="future"):
        store.invites.create("anna", "chat", "h", float("nan"), 100.0)
    store.invites.create("anna", "chat", "h", 101.0, 100.0)
    with pytest.raises(Conflict):
        store.invites.create("bob", "chat", "h", 101.0, 100.0)
    with pytest.raises(NotFound, match="'nobody'"):
        store.invites.cancel("nobody")


@pytest.mark.parametrize("keys", [1, 8])
def test_racing_stores_let_exactly_one_key_in(tmp_path: Path, keys: int) -> None:
    """Each contender has a connection of its own, as separate processes would."""
    with Store.open(str(tmp_path)) as store:
        store.invites.create("anna", "chat", "h", 200.0, 100.0)
    barrier = threading.Barrier(8)
    won: list[bytes] = []
    lost: list[TowlineError] = []

    def contend(key: bytes) -> None:
        with Store.open(str(tmp_path)) as mine:
            barrier.wait(20)
            try:
                assert mine.invites.redeem("h", key, 150.0).name == "anna"
                won.append(key)
            except TowlineError as error:
                lost.append(error)

    threads = [threading.Thread(target=contend, args=(bytes([index % keys]) * 32,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(won), len(lost)) == ((8, 0) if keys == 1 else (1, 7))
    assert all(isinstance(error, BadInvite) and "used already" in error.sentence for error in lost)
    with Store.open(str(tmp_path)) as store:
        assert store.people.keys("anna") == won[:1]


def test_a_second_invite_adds_a_device_and_updates_the_grants(store: Store) -> None:
    _joined(store, "anna", _LAPTOP, "chat", now=100.0)
    store.invites.create("anna", "chat,run", "h2", 300.0, 200.0)
    assert store.people.all()[0].grants == "chat"  # not before it is redeemed
    person = store.invites.redeem("h2", _PHONE, 210.0)
    assert (person.grants, person.created) == ("chat,run", 101.0)
    assert store.people.by_key(_LAPTOP) == store.people.by_key(_PHONE) == person
    assert store.people.keys("anna") == [_LAPTOP, _PHONE]
    assert len(store.people.all()) == 1


def test_a_key_is_one_person_and_the_invite_stays_good(store: Store) -> None:
    _joined(store, "anna", _LAPTOP)
    store.invites.create("bob", "admin", "h2", 300.0, 200.0)
    with pytest.raises(Conflict, match="joined as 'anna' already"):
        store.invites.redeem("h2", _LAPTOP, 210.0)
    assert store.people.by_name("bob") is None
    assert store.invites.redeem("h2", _PHONE, 220.0).name == "bob"
    with pytest.raises(Conflict):
        store.people.add_key("anna", _PHONE)


def test_revoking_shuts_out_every_key_and_open_invite(store: Store) -> None:
    _joined(store, "anna", _LAPTOP)
    _joined(store, "anna", _PHONE, now=200.0)
    store.invites.create("anna", "admin", "still open", 900.0, 300.0)
    store.people.revoke("anna")
    for key in (_LAPTOP, _PHONE):
        person = store.people.by_key(key)
        assert person is not None
        assert person.revoked
    assert store.invites.open(310.0) == []
    with pytest.raises(BadInvite, match="cancelled"):
        store.invites.redeem("still open", _STRANGER, 310.0)
    assert store.people.all()[0].revoked


def test_a_new_invite_brings_the_person_back_but_not_the_old_keys(store: Store) -> None:
    """Revoked because the laptop was stolen: the new phone must not let the laptop in again."""
    _joined(store, "anna", _LAPTOP)
    store.people.revoke("anna")
    person = _joined(store, "anna", _PHONE, now=400.0)
    assert not person.revoked
    assert store.people.by_key(_PHONE) == person
    old = store.people.by_key(_LAPTOP)
    assert old is not None
    assert old.revoked
    assert store.people.keys("anna") == [_PHONE]
    assert not _joined(store, "anna", _LAPTOP, now=500.0).revoked  # invited anew by name, it may
    assert store.people.keys("anna") == [_LAPTOP, _PHONE]


def test_the_old_code_does_not_give_access_back(store: Store) -> None:
    store.invites.create("anna", "chat", "h", 200.0, 100.0)
    store.invites.redeem("h", _LAPTOP, 150.0)
    store.people.revoke("anna")
    with pytest.raises(Revoked):
        store.invites.redeem("h", _LAPTOP, 160.0)
    person = store.people.by_key(_LAPTOP)
    assert person is not None
    assert person.revoked


def test_revoking_somebody_who_was_only_invited_cancels_the_invite(store: Store) -> None:
    store.invites.create("anna", "chat", "h", 200.0, 100.0)
    store.people.revoke("anna")
    assert store.invites.open(150.0) == []
    with pytest.raises(NotFound, match="'nobody'"):
        store.people.revoke("nobody")


def test_old_invites_are_forgotten_after_a_month(store: Store) -> None:
    store.invites.create("anna", "chat", "h", 200.0, 100.0)
    store.invites.create("bob", "chat", "h2", 100.0 + 41 * _DAY, 100.0 + 40 * _DAY)
    with pytest.raises(BadInvite, match="does not know"):
        store.invites.redeem("h", _LAPTOP, 100.0 + 40 * _DAY)
    assert store.database.rows("SELECT name FROM invites") == [("bob",)]


def test_keys_and_seen(store: Store) -> None:
    with pytest.raises(NotFound, match="'anna'"):
        store.people.add_key("anna", _LAPTOP)
    store.people.admit("anna", "read", 5.0)
    store.people.add_key("anna", _LAPTOP)
    store.people.add_key("anna", _LAPTOP)
    store.people.seen("anna", 77.5)
    assert store.people.by_key(_LAPTOP) == Person("anna", "read", 5.0, 77.5, False)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "@a", "-x", "..", "a\x1b[2J", "a\u202eb", "ㅤ"])
def test_bad_names_are_refused_everywhere(store: Store, name: str) -> None:
    for attempt in (
        lambda: store.invites.create(name, "chat", "h", 200.0, 100.0),
        lambda: store.people.admit(name, "chat", 1.0),
        lambda: store.people.revoke(name),
    ):
        with pytest.raises(UsageError, match="no name for a person"):
            attempt()


@pytest.mark.parametrize("name", ["a", "a" * 64, "web-1_x.y", "小明", "Ёжик", "नमस्ते"])
def test_good_names_in_any_script(store: Store, name: str) -> None:
    assert _joined(store, name, _LAPTOP).name == checked_name(name) == name


def test_one_name_in_two_unicode_forms_is_one_person(store: Store) -> None:
    _joined(store, "Andre\u0301", _LAPTOP)
    assert _joined(store, "Andr\u00e9", _PHONE, now=200.0).name == "Andr\u00e9"
    assert len(store.people.all()) == 1
