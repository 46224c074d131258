"""What to try next, once the tutorial is done: one idea, one script, in the order to read them."""

FROM_SCRATCH = (
    "baseline4",
    "baseline5",
    "centering",
    "standardization",
    "learning_rate_01",
    "learning_rate_0001",
    "adam",
    "adamw",
    "cyclical_learning_rate",
    "cyclical_learning_rate_adam",
    "cosine_decay",
    "reduce_on_plateau",
    "early_stopping",
    "dropout_30",
    "weight_decay_01",
    "weight_decay_1",
    "weight_decay_augmentation",
    "random_erasing",
    "cutmix",
    "batch_256",
    "batch_256_scaled",
)
EXTENSIONS = (*FROM_SCRATCH, "transfer_vgg16", "transfer_vgg16_tuned", "transfer_shipped")
