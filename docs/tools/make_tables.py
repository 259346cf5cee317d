"""Make the tables of the documentation from the tables of the package: ``python docs/tools/make_tables.py``."""

from __future__ import annotations

from pathlib import Path

from pydicom.datadict import dictionary_description

from asyncdicom import sop
from asyncdicom.archive.model import KEYS, Kind, Level
from asyncdicom.status import TABLES

DOCS = Path(__file__).parent.parent

STATUS_HEAD = """# Status codes

Made from `asyncdicom/status.py` by `python docs/tools/make_tables.py`. `Status(code).category` and `.meaning` know these, and
the category of any other code (PS3.7 Annex C).

Codes that asyncdicom gives for what a *handler* did: 0xC001 a status data set without (0000,0900); 0xC002 a status that is
neither an `int` nor a data set; 0xCx10 the peer's data set cannot be decoded; 0xCx11 an unhandled exception; 0xC312 a match
cannot be encoded; 0xCx13 no valid number of sub-operations; 0xC514, 0xC515 the move destination cannot be resolved. `x` is 2
for C-STORE, 3 for C-FIND, 4 for C-GET, 5 for C-MOVE.
"""


def statuses() -> str:
    """Return the page of status codes."""
    parts = [STATUS_HEAD]
    for service, rows in TABLES.items():
        parts.append(f"\n## {service.replace('_', ' ').title()}\n\n| code | category | meaning |\n|---|---|---|\n")
        for row in rows:
            code = f"0x{row.first:04X}" if row.first == row.last else f"0x{row.first:04X}–0x{row.last:04X}"
            parts.append(f"| {code} | {row.category.name.title()} | {row.meaning} |\n")
    return "".join(parts)


def sop_classes() -> str:
    """Return the page of SOP classes."""
    parts = [
        "# SOP classes\n\nMade from `asyncdicom/sop.py` by `python docs/tools/make_tables.py`. Each is a member of"
        " `asyncdicom.sop` by its keyword in upper snake case.\n\n| UID | name | service | storage |\n|---|---|---|---|\n"
    ]
    for item in sop.SOP_CLASSES:
        retired = " (retired)" if item.retired else ""
        parts.append(f"| {item} | {item.name}{retired} | {item.service} | {'yes' if item.is_storage else ''} |\n")
    parts.append("\n## Transfer syntaxes\n\n| UID | name | |\n|---|---|---|\n")
    for syntax in sop.TRANSFER_SYNTAXES:
        parts.append(f"| {syntax} | {syntax.name} | {'native' if syntax.is_native else 'encapsulated'} |\n")
    return "".join(parts)


KEYS_HEAD = """# Keys of the archive

Made from `asyncdicom/archive/model.py` by `python docs/tools/make_tables.py`: the keys that queries of
`asyncdicom archive` are matched by and return, at each level of the information models (PS3.4 C.6). A key of a level above
is matched and returned, one of a level below is matched. Sequences are matched by their items, with any attribute in them. A
key that is not listed is returned empty and makes the pendings 0xFF01.

U is a unique, R a required, O an optional key; a computed one follows from what is stored. Indexed keys are searched for by
the database, others are looked at one by one.
"""


def query_keys() -> str:
    """Return the page of the archive's keys."""
    parts = [KEYS_HEAD]
    for level in Level:
        parts.append(f"\n## {level.name}\n\n| key | tag | VR | type | |\n|---|---|---|---|---|\n")
        for key in sorted(KEYS[level].values(), key=lambda key: ([*Kind].index(key.kind), key.tag)):
            notes = "computed" if key.computed else "indexed" if key.column else ""
            tag = f"({key.tag >> 16:04X},{key.tag & 0xFFFF:04X})"
            parts.append(f"| {dictionary_description(key.tag)} | {tag} | {key.vr} | {key.kind.value} | {notes} |\n")
    return "".join(parts)


PAGES = {"statuses.md": statuses, "sop-classes.md": sop_classes, "query-keys.md": query_keys}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
