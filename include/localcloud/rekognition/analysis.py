"""From bytes to an answer: open the image, ask the judges, say what the API says."""

from __future__ import annotations

from typing import Any

from localcloud.rekognition.images import open_image
from localcloud.rekognition.judges import FirstOf

DEFAULT_MIN_CONFIDENCE = 50.0  # API reference, DetectModerationLabels; for bulk jobs none is documented


def analyse(data: bytes, judges: FirstOf, config: dict[str, Any], adapter: str | None) -> dict[str, Any]:
    """The answer of DetectModerationLabels for one image; raises ImageError.

    `config` holds MinConfidence; `adapter` is echoed as ProjectVersion, None leaves it out.
    """
    answer = judges.judge(open_image(data)).answer(config.get("MinConfidence", DEFAULT_MIN_CONFIDENCE))
    return answer if adapter is None else answer | {"ProjectVersion": adapter}
