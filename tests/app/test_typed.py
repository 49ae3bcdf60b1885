"""A parameter's annotation decides what becomes of a message."""

from __future__ import annotations

import collections.abc
import inspect
import json
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, TypedDict

import attrs
import msgspec
import pydantic
import pytest

import wsclient.app
from wsclient.app import JsonCodec, MsgpackCodec
from wsclient.app._typed import decoder_for, kind_in, kind_reader
from wsclient.errors import CodecError


class Plain:
    """A codec of the user's: lines of ``name=value``."""

    def encode(self, value):
        return "\n".join(f"{name}={each}" for name, each in value.items())

    def decode(self, message):
        if "=" not in message:
            raise CodecError("no lines")
        return dict(line.split("=") for line in message.splitlines())


class Trade(msgspec.Struct, tag="trade"):
    price: float


class Quote(msgspec.Struct, tag="quote"):
    bid: float


@dataclass
class Book:
    type: Literal["book", "books"]
    depth: int = 0


@attrs.frozen
class Status:
    type: Literal["status"]


class News(TypedDict):
    type: Literal["news"]


class Model(pydantic.BaseModel):
    type: Literal["model"]
    x: int = 0


class OtherModel(pydantic.BaseModel):
    type: Literal["other"]


class Vague(pydantic.BaseModel):
    x: int


class AlsoTrade(TypedDict):
    type: Literal["trade"]


def decoder(annotation, codec=None):
    return decoder_for(annotation, JsonCodec() if codec is None else codec, key="type")


# --- as it came, and as the codec makes it --------------------------------------------------------


@pytest.mark.parametrize("annotation", [str, NewType("Text", str), Annotated[str, "more"]], ids=str)
def test_text_is_given_as_it_came(annotation):
    take = decoder(annotation)

    assert "{no JSON" == take("{no JSON")
    with pytest.raises(CodecError, match=r"^a binary message, and a text one \(str\) is expected$"):
        take(b"bytes")


def test_bytes_are_given_as_they_came():
    take = decoder(bytes)

    assert b"\xff" == take(b"\xff")
    with pytest.raises(CodecError, match=r"^a text message, and a binary one \(bytes\) is expect"):
        take("text")


def test_either_kind_of_message_is_given_as_it_came():
    take = decoder(str | bytes)

    assert "text" == take("text")
    assert b"\xff" == take(b"\xff")


@pytest.mark.parametrize("annotation", [str | None, bytes | Trade, str | dict], ids=str)
def test_a_message_as_it_came_cannot_be_told_from_what_is_decoded(annotation):
    with pytest.raises(TypeError, match=r"\|.*: str and bytes are the message as it came, and"):
        decoder(annotation)


@pytest.mark.parametrize(
    "annotation", [Any, object, inspect.Parameter.empty, Trade | Any, Annotated[Any, 1]], ids=str
)
def test_anything_is_what_the_codec_makes_of_it(annotation):
    codec = JsonCodec()

    assert codec.decode == decoder(annotation, codec)


@pytest.mark.parametrize(
    ("annotation", "takes", "refuses"),
    [
        (dict, [{}], [[], "", None, 1]),
        (dict[str, Any], [{"a": [1]}], [[]]),
        (typing.Dict[str, object], [{}], [[]]),  # noqa: UP006
        (collections.abc.Mapping[str, Any], [{}], [[]]),
        (typing.MutableMapping, [{}], [[]]),
        (list, [[1]], [{}, "text"]),
        (list[Any], [[1]], [{}]),
        (collections.abc.Sequence[Any], [[1]], [{}, "text"]),
        (typing.MutableSequence[object], [[1]], [{}, "text"]),
        (dict | list[Any], [{}, []], ["text", None]),
        (dict | None, [{}, None], [[], 0]),
        (None, [None], [{}]),
    ],
    ids=str,
)
def test_what_is_in_it_is_as_the_codec_makes_it(without, annotation, takes, refuses):
    without("msgspec")
    decode = decoder(annotation)

    assert takes == [decode(json.dumps(value)) for value in takes]
    for value in refuses:
        with pytest.raises(CodecError, match=f"^Expected `.*`, got `{type(value).__name__}`") as e:
            decode(json.dumps(value))
        assert "$" == e.value.path


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (dict[str, int], "Expected `int`, got `str`"),
        (list[int | None], "Expected `int | null`, got `str`"),
        (Annotated[dict[str, Any], msgspec.Meta(max_length=0)], "Expected `object` of length <= 0"),
    ],
    ids=str,
)
def test_what_is_in_it_is_looked_at_if_it_is_annotated(annotation, text):
    messages = {dict: '{"x": "y"}', list: '["x"]'}
    origin = typing.get_origin(annotation)
    message = messages.get(origin, messages[dict])

    with pytest.raises(CodecError, match=text.replace("|", r"\|")):
        decoder(annotation)(message)


