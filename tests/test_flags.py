"""Flags that would be ignored, paths, and what a machine cannot do: each said in a sentence."""

import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import absl.flags
import commands
import pytest
from test_experiment import script

from low_rank_local_connectivity import training
from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments import backend, folder, memory, needs
from low_rank_local_connectivity.experiments.command import (
    check_flags,
    checked,
    runs_asked_for,
    train_or_tell,
)
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.fields import Group, about
from low_rank_local_connectivity.experiments.flags import (
    FIELDS,
    FLAGS,
    experiment_from_flags,
    in_flags,
    is_sweep,
    parse_flags,
)
from low_rank_local_connectivity.experiments.runs import command_line
from low_rank_local_connectivity.models import MODELS

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
PLAIN = "--layer_types=conv2d"
# Files of flags, without those that others include or that stand behind another.
PARTS = ("paper_small", "paper_imagenet", "cpu_budget")
FILES = sorted((ROOT / "experiments" / "paper").glob("*.flags"))
ROWS = [path for path in FILES if path.stem not in PARTS]
NO_EFFECT = {
    "--network=resnet18 --spatial_rank=4": "--spatial_rank needs a low-rank layer, or a wide one "
    "to match it, and would have no effect here. Received: --spatial_rank=4. Leave it out.",
    "--layer_types=conv2d --spatial_ranks=2,4": "--spatial_ranks needs a low-rank layer, or a wide "
    "one to match it, and would have no effect here. Received: --spatial_ranks=2,4. Leave it out.",
    "--spatial_ranks=2,4 --spatial_rank=2": "--spatial_rank and --spatial_ranks must not both be "
    "given: a sweep uses the ranks of the latter. Received: --spatial_rank=2 with "
    "--spatial_ranks=2,4. Give all ranks with --spatial_ranks.",
    "--layer_types=conv2d --input_dependent": "--input_dependent needs a low-rank layer, and would "
    "have no effect here. Received: --input_dependent=True. Leave it out.",
    "--momentum=0.9": "--momentum needs --optimizer=sgd, and would have no effect here. Received: "
    "--momentum=0.9. Leave it out.",
    "--network=resnet18 --filters=64": "--filters needs a network that lets it be chosen "
    "(simple_network, transformer_network, scale_network, scale_pyramid_network, "
    "deformable_scale_network, group_network), and would have no effect here. Received: "
    "--filters=64. Leave it out.",
    "--spatial_rank=1 --combining_weights_initializer=zeros": "--combining_weights_initializer "
    "needs a low-rank layer whose combining weights are drawn, of rank 2 or more and not "
    "--input_dependent, and would have no effect here. Received: "
    "--combining_weights_initializer=zeros. Leave it out.",
    "--num_seeds=2 --allow_other_flags": "--allow_other_flags needs a single run, and would have "
    "no effect here. Received: --allow_other_flags=True. Leave it out.",
}
# Of each flag that needs something: flags among which it has an effect, and among which none.
WITH_AND_WITHOUT = {
    "data_dir=DATA": ("--dataset=mnist", "--dataset=digits"),
    "download": ("--dataset=mnist", "--dataset=synthetic --image_size=32"),
    "replace_with=conv2d": ("--network=resnet18 --replace=conv2", "--network=resnet18"),
    "relax=all": ("--network=VGG16 --dataset=synthetic --image_size=32", "--network=resnet18"),
    "spatial_rank=2": ("--layer_types=wide_conv2d", "--network=group_network"),
    "spatial_ranks=2": ("", "--layer_types=locally_connected2d"),
    "kernel_size=3": ("--network=scale_network", "--network=group_resnet18"),
    "filters=64": ("--network=transformer_network", "--network=bagnet9"),
    "coord_conv": ("", "--network=scale_network"),
    "stem=imagenet": ("--network=resnet18", "--network=full_resnet18"),
    "normalize_weights=softmax": ("", "--layer_types=wide_conv2d"),
    "combining_weights_initializer=zeros": (
        "--spatial_ranks=1,2",
        "--input_dependent --spatial_rank=2",
    ),
    "share_row_combining_weights": ("", PLAIN),
    "noshare_col_combining_weights": ("--input_dependent", "--network=resnet18"),
    "input_dependent": (
        "--network=resnet18 --insert_layer=wide_conv2d",
        "--layer_types=wide_conv2d",
    ),
    "nouse_spatial_bias": ("", PLAIN),
    "locally_connected_fan=position": ("--layer_types=locally_connected2d", PLAIN),
    "momentum=0.5": ("--optimizer=sgd", "--optimizer=adam"),
    "ema_momentum=0.9": ("--use_ema", "--optimizer=adamw"),
    "tpu=local": ("--strategy=tpu", "--strategy=mirrored"),
    "peers_timeout=3": ("--strategy=multi_worker", "--strategy=one_device"),
    "virtual_devices=2": ("--strategy=mirrored", ""),
    "profile=3,9": ("--epochs=1", "--epochs=2 --batch_size=1257"),
    "serving_batch_size=1": ("", "--export_formats=none"),
    "allow_other_flags": ("", "--num_seeds=1"),
    "sweep_engine=ray": ("--num_seeds=1", ""),
    "ray_address=10.0.0.1:6379": ("--sweep_engine=ray --num_seeds=2", "--num_seeds=2"),
    "cpus_per_run=2": ("--sweep_engine=ray --num_seeds=2", "--num_seeds=2"),
    "gpus_per_run=0.5": ("--sweep_engine=ray --num_seeds=2", "--num_seeds=2"),
    "retries=0": ("--sweep_engine=ray --num_seeds=2", "--num_seeds=2"),
}


