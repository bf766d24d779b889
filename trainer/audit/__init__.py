"""What is wrong with a training set, before a network learns it.

Films that no model should see, pictures that are there twice, labels that contradict each
other, and what tells the label without being the finding. Reads films, judges, and writes
only what it is asked for: a page, a cleaned manifest. Nothing here names a patient.

=================  ============================================================
`measure`          opens every film once and keeps what is needed of it
`looks`            polarity, orientation, contrast, view
`fingerprints`     which pictures are near each other, by bits and by structure
`registration`     whether two of them are the same exposure
`duplicates`       groups of films that show the same picture
`confounding`      how much source and view tell of the label
`findings`         the kinds of trouble
`inspection`       all checks in one call
`clean`, `page`    a cleaned manifest; one HTML page with pictures
=================  ============================================================
"""

from __future__ import annotations

from trainer.audit.clean import write_clean
from trainer.audit.confounding import confounding
from trainer.audit.inspection import Audit, inspect
from trainer.audit.page import write_page

__all__ = ["Audit", "confounding", "inspect", "write_clean", "write_page"]
