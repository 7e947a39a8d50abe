"""Label selectors mean what they mean to Kubernetes; the cases follow its documentation of labels."""

import pytest

from bobrai.external_metrics.selectors import MalformedSelector, parse

LABELS = {"queue": "media", "level": "5"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "queue=media",
        "queue==media",
        " queue = media ",
        "queue!=mail",
        "team!=x",
        "team!=",
        "queue in (media)",
        "queue in (mail,media)",
        "queue in(media, mail )",
        "queue notin (mail)",
        "team notin (x)",
        "queue notin ()",
        "queue",
        "!team",
        "queue=media,level,!team,queue notin (mail,)",
        "level>4",
        "level<6",
    ],
)
def test_what_matches(text: str) -> None:
    assert parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "queue=mail",
        "queue=",
        "team=",
        "queue!=media",
        "queue in (mail)",
        "queue in ()",
        "team in (x)",
        "queue notin (media)",
        "team",
        "!queue",
        "queue=media,team",
        "level>5",
        "level<5",
        "queue>1",
        "team<1",
        "Queue=media",
        "example.com/queue=media",
        "in in (in)",
        "notin=in",
    ],
)
def test_what_does_not_match(text: str) -> None:
    assert not parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "queue=media,",
        ",queue=media",
        "a,,b",
        "=media",
        "!",
        "!queue=media",
        "queue=media mail",
        "queue media",
        "queue in",
        "queue in media",
        "queue in (media",
        "queue in media)",
        "queue in (media mail)",
        "queue in (me=dia)",
        "queue=a=b",
        "queue=!b",
        "queue=-media",
        f"queue={'x' * 64}",
        f"{'x' * 64}=a",
        "/queue=a",
        "a/b/c=d",
        "queue>five",
        "queue>",
        "queue=mé",
        "(queue)",
    ],
)
def test_what_is_malformed(text: str) -> None:
    with pytest.raises(MalformedSelector):
        parse(text)
