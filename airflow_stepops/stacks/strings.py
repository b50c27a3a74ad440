"""Settings given as text on a command line, read as the types that a flavor's model names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_stepops.stacks.checks import refuse_secrets, unknown_key
from airflow_stepops.stacks.components import Component


def setting_names(model: type[Component]) -> list[str]:
    """Return the names of a flavor's settings."""
    return [name for name in model.model_fields if name not in Component.model_fields]


def typed_settings(model: type[Component], texts: Mapping[str, Sequence[str]], where: str) -> dict[str, Any]:
    """Return settings as JSON data, as they would be written into the stack file.

    Text stays text where the setting is one; else it is read as YAML: ``2``, ``true``, ``[a, b]``, ``{team: ml}``.
    What fits no type is returned as it is: the model says what is wrong with it.

    :param texts: setting → what was given for it; more than once for a list. Names may be written with ``-``.
    :raises StackError: for an unknown setting, with the nearest name, and for a secret.
    """
    refuse_secrets(texts, where)
    names = {key: key.replace("-", "_") for key in texts}
    for key, name in names.items():
        if name not in setting_names(model):
            raise unknown_key(f"{where}: {key}", name, setting_names(model), "setting")
    return {names[key]: _typed(model, names[key], given) for key, given in texts.items()}


def _typed(model: type[Component], name: str, given: Sequence[str]) -> Any:
    read = [_read(text) for text in given]
    readings = [list(given), read] if len(given) > 1 else [given[0], read[0], list(given), read]
    return min(readings, key=lambda value: _misfit(model, name, value))


def _misfit(model: type[Component], name: str, value: Any) -> int:
    """Return 0 for a value that the setting takes, 1 for one of the right type, 2 for another type."""
    try:
        model(**{name: value})
    except ValidationError as error:
        found = [item["type"] for item in error.errors(include_url=False) if item["loc"][:1] == (name,)]
        return 2 if any(kind.endswith(("_type", "_parsing")) for kind in found) else min(1, len(found))
    return 0


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
