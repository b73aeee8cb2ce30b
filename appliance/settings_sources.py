"""Where settings come from: the TOML file, `OMA_SECTION__KEY` variables, secret files, systemd credentials.

Later sources win: file, its `<key>_file`, credentials, then variables.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from appliance.settings_faults import Gathered, SettingFault, field_at

PREFIX = "OMA_"
HEADER = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\"'-]+)\s*\]")
ASSIGNMENT = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=")
ERROR_LINE = re.compile(r"\(at line (\d+)")
SECTION_AND_KEY = 2


def gather(
    path: Path,
    env: Mapping[str, str],
    from_files: Iterable[tuple[str, str]],
    model: type[BaseModel],
    *,
    must_exist: bool,
) -> Gathered:
    """All raw values by section and key; what can't be read becomes a fault, never an exception."""
    gathered = Gathered(source=str(path))
    keys = tuple(from_files)
    _read_toml(gathered, path, must_exist=must_exist)
    _read_secret_files(gathered, keys)
    _read_credentials(gathered, env, keys)
    _read_variables(gathered, env, model)
    _read_secret_files(gathered, keys)
    return gathered


def _read_toml(gathered: Gathered, path: Path, *, must_exist: bool) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        if must_exist:
            gathered.faults.append(SettingFault(str(path), "(file)", "there is no such file", "a readable TOML file"))
        return
    except tomllib.TOMLDecodeError as error:
        found = ERROR_LINE.search(str(error))
        place = f"{path}:{found[1]}" if found else str(path)
        gathered.faults.append(SettingFault(place, "(file)", f"it is no valid TOML: {error}", "TOML 1.0"))
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        gathered.faults.append(SettingFault(str(path), "(file)", f"it can't be read: {reason}", "a readable TOML file"))
        return
    gathered.values = values
    gathered.places = {key: f"{path}:{line}" for key, line in lines_of(text).items()}


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each section and key first stands; `tomllib` does not tell."""
    lines: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := HEADER.match(line):
            section = _parts(header[1])
            lines.setdefault(section, number)
        elif assignment := ASSIGNMENT.match(line):
            lines.setdefault((*section, *_parts(assignment[1])), number)
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _read_variables(gathered: Gathered, env: Mapping[str, str], model: type[BaseModel]) -> None:
    for name in sorted(env):
        if not name.startswith(PREFIX) or "__" not in name:
            continue
        parts = tuple(name[len(PREFIX) :].lower().split("__"))
        if len(parts) != SECTION_AND_KEY or not all(parts):
            gathered.faults.append(
                SettingFault(name, ".".join(parts), "the name does not fit", "OMA_SECTION__KEY, as OMA_HTTP__PORT")
            )
            continue
        _put(gathered, parts[0], parts[1], _as_value(env[name], model, parts), name)


def _as_value(text: str, model: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Lists are written as JSON or with commas; an empty text takes an optional value back."""
    info = field_at(model, path)
    if info is None:
        return text
    choices = (info.annotation, *get_args(info.annotation))
    if any(get_origin(choice) is tuple for choice in choices):
        if text.lstrip().startswith("["):
            try:
                return json.loads(text)
            except ValueError:
                return text
        return [part.strip() for part in text.split(",") if part.strip()]
    return None if not text and type(None) in choices else text


def _read_credentials(gathered: Gathered, env: Mapping[str, str], keys: Iterable[tuple[str, str]]) -> None:
    directory = env.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    for section, key in keys:
        path = Path(directory) / f"{section}.{key}"
        if path.exists():
            _put_from_file(gathered, section, key, path, str(path))


def _read_secret_files(gathered: Gathered, keys: Iterable[tuple[str, str]]) -> None:
    for section, key in keys:
        table = gathered.values.get(section)
        if not isinstance(table, dict) or f"{key}_file" not in table:
            continue
        place = gathered.place_of((section, f"{key}_file"))
        path = table.pop(f"{key}_file")
        if isinstance(path, str) and path:
            _put_from_file(gathered, section, key, Path(path), place)
        else:
            gathered.faults.append(
                SettingFault(place, f"{section}.{key}_file", "it names no file", "the path of a readable file")
            )


def _put_from_file(gathered: Gathered, section: str, key: str, path: Path, place: str) -> None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        gathered.faults.append(
            SettingFault(place, f"{section}.{key}_file", f"{path} can't be read: {reason}", "a readable file")
        )
        return
    _put(gathered, section, key, text, place)


def _put(gathered: Gathered, section: str, key: str, value: Any, place: str) -> None:
    table = gathered.values.setdefault(section, {})
    if isinstance(table, dict):
        table[key] = value
        gathered.places[section, key] = place
