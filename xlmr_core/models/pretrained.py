"""What all documented model classes share: names of parameters, reading, writing, resizing.

A documented model's modules and parameters have the names of files and transformers, but for query, key and value,
which are one matrix (`attention.self.qkv`); `state_dict` shows the three. Modules of the user's own are left alone.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.keys import decoder_file_names, encoder_file_names
from xlmr_core.checkpoint.location import at_revision
from xlmr_core.encoder import Layers, initialise
from xlmr_core.errors import ArgumentError
from xlmr_core.models import loading
from xlmr_core.models.configuration import XLMRobertaConfig

_WITHOUT_EFFECT = ("low_cpu_mem_usage", "use_safetensors", "trust_remote_code")
# How a Hub is asked; a directory is not.
_OF_THE_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


class PreTrainedModel(nn.Module):
    """Base of the documented models.

    Args:
        config: Its settings; a copy is not made, changes made later by the user change the model's behaviour only
            where the documentation says so (`problem_type`, `output_attentions`, ...).
    """

    config_class: ClassVar[type[XLMRobertaConfig]] = XLMRobertaConfig
    base_model_prefix: ClassVar[str] = "roberta"
    # What the constructor takes besides the configuration.
    own_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        if not isinstance(config, XLMRobertaConfig):
            rule = (
                f"it must be a {self.config_class.__name__}; use {type(self).__name__}.from_pretrained for a directory"
            )
            raise ArgumentError(f"config is a {_full_name(config)}, {rule}")
        self.config = config
        self.register_state_dict_post_hook(_to_file_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_file_names)  # type: ignore[no-untyped-call]

    # Embeddings and heads.

    @property
    def base_model(self) -> "PreTrainedModel":
        """The model without its head."""
        base: PreTrainedModel = getattr(self, self.base_model_prefix, self)
        return base

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embedding table."""
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the word embedding table."""
        self.base_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear | None:
        """The projection to the vocabulary; None for a model without one."""
        return None

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the projection to the vocabulary."""
        raise ArgumentError(f"{type(self).__name__} has no projection to the vocabulary")

    def tie_weights(self) -> None:
        """Makes the projection to the vocabulary use the word embedding table, where the config says so."""
        output, table = self.get_output_embeddings(), self.get_input_embeddings()
        if output is None or not self.config.tie_word_embeddings:
            return
        output.weight, output.out_features = table.weight, table.num_embeddings
        if len(output.bias) != table.num_embeddings:
            output.bias = loading.resized(output.bias, table.num_embeddings, 0.0, mean=False)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Gives the vocabulary another size.

        Args:
            new_num_tokens: How many tokens; default: as many as now.
            pad_to_multiple_of: Round up to a multiple of this.
            mean_resizing: Whether new rows are the mean of the old ones (Hewitt 2021) or fresh.

        Returns:
            The word embedding table.

        Raises:
            ArgumentError: A number is below 1, or leaves no room for the padding id.
        """
        old = self.get_input_embeddings()
        count = old.num_embeddings if new_num_tokens is None else new_num_tokens
        for name, number in (("new_num_tokens", count), ("pad_to_multiple_of", pad_to_multiple_of)):
            if number is not None and (not isinstance(number, int | np.integer) or number < 1):
                raise ArgumentError(f"{name} {number!r}, it must be a whole number from 1")
        count = int(count)
        if pad_to_multiple_of:
            count = -(-count // pad_to_multiple_of) * pad_to_multiple_of
        if count <= self.config.pad_token_id:
            raise ArgumentError(f"new_num_tokens {count}, it must be above pad_token_id {self.config.pad_token_id}")
        if count == old.num_embeddings:
            return old
        std = self.config.initializer_range
        table = nn.Embedding(count, old.embedding_dim, old.padding_idx, device="meta")
        table.weight = loading.resized(old.weight, count, std, mean=mean_resizing)
        self.set_input_embeddings(table)
        output = self.get_output_embeddings()
        if output is not None and not self.config.tie_word_embeddings:
            output.weight = loading.resized(output.weight, count, std, mean=mean_resizing)
            output.bias = loading.resized(output.bias, count, 0.0, mean=mean_resizing)
            output.out_features = count
        self.tie_weights()
        self.config.vocab_size = count
        return table

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Parameters of the model, each counted once."""
        tables = {part.weight for part in self.modules() if isinstance(part, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable) and not (exclude_embeddings and parameter in tables)
        )

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Trains with less memory: each layer is computed again for its gradients. The arguments have no effect."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Undoes `gradient_checkpointing_enable`."""
        self._set_checkpointing(False)

    def _set_checkpointing(self, value: bool) -> None:
        for part in self.modules():
            if isinstance(part, Layers):
                part.checkpointing = value

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Their type."""
        return next(self.parameters()).dtype

    # Files.

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: XLMRobertaConfig | str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | torch.device | None = None,
        ignore_mismatched_sizes: bool = False,
        attn_implementation: str | None = None,
        revision: str | None = None,
        quantization_config: object = None,
        **kwargs: Any,
    ) -> Self:
        """Opens a model directory or Hub id, in evaluation mode.

        What a checkpoint lacks besides its encoder is initialised, with a warning that names it: fine-tuning starts
        so. Layers of the files beyond the config's are left out, with a warning too. The tasks of `pipeline` and
        `annotate` refuse such a checkpoint.

        Args:
            pretrained_model_name_or_path: A directory, `mini`, or a Hub id `org/name[@revision]`.
            config: Its settings in place of the directory's; or where those are.
            dtype: Type of the weights; default float32, "auto" the type that the config states, else the stored one.
            torch_dtype: The same by its older name.
            device_map: Where to: a device; "auto" is CUDA where there is one.
            ignore_mismatched_sizes: Whether tensors of another size, such as a head's, are initialised too.
            attn_implementation: "sdpa" and "flash_attention_2" mean the packed engine; "eager" computes padding.
            revision: Of a Hub id.
            quantization_config: Not implemented.
            kwargs: Overrides of the settings, such as `num_labels`, `id2label`, `problem_type`. `low_cpu_mem_usage`,
                `use_safetensors` and `trust_remote_code` have no effect: weights are mapped, never unpickled, and no
                code is taken from a directory.

        Raises:
            CheckpointError: The directory cannot be used; all that is wrong with its weights at once.
            ArgumentError: An argument is none of this class.
        """
        if quantization_config is not None:
            raise ArgumentError("quantization_config is not implemented; leave it out and pass dtype=torch.bfloat16")
        asked = [name for name in _OF_THE_HUB if kwargs.get(name)]
        if asked and not Path(pretrained_model_name_or_path).is_dir():
            rule = "set HF_HOME, HF_TOKEN or HF_HUB_OFFLINE in the environment instead"
            raise ArgumentError(f"{', '.join(asked)} of a Hub id, {rule}")
        location = loading.locate_model(at_revision(pretrained_model_name_or_path, revision))
        kwargs = {name: value for name, value in kwargs.items() if name not in (*_WITHOUT_EFFECT, *_OF_THE_HUB)}
        if attn_implementation is not None:
            kwargs["attn_implementation"] = attn_implementation
        own = {name: kwargs.pop(name) for name in cls.own_arguments if name in kwargs}
        config = cls._own_config(config, location, kwargs)
        stored = loading.read_tensors(location)
        config.vocab_size = loading.vocabulary_size(stored, config.vocab_size)
        if loading.has_own_decoder(stored):
            config.tie_word_embeddings = False
        config.dtype = loading.dtype_of(dtype if dtype is not None else torch_dtype, config, stored)
        device = loading.device_of(device_map)
        with torch.device("meta"):
            model = cls(config, **own)
        differences = loading.fill_model(model, stored, config, ignore_mismatched_sizes=ignore_mismatched_sizes)
        if differences:
            what = f"{pretrained_model_name_or_path} is not all of a {cls.__name__}"
            warnings.warn("; ".join([what, *differences]), stacklevel=2)
        model.tie_weights()
        return model.to(device=device, dtype=config.dtype).eval()

    @classmethod
    def _own_config(
        cls, given: XLMRobertaConfig | str | Path | None, location: Path, overrides: Mapping[str, Any]
    ) -> XLMRobertaConfig:
        """A configuration of the model's own: that of the directory, of another path, or a copy of the one given."""
        if given is None or isinstance(given, str | Path):
            return cls.config_class.from_pretrained(location if given is None else given, **overrides)
        if isinstance(given, XLMRobertaConfig):
            return cls.config_class.from_dict(vars(given) | {"name_or_path": str(location)}, **overrides)
        rule = f"it must be a {cls.config_class.__name__} or the path of one; leave it out for the directory's"
        raise ArgumentError(f"config is a {_full_name(given)}, {rule}")

    def save_pretrained(
        self,
        save_directory: str | Path,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        is_main_process: bool = True,
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        save_function: object = None,
        max_shard_size: object = None,
    ) -> None:
        """Writes `config.json` and `model.safetensors`, which `transformers` and this package open.

        Args:
            save_directory: Made if need be.
            state_dict: Instead of the model's own.
            is_main_process: False writes nothing.
            safe_serialization: False, that is a pickle, is refused.
            push_to_hub: True is refused.
            save_function: No effect.
            max_shard_size: No effect: there is one file.

        Raises:
            ArgumentError: A pickle or an upload is asked for.
            CheckpointError: The path is a file.
        """
        if not safe_serialization or push_to_hub:
            raise ArgumentError("safe_serialization=False and push_to_hub=True are not done here; leave them out")
        if not is_main_process:
            return
        folder = Path(save_directory)
        self.config.architectures = [type(self).__name__]
        self.config.dtype = self.dtype
        tensors = dict(self.state_dict() if state_dict is None else state_dict)
        output = self.get_output_embeddings()
        if output is not None and output.weight is self.get_input_embeddings().weight:
            # They are the word embedding table and `lm_head.bias`.
            tensors = {name: value for name, value in tensors.items() if not name.startswith("lm_head.decoder.")}
        # Clones: parts of one matrix share its memory, which safetensors refuses.
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        layout.make_directory(folder)
        draft = folder / f".{layout.SAFETENSORS}"
        save_file(plain, draft, metadata={"format": "pt"})
        # Only now, when all is written, so that a kill on the way leaves what was there before.
        self.config.save_pretrained(folder)
        draft.replace(folder / layout.SAFETENSORS)

    def _initialise(self, part: nn.Module) -> None:
        """Fresh weights of a head, and its tie to the embeddings."""
        initialise(part, self.config.initializer_range)
        self.tie_weights()


