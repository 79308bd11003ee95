"""Which images of a day a policy may decide on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column
from modlake.pipeline.quarantined import QUARANTINED
from modlake.pipeline.set_aside import SET_ASIDE


def decidable(images: pa.Table) -> pa.Table:
    """Return the rows of ``images``, which have ``error_code``, that policies decide on.

    Not those that were set aside, and not those whose judgement was lost while they lie in quarantine: no
    decision leaves them there, while one for lack of labels would release them.
    """
    is_apart: Column = pc.is_in(images["error_code"], value_set=pa.array([SET_ASIDE, QUARANTINED]))
    is_left: Column = pc.invert(is_apart)
    return images.filter(is_left).combine_chunks()
