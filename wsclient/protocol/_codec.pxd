# cython: language_level=3
# What is C's when _codec.py is compiled; the meaning of each name stands there.
cimport cython


cdef int _TEXT_FRAME, _BINARY_FRAME, _MASKED
cdef Py_ssize_t _BURST_SIZE
cdef long _forks


cdef class Decoder:
    cdef long long _max_message_size, _max_frame_size, _max_fragments
    cdef object _inflater
    cdef public Py_ssize_t size, controls
    cdef public bint has_more, in_parts
    cdef bytes _rest
    cdef int _opcode
    cdef bint _is_compressed, _is_in_parts, _in_frame, _is_last, _is_inflating
    cdef long long _fragments, _received, _missing, _length
    cdef object _payload, _target, _utf8
    cdef Py_ssize_t _header_size

    cpdef list receive(self, object data, Py_ssize_t size)
    cpdef object get_buffer(self)
    cpdef list buffer_updated(self, Py_ssize_t size)

    @cython.locals(view="const unsigned char*", position=Py_ssize_t, room=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, length=Py_ssize_t, first=int, whole_text=int, whole_binary=int, overhead=Py_ssize_t, frames=Py_ssize_t)
    cdef Py_ssize_t _decode(self, object data, Py_ssize_t end, list facts) except -1

    @cython.locals(view="const unsigned char*", first=int, second=int, extended=Py_ssize_t)
    cdef bint _read_header(self, object data, Py_ssize_t position, Py_ssize_t end) except -1
    cdef object _control(self, int opcode, bytes payload)
    cdef object _begin_frame(self, int first)
    cdef object _check_size(self, long long size)
    cdef bint _streams(self)
    @cython.locals(is_whole=bint)
    cdef object _continue_frame(self, object data, Py_ssize_t start, Py_ssize_t stop, list facts)
    cdef object _inflate(self, bytes chunk, list facts, bint is_whole)
    cdef object _give_whole(self, object message, list facts)
    cdef object _end_compression(self)
    cdef object _take(self, object chunk, list facts)
    cdef object _release(self)
    cdef object _give(self, object data, list facts)
    cdef object _collect(self, object chunk)
    cdef bint _deserves_target(self)
    cdef object _open_target(self)
    cdef object _fill_target(self, Py_ssize_t size)
    cdef object _give_collected(self, list facts)
    cdef object _collected(self)
    cdef object _end_message(self, list facts)
    cdef object _reset(self)


cdef class Encoder:
    cdef bytearray _buffer
    cdef object _deflater
    cdef public Py_ssize_t burst
    cdef bytes _keys
    cdef Py_ssize_t _keys_used
    cdef long _forks

    cpdef bint join(self, object message) except -1

    @cython.locals(first=int, payload=bytes)
    cpdef message(self, object message)

    @cython.locals(buffer=bytearray, size=Py_ssize_t, start=Py_ssize_t)
    cpdef frame(self, int first, bytes payload)
    cdef bytes _next_key(self)


@cython.locals(target="unsigned char*", source="const unsigned char*", mask="const unsigned char*", long_key=bytes, size=Py_ssize_t, done=Py_ssize_t, index=Py_ssize_t)
cpdef object _mask(bytearray buffer, Py_ssize_t start, bytes payload, bytes key)


@cython.locals(target="unsigned char*", source="const unsigned char*", mask="const unsigned char*", size=Py_ssize_t, done=Py_ssize_t, index=Py_ssize_t)
cpdef object _write_short(bytearray buffer, Py_ssize_t start, int first, bytes payload, bytes key)


cdef extern from "Python.h":
    # Room at the end of a bytearray, without clearing it first.
    int resize "PyByteArray_Resize"(object buffer, Py_ssize_t size) except -1

    bytes PyBytes_FromStringAndSize(const char *data, Py_ssize_t size)
    object PyMemoryView_FromObject(object exporter)
    Py_buffer *PyMemoryView_GET_BUFFER(object view)


cdef inline bytes new_bytes(Py_ssize_t size):
    """Bytes that are not cleared: to be filled before anyone sees them."""
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline object writable(bytes target):
    """A view through which they can be filled.

    It holds them, as each part of it does: they live as long as anyone can write there.  What
    ``PyMemoryView_FromMemory`` gives would be writable too, and hold nothing.
    """
    view = PyMemoryView_FromObject(target)
    PyMemoryView_GET_BUFFER(view).readonly = 0
    return view
