"""How good vectors are: rows of a table, all ranked by one protocol.

dataset      the two-file format → arrays
log_dataset  an event log and its catalogue → the same arrays
protocols    which events are trained on, and which are the targets
histories    the window before each target, by the worker's own fold
ranking      the port ``Ranker``; scores → rank of the target and best items, chunk by chunk
metrics      ranks → Recall, NDCG, coverage, slices; paired bootstrap over users
baselines    popularity, item-to-item, EASE: from training events alone
vectors      rankers over vectors of users and items, and over title terms
text_cache   text vectors of a catalogue, encoded once
bundle_rows  the vectors of a model bundle: the row ``one-vector``
rows         names → rankers: what ``interest evaluate`` offers
evaluate     all of it in one pass over the targets
schedules    when events reach a vector
freshness    the same targets ranked by vectors of different age
"""
