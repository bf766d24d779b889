"""How words that people write are compared."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """A label, class, patient, source or view as it is compared.

    No spaces around it, for a spreadsheet's `P7 ` is patient P7; composed (NFC), for a folder
    from another system may be named by letter and accent apart; and without the lone
    surrogates that a broken character set leaves, which cannot be written again.
    """
    return unicodedata.normalize("NFC", text.encode(errors="backslashreplace").decode()).strip()
