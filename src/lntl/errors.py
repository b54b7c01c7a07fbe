"""The one kind of error that users see."""


class UserError(Exception):
    """Something that the user can mend: one sentence with what is wrong, where, and the remedy."""


class DeadEndError(UserError):
    """A run cannot go on from its checkpoint, now or later; it can be made anew."""


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run was asked to stop; its state is saved."""
