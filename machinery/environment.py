"""The process, made the same everywhere. Has to be imported before TensorFlow and Matplotlib.

The packages `data`, `machinery` and `models` import it before anything else of theirs, so whoever
imports one of their modules has it.
"""

import os
import platform

# oneDNN computes convolutions faster; without AVX-512 TensorFlow leaves it off.
# https://www.tensorflow.org/install/source#onednn_cpu_optimizations
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# No lines about missing GPUs on the screen of someone who knows that he has none.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Pictures go into files: no display is needed, whatever a notebook has set.
os.environ["MPLBACKEND"] = "Agg"
