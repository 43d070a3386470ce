"""The report page: what it says of odd jobs, that texts stay texts, and how a real Chromium shows it."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipelines.annotate.commit import Commit
from pipelines.annotate.page import AnnotationFacts, Facts, render
from pipelines.annotate.samples import SampleRow
from pipelines.annotate.statistics import Totals

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=//x.example/i.png onerror=alert(2)>",
    "&amp;\x00\x1b[31m\ud800",
    "א\u202eב",
]


def commit(shard: int, *, ok: int, quarantined: int = 0, counts: dict[str, Any] | None = None, **more: Any) -> Commit:
    stats = {
        "windows": ok,
        "encoder_tokens": 10 * ok,
        "busy_s": 1.5,
        "codes": {"null": quarantined} if quarantined else {},
    }
    if counts is not None:
        stats |= {"counts": counts, "lease": "a" if shard < 3 else "b", "ended": 1.7e9 + 2 * shard + 60 * (shard > 2)}
    totals = {"statuses": {"ok": ok} if ok else {}, "tokens": 10 * ok, "ids_ok": "0", "ids_quarantined": "0"} | more
    return Commit(shard, ok + quarantined, ok, quarantined, files=(), attempt="", stats=stats, **totals)


def facts(*commits: Commit, **more: Any) -> Facts:
    totals = Totals()
    for one in commits:
        totals.add(one)
    annotations = tuple(
        AnnotationFacts(name, "sequence-classification", HOSTILE[0], window, 4, ((f"{name}_label", "text"),))
        for name, window in (("topic", 64), ("mood", 512))
    )
    given: dict[str, Any] = {
        "name": HOSTILE[1],
        "finished": True,
        "planned_rows": totals.rows,
        "planned_shards": totals.shards,
        "files": 1,
        "left_out": (),
        "annotations": annotations,
        "settings": (("dtype", "float32"),),
        "totals": totals,
        "samples": (),
        "written": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Facts(**given | more)


def hostile_facts() -> Facts:
    """Everything a page can hold, as bad as it may come."""
    labels = {label: 10 * at + 1 for at, label in enumerate([*HOSTILE, "w" * 300, "語" * 300])}
    counts = {
        "lengths": {"0": 1, "5": 20, "40": 3},
        "long": 3,
        "columns": {
            "topic_label": {"labels": labels, "others": 2},
            "topic_score": {"scores": {str(at): at for at in range(90, 130)}, "not_finite": 1},
            "mood_label": {"labels": {"a": 1}, "others": 0},
        },
        "languages": {
            "topic_label": {code: {"rows": 9, "tokens": 90, "truncated": 2} for code in ("en", "de", "", "?")}
        },
    }
    samples = tuple(SampleRow(text, "ok", 1, text, (("topic_label", text),)) for text in [*HOSTILE, "x" * 300])
    left_out = tuple((f"/data/{text}/{'deep/' * 60}", "bad_file") for text in HOSTILE)
    commits = [commit(shard, ok=20, quarantined=2, counts=counts) for shard in range(5)]
    columns = (("topic_label", "text"), ("topic_score", "float32"))
    annotation = AnnotationFacts("topic", "sequence-classification", f"/{HOSTILE[1]}/{'m' * 200}", 64, 4, columns)
    return facts(*commits, samples=samples, left_out=left_out, annotations=(annotation,), settings=((*HOSTILE[:2],),))


class Tags(HTMLParser):
    """Every element with its attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_labels_and_texts_stay_text():
    page = render(hostile_facts())
    tags = Tags(page)
    known = {name for name, _ in tags.found}
    assert known <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "main",
            "footer",
            "section",
            "article",
            "div",
            "p",
        ),
        *(
            "h1",
            "h2",
            "h3",
            "span",
            "code",
            "bdi",
            "blockquote",
            "dl",
            "dt",
            "dd",
            "ul",
            "ol",
            "li",
            "details",
            "summary",
        ),
        *("table", "thead", "tbody", "tr", "th", "td", "svg", "g", "rect", "line", "path", "text", "desc"),
    }
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on") or name == "style"]
    for text in HOSTILE[:2]:
        assert text in tags.text
    assert not re.search("[\x00\x1b\ud800]", page)
    page.encode()