def parsed(*flags: str) -> Experiment:
    """Checks flags in this process as a command does, but for the folder and the data."""
    for name in FLAGS:
        FLAGS[name].unparse()
    FLAGS(["run_experiment.py", *flags])
    return experiment_from_flags()


def check(*flags: str) -> Experiment:
    experiment = parsed(*flags)
    check_flags(experiment)
    return experiment


@pytest.mark.parametrize("flags", NO_EFFECT)
def test_a_flag_without_effect_is_refused_in_a_sentence(flags):
    with pytest.raises(ValueError, match="--") as caught:
        check(*flags.split())
    assert str(caught.value) == NO_EFFECT[flags]


@pytest.mark.parametrize("flag", WITH_AND_WITHOUT)
def test_every_flag_that_needs_something_is_taken_with_it_and_refused_without(flag):
    sufficient, lacking = WITH_AND_WITHOUT[flag]
    check(f"--{flag}", *sufficient.split())
    with pytest.raises(ValueError, match=f"--{name_of(flag)} (needs|does not apply to) "):
        check(f"--{flag}", *lacking.split())


def name_of(flag):
    name = flag.partition("=")[0]
    return name if name in FLAGS else name.removeprefix("no")


def test_every_need_is_in_the_table():
    beside = {"allow_other_flags", "sweep_engine", *needs.ON_RAY}
    assert set(map(name_of, WITH_AND_WITHOUT)) == {*needs.NEEDS, *beside}


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("retries=-1", "must be at least 0"),
        ("cpus_per_run=1.5", "must be from 0 to 1, or a whole number"),
        ("gpus_per_run=-1.0", "must be from 0 to 1, or a whole number"),
    ],
)
def test_flags_of_a_cluster_that_are_out_of_range_are_refused(flag, words):
    name = name_of(flag)
    with pytest.raises(ValueError, match=f"--{name} ") as caught:
        check("--num_seeds=2", "--sweep_engine=ray", f"--{flag}")
    assert str(caught.value) == f"--{name} {words}. Received: --{flag}."


@pytest.mark.parametrize(
    "flags",
    # In each the low-rank layer has one position.
    ["--network=resnet18 --replace=conv4", "--kernel_size=6"],
)
def test_a_sweep_over_ranks_does_not_ask_the_rank_that_it_leaves_out(flags):
    with pytest.raises(ValueError, match="--spatial_rank must be at most the layer's number of"):
        check(*flags.split())
    experiment = check(*flags.split(), "--spatial_ranks=1")
    assert [run.spatial_rank for run in runs_asked_for(experiment)] == [1]
    with pytest.raises(ValueError, match="Received: --spatial_rank=2"):
        check(*flags.split(), "--spatial_ranks=1,2")


