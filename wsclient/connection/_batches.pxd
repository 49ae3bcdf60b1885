# cython: language_level=3
"""What is C's when _batches.py is compiled; the meaning of each name stands there.

One thing stands here alone: what ``MessageIterator.__anext__`` does while messages wait, without a
coroutine for each.  CPython asks the type for an awaitable, the awaitable for an iterator, and the
iterator for a result; all three are then the MessageIterator itself.  Where it has to wait, the
coroutine in _batches.py is asked as ever.
"""
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.type cimport PyType_Modified


cdef extern from "Python.h":
    ctypedef struct PyAsyncMethods:
        void *am_await
        void *am_anext
        void *am_send

    ctypedef struct PyTypeObject:
        PyAsyncMethods *tp_as_async
        void *tp_iternext
        unsigned long tp_flags


cdef class Batches:
    cdef public Py_ssize_t count, taken, size, budget, wake_at
    cdef object _taken
    cdef list _current
    cdef Py_ssize_t _position, _current_size
    cdef object _following

    cpdef append(self, list items, Py_ssize_t size)
    @cython.locals(current=list, position=Py_ssize_t)
    cpdef object pop(self)
    cdef object _end_batch(self)


cdef class MessageIterator:
    cdef Batches _batches
    cdef object _receive, _follow, _status
    cdef object _message


ctypedef object (*anext_function)(object)

cdef struct Slots:
    anext_function wait

cdef Slots slots


cdef inline object next_now(object iterator):
    cdef MessageIterator self = <MessageIterator> iterator
    cdef Batches batches = self._batches
    if batches.budget > 0 and batches.count > 0 and self._status is not None:
        if not self._status.effectively_cancelled:
            message = batches._current[batches._position]
            if type(message) is str or type(message) is bytes:
                batches.budget -= 1
                self._message = batches.pop()
                return self
    return slots.wait(self)


cdef inline object itself(object iterator):
    return iterator


cdef inline int result_now(PyObject *iterator, PyObject *_, PyObject **result) noexcept:
    cdef MessageIterator self = <MessageIterator> iterator
    message = self._message
    self._message = None
    Py_INCREF(message)
    result[0] = <PyObject *> message
    return 0  # PYGEN_RETURN


cdef inline object raise_now(object iterator):
    # For ``anext(iterator, default)``, which looks for no am_send.
    cdef MessageIterator self = <MessageIterator> iterator
    message = self._message
    self._message = None
    raise StopIteration(message)


cdef inline void shorten(object kind):
    cdef PyTypeObject *c_type = <PyTypeObject *> kind
    slots.wait = <anext_function> c_type.tp_as_async.am_anext
    c_type.tp_as_async.am_anext = <void *> next_now
    c_type.tp_as_async.am_await = <void *> itself
    c_type.tp_as_async.am_send = <void *> result_now
    c_type.tp_iternext = <void *> raise_now
    PyType_Modified(kind)
