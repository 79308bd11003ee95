"""The JSON Schema of policy files, made from the taxonomy.

``./modlake policy schema`` prints it; ``include/policies/policy.schema.json`` is a copy for editors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from modlake.pipeline.taxonomy import known_labels
from modlake.policy.policy import ACTION_KINDS, CONTENT_TYPES, Verdict


@cache
def policy_schema() -> dict[str, Any]:
    """Return the schema, of draft 2020-12, of a whole policy file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Moderation policy",
        "description": "Rules that turn the labels stored of an image into allow, review or block.",
        **_mapping(
            {
                "name": _name("The policy's name, as decisions store it."),
                "status": {
                    "description": "live: decides and acts. shadow: decides nightly, acts on nothing. draft: "
                    "only for backtests.",
                    "enum": ["live", "shadow", "draft"],
                },
                "description": {"type": "string", "description": "What the policy is for."},
                "match": {
                    "description": "first: the first rule that hits decides. most_severe: of those that hit, "
                    "block comes before review before allow.",
                    "enum": ["first", "most_severe"],
                    "default": "first",
                },
                "default": _verdict("The verdict where no rule hits.", default="allow"),
                "unjudged": _verdict(
                    "The verdict of images without an answer (ineligible, failed).", default="review"
                ),
                "actions": {
                    "description": "What is done, by verdict.",
                    **_mapping({verdict.value: {"$ref": "#/$defs/actions"} for verdict in Verdict}),
                },
                "brake": {"$ref": "#/$defs/brake"},
                "rules": {
                    "description": "In the order in which they are asked.",
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 500,
                    "items": {"$ref": "#/$defs/rule"},
                },
            },
            required=["name", "status", "rules"],
        ),
        "$defs": _definitions(),
    }


def _definitions() -> dict[str, Any]:
    return {
        "label": {
            "title": "label",
            "description": "A label of Rekognition's moderation taxonomy, version 7.",
            "enum": list(known_labels()),
        },
        "content_type": {"description": "A content type that Rekognition reports.", "enum": [*CONTENT_TYPES]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 100},
        "pattern": {"type": "string", "minLength": 1},
        "actions": {
            "description": "Kinds of action.",
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": [*ACTION_KINDS]},
        },
        "brake": {
            "description": "When a person must approve what is to be done with a day.",
            **_mapping(
                {
                    "max_images": {
                        "description": "Most images that the policy, or a rule of it, may block a day.",
                        "type": "integer",
                        "minimum": 0,
                    },
                    "max_share": {
                        "description": "The largest share of a day's images that may be blocked, 0 to 1.",
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                    },
                    "min_days": {
                        "description": "Days of history from which on they bound the share as well.",
                        "type": "integer",
                        "minimum": 1,
                        "default": 7,
                    },
                    "spreads": {
                        "description": "How many median absolute deviations above the median of the history "
                        "a share may be.",
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "default": 6,
                    },
                }
            ),
        },
        "rule": _mapping(
            {
                "name": _name("The rule's name, as decisions store it."),
                "verdict": _verdict("What the rule says of the images that it hits."),
                "description": {"type": "string", "description": "Why the rule is as it is."},
                "when": {
                    "description": "The condition; always holds for every image that has an answer.",
                    "anyOf": [{"const": "always"}, {"$ref": "#/$defs/condition"}],
                },
                "actions": {"$ref": "#/$defs/actions"},
            },
            required=["name", "verdict", "when"],
        ),
        "condition": {
            "description": "Holds when all that it says does.",
            **_mapping(
                {
                    "label": _one_or_more(
                        "#/$defs/label", "One of these labels, or one below it, was reported."
                    ),
                    "at_least": {
                        "description": "The least confidence that counts, 0 to 100.",
                        "$ref": "#/$defs/confidence",
                    },
                    "below": {
                        "description": "The confidence from which on it doesn't count, 0 to 100.",
                        "$ref": "#/$defs/confidence",
                    },
                    "except": _one_or_more(
                        "#/$defs/label", "Labels below the label that don't count; its others decide."
                    ),
                    "content_type": _one_or_more(
                        "#/$defs/content_type", "One of these content types was reported."
                    ),
                    "surface": _one_or_more(
                        "#/$defs/pattern",
                        "Prefix of the key, or a glob (*, ?, and ** across /), or the same from s3:// on.",
                    ),
                    "adapter": _one_or_more(
                        "#/$defs/pattern",
                        "ARN of the adapter that answered, * for anything; none: base model.",
                    ),
                    "model_version": _one_or_more(
                        "#/$defs/pattern", 'Version of the model that answered, such as "7.0" or "7.*".'
                    ),
                    "all": _conditions("Each of these holds."),
                    "any": _conditions("At least one of these holds."),
                    "not": {"description": "This doesn't hold.", "$ref": "#/$defs/condition"},
                }
            ),
            "minProperties": 1,
            "dependentRequired": {"except": ["label"]},
            "dependentSchemas": {
                bound: {"anyOf": [{"required": ["label"]}, {"required": ["content_type"]}]}
                for bound in ("at_least", "below")
            },
        },
    }


def _mapping(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": properties,
    }


def _name(description: str) -> dict[str, Any]:
    return {"description": description, "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}


def _verdict(description: str, **more: str) -> dict[str, Any]:
    return {"description": description, "enum": [verdict.value for verdict in Verdict], **more}


def _one_or_more(reference: str, description: str) -> dict[str, Any]:
    one = {"$ref": reference}
    several = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
    return {"description": description, "anyOf": [one, several]}


def _conditions(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/$defs/condition"},
    }
