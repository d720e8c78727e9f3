"""vx: an export server for surveillance video. Clips and snapshots from recordings and live cameras, over gRPC.

Where things are (start with `vx.app`):

    vx.__main__     the console script: hands over to vx.cli
    vx.cli          the command line: `vx serve`, and a client of a running server
    vx.daemon       the server as a process: configuration, log, exit status
    vx.app          opens what the server needs, nests the nurseries, shuts down
    vx.config       the TOML file: frozen, validated once
    vx.estimate     what an export will find and take, from the names of the recordings
    vx.errors       one family of errors, told apart by kind
    vx.model        the vocabulary of sessions: states, results, records
    vx.rights       what a caller may do
    vx.timestamps   the times of the contract
    vx.spans        stretches of time, and what lies in and between them
    vx.logs         the log, as text or JSON
    vx.metrics      what is counted, in Prometheus's format; vx.scrape answers for it over HTTP
    vx.systemd      what systemd is told
    vx.report       what becomes of an export, source by source
    vx.privileges   what the server's process gives up for good
    vx.sandbox      what of the system a worker may still use (Landlock)
    vx.access       who may come in: users, passwords, tokens, who is held off
    vx.rpc          gRPC on trio: connections, calls, TLS, the services; `generated` is made from proto/
    vx.session      sessions: their states, who runs them, how long they live, where they are kept
    vx.download     finished files out, in chunks
    vx.threads      where what may wait is called
    vx.firstlook    whether the configuration's paths lead to recordings
    vx.worker       the border between the server and its worker processes, one for each running session
    vx.child        what runs in a worker process
    vx.jobs         what crosses that border; vx.drawing: the part of it that says what is drawn into pictures
    vx.disk         what both sides of it ask of a disk
    vx.captions     what the text in pictures and subtitles says at a moment
    vx.mp4          MP4 as bytes: tables of samples, headers of files; pure
    vx.virtual      results that are served from the recordings: how they lie on the disk
    vx.leased       those results out
    vx.media        the worker's side: clips, snapshots, live cameras; all of libav is here
    vx.archive      recordings in: from names of files to segments and gaps

Who may know whom: rpc → access, session, download, archive; session → worker → child; child → media (in its process);
media → archive, mp4.
Only rpc sees h2 and grpclib, only media sees av and PIL, and the files that only decide don't import trio.
The command line is a client apart: it sees the generated messages and grpclib's asyncio channel, nothing of the server.
"""