def test_the_page_refers_to_nothing_outside():
    page = render(hostile_facts())
    tags = Tags(page)
    forbidden = {"src", "href", "srcset", "xlink:href", "action", "data", "poster", "background", "ping"}
    assert not [attributes for _, attributes in tags.found if forbidden & attributes.keys()]
    style = re.search("<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert not re.search(r"url\(|@import|//", style[1])
    policy = next(a["content"] for name, a in tags.found if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_job_without_rows_has_a_report():
    page = Tags(render(facts())).text
    assert "Finished" in page
    assert "No row was set aside." in page


def test_a_job_of_quarantined_rows_only_has_a_report():
    counts = {
        "lengths": {},
        "long": 0,
        "columns": {"topic_label": {"labels": {}, "others": 0}},
        "languages": {"topic_label": {"": {"quarantined": 7}}},
    }
    page = Tags(render(facts(commit(0, ok=0, quarantined=7, counts=counts)))).text
    assert "7 of 7 rows, 100 %" in page
    assert "No label was given." in page


def test_shards_of_before_the_report_are_counted_but_said_to_be_left_out():
    page = Tags(render(facts(commit(0, ok=3), commit(1, ok=2, counts={"lengths": {"4": 2}, "long": 0})))).text
    assert "1 shard of an older version without counts are left out of the charts" in page
    assert "Rows planned5" in page


def test_a_report_tells_how_far_an_unfinished_job_is():
    page = Tags(render(facts(commit(0, ok=3), finished=False, planned_rows=10, planned_shards=4))).text
    assert "Unfinished" in page
    assert "1 of 4 shards committed" in page
    assert "not done yet: 7" in page


def test_runs_with_a_pause_are_told_apart():
    counts: dict[str, Any] = {"lengths": {"4": 2}, "long": 0}
    page = Tags(render(facts(*(commit(shard, ok=10, counts=counts) for shard in range(5))))).text
    assert "in 2 runs" in page
    assert "resumed" in page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(hostile_facts()), encoding="utf-8")
    return path


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", "))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fetches_nothing_runs_nothing_and_fits(browser: Any, page: Path, width: int, theme: str):
    browser.open(page, width=width, theme=theme)
    assert [request["request"]["url"] for request in browser.of("Network.requestWillBeSent")] == [page.as_uri()]
    # A violated policy, a script that ran or a broken page would be told here.
    assert browser.of("Log.entryAdded") == []
    assert browser.of("Runtime.consoleAPICalled") == []
    assert browser.of("Page.javascriptDialogOpening") == []
    fits = "document.documentElement.scrollWidth == document.documentElement.clientWidth"
    assert browser.evaluate(f"{fits} && innerWidth") == width
    assert browser.evaluate("document.scripts.length + document.images.length") == 0


def test_the_policy_stops_what_a_hole_would_let_in(browser: Any, page: Path, tmp_path: Path):
    hole = "<img src=http://127.0.0.1:9/x.png><script>document.title = 'ran'</script><p style='color: red'>x</p>"
    (tmp_path / "report.html").write_text(page.read_text(encoding="utf-8").replace("</main>", f"{hole}</main>"))
    browser.open(tmp_path / "report.html", width=400, theme="light")
    assert browser.evaluate("document.title") != "ran"
    assert browser.evaluate("getComputedStyle(document.querySelector('main > p')).color") != "rgb(255, 0, 0)"
    assert len(browser.of("Log.entryAdded")) >= 3
    assert not [answer for answer in browser.of("Network.loadingFailed") if answer.get("blockedReason") != "csp"]


def test_it_follows_the_theme_in_page_and_charts(browser: Any, page: Path):
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    found = {}
    for theme in ("light", "dark"):
        browser.open(page, width=1280, theme=theme)
        background = luminance(browser.evaluate(colour.format("body", "backgroundColor")))
        text = luminance(browser.evaluate(colour.format("body", "color")))
        bar = luminance(browser.evaluate(colour.format("svg.bars .main", "fill")))
        label = luminance(browser.evaluate(colour.format("svg.bars > g > .label", "fill")))
        found[theme] = (background, text, bar, label)
    assert found["light"][0] > 0.8 > 0.2 > found["light"][1]
    assert found["dark"][0] < 0.2 < 0.8 < found["dark"][1]
    for background, _, bar, label in found.values():
        assert abs(background - bar) > 0.2
        assert abs(background - label) > 0.5


@pytest.mark.parametrize("width", [400, 1280])
def test_numbers_and_labels_of_charts_stay_inside_their_cards(browser: Any, page: Path, width: int):
    browser.open(page, width=width, theme="light")
    outside = browser.evaluate(
        """[...document.querySelectorAll('.card svg text')].filter(text => {
             const box = text.getBoundingClientRect(), card = text.closest('.card').getBoundingClientRect()
             return box.width && (box.left < card.left || box.right > card.right)
           }).map(text => text.textContent)"""
    )
    assert outside == []
