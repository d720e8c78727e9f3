"""The worker's side: everything that opens media. Runs in a process of its own, one for each session.

`export` is the way in; `clip`, `liveclip`, `snapshot`, `livesnapshot` and `salvage` do a job each. Below a clip:

    plan, recipe                       decide (pure): times and sizes; what is copied and what is encoded
    recording, reading                 bring packets in: of one recording; of a camera's recordings, one after the other
    camera, livetime, stamping, live   and of live cameras: a connection; when its packets were taken; again and again
    transcode, pictures, sound, clock  encode what can't stay as it was recorded
    cutting, nal                       the exact cut
    messages                           what these hand each other
    feeding, clipfile                  packets of several cameras into files
    muxing, avi, results               files out
    progress                           how far it is

Only this package imports av and PIL.
"""
