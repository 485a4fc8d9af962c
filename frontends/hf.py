"""Hugging Face `config.json` -> model graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from treadle.frontends.activations import activation, with_activation
from treadle.frontends.assemble import assemble
from treadle.frontends.blocks import Decoder
from treadle.frontends.config import Config, config_from, read_config
from treadle.frontends.errors import UnknownArchitecture
from treadle.frontends.families import ARCHITECTURES, FAMILIES, WITHOUT_TEXT_TYPE
from treadle.frontends.quantization import precision_of, with_dtypes
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, MissingField
from treadle.ir.model import STORED_BYTES, ModelGraph

_TOWERS = ("vision_config", "audio_config", "speech_config")


def load_model(path: str | Path, *, name: str = "", weight_dtype: str = "", kv_dtype: str = "") -> ModelGraph:
    """Read a `config.json` (or the folder that holds it) as published on the hub.

    Args:
        path: the file or its folder.
        name: of the graph; the configuration's `_name_or_path` or its folder's name when not given.
        weight_dtype: of all layer weights; as the configuration says when not given.
        kv_dtype: of the cache; as the configuration says when not given.

    Returns: the model's graph, with symbolic `batch`, `seq` and `kv`.

    Raises:
        UnreadableFile, MalformedText, MissingField, WrongType, UnknownArchitecture, UnsupportedModel,
        UnknownQuantization: with the place in the file.
    """
    where = Path(path)
    config = read_config(where)
    folder = where if where.is_dir() else where.parent
    return graph_from(config, name or _named(config, folder), weight_dtype, kv_dtype)


def parse_model(text: str, file: str = "config.json", name: str = "") -> ModelGraph:
    """Return the model graph of a configuration given as text; raises as `load_model` does."""
    config = config_from(text, file)
    return graph_from(config, name or _named(config, Path(file).parent))


def graph_from(config: Config, name: str, weight_dtype: str = "", kv_dtype: str = "") -> ModelGraph:
    """Return the model graph of a configuration."""
    for dtype in (weight_dtype, kv_dtype):
        if dtype and dtype not in STORED_BYTES:
            raise InvalidValue(message=f"unknown dtype `{dtype}`; expected one of {', '.join(STORED_BYTES)}")
    family, inner = _resolve(config)
    module, _, function = FAMILIES[family].partition(":")
    reader: Callable[[Config], Decoder] = getattr(import_module(f"treadle.frontends.families.{module}"), function)
    decoder = with_activation(reader(inner), activation(inner))
    decoder = replace(decoder, omitted=tuple(tower for tower in _TOWERS if config.has(tower)))
    precision = with_dtypes(precision_of(inner, config), weight_dtype, kv_dtype)
    try:
        return assemble(decoder, name, family, precision)
    except TreadleError as error:
        error.place = error.place or config.place()
        raise


def _resolve(config: Config) -> tuple[str, Config]:
    """Return the family of the text model and the table that describes it."""
    kind = config.word("model_type", default="")
    inner = config
    if config.has("text_config", "llm_config"):
        inner = config.section("text_config" if config.has("text_config") else "llm_config")
        inner = replace(inner, fields=_inherited(config, inner))
        own = inner.word("model_type", default="")
        kind = own if own in FAMILIES else WITHOUT_TEXT_TYPE.get(kind, own or kind)
    elif kind not in FAMILIES:
        kind = WITHOUT_TEXT_TYPE.get(kind, kind)
    if kind in FAMILIES:
        return kind, inner
    return _by_architecture(config, kind), inner


def _inherited(outer: Config, inner: Config) -> dict[str, object]:
    """Return the inner fields with those that multimodal files keep outside."""
    fields = dict(inner.fields)
    for name in ("tie_word_embeddings", "vocab_size"):
        if name not in fields and name in outer.fields:
            fields[name] = outer.fields[name]
    return fields


def _by_architecture(config: Config, kind: str) -> str:
    listed = config.fields.get("architectures")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    shown = kind or (names[0] if names else "")
    if not shown:
        raise MissingField(
            place=config.place(),
            field="model_type",
            expected=f"`model_type`, one of {', '.join(FAMILIES)}, or `architectures`",
            hint="add `model_type` as published with the model",
        )
    field = "model_type" if config.has("model_type") else "architectures"
    near = get_close_matches(shown, FAMILIES, n=3, cutoff=0.3) or sorted(FAMILIES)[:3]
    raise UnknownArchitecture(
        place=config.place(field), name=shown[:80], nearest=", ".join(near), expected=f"one of {', '.join(FAMILIES)}"
    )


def _named(config: Config, folder: Path) -> str:
    given = config.fields.get("_name_or_path")
    if isinstance(given, str) and given.strip():
        return given.strip().rstrip("/").split("/")[-1][:120]
    return folder.resolve().name
