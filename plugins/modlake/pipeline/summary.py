"""Reading the manifest summary of a media analysis job: the images it could not judge, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.outcomes import FailureCode


@dataclass(frozen=True, slots=True)
class ImageError:
    """Why Rekognition could not judge an image, in its own words; AWS documents no list of codes."""

    code: str
    message: str | None


def read_summary_errors(body: bytes, images: Column, summary_uri: str) -> dict[str, ImageError]:
    """Return the errors of a summary by source_ref; ``images`` are those of the manifest, in its order.

    An error names its image by ``source-ref`` or by its line in the manifest; AWS's page spells the latter
    ``line-numer``, and both spellings are read. An error that names no line of the manifest is left out: the
    image it means ends as unaccounted for.

    Raises ModlakeTerminalError when the file is no summary, or names an image that the manifest does not.
    """
    try:
        errors: list[dict[str, Any]] = json.loads(body.decode("utf-8-sig")).get("errors") or []
        line_numbers = [error.get("line-number", error.get("line-numer")) for error in errors]
    except (AttributeError, ValueError) as cause:
        raise ModlakeTerminalError(
            f"{summary_uri} is not the summary of a media analysis job ({cause}). "
            "Trigger the day with fresh=true to have it analysed again."
        ) from cause
    if not errors:
        return {}
    manifest: list[str] = images.to_pylist()
    # Whether lines count from 0 or 1 is undocumented; a line 0 tells.
    first = 0 if 0 in line_numbers else 1
    asked = set(manifest)
    found: dict[str, ImageError] = {}
    for error, line_number in zip(errors, line_numbers, strict=True):
        source_ref = error.get("source-ref")
        if (
            source_ref is None
            and isinstance(line_number, int)
            and first <= line_number < first + len(manifest)
        ):
            source_ref = manifest[line_number - first]
        if source_ref is None:
            continue
        if source_ref not in asked:
            raise ModlakeTerminalError(
                f"{summary_uri} reports an error for {source_ref!r}, which the manifest does not name. "
                "Check that nobody else writes below the work bucket, then trigger the day with fresh=true."
            )
        found[source_ref] = ImageError(
            code=error.get("code") or FailureCode.ERROR_WITHOUT_CODE, message=error.get("message")
        )
    return found
