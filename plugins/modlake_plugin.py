"""What Airflow learns of Modlake from its plugins folder: the links that the UI may build."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from modlake.links.rekognition import MediaAnalysisResultLink, RekognitionMediaAnalysisJobLink


class ModlakePlugin(AirflowPlugin):
    name = "modlake"
    operator_extra_links: ClassVar = [RekognitionMediaAnalysisJobLink(), MediaAnalysisResultLink()]
