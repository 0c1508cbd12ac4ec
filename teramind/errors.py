"""The one exception that means: what the user gave is at fault, and this is how to mend it."""


class UserError(ValueError):
    """A mistake in the user's files or settings.

    The message is one line that says what is wrong, where, and what would be right. Workflow
    scripts print it without a traceback; any other exception is a defect of ours.
    """
