"""Transfer learning: the features of a VGG-16 that has learned ImageNet, and new layers upon them.

The edges, textures and shapes that tell ImageNet's 1,000 classes apart may serve for ours. Its 13
convolutions are frozen; only a dense layer and a softmax like those of baseline3 learn. But
ImageNet's photos are larger: of 32x32 pixels, five poolings leave one. The weights (59 MB) are
Keras's download, or a file that `--weights` names.

Idea: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792
Published, with two larger dense layers, on held-out training images: about 64 %,
https://github.com/royhuang9/transfer_learning
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_experiment
from machinery.errors import readable_errors
from machinery.options import add_weights, command, option_parser, parse_options
from models.pretrained import pretrained_vgg16


def define_model(input_shape=(32, 32, 3), classes=10, weights="imagenet"):
    return pretrained_vgg16(input_shape, classes, weights, trainable=False, learning_rate=0.001)


EXPERIMENT = Experiment(define_model, epochs=20)


def run_with_weights(script, experiment):
    """Do what `harness.run_test_harness` does, with `--weights` for the experiment's model."""
    with readable_errors():
        parser = option_parser(experiment.epochs)
        add_weights(parser)
        options = parse_options(parser)
        # --resume goes on with the weights of the checkpoint, the frozen ones too.
        define_model = partial(experiment.define_model, weights=options.weights)
        run_experiment(Path(script).stem, experiment._replace(define_model=define_model), options)
        print(f"Next:            {command('compare.py', options)}")


if __name__ == "__main__":
    run_with_weights(__file__, EXPERIMENT)