def _full_name(value: object) -> str:
    """Class of a value with the package it is from: others have classes of the same names."""
    package = type(value).__module__.partition(".")[0]
    return type(value).__name__ if package == "builtins" else f"{package}.{type(value).__name__}"


def _to_file_names(model: PreTrainedModel, state: dict[str, Any], prefix: str, _: object) -> None:
    """Gives what `state_dict` gathered the names and tensors of files.

    What would share memory with another entry is a copy, since safetensors refuses such entries.
    """
    for name in [name for name in state if name.startswith(prefix) and len(encoder_file_names(name)) > 1]:
        parts = encoder_file_names(name)
        whole = state.pop(name)
        state |= {part: chunk.clone() for part, chunk in zip(parts, whole.chunk(len(parts)), strict=True)}
    matrix, bias, usual_bias = (prefix + name for name in decoder_file_names())
    if bias in state and usual_bias not in state:
        state[usual_bias] = state[bias].clone()
    output = model.get_output_embeddings()
    if matrix in state and output is not None and output.weight is model.get_input_embeddings().weight:
        state[matrix] = state[matrix].clone()


def _from_file_names(
    model: PreTrainedModel,
    state: dict[str, Any],
    prefix: str,
    _: object,
    __: object,
    missing: list[str],
    ___: object,
    errors: list[str],
) -> None:
    """Joins what `load_state_dict` is given; what is missing stays so and is reported by torch."""
    for buffer in _BUFFERS:
        state.pop(prefix + buffer, None)
    _, bias, usual_bias = (prefix + name for name in decoder_file_names())
    # Where both are there and differ, transformers computes with the first.
    usual = state.pop(usual_bias, None)
    if usual is not None:
        state.setdefault(bias, usual)
    for own, parameter in model.named_parameters(prefix.removesuffix(".")):
        parts = encoder_file_names(own)
        given = [part for part in parts if part in state]
        if len(parts) == 1 or not given:
            continue
        missing += [part for part in parts if part not in state]
        shape = (parameter.shape[0] // len(parts), *parameter.shape[1:])
        wrong = [part for part in given if tuple(state[part].shape) != shape]
        errors += [f"size mismatch for {part}: {tuple(state[part].shape)}, the model has {shape}" for part in wrong]
        present = parameter.detach().chunk(len(parts))
        tensors = [state.pop(part, now) for part, now in zip(parts, present, strict=True)]
        if not wrong:
            state[own] = torch.cat(tensors)
