"""A run of an experiment: whether it may begin, how far it got, and what it leaves behind."""

import contextlib
import math
import platform
import sys
import traceback
from datetime import datetime

from data.download import find_dataset
from data.splits import balanced_indices, hold_out
from machinery.callbacks import (
    LeaveBetweenSteps,
    Progress,
    SaveProgress,
    SeedEachEpoch,
    log_history,
    tensorboard,
)
from machinery.checkpoint import load_checkpoint, save_checkpoint
from machinery.environment import thread_limit, usable_cores
from machinery.errors import DamagedError, UsageError, first_line, is_out_of_memory
from machinery.files import archive, blame, replace_when_complete
from machinery.inspection import name_of_loss, operations_per_image
from machinery.lock import only_owner
from machinery.options import SAMPLE_BATCH_DIVISOR, SAMPLE_EPOCHS, tensorboard_command
from machinery.recipe import differences, recipe_of
from machinery.records import (
    RunFiles,
    accuracy_line,
    archive_earlier_run,
    evaluated_on,
    find_earlier_run,
    join_remarks,
    read_history,
    remark_on_data,
    require,
    require_columns,
    stopped_early,
    without_accuracy,
    write_history,
    write_result,
)

import keras
import numpy as np
import tensorflow as tf

# What a checkpoint says of its run.
RECORD_FORM = {"epochs_trained": int, "stopped": bool, "started": str, "recipe": dict}


@contextlib.contextmanager
def begin_run(name, experiment_name, experiment, options):
    """Yield the `Run` that the options ask for, with its images, and finish it afterwards.

    The files of an earlier, finished run are archived. Ctrl-C prints how to go on.

    Args:
        name: what the run's files are called.
        experiment_name, experiment: what is run.
        options: what `parse_options` returned.

    Raises:
        UsageError: if an unfinished run is in the way, there is none to resume, another process
            has it, or there are no images.
    """
    run = Run(name, experiment_name, experiment, options)
    run.files.result.parent.mkdir(parents=True, exist_ok=True)
    with only_owner(run.files.lock, run.files.result):
        earlier = find_earlier_run(run.files, run.settings, options.resume)
        has_begun = options.resume
        try:
            run.find_images(earlier)
            if options.resume and earlier["finished"]:
                print(f"{run.files.result} is finished already, there is nothing to resume")
                run.finished, run.result = True, earlier
                run.history = read_history(run.files.history, earlier.get("epochs_trained"))
                if options.tensorboard:
                    log_history(run.files.logs, run.history, run.evaluated_on)
                print(accuracy_line(earlier["test_accuracy"], run.remarks()))
            else:
                run.begin(earlier)
            has_begun = True
            yield run
            run.finish()
        except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C ends `| tee`, too
            saved = f"{run.epochs_trained} of {run.epochs} epochs are saved in "
            print(
                f"\nInterrupted. {saved}{run.files.result.parent}.\n"
                "To go on, run the same command with --resume."
                if has_begun
                else "\nInterrupted before the run began. Run the same command again.",
                file=sys.stderr,
            )
            raise
        except Exception as error:
            if callback := run.restored_callback(error):
                raise UsageError(
                    f"{run.files.checkpoint}: the {callback} can't go on from what is saved of it "
                    f"({first_line(error)}): begin again, without --resume"
                ) from error
            raise


