"""Folders that one process claims, and files that are being written in them."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import threading
import time

import commands
import pytest

from low_rank_local_connectivity import unfinished
from low_rank_local_connectivity.training import RunError, claimed, endings, records
from low_rank_local_connectivity.unfinished import UNFINISHED, unfinished_folder

pytestmark = pytest.mark.once


def refused(path, **options):
    with pytest.raises(RunError) as error, claimed(path, **options):
        pass
    return str(error.value)


def test_a_lock_is_a_file_of_this_user_s_and_no_link(tmp_path):
    (tmp_path / "victim").write_text("all of it")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    whys = {"link": "it is a link", "pipe": "it is no regular file", "folder": "Is a directory"}
    for name, why in whys.items():
        assert f"Received: {tmp_path / name}: {why}. Remove it if" in refused(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "all of it"
    under_a_file = refused(tmp_path / "victim" / "run" / ".lock")
    assert "Not a directory" in under_a_file


def test_a_lock_of_another_user_s_is_told(tmp_path, monkeypatch):
    def deny(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", deny)
    assert f"Received: {tmp_path / '.lock'}: Permission denied. Remove" in refused(
        tmp_path / ".lock"
    )


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_and_used_only_if_asked_to(
    number, tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert refused(tmp_path / ".lock") == (
        "The file system of a run must support locks. Received: "
        f"{tmp_path / '.lock'}: {os.strerror(number)}. If no other process uses the folder, give "
        "--no_lock."
    )
    with pytest.raises(RunError, match="must support locks"):
        records.append_record(tmp_path / "records.jsonl", {"name": "a"})
    with claimed(tmp_path / ".lock", locking=False) as lock:
        assert lock is not None
        records.write_json(tmp_path / "a.json", {})
    assert records.append_record(tmp_path / "records.jsonl", {"name": "a"}, locking=False)


def test_one_process_holds_a_claim(tmp_path):
    with claimed(tmp_path / ".lock") as first, claimed(tmp_path / ".lock") as second:
        assert first is not None
        assert second is None
        records.write_json(tmp_path / "a.json", {})
    with claimed(tmp_path / ".lock") as third:
        assert third is not None


def remove_lock(folder):
    (folder / ".lock").unlink()


def replace_lock(folder):
    remove_lock(folder)
    (folder / ".lock").touch()


def remove_folder(folder):
    shutil.rmtree(folder)


def move_folder(folder):
    folder.rename(folder.with_name("elsewhere"))


def replace_folder(folder):
    move_folder(folder)
    folder.mkdir()
    (folder / ".lock").touch()


CHANGES = (remove_lock, replace_lock, remove_folder, move_folder, replace_folder)


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_written_into_a_folder_that_is_no_longer_there(change, tmp_path):
    folder = tmp_path / "run"
    with claimed(folder / ".lock"):
        records.write_json(folder / "a.json", {})
        change(folder)
        left = sorted(tmp_path.rglob("*"))
        for file in (folder / "a.json", folder / "checkpoints" / "b.json"):
            with pytest.raises(RunError, match=r"must stay where they are .* is gone or another"):
                records.write_json(file, {"b": 1})
        records.write_json(tmp_path / "beside.json", {})
        assert sorted(tmp_path.rglob("*")) == sorted([*left, tmp_path / "beside.json"])


def test_a_folder_that_moves_while_a_file_is_written_does_not_get_it(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder / ".lock"):
        writing = records.replacing(folder / "a")
        with pytest.raises(RunError, match="must stay"), writing:
            replace_folder(folder)
        assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_permissions_of_files_are_what_the_user_wants_of_new_ones(mask, tmp_path):
    before = os.umask(mask)
    try:
        records.write_json(tmp_path / "new" / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from low_rank_local_connectivity.training.records import replacing\n"
        "from low_rank_local_connectivity.unfinished import unfinished_folder\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "with replacing(folder / 'a.md') as file, unfinished_folder(folder) as inner:\n"
        "    file.write_text('half')\n"
        "    (inner / 'saved_model.pb').write_text('half')\n"
        "    (folder / 'report.md').write_text('moved')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    commands.light_server().python("-c", code)
    names = [path.name for path in tmp_path.iterdir()]
    assert len([name for name in names if name.startswith(UNFINISHED)]) == 2
    with records.replacing(tmp_path / "b.md") as other, unfinished_folder(tmp_path) as inner:
        assert sorted(tmp_path.iterdir()) == sorted([other, inner, tmp_path / "report.md"])
        other.write_text("b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.md", "report.md"]


def test_a_file_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    lock, taken = unfinished._lock, []

    def late(handle, wait=True):
        if wait and not taken:
            taken.extend(tmp_path.iterdir())
            unfinished.remove_abandoned(tmp_path)
        lock(handle, wait)

    monkeypatch.setattr(unfinished, "_lock", late)
    records.write_json(tmp_path / "a.json", {"a": 1})
    assert len(taken) == 1
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_many_writers_of_one_folder_leave_each_other_s_files_alone(tmp_path):
    def write(name):
        for number in range(20):
            records.write_json(tmp_path / f"{name}.json", {"number": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json" for name in "abcd"]


def system_error(number, *names):
    return OSError(number, os.strerror(number), *names)


REFUSALS = (errno.EACCES, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG)


@pytest.mark.parametrize("number", REFUSALS)
def test_every_error_of_the_system_is_said_in_a_sentence(number):
    import tensorflow as tf

    told = endings.refused_file(system_error(number, "run/a"))
    assert told == (
        "The files of a run must be there for this user to read and write. Received: run/a: "
        f"{os.strerror(number)}. What was saved before is intact; see to the file, and run the "
        "same command again."
    )
    theirs = tf.errors.UnknownError(None, None, f"run/events; {os.strerror(number)}")
    assert f"Received: run/events; {os.strerror(number)}." in str(endings.refused_file(theirs))
    of_writer = "run is not a directory [Op:CreateSummaryFileWriter]"
    theirs = tf.errors.FailedPreconditionError(None, None, of_writer)
    assert of_writer in str(endings.refused_file(theirs))
    theirs = tf.errors.FailedPreconditionError(None, None, "a variable has no value")
    assert endings.refused_file(theirs) is None
    assert endings.refused_file(ValueError(os.strerror(number))) is None
    assert endings.refused_file(FileNotFoundError("A sentence.")) == "A sentence."


LONG = "x" * 300


@pytest.mark.parametrize("place", [LONG, f"a/{LONG}/run", "file/run", "loop/run"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_loaded(place, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for flags in ([], ["--num_seeds=2"]):
        done = commands.light_server().python(
            commands.SCRIPT, f"--model_dir={tmp_path / place}", *flags
        )
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert re.match(r"run_experiment\.py: .* must be .* Received: ", line)


def test_a_clock_before_1980_is_told(monkeypatch):
    from low_rank_local_connectivity.experiments import folder

    folder.check_clock()
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 2, 3, 4, 5, 4, 2, 0)))
    with pytest.raises(ValueError, match=r"a time before 1980\. Received: 1970-01-02\. Set the"):
        folder.check_clock()


def test_a_machine_without_a_temporary_folder_loads_frameworks(monkeypatch):
    from low_rank_local_connectivity.experiments import backend

    def none(*_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(backend.tempfile, "TemporaryFile", none)
    with backend.without_messages():
        os.write(2, b"nobody reads this")


CONTINUING = """
import json, pathlib, sys
from low_rank_local_connectivity.experiments import command
check, folder = command.check_folder, pathlib.Path({folder!r})

