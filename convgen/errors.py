"""The errors convgen raises. Each message is one sentence that names what was expected and what was given."""


class Error(Exception):
    """Base of every error that convgen raises on purpose."""


class ArgumentError(Error, ValueError):
    """A tensor, dimension or attribute does not fit the operator."""


class NoKernel(Error, LookupError):
    """A library holds no kernel for these shapes, attributes, dtypes or layout."""


class LibraryError(Error):
    """A library is damaged, unsafe to load here, or of an unknown format."""


class TargetError(Error):
    """A target is unknown, or this machine cannot serve it."""


class TuneError(Error):
    """A tuning run cannot go on (never raised for one bad candidate)."""


class EmitError(Error):
    """A choice of knobs cannot be turned into a kernel."""


class WorkerError(Error):
    """A worker process failed; `kind` is one of the failure kinds that records know.

    Kinds: invalid, compile_error, compile_timeout, crash, run_timeout, oom, wrong. Of measuring on other machines, never in
    records: lost (a server's process ended, perhaps by the candidate), busy (none was free), device (none can measure).
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
