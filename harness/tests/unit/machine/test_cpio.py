from harness.machine.cpio import archive


def test_a_reader_of_the_format_agrees():
    """Mutation: pad names to 8 instead of 4."""
    data = archive({"a/b/file": b"hello", "run": b"#!/bin/sh\n"}, {"run"})
    # An independent reader of the format, field by field as the kernel documents it.
    files, position = {}, 0
    while True:
        head = data[position : position + 110]
        assert head[:6] == b"070701"
        fields = [int(head[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        name = data[position + 110 : position + 110 + fields[11] - 1].decode()
        body = -(-(position + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            break
        files[name] = (fields[1], data[body : body + fields[6]])
        position = -(-(body + fields[6]) // 4) * 4
    assert files == {
        "a": (0o40755, b""),
        "a/b": (0o40755, b""),
        "a/b/file": (0o100644, b"hello"),
        "run": (0o100755, b"#!/bin/sh\n"),
    }
