"""A tokenizer of the library under the settings of one call, without touching the one that others use.

The library keeps truncation and padding inside its tokenizer object, so calls with different settings would disturb
each other (transformers: "Already borrowed"). Its parts are shared by reference, though: a second object with the same
model, normaliser and added tokens costs some microseconds, whatever the size of the vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import tokenizers

from xlmr_core.tokenization.byte_level import byte_level_options, set_byte_level
from xlmr_core.tokenization.sampling import Sampler

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Truncation:
    """To how many tokens texts are cut, special tokens included, and how."""

    max_length: int
    stride: int
    strategy: Literal["longest_first", "only_first", "only_second"]
    side: Side


@dataclass(frozen=True, slots=True)
class Padding:
    """To how many tokens texts are filled; None means the longest of the batch."""

    length: int | None
    multiple: int | None
    side: Side
    token: str
    token_id: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What one call wants; `add_prefix_space` None means as the tokenizer has it."""

    truncation: Truncation | None = None
    padding: Padding | None = None
    split_special_tokens: bool = False
    add_prefix_space: bool | None = None


def view(library: tokenizers.Tokenizer, settings: Settings, sampler: Sampler | None = None) -> tokenizers.Tokenizer:
    """The same tokenizer, under these settings.

    Args:
        library: Without truncation and padding; nobody changes it meanwhile.
        settings: `add_prefix_space` only for byte-level tokenizers.
        sampler: What draws segmentations; None for the best one.
    """
    if settings == Settings() and sampler is None:
        return library
    parts = library if sampler is None else sampler
    seen = tokenizers.Tokenizer(parts.model)
    seen.normalizer = parts.normalizer
    seen.pre_tokenizer = parts.pre_tokenizer
    seen.post_processor = library.post_processor
    seen.decoder = library.decoder
    added = library.get_added_tokens_decoder()
    seen.add_tokens([added[number] for number in sorted(added)])
    if seen.get_added_tokens_decoder().keys() != added.keys():
        # Ids with a gap before them, which only a file can give.
        seen = tokenizers.Tokenizer.from_str(library.to_str())
    _apply(seen, settings)
    return seen


def _apply(library: tokenizers.Tokenizer, settings: Settings) -> None:
    cut, fill = settings.truncation, settings.padding
    library.encode_special_tokens = settings.split_special_tokens
    if settings.add_prefix_space is not None:
        frame, options = library.post_processor, byte_level_options(library)
        assert options is not None
        set_byte_level(
            library,
            frame.cls[1],
            frame.sep[1],
            add_prefix_space=settings.add_prefix_space,
            trim_offsets=options[1],
        )
    if cut is not None:
        library.enable_truncation(cut.max_length, stride=cut.stride, strategy=cut.strategy, direction=cut.side)
    if fill is not None:
        library.enable_padding(
            length=fill.length,
            pad_to_multiple_of=fill.multiple,
            direction=fill.side,
            pad_id=fill.token_id,
            pad_token=fill.token,
            pad_type_id=0,
        )
