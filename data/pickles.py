"""The official files of CIFAR-10 are pickles, which can ask for any function to be called.

Here none is called, not even NumPy's: a pickled dtype can declare bytes to be Python objects.
Python's own disassembler takes the pickle apart, and `describe` puts together what image data is
made of. A call remains the description of a call.
https://docs.python.org/3/library/pickletools.html
"""

import pickletools

MOST_OPERATIONS = 300_000  # an official batch has 10,000 labels and 10,000 file names

ARRAY_IN_STATE = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
ARRAY_IN_ARGUMENTS = {"numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"}
BYTES_AS_TEXT = {"_codecs encode"}  # how Python 3 writes bytes in Python 2's format
KNOWN = ARRAY_IN_STATE | ARRAY_IN_ARGUMENTS | BYTES_AS_TEXT | {"numpy dtype", "numpy ndarray"}


LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class Call:
    """What a pickle wants to be called; nobody does."""

    def __init__(self, function, arguments):
        self.function, self.arguments, self.state = function, arguments, None


def read_batch(pickled):
    """Return the pixels and labels of a pickled batch.

    Args:
        pickled: bytes.

    Returns:
        `(pixels, labels)`: the bytes of n images, 3,072 each, and n labels, see
        `whole_numbers`.

    Raises:
        ValueError: if it is not such a batch, or asks for anything to be called. A damaged pickle
            can raise other errors, too.
    """
    batch = describe(pickled)
    if not isinstance(batch, dict):
        raise ValueError(f"not a batch of CIFAR-10 but a {type(batch).__name__}")
    if not {b"data", b"labels"} <= set(batch):
        raise ValueError("not a batch of CIFAR-10: it needs data and labels")
    pixels, shape = array(batch[b"data"])
    labels = whole_numbers(batch[b"labels"])
    if shape != (len(labels), 3072) or len(pixels) != 3072 * len(labels):
        raise ValueError(f"{len(labels):,} labels need images of 3,072 bytes each")
    return pixels, labels


def whole_numbers(labels):
    """Return labels as they are if they are a list of whole numbers from 0 to 255."""
    if not isinstance(labels, list) or any(type(n) is not int or not 0 <= n < 256 for n in labels):
        raise ValueError("its labels are not a list of whole numbers from 0 to 255")
    return labels


def array(call):
    """Return the bytes and the shape of a described NumPy array, whatever its dtype says."""
    if getattr(call, "function", None) in ARRAY_IN_STATE:
        _, shape, _, is_fortran, pixels = call.state
        order = "F" if is_fortran else "C"
    elif getattr(call, "function", None) in ARRAY_IN_ARGUMENTS:
        pixels, _, shape, order = call.arguments
    else:
        raise ValueError("its data are not an array")
    if order != "C":
        raise ValueError("its array is not stored row by row")
    return as_bytes(pixels), shape


def as_bytes(text):
    """Return bytes that a pickle holds as bytes, as text, or as a call that makes bytes of text."""
    if getattr(text, "function", None) in BYTES_AS_TEXT:
        text, encoding = text.arguments
        if encoding != "latin1":
            raise ValueError("bytes in another encoding than latin1")
    return text.encode("latin-1") if isinstance(text, str) else bytes(memoryview(text))


def describe(pickled):
    """Return what a pickle describes: numbers, texts, lists, tuples, dictionaries, a `Call`.

    Keys of dictionaries are bytes. It works as Python's unpickler does, with a stack, but knows the
    operations of image data only.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def set_items(items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            stack[-1][as_bytes(key)] = value  # any other key, nested tuples say, could hash forever

    for count, (operation, argument, _) in enumerate(pickletools.genops(pickled)):
        if count == MOST_OPERATIONS:
            raise ValueError("a pickle of too many parts")
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation.name == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(operation.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                items = stack[-2:]
                del stack[-2:]
                set_items(items)
            case "SETITEMS":
                set_items(since_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                if operation.name == "STACK_GLOBAL":
                    argument = " ".join(stack[-2:])
                    del stack[-2:]
                if argument not in KNOWN:
                    raise ValueError(
                        f"it asks for {argument.replace(' ', '.')}, which image data never needs"
                    )
                stack.append(argument)
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = Call(stack[-1], arguments)
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "STOP":
                return stack.pop()
            case name if name in LITERALS:
                stack.append(argument)
            case _:
                raise ValueError(f"the operation {operation.name}, which image data never needs")
