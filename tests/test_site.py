"""The documentation: what its pages are made of, and that none is missing."""

import inspect
import re
import sys
from pathlib import Path

import public_names
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "extensions"))
import flag_pages  # noqa: E402
import generated_files  # noqa: E402
import notebook_links  # noqa: E402
import reference_pages  # noqa: E402
import repository_documents  # noqa: E402

pytestmark = pytest.mark.once
# Modules that are reached by a shorter name, or hold what others re-export.
ELSEWHERE = ("activations", "initializers", "layers", "receptive_field", "regularizers")


def published(kind):
    for package in public_names.packages():
        module = sys.modules.get(package) or __import__(package, fromlist=["_"])
        names = set(public_names.public(module)) - set(getattr(module, "_MOVED", ()))
        yield from (f"{package}.{name}" for name in names if kind(getattr(module, name)))


def marked(*lines: str) -> str:
    found = list(lines)
    reference_pages.docstring(None, "", "", None, None, found)  # pyright: ignore[reportArgumentType]
    return "\n".join(found)


def test_every_public_class_and_function_has_a_page():
    pages = {id(value) for value in reference_pages.objects().values()}
    by_name = dict.fromkeys(published(reference_pages.documented))
    assert len(by_name) > 150
    for name in by_name:
        package, _, last = name.rpartition(".")
        value = getattr(sys.modules[package], last)
        assert id(value) in pages or package.rpartition(".")[2] in ELSEWHERE, name


def test_a_page_of_a_package_lists_what_is_in_it():
    page = reference_pages.listing("low_rank_local_connectivity.export")
    assert "{py:obj}`export_model <low_rank_local_connectivity.export.export_model>`" in page
    assert "| `FORMATS` | `tf_saved_model`" in page


def test_a_signature_shows_the_arguments_that_keras_hides():
    from low_rank_local_connectivity import SpatialBias

    found, _ = reference_pages.signature(None, "class", "", SpatialBias, None, "", "")  # pyright: ignore
    assert found.startswith("(additive_axes=None, per_filter=False, data_format=None")
    assert found.endswith("**kwargs)")


def test_backticks_become_literals_and_public_names_links():
    assert marked("of `K` banks") == "of ``K`` banks"
    assert marked("`K`s and x`y`") == "``K``\\ s and x\\ ``y``"
    link = ":py:obj:`plans.choose <low_rank_local_connectivity.plans.choose>`"
    assert marked("as `plans.choose` says") == f"as {link} says"


def test_examples_stay_as_they_are():
    example = ("Example:", "    >>> a = `1`", "    `1`", "", "then `b`")
    assert marked(*example) == "\n".join((*example[:-1], "then ``b``"))


def test_a_list_of_weights_is_read_as_one_and_a_sentence_is_not():
    listed = ("Weights, in this order:", "    kernel: `(3,)`.")
    assert marked(*listed).startswith("Weights in this order:\n")
    assert marked("Weights:", "    As a convolution's.").startswith("Weights:\n")


def test_what_is_keras_s_or_internal_is_left_off_the_page_of_a_layer():
    from low_rank_local_connectivity import LowRankLocallyConnected2D as Layer

    def left_out(name):
        member = inspect.getattr_static(Layer, name)
        return reference_pages.skipped(None, "class", name, member, False, None)  # pyright: ignore

    assert all(map(left_out, ("build", "add_loss", "convolve", "fixed_axes")))
    assert not any(map(left_out, ("combining_weights", "local_kernel", "windows", "operations")))


def test_what_a_layer_has_beyond_its_base_class_stays_on_its_page():
    from low_rank_local_connectivity import KroneckerConv2D

    member = KroneckerConv2D.to_conv2d
    assert not reference_pages.skipped(None, "class", "to_conv2d", member, False, None)  # pyright: ignore


def test_the_page_of_flags_lists_every_flag_once():
    from low_rank_local_connectivity.experiments.flags import FIELDS

    found = re.findall(r"^`--(?:\[no\])?(\w+)`$", flag_pages.page(), re.MULTILINE)
    assert sorted(found) == sorted(FIELDS)


def test_links_lead_to_pages_and_to_files_where_there_is_no_page():
    def relinked(text, folder):
        return repository_documents.relinked(text, ROOT / folder, ROOT, DOCS)

    assert relinked("[b](../benchmarks/RESULTS.md#memory)", "docs") == "[b](benchmarks.md#memory)"
    assert relinked("[k](docs/keras2.md)", ".") == "[k](keras2.md)"
    assert relinked("[a](#here) [b](https://c.d)", ".") == "[a](#here) [b](https://c.d)"
    picture = "![p](cpu/rank_mnist.png)"
    moved = "![p](../experiments/paper/cpu/rank_mnist.png)"
    assert relinked(picture, "experiments/paper") == moved
    report = "{download}`r <../experiments/paper/cpu/report.md>`"
    assert relinked("[r](cpu/report.md)", "experiments/paper") == report


def test_a_file_is_written_only_if_it_says_something_new(tmp_path):
    path = tmp_path / "folder" / "page.md"
    generated_files.write_if_new(path, "one")
    before = path.stat().st_mtime_ns
    generated_files.write_if_new(path, "one")
    assert path.stat().st_mtime_ns == before
    generated_files.write_if_new(path, "two")
    (tmp_path / "folder" / "old.md").touch()
    generated_files.remove_others(tmp_path / "folder", {path})
    assert [one.read_text() for one in path.parent.iterdir()] == ["two"]


def test_every_page_is_in_the_contents():
    contents = (DOCS / "index.md").read_text()
    listed = re.findall(r"^([\w/]+)$", contents, re.MULTILINE)
    for page in DOCS.glob("*.md"):
        assert page.stem in listed or page.stem == "index", f"docs/index.md lacks {page.stem}"


def test_every_page_that_is_linked_to_from_another_exists():
    examples = {path.stem for path in (DOCS / "gallery").glob("plot_*.py")}
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#]+)", page.read_text()):
            if "generated/gallery/plot_" in link:
                assert Path(link).stem in examples, (page.name, link)
            elif "generated" not in link:
                assert (DOCS / link).exists(), (page.name, link)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_a_notebook_is_opened_where_the_workflow_put_it(monkeypatch):
    content = ["An example."]
    notebook_links.add_link(None, "generated/gallery/plot_one", content)  # pyright: ignore
    assert content == ["An example."]
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.setenv("SITE", "dev")
    notebook_links.add_link(None, "generated/gallery/plot_one", content)  # pyright: ignore
    place = "github/owner/name/blob/gh-pages/dev/notebooks/plot_one.ipynb"
    assert f"<https://colab.research.google.com/{place}>`__" in content[0]
