"""`run INBOX --archive DONE`: every complete manifest of a folder, each a run of its own.

What is done with a file is known from the ledger and from where the file lies, so a process may be
killed between any two steps, and the next one goes on with the one that is missing:

    in the inbox, no run       -> stage and send
    in the inbox, unfinished   -> go on with its run, before any other file
    in the inbox, in doubt     -> run it again: what is bound is skipped, the doubt is settled
    in the inbox, finished     -> write its report, copy failed.csv, then move it (one rename)
    in the archive             -> nothing

A finished run is the file's if it has its name and content and began after it was last touched; so
the same file, dropped once more, is a new one.
"""

from bulkbind.app.inbox.result import InboxFile, InboxResult
from bulkbind.app.inbox.run import run_inbox

__all__ = ["InboxFile", "InboxResult", "run_inbox"]
