"""What a worker's process runs: a function that the process which started it sends.

Nothing of the project is imported here but what that function's module imports, in its order:
TensorFlow reads the environment when it is imported, and `machinery` writes to it. That is why
`multiprocessing` does not start the workers: it imports the script that started them first.
"""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

if __name__ == "__main__":
    connection = Connection(int(sys.argv[1]))
    function, arguments = connection.recv()
    function(connection, *arguments)
