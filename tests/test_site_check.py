"""`make docs-check` finds what it says it finds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]
CHECK = Path(__file__).parents[1] / "docs" / "check.py"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
GOOD = '<link rel="icon" href="data:,"><p id="here">Text.</p><img src="data:image/gif;base64,{}">'
PIXEL = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
HIT = '<div id="search-results"><ul><li><a href="index.html#here">found</a></li></ul></div>'
# What may be wrong with a page, and what is said of it.
FAULTS = {
    "<script>console.error('it fails')</script>": "it fails",
    "<script>throw new Error('it breaks')</script>": "it breaks",
    '<img src="nowhere.png">': "the picture .*/nowhere.png is missing",
    '<div style="width: 500px">wide</div>': "the page is 5.. pixels wide on a telephone of 390",
    '<a href="gone.html">link</a>': "the link to gone.html leads nowhere",
    '<a href="index.html#there">link</a>': "the link to index.html#there leads to no such place",
    "<pre>WARNING:tensorflow: slow</pre>": "the page holds 'WARNING:tensorflow'",
}


def checked(folder, page, search=HIT):
    pytest.importorskip("playwright", reason="the extra `docs` is not installed")
    if not shutil.which(CHROMIUM):
        pytest.skip(f"there is no browser at {CHROMIUM}")
    start = GOOD.format(PIXEL)
    (folder / "index.html").write_text(start + page)
    (folder / "search.html").write_text(start + search)
    command = [sys.executable, str(CHECK), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_site_without_faults_passes(tmp_path):
    done = checked(tmp_path, '<a href="search.html#here">search</a>')
    assert (done.returncode, done.stdout) == (0, "2 pages, 0 faults\n"), done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, tmp_path):
    done = checked(tmp_path, fault)
    assert done.returncode == 1, done.stderr
    assert re.search(rf"^index.html: {FAULTS[fault]}$", done.stdout, re.MULTILINE), done.stdout


def test_a_search_without_a_hit_is_found(tmp_path):
    done = checked(tmp_path, "", search='<div id="search-results"></div>')
    assert done.returncode == 1, done.stderr
    assert "search.html: nothing is found for LowRankLocallyConnected2D" in done.stdout