def slow(*arguments):
    found = check(*arguments)
    folder.mkdir()
    (folder / "config.json").write_text({config!r})
    return found

command.check_folder = slow
sys.argv = ["run_experiment.py", f"--model_dir={{folder}}", "--seed=3"]
command.main()
"""


def test_a_run_that_began_meanwhile_is_not_continued_with_other_flags(tmp_path):
    from low_rank_local_connectivity.experiments.experiment import Experiment

    folder = tmp_path / "run"
    config = json.dumps(Experiment(seed=4, model_dir=str(folder)).config())
    code = CONTINUING.format(folder=str(folder), config=config)
    done = commands.python("-c", code)
    assert done.returncode == 2, done.stderr
    assert "where --seed is 4 there and 3 here" in done.stderr
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_run_whose_folder_vanishes_ends_at_its_next_save_without_a_result(change, tmp_path):
    folder = tmp_path / "run"
    flags = ("--epochs=200", "--train_examples=128", "--batch_size=64", "--filters=4")
    process = commands.start(commands.SCRIPT, f"--model_dir={folder}", *flags)
    process.wait_for("Epoch 2/200\n")
    process.send_signal(signal.SIGSTOP)
    change(folder)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate()
    assert process.returncode == 2
    assert "Result" not in output
    assert "must stay where they are while it runs" in errors.splitlines()[-1]
    assert not (folder / "result.json").exists()
