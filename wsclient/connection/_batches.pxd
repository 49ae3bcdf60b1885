# cython: language_level=3
# What is C's when _batches.py is compiled; the meaning of each name stands there.
cimport cython


cdef class Batches:
    cdef public Py_ssize_t count, taken, size, budget, wake_at
    cdef object _taken
    cdef list _current
    cdef Py_ssize_t _position, _current_size
    cdef object _following

    @cython.locals(current=list, position=Py_ssize_t)
    cpdef object pop(self)
    cpdef append(self, list items, Py_ssize_t size)
    cdef object _end_batch(self)


cdef class MessageIterator:
    cdef Batches _batches
    cdef object _receive, _follow, _status