# --- into types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (JsonCodec(), '{"type": "book", "depth": 3}'),
        (JsonCodec(), b'{"type": "book", "depth": 3}'),
        (MsgpackCodec(), MsgpackCodec().encode({"type": "book", "depth": 3})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_codec_decodes_into_a_type(codec, message):
    assert Book("book", 3) == decoder(Book, codec)(message)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(Model, Model(type="model", x=3)), (Model | None, Model(type="model", x=3))],
    ids=str,
)
@pytest.mark.parametrize(
    "codec", [JsonCodec(), MsgpackCodec(), Plain()], ids=lambda c: type(c).__name__
)
def test_a_model_is_read_from_what_any_codec_decodes(codec, annotation, expected):
    assert expected == decoder(annotation, codec)(codec.encode({"type": "model", "x": 3}))


def test_a_codec_of_the_users_needs_no_more_than_two_methods():
    assert {"a": "1"} == decoder(dict, Plain())("a=1")
    assert Status("status") == decoder(Status, Plain())("type=status")
    assert Status("status") == decoder(Status | News, Plain())("type=status")
    with pytest.raises(CodecError, match=r"^Expected `int`, got `str` \(at \$\.depth\)$"):
        decoder(Book, Plain())("type=book\ndepth=3")
    with pytest.raises(CodecError, match=r"^no lines$"):
        decoder(Book, Plain())("type")


def test_a_codec_of_the_users_may_decode_into_types_itself():
    class Own(Plain):
        def decoder(self, annotation):
            if annotation is Book:
                return lambda message: ("a book", message)
            if annotation is Status:
                return None
            raise TypeError("no such type")

    assert ("a book", "x") == decoder(Book, Own())("x")
    assert ("a book", "type=book") == decoder(Book | Status, Own())("type=book")
    assert Status("status") == decoder(Book | Status, Own())("type=status")
    with pytest.raises(TypeError, match="no such type"):
        decoder(Model, Own())


@pytest.mark.parametrize("annotation", [Book, Status, News, Book | Status, dict[str, int], int])
def test_without_msgspec_types_are_refused_with_what_to_install(without, annotation):
    without("msgspec")

    for codec in (JsonCodec(), Plain()):
        with pytest.raises(
            TypeError, match=r"needs msgspec: pip install 'wsclient-trio\[msgspec\]"
        ):
            decoder(annotation, codec)


# --- unions ---------------------------------------------------------------------------------------

MESSAGES = {
    Trade: ({"type": "trade", "price": 1}, Trade(1.0)),
    Quote: ({"type": "quote", "bid": 1}, Quote(1.0)),
    Book: ({"type": "books"}, Book("books")),
    Status: ({"type": "status"}, Status("status")),
    News: ({"type": "news"}, {"type": "news"}),
    Model: ({"type": "model"}, Model(type="model")),
    OtherModel: ({"type": "other"}, OtherModel(type="other")),
}


@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(
    "annotation",
    [
        Trade | Quote,
        Book | Status,
        Book | Status | News,
        Trade | Book,
        Trade | Quote | Model,
        Model | OtherModel,
        Annotated[Model | OtherModel, pydantic.Field(discriminator="type")],
        Annotated[Trade | Model, "more"],
        Trade | Quote | Book | Status | News | Model | OtherModel,
    ],
    ids=str,
)
def test_a_message_becomes_the_member_of_a_union_that_its_type_says(codec, annotation):
    decode = decoder(annotation, codec)

    members = typing.get_args(annotation)
    for member in typing.get_args(members[0]) or members:
        message, expected = MESSAGES[member]
        assert expected == decode(codec.encode(message))


def test_a_union_of_tagged_structs_is_one_step():
    asked = []

    class Recording(JsonCodec):
        def decoder(self, annotation):
            asked.append(annotation)
            return super().decoder(annotation)

    decoder(Trade | Quote, Recording())

    assert [Trade | Quote] == asked


def test_what_is_added_to_a_union_for_pydantic_is_obeyed():
    added = pydantic.AfterValidator(lambda value: [value])

    assert [Model(type="model")] == decoder(Annotated[Model | OtherModel, added])(
        '{"type": "model"}'
    )


