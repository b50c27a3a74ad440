"""Changes one value in the text of a YAML document and leaves all else as it is, byte for byte.

The text is parsed only to find the place. Whoever calls checks that the changed text reads as what was meant.
"""

from __future__ import annotations

from typing import Any

import yaml

#: Keys from the root down to a value.
KeyPath = tuple[str, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def document_text(document: dict[str, Any]) -> str:
    """Return a whole document as text."""
    return _dump(document)


def set_value(text: str, path: KeyPath, value: Any, document: dict[str, Any]) -> str:
    """Return the text with another value at a path, or with a new key at the end of its mapping.

    :param path: of which all but the last key are there.
    :param document: what the changed text is to say. A mapping in braces is written anew from it.
    """
    root = yaml.compose(text, Loader=_LOADER)
    mapping, entry = _find(root, path)
    if mapping is None:
        above = path[:-1]
        return set_value(text, above, _at(document, above), document) if above else _dump(document)
    indent = mapping.start_mark.column
    lines = _dump({path[-1]: value}, indent)
    if entry is None:
        end = _end_of_line(text, _end(text, mapping))
        gap = "\n" if indent == 0 and "\n\n" in text else ""
        return _joined(text[:end], gap + lines, text[end:])
    key, old = entry
    start, end = key.start_mark.index - indent, _end(text, old)
    if lines.count("\n") == 1 and "\n" not in text[start:end]:
        return text[:start] + lines.rstrip("\n") + text[end:]  # what follows on the line is a comment
    return _joined(text[:start], lines, text[_end_of_line(text, end) :])


def remove_value(text: str, path: KeyPath, document: dict[str, Any]) -> str:
    """Return the text without a key. Comments around it stay.

    :param document: what the changed text is to say.
    """
    mapping, entry = _find(yaml.compose(text, Loader=_LOADER), path)
    if mapping is None or entry is None:
        above = path[:-1]
        return set_value(text, above, _at(document, above), document) if above else _dump(document)
    key, value = entry
    start = key.start_mark.index - mapping.start_mark.column
    return text[:start] + text[_end_of_line(text, _end(text, value)) :]


def rename_key(text: str, path: KeyPath, new: str) -> str:
    """Return the text with another name for a key."""
    entries = _node(yaml.compose(text, Loader=_LOADER), path[:-1]).value
    key = next(key for key, _ in entries if key.value == path[-1])
    return text[: key.start_mark.index] + _dump({new: 0}).partition(": 0")[0] + text[key.end_mark.index :]


def _find(root: Any, path: KeyPath) -> tuple[Any, tuple[Any, Any] | None]:
    """Return the block mapping that holds the last key and its entry; no mapping where it is in braces or empty."""
    node = root
    for key in path[:-1]:
        if not _is_block(node):
            return None, None
        node = next(value for name, value in node.value if name.value == key)
    if not _is_block(node):
        return None, None
    return node, next(((name, value) for name, value in node.value if name.value == path[-1]), None)


def _node(root: Any, path: KeyPath) -> Any:
    for key in path:
        root = next(value for name, value in root.value if name.value == key)
    return root


def _is_block(node: Any) -> bool:
    return isinstance(node, yaml.MappingNode) and not node.flow_style and bool(node.value)


def _at(document: Any, path: KeyPath) -> Any:
    for key in path:
        document = document[key]
    return document


def _end(text: str, node: Any) -> int:
    """Return where the last character of a value is, which for blocks is that of their last scalar."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())
    return end


def _end_of_line(text: str, position: int) -> int:
    """Return where the next line begins."""
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1


def _joined(before: str, lines: str, after: str) -> str:
    if before and not before.endswith("\n"):
        before += "\n"
    return before + lines + after


def _dump(value: dict[str, Any], indent: int = 0) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=2**31
    )
    margin = " " * indent
    return "".join(f"{margin}{line}\n" for line in text.splitlines())


class _Dumper(yaml.SafeDumper):
    """Lists of plain values on one line, all else in blocks; every value on lines of our own making."""

    def represent_str(self, data: str) -> Any:
        # Unicode's own line ends would be written as they are, and read as spaces; escapes need double quotes.
        style = '"' if any(end in data for end in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:  # noqa: ARG002
        plain = all(not isinstance(item, (dict, list, tuple)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(str, _Dumper.represent_str)