def test_a_sweep_whose_runs_have_begun_no_longer_needs_the_weights(tmp_path):
    flags = ("--num_seeds=2", f"--weights={tmp_path / 'gone.keras'}", f"--model_dir={tmp_path}")
    runs = runs_asked_for(check(*flags))
    with pytest.raises(ValueError, match=r"--weights must be a \.keras file"):
        checked(["run_experiment.py"])
    for run in runs:
        state = Path(run.model_dir) / "checkpoints" / "step_000000001.npz"
        state.parent.mkdir(parents=True)
        state.touch()
    assert checked(["run_experiment.py"])[0].weights == str(tmp_path / "gone.keras")


@pytest.mark.parametrize("network", MODELS)
def test_what_is_off_anyway_may_be_said(network):
    canvas = ("--translate", "--canvas_size=40") if "33" in network or "17" in network else ()
    rank = () if MODELS[network].num_layers else ("--nodownload",)
    check(f"--network={network}", "--nocoord_conv", "--noinput_dependent", *canvas, *rank)


@pytest.mark.parametrize("file", ROWS, ids=[file.stem for file in ROWS])
def test_every_flag_of_a_file_has_an_effect(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(f"--flagfile={file}")
    if not file.stem.startswith(("imagenet", "digits")):
        budget = "--flagfile=experiments/paper/cpu_budget.flags"
        check(f"--flagfile={file}", budget, "--data_dir=DATA")


def test_a_sweep_gives_its_runs_every_flag():
    experiment = check("--num_seeds=1", PLAIN)
    assert is_sweep()
    (run,) = runs_asked_for(experiment)
    command = command_line(run)[2:]
    assert check(*command) == run
    assert not is_sweep()


def test_one_seed_of_a_file_of_flags_is_a_sweep_with_a_record(monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = check("--flagfile=experiments/paper/cifar10_convolution.flags", "--num_seeds=1")
    assert is_sweep()
    assert len(runs_asked_for(experiment)) == 1


def test_the_default_folder_tells_runs_apart(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    names = [
        check(*flags.split()).model_dir
        for flags in ("", "--seed=3", "--spatial_rank=8", "--spatial_rank=8 --epochs=3", PLAIN)
    ]
    assert names[:2] == ["runs/digits-simple_network-0", "runs/digits-simple_network-3"]
    assert names[2].startswith("runs/digits-simple_network-0-spatial_rank_8-")
    assert names[3].startswith("runs/digits-simple_network-0-spatial_rank_8-epochs_3-")
    assert names[4].startswith("runs/digits-simple_network-0-layer_types_conv2d-")
    # Neither where files lie nor how often a run is saved makes it another.
    assert check("--keep_checkpoints=5").model_dir == names[0]
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert check().model_dir.startswith("runs/digits-simple_network-0-backend_jax-")
    assert len(set(names)) == 5
    assert check("--num_seeds=2").model_dir == "runs/digits-simple_network-sweep"


def test_other_images_in_a_folder_are_another_run(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for place, names in (("one", ("cat", "dog")), ("two", ("cat", "eel"))):
        for split, name, index in itertools.product(("train", "valid", "test"), names, range(3)):
            file = tmp_path / place / split / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    flags = ("--dataset=folder", "--image_size=16", "--batch_size=2")
    one, two = (check(*flags, f"--data_dir={tmp_path / place}") for place in ("one", "two"))
    assert one.model_dir.startswith("runs/folder-simple_network-0-data_dir_one-image_size_16-")
    assert one.model_dir != two.model_dir
    (told,) = folder.differences(one.config(), two.config())
    start = "--data_dir is 6 train, 6 valid and 6 test images of 2 classes ("
    assert told.startswith(start)
    assert start.removeprefix("--data_dir is") in told.partition(" there and")[2]
    (tmp_path / "one").rename(tmp_path / "moved")
    moved = check(*flags, f"--data_dir={tmp_path / 'moved'}")
    assert folder.differences(one.config(), moved.config()) == []


@pytest.mark.parametrize("name", ["model_dir", "data_dir"])
def test_a_home_folder_is_spelled_out_in_every_path(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    experiment = parsed("--dataset=mnist", f"--{name}=~/runs/one")
    assert getattr(experiment, name) == f"{tmp_path}/runs/one"
    assert getattr(parsed("--dataset=mnist", f"--{name}=runs/~one"), name) == "runs/~one"
    with pytest.raises(absl.flags.Error, match="there is no such home folder"):
        parsed(f"--{name}=~nobody-of-this-name/runs")


def test_a_file_of_flags_may_lie_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.flags").write_text("--epochs=7\n")
    assert parsed("--flagfile=~/my.flags").epochs == 7


ABLE = "KERAS_BACKEND must be a backend that can train: tensorflow, jax, torch. Received: "
INSTALL = "KERAS_BACKEND={0} needs a package that is not installed: "
INSTALL += "pip install 'low-rank-local-connectivity[{0}]'."
UNUSABLE = {name: f"{ABLE}KERAS_BACKEND={name}." for name in ("numpy", "foo")}
UNUSABLE |= {name: INSTALL.format(name) for name in ("tensorflow", "jax", "torch")}


@pytest.mark.parametrize(("name", "sentence"), UNUSABLE.items())
def test_a_backend_that_cannot_train_is_refused_in_a_sentence(name, sentence, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="KERAS_BACKEND") as caught:
        backend.check_backend(DATASETS["digits"])
    assert str(caught.value) == sentence


def test_a_backend_that_is_installed_is_named_instead_of_one_that_is_not(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(backend.importlib.util, "find_spec", {"torch": "found"}.get)
    with pytest.raises(ValueError, match="or set KERAS_BACKEND=torch, which is installed"):
        backend.check_backend()


def test_what_reads_a_dataset_must_be_installed(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found: dict[str, str | None] = {"jax": "found", "grain": "found"}
    monkeypatch.setattr(backend.importlib.util, "find_spec", found.get)
    with pytest.raises(ValueError, match="The images of mnist are read by TensorFlow on every"):
        backend.check_backend(DATASETS["mnist"])
    for name in ("digits", "folder", "npz", "synthetic"):
        backend.check_backend(DATASETS[name])
    del found["grain"]
    with pytest.raises(ValueError, match="Data is read by grain on jax, but it is not installed"):
        backend.check_backend(DATASETS["digits"])


def test_every_backend_has_its_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in backend.BACKENDS:
        assert extras["optional-dependencies"][name][0].startswith(name)


def test_the_backend_is_the_one_that_keras_takes(monkeypatch, tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert backend.backend_name() == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend.backend_name() == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "")
    (tmp_path / "keras.json").write_text("{")
    assert backend.backend_name() == "tensorflow"


def test_the_script_refuses_an_unknown_backend_and_a_folder_that_cannot_be(tmp_path):
    done = script(f"--model_dir={tmp_path / 'run'}", KERAS_BACKEND="foo")
    assert done.returncode == 2
    assert done.stderr.startswith("run_experiment.py: KERAS_BACKEND must be a backend that can")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    for flags in ((), ("--num_seeds=2",)):
        done = script(f"--model_dir={tmp_path / 'file' / 'run'}", *flags)
        assert done.returncode == 2
        assert done.stderr == (
            "run_experiment.py: --model_dir must be a folder that can be written to. Received: "
            f"--model_dir={tmp_path / 'file' / 'run'}: Not a directory. Choose another.\n"
        )


def test_pytorch_and_its_triton_are_loaded_before_tensorflow():
    """In the other order Triton, where it is installed, ends the process."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    code = (
        "import importlib.util, os, sys\n"
        "needed = {'torch', *(['triton'] if importlib.util.find_spec('triton') else [])}\n"
        "loaded = set()\n"
        "class Note:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tensorflow':\n"
        "            print(*needed - loaded)\n"
        "            sys.stdout.flush()\n"
        "            os._exit(75)\n"
        "        loaded.add(name)\n"
        "sys.meta_path.insert(0, Note())\n"
        "import run_experiment\n"
        "from low_rank_local_connectivity.experiments import backend\n"
        "assert not needed & loaded\n"
        "backend.load_framework()\n"
    )
    done = commands.new_python("-c", code, cwd=ROOT, KERAS_BACKEND="torch")
    # At TensorFlow it ends, and nothing that is needed was missing until then.
    assert (done.returncode, done.stdout) == (75, "\n"), done.stderr


def test_an_interrupted_command_ends_in_a_sentence(monkeypatch, capsys, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("low_rank_local_connectivity.experiments.command.run_or_tell", interrupted)
    parsed(f"--model_dir={tmp_path / 'run'}")
    with pytest.raises(SystemExit, match="75"):
        train_or_tell(["run_experiment.py"])
    assert capsys.readouterr().out == (
        "Stopped by SIGINT. The same command continues from the saved state.\n"
    )


HUGE = ("--network=resnet50", "--dataset=synthetic", "--replace=all", "--insert_layer=conv2d")
HUGE += ("--replace_with=locally_connected2d",)


def test_a_network_that_cannot_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 16 * 2**30)
    experiment = check(*HUGE, "--batch_size=32")
    with pytest.raises(training.RunError, match="must fit into memory") as caught:
        memory.check_memory(experiment)
    parameters, weights, step = memory.needed_bytes(experiment)
    assert str(caught.value) == (
        "A network and a step of its training must fit into memory. Received: resnet50, conv2d "
        "inserted and locally_connected2d in conv2, conv3, conv4, conv5, whose "
        f"{parameters:,} trainable parameters take {weights / 2**30:,.1f} GiB with their gradients "
        f"and moments, and a step of which keeps {step / 2**30:,.1f} GiB for --batch_size=32, "
        "where 16.0 GiB are free. Choose other layers, smaller images or batches."
    )
    # Of the 3x3 layers alone, each position's filters: sides, filters and layers of each stage.
    stages = ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3))
    local = sum(count * side**2 * (9 * width**2 + width) for side, width, count in stages)
    assert local < parameters < local + 30e6
    assert weights == pytest.approx(4 * 4 * parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ("--optimizer=sgd --momentum=0", 0),
        ("--optimizer=sgd", 1),
        ("--optimizer=lion --use_ema", 2),
        ("--optimizer=adamw --gradient_accumulation_steps=2 --use_ema", 4),
    ],
)
def test_what_an_optimizer_keeps_of_every_weight_is_counted(flags, count):
    import keras

    from low_rank_local_connectivity.training import session

    experiment = check(*flags.split())
    optimizer = session.make_optimizer(experiment.recipe(1))
    optimizer.build([keras.Variable(keras.ops.zeros((3, 5)))])
    assert sum(variable.shape == (3, 5) for variable in optimizer.variables) == count
    assert memory.moments_of(experiment) == count


@pytest.mark.parametrize("limit", ["clipnorm=1", "clipvalue=1", "gradient_accumulation_steps=2"])
def test_what_keras_computes_otherwise_on_several_replicas_is_refused(limit):
    from low_rank_local_connectivity.experiments import running

    with pytest.raises(ValueError, match="cannot be used with several replicas, wh"):
        check(f"--{limit}", "--strategy=mirrored")
    with pytest.raises(training.RunError, match="cannot be used with several replicas, wh"):
        running.check_replicas(check(f"--{limit}", "--strategy=auto"))


def test_a_step_that_cannot_fit_is_refused(monkeypatch):
    experiment = check("--batch_size=100", "--optimizer=sgd", "--filters=8")
    _, weights, step = memory.needed_bytes(experiment)
    # What three unpadded layers of 8 filters on 16x16 images read in float32, the normalisations
    # after them, and the layer of logits after the mean of each map.
    read = 16**2 + 8 * (14**2 + 14**2 + 12**2 + 12**2 + 10**2) + 8
    assert step == 100 * 4 * read
    monkeypatch.setattr(memory, "free_bytes", lambda: weights + step)
    memory.check_memory(experiment)
    monkeypatch.setattr(memory, "free_bytes", lambda: weights + step - 1)
    with pytest.raises(training.RunError, match="must fit into memory"):
        memory.check_memory(experiment)


def test_a_step_of_maps_that_grow_is_known_not_to_fit(monkeypatch):
    """It was killed without a message at 15 GiB."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 12 * 2**30)
    with pytest.raises(training.RunError, match="Received: full_resnet101"):
        memory.check_memory(check("--network=full_resnet101", "--batch_size=32"))


def test_an_accelerator_s_memory_is_its_own_matter(monkeypatch):
    assert memory.has_accelerator() is False
    monkeypatch.setattr(memory, "free_bytes", lambda: 1)
    monkeypatch.setattr(memory, "has_accelerator", lambda: True)
    memory.check_memory(check(*HUGE))


def test_counting_leaves_nothing_behind_in_keras():
    import keras

    before = keras.config.dtype_policy().name, keras.layers.ReLU().name
    memory.needed_bytes(check("--precision=mixed_bfloat16"))
    assert keras.config.dtype_policy().name == before[0]
    assert int(keras.layers.ReLU().name.rpartition("_")[2]) - _number(before[1]) == 1
    assert keras.layers.Dense(3)(keras.ops.ones((2, 4))).shape == (2, 3)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2]) if "_" in name.removeprefix("re_lu") else 0


def test_a_container_s_limit_is_memory_s(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(
        "MemTotal: 9000 kB\nMemAvailable: 5000 kB\nSwapFree: 100 kB\n"
    )
    assert memory.free_bytes() == 5100 * 1024
    for name, text in (("max", "3000"), ("current", "1200"), ("stat", "anon 4\ninactive_file 50")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_bytes() == 3000 - 1200 + 50
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() == 5100 * 1024


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")]
)
def test_a_device_without_memory_left_is_told(error):
    sentence = training.out_of_memory(error)
    assert sentence.startswith("The device's memory must hold the network and a step of its")
    assert training.out_of_memory(ValueError("no")) is None


def test_an_experiment_without_arguments_is_the_one_without_flags(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert check() == Experiment()
    given = Experiment(epochs=20, input_dependent=True, model_dir="run")
    assert given == check("--epochs=20", "--input_dependent", "--model_dir=run")
    with pytest.raises(ValueError, match="precision") as caught:
        Experiment(precision="float64")
    assert str(caught.value) == (
        "--precision must be one of float32, mixed_bfloat16, mixed_float16. "
        "Received: --precision=float64."
    )


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "-?"])
def test_help_lists_every_flag_once_in_its_group(flag, tmp_path):
    done = commands.new_python(ROOT / "run_experiment.py", flag, cwd=tmp_path)
    assert done.returncode == 1
    groups = re.split(r"^(\S.*):$", done.stdout.partition("\nflags:\n")[2], flags=re.MULTILINE)[1:]
    used = {about(one).group for one in FIELDS.values()}
    assert groups[::2] == [group.value for group in Group if group in used]
    found = {
        name: re.findall(r"^  --(?:\[no\])?(\w+):", text, re.MULTILINE)
        for name, text in zip(groups[::2], groups[1::2], strict=True)
    }
    for name, names in found.items():
        assert names == sorted(one for one in FIELDS if about(FIELDS[one]).group == name)


def test_a_file_of_the_paper_is_found_by_its_name_from_every_folder(monkeypatch, tmp_path):
    expected = parsed_as_a_command("--flagfile=experiments/paper/fig3_mnist_layer1.flags")
    monkeypatch.chdir(tmp_path)
    for place in ("", "experiments/", f"{ROOT}/experiments/paper/"):
        assert parsed_as_a_command(f"--flagfile={place}fig3_mnist_layer1.flags") == expected
    assert expected.epochs == 150
    (tmp_path / "fig3_mnist_layer1.flags").write_text("--epochs=7\n")
    assert parsed_as_a_command("--flagfile=fig3_mnist_layer1.flags").epochs == 7
    with pytest.raises(absl.flags.Error, match="Unable to open flagfile"):
        parsed_as_a_command("--flagfile=nowhere.flags")


def parsed_as_a_command(*flags: str) -> Experiment:
    for name in FLAGS:
        FLAGS[name].unparse()
    parse_flags(["run_experiment.py", *flags])
    return experiment_from_flags()


def test_every_strategy_of_the_library_is_one_of_the_flag_s():
    from low_rank_local_connectivity.training.strategy import STRATEGIES

    assert set(about(FIELDS["strategy"]).accepted.choices) == {"auto", *STRATEGIES}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "`data_dir` must be. Received: data_dir=a.",
            "--data_dir must be. Received: --data_dir=a.",
        ),
        ("strategy=tpu needs a TPU.", "--strategy=tpu needs a TPU."),
        ("--seed=3 in /runs/seed=3 of `name`", "--seed=3 in /runs/seed=3 of `name`"),
    ],
)
def test_arguments_are_told_as_flags_and_nothing_else_is(said, told):
    assert in_flags(said) == told


def test_help_that_is_not_read_to_its_end_is_no_error():
    command = [sys.executable, commands.SCRIPT, "--help"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
