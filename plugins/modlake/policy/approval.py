"""What a person reads who is asked to approve an enforcement: Markdown, with names of images and no image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

_VERBS = {"block": "blocked", "release": "released"}
_DOING = {
    "tag": "{} tagged",
    "quarantine": "{} moved to quarantine",
    "review_queue": "{} put into the review queue",
    "notify_sns": "SNS notified of {}",
    "notify_sqs": "SQS notified of {}",
    "notify_webhook": "the webhook notified of {}",
}
_UNDOING = {
    "tag": "the tag of {} taken back",
    "quarantine": "{} brought back from quarantine",
    "review_queue": "{} taken out of the review queue",
    "notify_sns": "SNS told that {} are released",
    "notify_sqs": "SQS told that {} are released",
    "notify_webhook": "the webhook told that {} are released",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~])")


def approval_subject(enforcement: Mapping[str, Any]) -> str:
    """Return the headline."""
    moves = [move for move in enforcement["held"] if move["rule"] is None] or enforcement["held"]
    said = " and ".join(
        f"{sum(move['images'] for move in moves if move['movement'] == movement):,} to be {verb}"
        for movement, verb in _VERBS.items()
        if any(move["movement"] == movement for move in moves)
    )
    return f"{enforcement['day']}: {said} of {enforcement['images']:,} images, more than usual"


def approval_body(enforcement: Mapping[str, Any], enforcement_uri: str) -> str:
    """Return the figures, the rules and samples, of the content of ``enforcement.json``."""
    held = enforcement["held"]
    lines = [
        f"**Nothing has been done yet.** On *Approve*: {_what_happens(enforcement['intents'])}.",
        "",
        "*Reject*, or no answer in time, does nothing: the decisions stay, and the next run for the day asks "
        "again.",
    ]
    for whole in _wholes(held):
        lines += ["", *_section(whole, held, enforcement)]
    lines += [
        "",
        "Open samples by their names, where your access is logged. The story of one: `./modlake why s3://…`. "
        f"All of them: the table `decisions`, and `intents/` beside {as_code(enforcement_uri)}.",
    ]
    return "\n".join(lines)


def _wholes(held: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one of the moves that are held for each policy and movement, that of the policy if it is."""
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for move in sorted(held, key=lambda move: move["rule"] is not None):
        first.setdefault((move["movement"], move["policy"]), move)
    return list(first.values())


def _section(
    whole: Mapping[str, Any], held: Sequence[Mapping[str, Any]], enforcement: Mapping[str, Any]
) -> Iterator[str]:
    of_images = enforcement["images"]
    descriptions = enforcement["rules"].get(whole["policy"], {})
    of_policy = sorted(
        (move for move in held if (move["movement"], move["policy"]) == (whole["movement"], whole["policy"])),
        key=lambda move: (-move["images"], move["rule"] or ""),
    )
    over = {move["rule"]: move for move in of_policy}
    verb = _VERBS[whole["movement"]]
    yield f"### {_text(whole['policy'])}: {whole['images']:,} images to be {verb}"
    yield ""
    yield f"| {verb} by | images | share of the day | usual share | asks above |"
    yield "|---|---:|---:|---:|---:|"
    if whole["rule"] is None:
        yield _row("**all rules**", whole, whole, of_images)
    for part in whole["rules"] or of_policy:
        yield _row(_text(part["rule"]), part, over.get(part["rule"]), of_images)
    yield ""
    yield " ".join([_version(whole), _recent(whole)]).rstrip()
    if set(over) == {None}:
        yield ""
        yield "The whole policy passes its bound; no rule alone passes one."
    for move in of_policy:
        if move["rule"] is not None or len(of_policy) == 1:
            yield ""
            yield from _samples(move, descriptions)


def _version(move: Mapping[str, Any]) -> str:
    if move["policy_version"] is None:
        return "The policy is there no more."
    days = move["version_days"]
    before = f"decided {_days(days)}, too" if days else "**decides for the first time**"
    return f"This version of the policy, {move['policy_version']}, {before}."


def _recent(move: Mapping[str, Any]) -> str:
    if not move["recent"]:
        return "No other day is known."
    shares = ", ".join(f"{each['day'][5:]} **{_share(each['share'])}**" for each in move["recent"])
    of_rule = "" if move["rule"] is None else f" of {_text(move['rule'])}"
    return f"Shares{of_rule} on the last {len(move['recent'])} of {_days(move['days'])}: {shares}."


def _days(count: int) -> str:
    return f"{count:,} other day{'' if count == 1 else 's'}"


def _row(name: str, part: Mapping[str, Any], excess: Mapping[str, Any] | None, of_images: int) -> str:
    images, share = f"{part['images']:,}", _share(part["share"])
    if excess is not None:
        images, share = f"**{images}**", f"**{share}**"
    usual = "no history" if part["usual_share"] is None else _share(part["usual_share"])
    return f"| {name} | {images} | {share} | {usual} | {_bound(excess, of_images) if excess else ''} |"


def _bound(excess: Mapping[str, Any], of_images: int) -> str:
    """Return how many images pass, by the bound that is the first to be reached."""
    bounds = []
    if excess["max_images"] is not None:
        bounds.append((excess["max_images"], "policy"))
    if excess["max_share"] is not None:
        is_band = excess["max_share"] == excess["usual_until"]
        # A share that is a count of the day's images is that count, whatever floats make of it.
        passing = int(excess["max_share"] * of_images + 1e-6)
        bounds.append((passing, "usual band" if is_band else "policy"))
    images, why = min(bounds)
    return f"{images:,} ({why})"


def _samples(move: Mapping[str, Any], descriptions: Mapping[str, str]) -> Iterator[str]:
    rule = move["rule"]
    if rule is None:
        said = "Samples"
    else:
        told = descriptions.get(rule)
        said = f"**{_text(rule)}**: " + (
            "not a rule of the policy any more" if told is None else _text(told) or "no description"
        )
    yield said
    yield ""
    for sample in move["samples"]:
        labels = ", ".join(_label(each) for each in sample["labels"])
        yield f"- {as_code(sample['source_ref'])}" + (f": {labels}" if labels else "")


def _what_happens(intents: Mapping[str, int]) -> str:
    """Return the actions in words."""
    parts = []
    for kind, count in sorted(intents.items()):
        undone, _, name = kind.rpartition(" ")
        words = (_UNDOING if undone else _DOING).get(name, f"{kind}: {{}}")
        parts.append(words.format(f"{count:,} image{'' if count == 1 else 's'}"))
    return ", ".join(parts)


def _share(share: float) -> str:
    return f"{share:.2%}"


def _label(label: Mapping[str, Any]) -> str:
    confidence = "?" if label["confidence"] is None else f"{label['confidence']:.0f} %"
    return f"{_text(label['label'])} {confidence}"


def as_code(uri: str) -> str:
    """Return an object's name as code that shows the same everywhere: no link, no control characters."""
    return f"`{quote(uri, safe=_PRINTABLE)}`"


# All of ASCII that shows, but the backtick, which would end the code, and the percent sign, which quotes.
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "`%")


def _text(value: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(value.split()))
