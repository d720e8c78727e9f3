"""The worker's side: everything that opens media. Runs in a process of its own, one for each session.

`export` is the way in. `plan` decides (pure), `reading` brings packets in, `muxing` writes result files, and on top of
them `clip`, `snapshot` and `salvage` do a job each. Only this package imports av and PIL.
"""
