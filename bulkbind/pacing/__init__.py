"""When a request may leave; no HTTP, no ledger.

`gate`: whether a stream is open; `search`: its pace; `flight`: how many may be in flight;
`traffic`: what is, and whose turn it is; `pacer`: who waits.

The model on one page. A gateway that states its limit is taken at its word (`search`). One that
does not is asked by its 429s alone, and each of them costs something, so the pace moves in *legs*
from one *event* to the next. An event is one 429, or several in a row, to where requests get
through again.

- **The start**: the pace doubles several times a second, the sooner the quicker answers come.
- **A leg** begins a little below the limit as it is believed, rises to it within its *span*, and
  from there ever faster, since a limit that lets that pass has been lifted. The span is what a 429
  costs over what may be spent: m requests refused per event at 0.3 % make m / 0.003 requests.
  First legs are short, each one that confirms the last is four times as long; in the first minute,
  and for a minute after the limit has changed, they are no longer than some seconds: others that
  use the same limit come and go.
- **A 429** lets the next request leave in its slot. If that one gets through, the first was a
  lone one: a margin was met, nothing is closed. If not, the gate closes, and one request tries
  alone until it gets through.
- **Where the limit is** lies between two numbers: what got through from opening to opening over
  that time, and the pace that was refused. The first is right for buckets, whose burst is in the
  second; the second for windows, which were not full before. Between them `trust` moves: up where
  a leg reached its span, down where it did not. An early event shows a pace much too high: it falls
  by itself, and faster each time.
- **Windows** open whole seconds apart. Once that was right twice it is bet on: the first try comes
  where the window ends. A gate that is closed four times as long as before shows a longer
  window: what got through since it began counts.
- **Penalties**: closed equally long again though more got through than a window so long allows.
  Then nothing leaves before that time is over, it is no part of the goodput, and legs are so long
  that it costs a per cent of the time.
- **Spacing**: the first two requests leave together. Where one is refused, requests have to be
  spaced: there every 429 is lone, and the pace that is refused now and then is the limit. Where
  others use the limit it may only look so: some more pairs leave later, to see.
- **Chance**: a lone 429 well below a pace that has proven itself says nothing, and the leg goes on.
  So it does from then on after every lone 429, while they come no closer than those by chance.
- **Places** (`flight`): a limit on requests in flight refuses by level, not by pace.
- **Answers that slow down**: more go at once only while that brings more answers a second.
- **Silence**: a request without an answer for several times the usual takes no place while others
  are answered: nobody waits for it. Where most are silent, one more a second leaves, to see.
"""

from bulkbind.pacing.pacer import Limit, Pacer
from bulkbind.pacing.search import Left

__all__ = ["Left", "Limit", "Pacer"]
