"""What a client says on its socket: so far, `send`. The functions of the POST read it, so that both refuse the same."""

import msgspec

from tidings.api.messages import wanted
from tidings.api.query import key_named
from tidings.config import Settings
from tidings.errors import Malformed
from tidings.model import Key
from tidings.service import key

REF_CHARS = 128

Fields = dict[str, msgspec.Raw]

_FIELDS = msgspec.json.Decoder(Fields)
_TEXT: "msgspec.json.Decoder[str | None]" = msgspec.json.Decoder(str | None)


class NotJson(Exception):
    """What came is no JSON at all."""


class Send(msgspec.Struct, frozen=True):
    """A message to be sent, as `Messages.submit` takes it."""

    sender_id: str
    recipient_id: str
    text: str
    is_group: bool
    key: Key | None


def fields_of(text: bytes) -> Fields:
    """The fields of what came. Raises NotJson, Malformed for JSON that is no object."""
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError:
        raise Malformed("wrong_type", "A frame must be a JSON object.") from None
    except RecursionError:
        raise Malformed("malformed", "The frame is nested too deeply.") from None
    except msgspec.DecodeError:
        raise NotJson from None


def ref_of(fields: Fields) -> str | None:
    """What the answer is to be known by. Raises Malformed."""
    ref = _find_text(fields, "ref")
    if ref is not None and len(ref) > REF_CHARS:
        raise Malformed("malformed", f"ref is longer than {REF_CHARS} characters.")
    return ref


def send_of(fields: Fields, text: bytes, user_id: str, settings: Settings) -> Send:
    """The message that is to be sent, by the socket's user unless it says otherwise. Raises Malformed, TooLarge."""
    if _find_text(fields, "type") != "send":
        raise Malformed("unknown_type", "The field type must be send.")
    names = {name.casefold() for name in fields}
    kinds = [kind for kind, name in (("private", "receiverid"), ("group", "groupid")) if name in names]
    if len(kinds) != 1:
        code = "ambiguous_field" if kinds else "missing_field"
        raise Malformed(code, "Give one of receiverId and groupId: they say to whom.")
    (kind,) = kinds
    body = text if "senderid" in names else msgspec.json.encode({**fields, "senderId": user_id})
    sender_id, recipient_id, said = wanted(kind, body, settings)
    name = _find_text(fields, "idempotencyKey")
    made = None if name is None else key(sender_id, key_named(name), kind, recipient_id, said)
    return Send(sender_id, recipient_id, said, kind == "group", made)


def _find_text(fields: Fields, name: str) -> str | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _TEXT.decode(raw)
    except msgspec.ValidationError:
        raise Malformed("wrong_type", f"{name} must be a string.") from None