def test_a_type_that_no_member_is_for_is_refused():
    for annotation in (Trade | Quote, Book | Status, Model | OtherModel):
        with pytest.raises(CodecError) as caught:
            decoder(annotation)('{"type": "canary"}')
        assert "$.type" == caught.value.path
        assert "canary" not in str(caught.value)


def test_a_message_without_a_type_is_refused():
    for annotation in (Book | Status, Model | OtherModel):
        with pytest.raises(CodecError, match="no field 'type' that names its type"):
            decoder(annotation)('{"depth": 1}')


def test_what_is_wrong_with_a_message_is_said_of_the_one_member():
    with pytest.raises(CodecError, match=r"^Expected `int`, got `str` \(at \$\.depth\)$"):
        decoder(Book | Status)('{"type": "book", "depth": ""}')
    with pytest.raises(CodecError, match=r"^Input should be a valid integer.* \(at \$\.x\)$"):
        decoder(Model | OtherModel)('{"type": "model", "x": []}')


def test_a_union_whose_members_do_not_say_is_left_to_the_library():
    assert Vague(x=1) == decoder(Model | Vague)('{"x": 1}')
    assert Model(type="model") == decoder(Model | Vague)('{"type": "model"}')
    assert None is decoder(Trade | None)("null")
    with pytest.raises(TypeError, match="not contain more than one"):
        decoder(Book | dict[str, int])
    with pytest.raises(TypeError, match="not contain more than one"):
        decoder(Trade | AlsoTrade)


# --- the type of a message ------------------------------------------------------------------------


@pytest.fixture(params=["with msgspec", "without msgspec"])
def json_codec(request, without):
    if request.param == "without msgspec":
        without("msgspec")
    return JsonCodec()


def test_the_type_of_a_message_is_read(json_codec):
    read = kind_reader(json_codec, key="the type")

    assert "trade" == read('{"price": [1, {"the type": 1}], "the type": "trade"}')
    assert "trade" == read(b'{"the type": "trade", "text": "\\ud83d"}')
    assert "größe" == read('{"the type": "gr\\u00f6ße"}')


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("{}", "the message has no field 'type' that names its type"),
        ('{"type": 1}', "the message has no field 'type' that names its type"),
        ('{"type": null}', "the message has no field 'type' that names its type"),
        ("[]", "the message has no field 'type' that names its type"),
        ('"type"', "the message has no field 'type' that names its type"),
        ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{"type": "trade"', "not JSON: Expecting ',' delimiter: line 1 column 17 (char 16)"),
        ('{"type": "trade", "x": NaN}', "not JSON: NaN is not JSON"),
    ],
)
def test_a_message_whose_type_cannot_be_read_is_refused_in_the_same_words(
    json_codec, message, text
):
    with pytest.raises(CodecError) as caught:
        kind_reader(json_codec, key="type")(message)

    assert text == str(caught.value)


def test_the_type_is_read_by_any_codec():
    class Odd(Plain):
        def decoder(self, annotation):
            raise TypeError("no type")

    message = {"type": "trade", "price": "1"}
    for codec in (MsgpackCodec(), Plain(), Odd()):
        assert "trade" == kind_reader(codec, key="type")(codec.encode(message))


def test_a_codec_of_ones_own_may_raise_anything_of_a_type():
    class Bare(JsonCodec):
        def decoder(self, annotation):
            return msgspec.json.Decoder(annotation).decode

    read = kind_reader(Bare(), key="type")

    assert "trade" == read('{"type": "trade"}')
    for message in ("[]", "no JSON"):
        with pytest.raises(CodecError):
            read(message)


def test_the_type_is_found_in_what_is_decoded():
    assert "trade" == kind_in({"type": "trade"}, "type")
    for value in ({}, {"type": 1}, [], "type", None):
        with pytest.raises(CodecError, match="no field 'type' that names its type"):
            kind_in(value, "type")


# --- once -----------------------------------------------------------------------------------------


def test_a_decoder_is_made_once_for_each_annotation():
    codec = JsonCodec()

    assert decoder(Book, codec) is decoder(Book, codec)
    assert decoder(Book, codec) is not decoder(Status, codec)
    assert decoder(Book, codec) is not decoder(Book, JsonCodec())


def test_what_cannot_be_remembered_is_made_each_time():
    @attrs.define
    class Unhashable(Plain):
        options: list[str] = attrs.Factory(list)

    assert Status("status") == decoder(Status, Unhashable())("type=status")
    assert Book("book") == decoder(Annotated[Book, {}])('{"type": "book"}')


def test_the_package_gives_codecs():
    assert {"Codec", "JsonCodec", "MsgpackCodec"} <= set(wsclient.app.__all__)
