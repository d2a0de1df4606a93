"""Text front end: raw text -> normalized text -> pieces and ids -> segments."""

from indextts2_jax.text.engine import default_engine, wetext_engine
from indextts2_jax.text.glossary import Glossary, load_glossary
from indextts2_jax.text.language import Language
from indextts2_jax.text.normalize import Engine, Normalizer
from indextts2_jax.text.split import split_segments
from indextts2_jax.text.tokenize import Tokenizer

__all__ = [
    "Engine",
    "Glossary",
    "Language",
    "Normalizer",
    "Tokenizer",
    "default_engine",
    "load_glossary",
    "split_segments",
    "wetext_engine",
]
