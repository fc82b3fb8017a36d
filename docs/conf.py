"""How Sphinx builds the documentation: `make docs`."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]
# Read while a framework is imported: what TensorFlow says of a machine belongs on no page.
os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
os.environ["PYTHONPATH"] = str(HERE.parent)

import low_rank_local_connectivity  # noqa: E402

project = "low_rank_local_connectivity"
author = copyright = "The low_rank_local_connectivity authors"  # noqa: A001
release = version = low_rank_local_connectivity.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "repository_documents",
    "reference_pages",
    "flag_pages",
    "notebook_links",
]
exclude_patterns = ["gallery", "extensions"]
default_role = "code"
highlight_language = "text"
nitpicky = True

html_theme = "furo"
html_title = f"Low-rank local connectivity {release}"
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
maximum_signature_line_length = 72
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_preprocess_types = False
napoleon_custom_sections = [
    "Weights",
    ("Weights in this order", "params_style"),
    "Input",
    "Output",
    "Reference",
]

sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["generated/gallery"],
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("matplotlib", "gallery_start.reset"),
    "min_reported_time": 0,
    "default_thumb_file": str(HERE / "combining_weights.png"),
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    "first_notebook_cell": (
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        "    %pip install --quiet seglearn tf_keras "
        '"low-rank-local-connectivity[experiments,export]"\n'
        "%matplotlib inline"
    ),
    "plot_gallery": os.environ.get("GALLERY", "True"),
}
