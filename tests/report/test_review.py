"""Pages of what `mask` found, where there are many."""

from __future__ import annotations

import re

from inpaint_batch.report import review
from inpaint_batch.report.review import Preview, write_review


def test_every_page_has_links_to_the_first_the_last_and_those_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "PER_PAGE", 2)
    previews = [Preview(f"/photos/{number}.png", f"{number}.png", 0.1, {}) for number in range(119)]
    write_review(tmp_path, previews, "again")

    def told(page: str) -> list[str]:
        nav = re.search(r"<nav>(.*?)</nav>", (tmp_path / page).read_text())
        assert nav is not None
        links = re.findall(r'href="(review(?:-\d+)?\.html)">(\d+)<|<b>(\d+)</b>|(…)', nav[1])
        assert all((tmp_path / name).exists() and name in ("review.html", f"review-{at}.html") for name, at, *_ in links
                   if name)  # fmt: skip
        return ["".join(each[1:]) for each in links]

    assert told("review.html") == [*map(str, range(1, 12)), "…", "60"]
    assert told("review-12.html") == [*map(str, range(1, 23)), "…", "60"]
    assert told("review-30.html") == ["1", "…", *map(str, range(20, 41)), "…", "60"]
    assert told("review-60.html") == ["1", "…", *map(str, range(50, 61))]
    write_review(tmp_path, previews[:3], "again")
    assert told("review-2.html") == ["1", "2"]
    assert not (tmp_path / "review-3.html").exists()
