"""Data sets that `datasets` has in its cache, by their name on the Hub. Nothing is downloaded."""

import os
import re
from collections.abc import Sequence

from xlmr_core.errors import InputError

_SPEC = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<config>[\w.-]+))?:(?P<split>[\w.-]+)")


def cached_files(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Inputs with each `hub:NAME[@CONFIG]:SPLIT` replaced by the Arrow files of the cache.

    Raises:
        InputError: Listing those that are not in the cache, code "bad_input".
    """
    paths: list[str] = []
    problems = []
    for given in inputs:
        item = os.fspath(given)
        if not item.startswith("hub:"):
            paths.append(item)
            continue
        match = _SPEC.fullmatch(item)
        if match is None:
            problems.append(f"{item}: a data set of the Hub is named hub:NAME[@CONFIG]:SPLIT; correct it")
            continue
        try:
            paths += _arrow_files(match["name"], match["config"], match["split"])
        except (ValueError, OSError, KeyError) as error:
            reason = str(error).split("\n")[0]
            rule = "it must be in the cache of `datasets`; load it once with datasets.load_dataset"
            problems.append(f"{item}: {reason}, {rule}")
    if problems:
        raise InputError("\n".join(problems), code="bad_input")
    return paths


def _arrow_files(name: str, config: str | None, split: str) -> list[str]:
    # Slow to import, and needed here alone.
    from datasets.packaged_modules.cache.cache import Cache

    builder = Cache(dataset_name=name.rpartition("/")[2], repo_id=name, config_name=config, version="auto", hash="auto")
    return [file["filename"] for file in builder.as_dataset(split=split).cache_files]
