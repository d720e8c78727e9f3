"""vx: an export server for surveillance video. Clips and snapshots from recordings and live cameras, over gRPC.

Where things are. Start with `vx.app`; each package's opening names its modules.

The server's process:

    vx.__main__     the console script: hands over to vx.cli
    vx.cli          the command line: `vx serve`, and a client of a running server
    vx.daemon       the server as a process: configuration, log, exit status
    vx.app          opens what the server needs, nests the nurseries, shuts down
    vx.config       the TOML file: frozen, validated once
    vx.firstlook    whether the configuration's paths lead to recordings
    vx.threads      where what may wait is called
    vx.privileges   what the server's process gives up for good
    vx.systemd      what systemd is told
    vx.logs         the log, as text or JSON
    vx.metrics      what is counted, in Prometheus's format
    vx.scrape       answers for that over HTTP

What clients ask for:

    vx.rpc          gRPC on trio: connections, calls, TLS, the services; `generated` is made from proto/
    vx.access       who may come in: users, passwords, tokens, who is held off
    vx.archive      recordings in: from names of files to segments and gaps
    vx.estimate     what an export will find and take, from the names of the recordings
    vx.survey       the same asked of the disks, and what room there is for it
    vx.session      sessions: their states, who runs them, how long they live, where they are kept
    vx.download     finished files out, in chunks
    vx.leased       those out that are served from the recordings

The work, in a process of its own for each running session:

    vx.worker       the border, on the server's side
    vx.child        what runs behind it
    vx.jobs         what crosses it
    vx.sandbox      what of the system a worker may still use (Landlock)
    vx.media        clips, snapshots, live cameras; all of libav is here
    vx.mp4          MP4 as bytes: tables of samples, headers of files; pure

What several of these share:

    vx.errors       one family of errors, told apart by kind
    vx.model        the vocabulary of sessions: states, results, records
    vx.report       what becomes of an export, source by source
    vx.rights       what a caller may do
    vx.drawing      what is drawn into pictures
    vx.captions     what the text in pictures and subtitles says at a moment
    vx.timestamps   the times of the contract
    vx.spans        stretches of time, and what lies in and between them
    vx.virtual      results that are served from the recordings: how they lie on the disk
    vx.disk         what is asked of a disk on both sides of the border

Who may know whom: rpc → access, session, download, archive; session → worker → child; child → media (in its process);
media → archive, mp4; all of it stands in tests/test_layers.py.
Only rpc sees h2 and grpclib, only media sees av and PIL, and the files that only decide don't import trio.
The command line is a client apart: it sees the generated messages and grpclib's asyncio channel, nothing of the server.
"""
