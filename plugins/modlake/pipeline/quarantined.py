"""Images that an action has moved into quarantine: no listing has them, and their day keeps them."""

from __future__ import annotations

QUARANTINED = "QUARANTINED"
"""``images.error_code`` of those whose judgement a run can't carry over; their outcome is ``ineligible``."""

QUARANTINED_MESSAGE = "In quarantine, so that it can't be judged anew: ./modlake undo brings it back."
