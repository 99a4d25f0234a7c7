"""The exceptions that users see: a sentence that says what is wrong, where, and what to do."""


class BoneAgeError(Exception):
    """A mistake in the input, the configuration or a file, described in one clear sentence.

    The command line prints the sentence without a traceback and exits with `exit_status`.
    """

    exit_status = 1
