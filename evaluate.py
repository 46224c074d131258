"""Evaluate the final model on the 10,000 test images and print its top-1 accuracy in percent."""

from dataset import find_cifar10
from harness import evaluation_batches, load_dataset
from options import add_model, data_parser, model_option, readable_errors
from results import accuracy_line, load_final_model, remark_on_data


def main():
    parser = data_parser()
    add_model(parser)
    options = parser.parse_args()

    model, training = load_final_model(options.model)
    cifar10 = find_cifar10(options.data, options.sample)
    _, _, testX, testY = load_dataset(cifar10)

    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    _, accuracy = model.evaluate(evaluation_batches(testX, testY))
    trained = training["remark"] and f"trained {training['remark']}"
    tested = remark_on_data(cifar10, options) and f"tested {remark_on_data(cifar10, options)}"
    print(accuracy_line(100 * accuracy, trained, tested))
    print(f"Next: python predict.py{model_option(options)}")


if __name__ == "__main__":
    with readable_errors():
        main()