class Run:
    """A run of an experiment.

    Attributes:
        files: a `RunFiles`. settings: what may not change when it is resumed.
        epochs, batch_size, validation: as the options or the experiment say.
        epochs_trained: how many are done. last_epoch: the one to stop after, at the latest.
        history: a list for each column of NAME.csv. result: what goes into NAME.json.
        dataset: the images. evaluated_on: "test", "validation", or None with --all-images.
        callback_states: what `SaveProgress` restores.
        finished: whether there is nothing left to do.
    """

    def __init__(self, name, experiment_name, experiment, options):
        self.name, self.experiment, self.options = name, experiment, options
        self.files = RunFiles.of(options.out, name, options.seed, options.fold)
        self.epochs = options.epochs or (SAMPLE_EPOCHS if options.sample else experiment.epochs)
        divisor = SAMPLE_BATCH_DIVISOR if options.sample else 1
        self.batch_size = options.batch_size or max(1, experiment.batch_size // divisor)
        self.validation = options.validation or experiment.validation
        self.settings = {
            "experiment": experiment_name,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": options.seed,
            "mixed_precision": options.mixed_precision,
            "validation": self.validation,
            "sample": options.sample,
            "limit": options.limit,
        }
        if options.fold:
            self.settings["fold"] = str(options.fold)
        if getattr(options, "all_images", False):  # an option of finalize.py
            self.settings["all_images"] = True
        self.evaluated_on = evaluated_on(self.settings)
        self.epochs_trained, self.last_epoch = 0, self.epochs
        self.history, self.callback_states = {"epoch": []}, []
        self.finished = False

    def find_images(self, earlier):
        """Find the images; refuse others than those that the run to be resumed has seen.

        Args:
            earlier: the result of the run whose files are there already, or None.
        """
        self.dataset = find_dataset(self.options.data, self.options.sample, self.options.image_size)
        if self.options.resume and earlier["dataset"].get("sha256") != self.dataset.sha256:
            source = earlier["dataset"].get("source", "an unknown source")
            raise UsageError(
                f"{self.files.result} was started with other images, from {source}: to go on, "
                "name them with --data and --image-size as then"
            )

    def begin(self, earlier):
        """Archive an earlier run unless it is resumed, and record what begins.

        Args:
            earlier: see `find_images`.
        """
        self.result = {
            "name": self.name,
            "test_accuracy": None,
            "test_loss": None,
            "published_accuracy": self.published_accuracy(),
            "remark": remark_on_data(self.dataset, self.options),
            "settings": self.settings,
            "dataset": {
                "source": self.dataset.source,
                "sha256": self.dataset.sha256,
                "class_names": self.dataset.class_names,
                "image_size": self.dataset.image_size(),
            },
            "versions": software(),
            "hardware": hardware(),
            "started": datetime.now().isoformat(timespec="seconds"),
            "finished": None,
        }
        if self.options.resume:
            self.result["started"] = earlier["started"]
        self.require_enough_images()
        if not self.options.resume:
            archive_earlier_run(earlier, self.files)
        write_result(self.files.result, self.result)

    def require_enough_images(self):
        """Refuse what the harness would refuse, before an earlier run is archived for it."""
        labels = self.dataset.y_train
        if self.options.limit:
            labels = labels[balanced_indices(labels, self.options.limit)]
        if self.evaluated_on == "validation":
            names = self.dataset.class_names
            hold_out(labels, keras.utils.to_categorical(labels), self.options.fold, names)

    def published_accuracy(self):
        """Return what the tutorial publishes, None for other images than CIFAR-10's."""
        is_cifar10 = self.options.sample or self.dataset.is_cifar10()
        return self.experiment.published_accuracy if is_cifar10 else None

    def start_or_resume(self, model):
        """Give a model the weights and optimizer's state of the latest checkpoint, if there is one.

        All else is what the code says, whatever the checkpoint was compiled with. Then print what
        is trained.

        Raises:
            UsageError: if the checkpoint is another run's, or its network, optimizer or callbacks
                are not the new one's.
        """
        self.recipe = recipe_of(self.experiment, model)
        make_variables(model)
        if checkpoint := self.latest_checkpoint(model):
            saved, record, self.callback_states, self.history = checkpoint
            if record["started"] != self.result["started"]:
                raise UsageError(
                    f"{self.files.checkpoint} belongs to another run, of {record['started']}: "
                    "put the right one in its place, or choose another --out"
                )
            if edits := differences(record["recipe"], self.recipe):
                raise UsageError(
                    f"{self.files.checkpoint} was trained with other code than "
                    f"{self.settings['experiment']} has now: {'; '.join(edits[:3])}"
                    f"{f'; and {len(edits) - 3} more' if edits[3:] else ''}. "
                    "Undo the edit, or choose another --out"
                )
            for variable, value in zip(trained_in(model), trained_in(saved), strict=True):
                variable.assign(value)
            self.epochs_trained = record["epochs_trained"]
            if record["stopped"]:
                self.last_epoch = self.epochs_trained
            print(f"Resuming after epoch {self.epochs_trained} of {self.epochs}")
        print(
            f"{self.name}: {model.count_params():,} parameters, epochs: {self.epochs}, batch size: "
            f"{self.batch_size}, computed in {keras.config.dtype_policy().compute_dtype}",
            flush=True,
        )

    def latest_checkpoint(self, model):
        """Return model, record, callbacks' states and history of the latest good checkpoint.

        None if there is none. What can't be gone on from is archived.

        Args:
            model: that is to go on with it.
        """
        lost = []
        for path in self.files.checkpoints():
            if not path.exists():
                continue
            try:
                saved, record, states = load_checkpoint(path)
                with blame(path):
                    require(record, RECORD_FORM)
                    are_states = all(isinstance(state, dict) for state in states)
                    if not are_states or not 0 < record["epochs_trained"] <= self.epochs:
                        raise ValueError("its epochs, or its callbacks")
                    make_variables(saved)  # a foreign one may have no optimizer's
                    same_code = record["recipe"] == self.recipe
                    if same_code and shapes(saved) != shapes(model):
                        raise ValueError("weights of another network than it says")
                    if not saved.optimizer.iterations.numpy():
                        raise ValueError("its optimizer's state is missing")
                history = read_history(self.files.history, record["epochs_trained"])
                with blame(self.files.history):
                    require_columns(self.settings, history, exactly=True)
                return saved, record, states, history
            except DamagedError as error:
                print(f"{error}. Going back to what was saved before", flush=True)
                lost.append(path)
                archive([path], self.result["started"], self.files.earlier)
        if self.files.history.exists():
            lost.append(self.files.history)
            archive([self.files.history], self.result["started"], self.files.earlier)
        if lost:
            print("There is no checkpoint to go on from: the run begins again", flush=True)
        return None

    def callbacks(self, batches):
        """Return the callbacks of the experiment and of the run, for batches to train on."""
        others, logs = self.experiment.callbacks, []
        if self.options.tensorboard:
            logs = [tensorboard(self.files.logs, self.history, self.evaluated_on)]
        return [
            LeaveBetweenSteps(),
            SeedEachEpoch(self.options.seed, batches),
            *others,
            *logs,
            Progress(self.evaluated_on),
            SaveProgress(self, others),
        ]

    def restored_callback(self, error):
        """Return which callback that goes on from a checkpoint raised an error, None if none did.

        What is saved of one can't be looked at before: only the callback knows what it may be.
        """
        if not self.callback_states or isinstance(error, UsageError | OSError):
            return None
        if is_out_of_memory(error):
            return None
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        within = {id(value) for frame in frames for value in frame.f_locals.values()}
        found = [callback for callback in self.experiment.callbacks if id(callback) in within]
        return type(found[0]).__name__ if found else None

    def save_epoch(self, row, model, callback_states):
        """Save an epoch's row of the history, and the checkpoint.

        Raises:
            UsageError: if a loss is no number any more.
        """
        saved = f". The epochs before are saved in {self.files.history}"
        before = saved if self.epochs_trained else ""
        for column, value in row.items():
            if not math.isfinite(value):
                raise UsageError(
                    f"the column {column} became {value} in epoch {row['epoch']}. A learning rate "
                    f"that is too high does that: try a tenth of it{before}"
                )
        for column, value in row.items():
            self.history.setdefault(column, []).append(round(value, 6))
        # The checkpoint comes last: the epochs that it counts are in the history for sure.
        write_history(self.files.history, self.history)
        record = {
            "epochs_trained": row["epoch"],
            "stopped": model.stop_training,
            "started": self.result["started"],
            "recipe": self.recipe,
        }
        files = self.files
        save_checkpoint(files.checkpoint, files.checkpoint_before, model, record, callback_states)
        self.epochs_trained = row["epoch"]

    def result_of(self, model, measured, training_images, validation_images, test_images):
        """Return what goes into NAME.json.

        Args:
            model: the trained one.
            measured: the test's "loss" and "accuracy", in [0, 1]; empty if there is no test.
            training_images, validation_images, test_images: how many there are.

        Raises:
            UsageError: if the loss is no number.
        """
        loss, accuracy = measured.get("loss"), measured.get("accuracy")
        if loss is not None and not math.isfinite(loss):
            raise UsageError(f"the loss of the test became {loss}: a learning rate that is too "
                             "high does that, try a tenth of it")  # fmt: skip
        operations = operations_per_image(model) * training_images * self.epochs_trained
        self.result |= {
            "test_accuracy": None if accuracy is None else round(100 * accuracy, 4),
            "test_loss": None if loss is None else round(loss, 6),
            "loss": name_of_loss(model),
            "epochs_trained": self.epochs_trained,
            "parameters": model.count_params(),
            "training_petaflop": round(operations / 1e15, 4),
            "seconds": round(sum(self.history["seconds"]), 1),
            "finished": datetime.now().isoformat(timespec="seconds"),
        }
        self.result["dataset"] |= {
            "training_images": training_images,
            "validation_images": validation_images if self.evaluated_on == "validation" else 0,
            "test_images": test_images,
        }
        return self.result

    def save_predictions(self, probabilities, labels):
        """Save the probabilities of a fold's images, in their order, and how often they are right.

        The model may be another than that of the last epoch: with the best weights restored, or
        an average over several views of an image.

        Args:
            probabilities, labels: floats (n, classes), the labels one-hot.
        """
        right = probabilities.argmax(axis=1) == labels.argmax(axis=1)
        self.result["fold_accuracy"] = round(100 * right.mean(), 4)
        with replace_when_complete(self.files.predictions) as temporary:
            np.save(temporary, probabilities)

    def remarks(self):
        """Return what has to be said beside the accuracy, "" if nothing."""
        fold = self.settings.get("fold")
        without = f"trained without fold {fold}" if fold else ""
        return join_remarks(
            without,
            self.result["remark"],
            stopped_early(self.result),
            without_accuracy(self.settings),
        )

    @property
    def picture(self):
        """What `summarize_diagnostics` draws: history, path, title, name of the loss."""
        trained, usual = len(self.history["epoch"]), self.experiment.epochs
        shorter = trained < usual and not stopped_early(self.result)  # which the remarks tell
        of_usual = f" of {usual}" if shorter else ""
        accuracy = self.result["test_accuracy"]
        accuracy = "no test" if accuracy is None else f"test accuracy {accuracy:.2f} %"
        title = f"{self.name}: {accuracy} after {trained}{of_usual} epochs\n{self.remarks()}"
        return self.history, self.files.curves, title.strip(), self.result.get("loss", "loss")

    def save_result(self):
        """Write NAME.json: from here on, the run is finished."""
        write_result(self.files.result, self.result)

    def finish(self):
        """Remove the checkpoints, and say what is where."""
        self.files.remove_checkpoints()
        print(f"Learning curves: {self.files.curves}")
        print(f"Numbers:         {self.files.history}")
        print(f"Result:          {self.files.result}")
        if self.options.tensorboard:
            print(f"TensorBoard:     {tensorboard_command(self.options.out)}")


def make_variables(model):
    """Make the variables of a compiled model's optimizer and metrics.

    Keras would make them in the first step. TensorFlow traces a step that makes variables twice,
    which takes longer than the steps of a small epoch.
    """
    if not model.optimizer.built:  # building it once more would lose its state
        model.optimizer.build(model.trainable_variables)
    labels = np.zeros((1, *model.output_shape[1:]), np.float32)
    model.compute_metrics(None, labels, labels)
    model.reset_metrics()


def trained_in(model):
    """Return what training changes in a compiled model: its weights and its optimizer's state."""
    return [*model.weights, *model.optimizer.variables]


def shapes(model):
    return [variable.shape for variable in trained_in(model)]


def software():
    return {
        "python": platform.python_version(),
        **{package.__name__: package.__version__ for package in (keras, tf, np)},
    }


def hardware():
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    devices = [device.name for device in tf.config.list_physical_devices("GPU")]
    cores = min(usable_cores(), thread_limit())
    return {"processor": processor, "cores": cores, "gpus": devices}
